// How long a person waits for a page or an action: a home that was just begun beside one with a large tree that is backed up and
// kept in step, and with a long ledger. Nothing is judged; a page that does not answer as it should ends it.
//
// Each time is the browser's own, from the click to the first paint of the page that comes, redirects included; of a question, from
// the click until it stands above the page.

import assert from "node:assert/strict";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import { closeAll, entered, query } from "./browser.mjs";
import { Person, stopAll, until } from "./daemon.mjs";
import { assertNoBadNotice, jobsEnd, perform } from "./forms.mjs";
import { ask, closeConnections } from "./raw.mjs";
import { factsOf, PAGES } from "./routes.mjs";

const number = (name) => {
  const value = Number(process.env[name]);
  assert.ok(Number.isSafeInteger(value) && value > 0, `${name} is no number`);
  return value;
};

const FILES = number("CANDOR_BENCH_FILES");
const LINES = number("CANDOR_BENCH_LINES");
const ROUNDS = number("CANDOR_BENCH_ROUNDS");

/** Pages of the ledger that are turned. */
const PAGES_TURNED_MAX = 10;

/** Rounds that are not counted. */
const WARM_ROUNDS = ROUNDS > 1 ? 1 : 0;

/** A folder has so many files. */
const FILES_PER_FOLDER = 100;

/** What is meant to be at once. */
const AT_ONCE_MS = 100;

/** Requests on their way while the ledger is made long. */
const AT_A_TIME = 4;

/** How long a large home may take to be ready. */
const READY_MAX_MS = 7_200_000;

let places = 0;

const say = (text) => console.log(text);

/** A tree of small files, each its own. */
function grow(folder, files) {
  for (let done = 0; done < files; done += FILES_PER_FOLDER) {
    const place = join(folder, `year ${Math.floor(done / 20_000)}`, `day ${done / FILES_PER_FOLDER}`);
    mkdirSync(place, { recursive: true });
    for (let one = 0; one < Math.min(FILES_PER_FOLDER, files - done); one += 1) {
      writeFileSync(join(place, `note ${one}.txt`), `${done + one}: a letter that nobody else wrote\n`);
    }
  }
  writeFileSync(join(folder, "list.txt"), "milk\n");
  return folder;
}

/** A person whose documents are backed up and whose notes are kept in step. */
async function home(name, files) {
  const person = new Person(name);
  const documents = grow(join(person.files, "documents"), files);
  const notes = grow(join(person.files, "notes"), files);
  const extra = grow(join(person.files, "extra"), 1);
  await person.up();
  const command = async (...words) => {
    const { code, stderr } = await person.start(...words).ended;
    assert.equal(code, 0, `candor ${words.join(" ")} ended with ${code}\n${stderr}`);
  };
  const begun = performance.now();
  const told = (what) => say(`${name}: ${what} after ${((performance.now() - begun) / 1000).toFixed(0)} s`);
  await command("backup", "add", documents, "--name", "documents");
  await command("backup", "add", extra, "--name", "extra");
  await command("consent", "on", "backup", "--yes");
  await command("backup", "run", "--all");
  told("backed up");
  await person.start("sync", "add", notes, "--name", "notes", "--yes").ended;
  const isInStep = async () => {
    const folder = await person.syncedFolder("notes");
    return !folder.syncing && folder.last_sync_ms !== null && folder.files > 0;
  };
  await until("the folder is never in step", isInStep, READY_MAX_MS);
  told("in step");
  await command("log", "monitor");
  const file = join(notes, "list.txt");
  const inside = "documents/year 0/day 0";
  const facts = await factsOf(person, { set: "documents", folder: "notes", versioned: file, inside });
  return { person, facts };
}

/** Opens connections until the ledger has so many lines: pages that ask the cell do that. */
async function lengthen(person, browser, lines) {
  const [{ value: key }] = await browser.context.cookies(person.origin());
  const { port } = person.entry();
  const headers = { host: `127.0.0.1:${port}`, cookie: `candor=${key}` };
  let done = 0;
  const begun = performance.now();
  const worker = async () => {
    while (done < lines) {
      done += 1;
      if (done % 10_000 === 0) say(`${done} connections after ${((performance.now() - begun) / 1000).toFixed(0)} s`);
      const { status } = await ask(port, { method: "GET", path: "/devices", headers });
      assert.equal(status, 200);
    }
  };
  await Promise.all(Array.from({ length: AT_A_TIME }, worker));
  closeConnections();
}

