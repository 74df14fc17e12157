// Backups, from the first switch to files that came back.

import assert from "node:assert/strict";
import { mkdirSync } from "node:fs";
import { dirname, join } from "node:path";

import { entered, FAILED_DOCUMENT, query } from "./browser.mjs";
import { checkKeyboard } from "./checks.mjs";
import { until } from "./daemon.mjs";
import { assertNoBadNotice, badNotice, focused, jobsEnd, noteProgress, openQuestion, perform, row, sawProgress } from "./forms.mjs";
import { timed } from "./report.mjs";
import { newcomer } from "./scenes.mjs";
import { settings } from "./settings.mjs";
import { assertSameTree, HOSTILE_NAME, plantLarge, restoredCopy } from "./tree.mjs";

export const shows = "choose, switch on, back up, look inside, restore, try, check, switch off";

/** Enough to be at work while the next page is made. */
const LARGE_MEBIBYTES = 256;

/** Enough for a first backup. */
const SMALL_MEBIBYTES = 16;

export async function run(step) {
  const person = await newcomer("backups");
  const { context, watch, page } = await entered(person);
  await noteProgress(context);
  const go = (path) => page.goto(`${person.origin()}${path}`);
  const backupLines = async () => (await person.ledger()).filter((line) => line.service === "backup");
  const nothingSent = async () => {
    assert.deepEqual(await person.consents(), []);
    assert.deepEqual(await backupLines(), []);
  };
  const restored = join(person.files, "restored");
  const film = join(person.files, "large", "film.bin");

  await step("a folder is chosen by going through folders", async () => {
    await go("/backups");
    await page.getByRole("link", { name: "Choose a folder" }).first().click();
    await page.waitForURL(/\/choose\?/);
    await page.getByRole("main").getByRole("link", { name: "documents", exact: true }).click();
    await page.getByRole("heading", { name: "This folder" }).waitFor();
    await page.getByText(person.documents, { exact: true }).waitFor();
    const response = await perform(page, "/backups/add", {}, { button: "Back up this folder" });
    assert.equal(response.status(), 303);
    await row(page, "documents").waitFor();
    const [set, ...others] = await person.sets();
    assert.deepEqual(others, []);
    assert.deepEqual(set.paths.map((path) => path.text), [person.documents]);
    assert.equal(set.consent, "off");
    await nothingSent();
  });

  await step("the switch asks, with the focus on Not now, and sends nothing", async () => {
    await go("/");
    const link = page.getByRole("link", { name: "Backup is off. Switch it on" });
    const dialog = await openQuestion(page, link);
    assert.equal(await focused(page), "Not now");
    assert.deepEqual(await checkKeyboard(page, "dialog#dialog"), []);
    await dialog.getByRole("link", { name: "Not now" }).or(dialog.getByRole("button", { name: "Not now" })).click();
    await dialog.waitFor({ state: "hidden" });
    assert.equal(new URL(page.url()).pathname, "/");
    await nothingSent();
    await openQuestion(page, link);
    await page.keyboard.press("Escape");
    await dialog.waitFor({ state: "hidden" });
    // Enter on what has the focus is a no as well.
    await openQuestion(page, link);
    await page.keyboard.press("Enter");
    await dialog.waitFor({ state: "hidden" });
    await nothingSent();
  });

  const { name: set } = (await person.sets())[0];
  await step("yes switches it on", async () => {
    const dialog = await openQuestion(page, page.getByRole("link", { name: "Backup is off. Switch it on" }));
    await page.screenshot({ path: join(settings.screenshots, "before-yes.png") });
    const response = await perform(page, "/services/backup/on", {}, { within: dialog, button: "Yes, switch it on" });
    assert.equal(response.status(), 303);
    await assertNoBadNotice(page);
    await go("/");
    await page.getByRole("link", { name: "Backup is on. Switch it off" }).waitFor();
    const consents = await person.consents();
    assert.deepEqual(consents.map((one) => [one.service, one.set, one.state]), [["backup", set, "live"]]);
  });

  await step("back up now, and see its end without loading the page", async () => {
    await go("/backups");
    await perform(page, "/backups/run", { set }, { within: row(page, set), button: "Back up now" });
    await timed("backup of a small tree, until the page says so", async () => {
      await jobsEnd(page);
      await row(page, set).getByText("just now").first().waitFor();
    });
    await assertNoBadNotice(page);
    assert.ok((await person.set(set)).last_backup_ms, "there is no backup");
    assert.ok((await backupLines()).length > 0, "the ledger does not know of it");
  });

  await step("a second set by its path, which the first yes does not cover", async () => {
    const large = dirname(film);
    mkdirSync(large);
    plantLarge(film, SMALL_MEBIBYTES);
    await go("/backups");
    await perform(page, "/backups/add", { path: large, name: "films", excludes: "*.tmp" });
    const added = await person.set("films");
    assert.equal(added.consent, "off");
    assert.deepEqual(added.excludes, ["*.tmp"]);
    // The question as a page of its own.
    await go("/services/backup/on");
    assert.equal(await focused(page), "Not now");
    await perform(page, "/services/backup/on", {}, { button: "Yes, switch it on" });
    assert.equal((await person.set("films")).consent, "on");
  });

  await step("a backup shows how far it is, and can be stopped", async () => {
    const lastBackup = async () => (await person.set("films")).last_backup_ms;
    const backUp = async () => {
      await go("/backups");
      await perform(page, "/backups/run", { set: "films" }, { within: row(page, "films"), button: "Back up now" });
    };
    // What was never backed up, the program takes up by itself, now or in a moment; what was, it leaves alone for an hour.
    await person.attempt("backup", "run", "films");
    const before = await until("it is never backed up", lastBackup);
    plantLarge(film, LARGE_MEBIBYTES);
    await backUp();
    const atWork = page.locator(".jobs .job").filter({ has: page.getByRole("button", { name: "Stop" }) });
    await perform(page, "/jobs/stop", {}, { within: atWork, button: "Stop" });
    await jobsEnd(page);
    assert.equal(await lastBackup(), before, "it was done before it could be stopped; make LARGE_MEBIBYTES larger");
    await backUp();
    await jobsEnd(page);
    assert.ok(await sawProgress(page), "no page showed how far the backup was");
    assert.ok((await lastBackup()) > before, "the second run did not go on to the end");
  });

  await step("a path that is not there is refused in words", async () => {
    await go("/backups");
    await watch.expecting(FAILED_DOCUMENT, () => perform(page, "/backups/add", { path: join(person.files, "nowhere"), name: "nowhere" }));
    assert.ok(await badNotice(page), "it was not refused");
    assert.equal(await person.set("nowhere"), undefined);
  });

  let browsing = "";
  let whole = "";
  const into = (name) => page.getByRole("main").getByRole("table").getByRole("link", { name: `${name}/`, exact: true }).click();
  await step("snapshots, the newest first, and what is inside", async () => {
    await go("/backups");
    await row(page, set).getByRole("link", { name: "Snapshots" }).click();
    await page.waitForURL(/\/backups\/snapshots\?/);
    assert.equal(await page.locator("ol.timeline > li").count(), 1);
    await page.getByRole("link", { name: "Look inside" }).click();
    await page.waitForURL(/\/backups\/browse\?/);
    whole = page.url();
    await into("documents");
    await page.getByText("marker.txt", { exact: true }).waitFor();
    browsing = page.url();
    // As text, and not as what it looks like.
    await page.getByText(HOSTILE_NAME.replaceAll("/", "-"), { exact: true }).waitFor();
    assert.doesNotMatch(await page.locator("main").innerText(), /\u202E/, "a name turns the line round");
    await into("letters");
    await page.getByText("to grandma.txt", { exact: true }).waitFor();
    await page.locator("nav.crumbs").waitFor();
  });

  await step("a file is found by its name", async () => {
    await go(query("/backups/find", { glob: "to grandma*" }));
    await page.getByRole("main").getByText("to grandma.txt").first().waitFor();
    await go(query("/backups/find", { glob: "no such file" }));
    // Whether it was found before the page came or after, nobody loads it anew.
    await page.getByText("No snapshot has a file of that name.").waitFor();
    assert.equal(await page.getByRole("main").getByText("to grandma.txt").count(), 0);
  });

  await step("a folder comes back exactly", async () => {
    await page.goto(browsing);
    await perform(page, "/backups/restore", { to: restored }, { button: "Restore" });
    await timed("restore of a small tree, until the page says so", () => jobsEnd(page));
    await assertNoBadNotice(page);
    assertSameTree(restoredCopy(restored, person.documents), person.documents);
  });

  await step("a whole snapshot comes back exactly", async () => {
    const to = join(person.files, "whole");
    await page.goto(whole);
    await page.getByRole("heading", { name: "Restore everything in this snapshot" }).waitFor();
    await perform(page, "/backups/restore", { to }, { button: "Restore" });
    await jobsEnd(page);
    await assertNoBadNotice(page);
    assertSameTree(restoredCopy(to, person.documents), person.documents);
  });

  await step("a restore into a path that is no whole one is refused", async () => {
    await page.goto(browsing);
    await watch.expecting(FAILED_DOCUMENT, () => perform(page, "/backups/restore", { to: "somewhere/else" }, { button: "Restore" }));
    assert.ok(await badNotice(page), "it was not refused");
  });

  await step("try a restore", async () => {
    await go("/backups");
    assert.equal((await person.set(set)).last_drill_ms, null);
    await perform(page, "/backups/drill", { set }, { within: row(page, set), button: "Try a restore" });
    await jobsEnd(page);
    await assertNoBadNotice(page);
    assert.ok((await person.set(set)).last_drill_ms, "nothing was tried");
  });

  await step("check, and read every byte", async () => {
    for (const read of ["no", "yes"]) {
      await go("/backups");
      await perform(page, "/backups/check", { read });
      await jobsEnd(page);
      await assertNoBadNotice(page);
    }
  });

  await step("what a job came to is told until it was seen", async () => {
    await go("/backups");
    const before = await page.locator(".jobs .job").count();
    assert.ok(before > 0, "no job is told");
    await perform(page, "/jobs/seen", {}, { within: page.locator(".jobs .job").first(), button: "Good" });
    assert.equal(await page.locator(".jobs .job").count(), before - 1);
  });

  await step("switch off: one question, and what is stored stays", async () => {
    await go("/");
    const dialog = await openQuestion(page, page.getByRole("link", { name: "Backup is on. Switch it off" }));
    assert.equal(await focused(page), "Not now");
    await perform(page, "/services/backup/off", { stored: "stays" }, { within: dialog, button: "Switch it off" });
    await go("/");
    await page.getByRole("link", { name: "Backup is off. Switch it on" }).waitFor();
    const live = (await person.consents()).filter((one) => one.state === "live");
    assert.deepEqual(live, []);
    const { length } = await person.view("snapshots", "backup", "snapshots", set);
    assert.equal(length, 1, "what was stored is gone");
    const before = (await person.set(set)).last_backup_ms;
    const { code } = await person.attempt("backup", "run", set);
    assert.equal(code, 3, "it still backs up");
    assert.equal((await person.set(set)).last_backup_ms, before);
  });

  await step("nothing happened on these pages that must not", () => watch.assertQuiet());
}
