// Every address of the pages, in one place. `facts` are what addresses are made of in a home that is in use: see `factsOf`.

import { query } from "./browser.mjs";

/** What can be looked at. `unordered`: how many rows it has, and in which order, is not the same twice. */
export const PAGES = [
  { name: "home", path: () => "/" },
  { name: "backup-on", path: () => "/services/backup/on" },
  { name: "backup-off", path: () => "/services/backup/off" },
  { name: "sync-on", path: () => "/services/sync/on" },
  { name: "sync-off", path: () => "/services/sync/off" },
  { name: "backups", path: () => "/backups" },
  { name: "snapshots", path: (facts) => query("/backups/snapshots", { set: facts.set }) },
  { name: "browse", path: (facts) => query("/backups/browse", { snapshot: facts.snapshot }) },
  { name: "browse-deeper", path: (facts) => query("/backups/browse", { snapshot: facts.snapshot, path: facts.inside }) },
  { name: "find", path: () => query("/backups/find", { glob: "*.txt" }), unordered: true },
  { name: "folders", path: () => "/folders" },
  { name: "versions", path: (facts) => query("/folders/versions", { path: facts.versioned }) },
  { name: "consent", path: () => "/consent" },
  { name: "devices", path: () => "/devices", unordered: true },
  { name: "link", path: () => "/devices/link" },
  { name: "revoke", path: (facts) => query("/devices/revoke", { device: facts.device }) },
  { name: "ledger", path: () => query("/ledger", { since: "24h" }), unordered: true },
  { name: "log", path: () => "/log" },
  { name: "settings", path: () => "/settings" },
  { name: "stop", path: () => "/settings/stop" },
  { name: "delete", path: () => "/settings/delete" },
  { name: "choose-backup", path: (facts) => query("/choose", { path: facts.files, for: "backup" }) },
  { name: "choose-folder", path: (facts) => query("/choose", { path: facts.files, for: "folder" }) },
];

/** What is fetched beside pages. */
export const OTHERS = [
  "/assets/candor.css",
  "/assets/candor.js",
  "/assets/htmx.min.js",
  "/assets/icon.svg",
  "/parts/jobs",
  "/parts/safe",
  "/parts/services",
  "/parts/left",
  "/parts/sets",
  "/parts/folders",
  "/parts/link",
  "/parts/log",
  "/parts/found-1",
  "/live?shown=safe%3A00",
  "/ledger/export",
];

/** What changes something. `fields` is a form that does so when the person sends it. */
export const ACTIONS = [
  { path: "/services/backup/on", fields: (facts) => ({ set: facts.set }) },
  { path: "/services/backup/off", fields: () => ({ stored: "erased" }) },
  { path: "/services/sync/on", fields: (facts) => ({ set: facts.folder }) },
  { path: "/services/sync/off", fields: () => ({ stored: "erased" }) },
  { path: "/consent/keep", fields: () => ({ id: "00" }) },
  { path: "/backups/add", fields: (facts) => ({ path: facts.files, name: "stolen" }) },
  { path: "/backups/run", fields: () => ({}) },
  { path: "/backups/drill", fields: (facts) => ({ set: facts.set }) },
  { path: "/backups/check", fields: () => ({ read: "yes" }) },
  { path: "/backups/restore", fields: (facts) => ({ snapshot: facts.snapshot, to: `${facts.files}/stolen` }) },
  { path: "/folders/add", fields: (facts) => ({ path: facts.files, name: "stolen" }) },
  { path: "/folders/join", fields: (facts) => ({ path: `${facts.files}/stolen`, name: "stolen" }) },
  { path: "/folders/pause", fields: (facts) => ({ folder: facts.folder, paused: "yes" }) },
  { path: "/folders/run", fields: (facts) => ({ folder: facts.folder }) },
  { path: "/folders/restore", fields: (facts) => ({ path: facts.versioned, version: "00" }) },
  { path: "/devices/link", fields: () => ({ role: "full" }) },
  { path: "/devices/answer", fields: () => ({ digits: "000000", accept: "yes" }) },
  { path: "/devices/revoke", fields: (facts) => ({ device: facts.device }) },
  { path: "/ledger/verify", fields: () => ({}) },
  { path: "/log/look", fields: () => ({}) },
  { path: "/jobs/stop", fields: () => ({ job: "1" }) },
  { path: "/jobs/seen", fields: () => ({ job: "1" }) },
  { path: "/settings/phrase", fields: () => ({ words: "abandon ".repeat(24).trim() }) },
  { path: "/settings/export", fields: (facts) => ({ to: `${facts.files}/stolen`, every: "yes" }) },
  { path: "/settings/delete", fields: () => ({}) },
  { path: "/settings/keep", fields: () => ({}) },
  { path: "/settings/leave", fields: () => ({ others: "yes" }) },
  { path: "/settings/stop", fields: () => ({}) },
];

/** Only while there is no account. */
export const WELCOME = ["/welcome", "/welcome/phrase", "/welcome/words"];

/** Every address, once: what is refused is refused at all of them, and at one that is not there. */
export function everyAddress(facts) {
  const receipt = query("/consent/receipt", { id: facts.consent });
  const pages = PAGES.map((page) => page.path(facts));
  const actions = ACTIONS.map((action) => action.path);
  return [...new Set([...pages, receipt, ...OTHERS, ...WELCOME, ...actions, "/enter", "/enter?token=00", "/no-such-page"])];
}

/** What a home that is in use is made of; `set` and `folder` are names in it, `versioned` a file in the folder. */
export async function factsOf(person, { set, folder, versioned, inside }) {
  const snapshots = await person.view("snapshots", "backup", "snapshots", set);
  const consents = await person.consents();
  const devices = await person.devices();
  const other = devices.find((device) => !device.this_device && !device.revoked_ms) ?? devices[0];
  return {
    set,
    folder,
    versioned,
    inside,
    files: person.files,
    snapshot: snapshots.at(0)?.snapshot,
    consent: consents.find((consent) => consent.service === "backup")?.id,
    device: other.device,
  };
}