/** What is looked at beside the pages of every home. */
const MORE_PAGES = [
  { name: "ledger, all of it", path: () => query("/ledger", { since: "all" }) },
  { name: "ledger, older", path: () => query("/ledger", { since: "all", before: "50" }) },
  { name: "ledger, of one service", path: () => query("/ledger", { since: "all", service: "backup" }) },
  { name: "ledger, nothing fits", path: () => query("/ledger", { since: "all", destination: "nowhere.example" }) },
  { name: "find, nothing fits", path: () => query("/backups/find", { glob: "no such name" }) },
];

/**
 * What is done: on which page, by which form with which fields. `before` are commands that bring about what it is done to, `works`
 * says that it begins work that has to end before the next.
 */
const ACTIONS = [
  {
    name: "withdraw",
    before: [["consent", "on", "backup", "--yes"]],
    on: "/services/backup/off?set=extra",
    form: "/services/backup/off",
    fields: { stored: "stays" },
    options: { button: "Switch it off" },
  },
  { name: "say yes", before: [["consent", "off", "backup", "extra"]], on: "/services/backup/on?set=extra", form: "/services/backup/on" },
  { name: "restore a folder", on: (facts) => query("/backups/browse", { snapshot: facts.snapshot, path: facts.inside }), form: "/backups/restore", place: "to", works: true },
  { name: "pause a folder", before: [["sync", "resume", "notes"]], on: "/folders", form: "/folders/pause", fields: { paused: "yes" } },
  { name: "let it go on", before: [["sync", "pause", "notes"]], on: "/folders", form: "/folders/pause", fields: { paused: "no" } },
  { name: "look at a folder now", on: "/folders", form: "/folders/run", works: true },
  { name: "back up now", on: "/backups", form: "/backups/run", works: true },
  { name: "try a restore", on: "/backups", form: "/backups/drill", works: true },
  { name: "look through the log", on: "/log", form: "/log/look", works: true },
  { name: "verify the ledger", on: "/ledger", form: "/ledger/verify", works: true },
];

/** Work that a page follows: it is told how long it takes, and it is not meant to be at once. */
const WHOLE_SEARCH = "the whole search";

/** Questions that open above a page. */
const QUESTIONS = [
  { name: "switch backup off?", on: "/", link: 'a[href^="/services/backup/off"]' },
  { name: "switch a folder off?", on: "/folders", link: 'main a[href^="/services/sync/off"]' },
  { name: "withdraw?", on: "/consent", link: 'main a[href^="/services/backup/off"]' },
];

/** The ledger is longer than one page: older lines are there, each once, and the newest are found again. */
async function turnPages({ person, browser: { page } }) {
  const rows = () => page.getByRole("table").last().locator("tbody tr").count();
  const older = page.getByRole("link", { name: "Older", exact: true });
  await page.goto(`${person.origin()}${query("/ledger", { since: "all", service: "list" })}`);
  const first = await rows();
  let shown = first;
  let pages = 1;
  for (; pages < PAGES_TURNED_MAX && (await older.count()) > 0; pages += 1) {
    await older.click();
    await page.waitForLoadState();
    shown += await rows();
  }
  assert.ok(pages > 1, "there is one page");
  // Where all were turned, all lines were shown.
  if ((await older.count()) === 0) {
    const lines = await person.ledger();
    assert.equal(shown, lines.filter((line) => line.service === "list").length);
  }
  await page.getByRole("link", { name: "The newest", exact: true }).click();
  await page.waitForURL((url) => !url.searchParams.has("before"));
  assert.equal(await rows(), first);
}

const painted = (page) => page.waitForFunction(() => performance.getEntriesByName("first-contentful-paint")[0]?.startTime).then((handle) => handle.jsonValue());

const searchEnds = (page) => page.locator('[data-live^="found-"] progress').waitFor({ state: "detached", timeout: READY_MAX_MS });

async function look({ page, person, facts }, route) {
  const response = await page.goto(`${person.origin()}${route.path(facts)}`);
  assert.equal(response.status(), 200, route.name);
  const ms = await painted(page);
  // What is looked at next does not share the machine with a search.
  await searchEnds(page);
  return ms;
}

