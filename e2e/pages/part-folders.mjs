// Folders that are kept in step.

import assert from "node:assert/strict";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import { entered, query } from "./browser.mjs";
import { until } from "./daemon.mjs";
import { assertNoBadNotice, forms, jobsEnd, openQuestion, perform, row } from "./forms.mjs";
import { newcomer } from "./scenes.mjs";

/** So long after a round, none follows from it: each may wake the next one, which waits two seconds at most. */
const REST_MS = 4_000;

export const shows = "add, say yes, run, pause, go on, have a version back, switch off";

export async function run(step) {
  const person = await newcomer("folders");
  const { watch, page } = await entered(person);
  const go = (path) => page.goto(`${person.origin()}${path}`);
  const notes = join(person.files, "notes");
  const list = join(notes, "list.txt");
  mkdirSync(notes);
  writeFileSync(list, "milk\n");
  /** When the last round was after this time, once the program, which does one at a time, does none by itself any more. */
  const rested = async (after) => {
    let [last, since] = [null, 0];
    await until("the folder never comes to rest", async () => {
      const { last_sync_ms: now, syncing } = await person.syncedFolder("notes");
      if (syncing || now !== last) [last, since] = [now, performance.now()];
      return last > after && performance.now() - since > REST_MS;
    });
    return last;
  };
  const syncLines = async () => (await person.ledger()).filter((line) => line.service === "sync");

  await step("a folder is added, and nothing is sent before a yes", async () => {
    await go("/folders");
    await perform(page, "/folders/add", { path: notes, name: "notes" });
    await assertNoBadNotice(page);
    assert.deepEqual(await person.consents(), []);
    assert.deepEqual(await syncLines(), []);
  });

  await step("yes keeps it in step", async () => {
    if ((await forms(page, "/services/sync/on").count()) === 0) await go("/services/sync/on");
    await perform(page, "/services/sync/on", {}, { button: "Yes, switch it on" });
    assert.deepEqual((await person.consents()).map((one) => [one.service, one.set, one.state]), [["sync", "notes", "live"]]);
    await until("the folder is never in step", async () => (await person.syncedFolder("notes")).last_sync_ms);
    await go("/folders");
    await row(page, "notes").waitFor();
  });

  await step("pause and go on", async () => {
    await perform(page, "/folders/pause", { folder: "notes", paused: "yes" });
    assert.equal((await person.syncedFolder("notes")).paused, true);
    await row(page, "notes").getByText("paused").first().waitFor();
    await perform(page, "/folders/pause", { folder: "notes", paused: "no" });
    assert.equal((await person.syncedFolder("notes")).paused, false);
  });

  await step("bring it into step now", async () => {
    const before = (await person.syncedFolder("notes")).last_sync_ms;
    writeFileSync(list, "milk and bread\n");
    // The program notices the change by itself.
    const last = await rested(before);
    await perform(page, "/folders/run", { folder: "notes" });
    await jobsEnd(page);
    await assertNoBadNotice(page);
    await until("it is not in step", async () => (await person.syncedFolder("notes")).last_sync_ms > last);
  });

  await step("an earlier version comes back", async () => {
    const versions = await until("there are no two versions", async () => {
      const found = await person.view("versions", "sync", "versions", list);
      return found.length >= 2 && found;
    });
    await rested(0);
    const oldest = versions.reduce((a, b) => (a.time_ms <= b.time_ms ? a : b));
    await go(query("/folders/versions", { path: list }));
    await page.getByRole("button", { name: "Bring it back" }).first().waitFor();
    await perform(page, "/folders/restore", { version: oldest.version });
    await jobsEnd(page);
    await assertNoBadNotice(page);
    await until("the version is not back", () => readFileSync(list, "utf8") === "milk\n");
  });

  await step("join a folder by its name refuses one that is not there", async () => {
    await go("/folders");
    const form = forms(page, "/folders/join");
    assert.ok((await form.count()) > 0, "no form joins a folder of another device");
    await watch.expecting(/Failed to load resource/, () => perform(page, "/folders/join", { name: "nobody-has-this", path: join(person.files, "joined") }));
    assert.equal(await person.syncedFolder("nobody-has-this"), undefined);
  });

  await step("switch off", async () => {
    await go("/");
    const dialog = await openQuestion(page, page.getByRole("link", { name: "Sync is on. Switch it off" }));
    await perform(page, "/services/sync/off", { stored: "stays" }, { within: dialog, button: "Switch it off" });
    await go("/");
    await page.getByRole("link", { name: "Sync is off. Switch it on" }).waitFor();
    assert.deepEqual((await person.consents()).filter((one) => one.state === "live"), []);
    assert.equal(readFileSync(list, "utf8"), "milk\n", "switching off touched the folder");
  });

  await step("nothing happened on these pages that must not", () => watch.assertQuiet());
}
