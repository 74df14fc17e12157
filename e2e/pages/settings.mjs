// What the tests are told from outside, all of it through the environment.

import { accessSync, constants, mkdirSync } from "node:fs";
import { delimiter, join, resolve } from "node:path";

const here = import.meta.dirname ?? new URL(".", import.meta.url).pathname;

function needed(name) {
  const value = process.env[name];
  if (!value) throw new Error(`${name} is not set; see README.md`);
  return resolve(value);
}

function onPath(program) {
  const folders = (process.env.PATH ?? "").split(delimiter);
  const found = folders.map((folder) => join(folder, program)).find((file) => {
    try {
      accessSync(file, constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
  if (!found) throw new Error(`${program} is not installed`);
  return found;
}

export const isRoot = process.getuid() === 0;

export const settings = {
  program: needed("CANDOR_PAGES_PROGRAM"),
  work: needed("CANDOR_PAGES_WORK"),
  screenshots: needed("CANDOR_PAGES_SCREENSHOTS"),
  aria: resolve(process.env.CANDOR_PAGES_ARIA ?? join(here, "aria")),
  // The program's own list of its addresses.
  routes: resolve(process.env.CANDOR_PAGES_ROUTES ?? join(here, "../../crates/app/src/pages/routes.txt")),
  rewritesAria: process.env.CANDOR_PAGES_REWRITE === "1",
  chromium: process.env.CANDOR_PAGES_CHROMIUM ?? onPath("chromium"),
  // Headless, unless somebody wants to watch.
  headless: process.env.CANDOR_PAGES_SHOW !== "1",
};

for (const folder of [settings.work, settings.screenshots, settings.aria]) {
  mkdirSync(folder, { recursive: true });
}