/** A search: how long until the page says what it came to, which is not how long until there is a page. */
async function search({ page, person }, glob) {
  await page.goto(`${person.origin()}${query("/backups/find", { glob })}`);
  await searchEnds(page);
  return page.evaluate(() => performance.now());
}

async function act({ page, person, facts }, { before = [], on, form, fields = {}, options, place, works }) {
  for (const words of before) await person.run(...words);
  await page.goto(`${person.origin()}${typeof on === "string" ? on : on(facts)}`);
  // A place that is not there yet.
  const where = place ? { [place]: join(person.files, `new-${(places += 1)}`) } : {};
  await perform(page, form, { ...fields, ...where }, options);
  const ms = await painted(page);
  await assertNoBadNotice(page);
  if (works) await jobsEnd(page, READY_MAX_MS);
  return ms;
}

async function question({ page, person }, { on, link }) {
  await page.goto(`${person.origin()}${on}`);
  await page.waitForLoadState();
  return page.locator(link).filter({ visible: true }).first().evaluate(
    (one) =>
      new Promise((resolve, reject) => {
        const dialog = document.getElementById("dialog");
        const begun = performance.now();
        setTimeout(() => reject(new Error("no question")), 10_000);
        new MutationObserver(() => {
          if (dialog.open) requestAnimationFrame(() => resolve(performance.now() - begun));
        }).observe(dialog, { attributes: true });
        one.click();
      }),
  );
}

const median = (times) => times.toSorted((a, b) => a - b)[Math.floor(times.length / 2)];

async function measure(homes) {
  const tasks = [
    ...PAGES.map((route) => [route.name, (on) => look(on, route)]),
    ...MORE_PAGES.map((route) => [route.name, (on) => look(on, route)]),
    ...QUESTIONS.map((one) => [one.name, (on) => question(on, one)]),
    ...ACTIONS.map((one) => [one.name, (on) => act(on, one)]),
    [WHOLE_SEARCH, (on) => search(on, "no such name")],
  ];
  const results = [];
  for (const [name, task] of tasks) {
    const times = homes.map(() => []);
    // Of several rounds the first one is not counted: who comes first must not pay for what is kept in memory afterwards.
    for (let round = 0; round < ROUNDS + WARM_ROUNDS; round += 1) {
      for (const [place, one] of homes.entries()) {
        const ms = await task(one).catch((error) => {
          throw new Error(`${name}: ${error.message}`, { cause: error });
        });
        if (round >= WARM_ROUNDS) times[place].push(ms);
      }
    }
    results.push([name, ...times]);
  }
  return results;
}

function tell(results) {
  say(`\n${"".padEnd(26)} ${"just begun".padStart(16)} ${"large".padStart(16)}   milliseconds: median (most)`);
  const cell = (times) => `${median(times).toFixed(0)} (${Math.max(...times).toFixed(0)})`.padStart(16);
  for (const [name, small, large] of results) say(`${name.padEnd(26)} ${cell(small)} ${cell(large)}`);
  const atOnce = results.filter(([name]) => name !== WHOLE_SEARCH);
  const fast = atOnce.filter(([, , large]) => median(large) < AT_ONCE_MS).length;
  say(`\n${fast} of ${atOnce.length} under ${AT_ONCE_MS} ms in the large home, by the median of ${ROUNDS}`);
}

async function main() {
  const small = await home("small", FILES_PER_FOLDER);
  const large = await home("large", FILES);
  const homes = [];
  for (const one of [small, large]) homes.push({ ...one, browser: await entered(one.person) });
  say(`making the ledger long: ${LINES} connections`);
  await lengthen(large.person, homes[1].browser, LINES);
  await turnPages(homes[1]);
  const kept = await large.person.objects("ledger", "verify");
  say(`large: ${JSON.stringify(kept.at(-1))}`);
  const results = await measure(homes.map(({ browser, ...one }) => ({ ...one, page: browser.page })));
  for (const { browser } of homes) browser.watch.assertQuiet();
  tell(results);
  const out = process.env.CANDOR_BENCH_OUT;
  if (out) {
    const measurements = results.map(([name, small, large]) => ({ name, small_ms: small, large_ms: large }));
    writeFileSync(out, `${JSON.stringify({ version: 1, files: FILES, lines: LINES, measurements }, null, 1)}\n`);
  }
}

try {
  await main();
} finally {
  await closeAll();
  await stopAll();
}
