// Open pages stay true: while somebody types, and when the program goes away and comes back.

import assert from "node:assert/strict";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import { entered, GONE } from "./browser.mjs";
import { forms } from "./forms.mjs";
import { timed } from "./report.mjs";
import { inUse } from "./scenes.mjs";

export const shows = "changes by the command line appear while a field keeps its text and caret; a stale banner; coming back";

const TYPED = "letters from the attic";
const CARET = 8;

/** How long a page may be old before it says so, and after the program is back. */
const NOTICED_MAX_MS = 60_000;

/** Marks a page, so that loading it anew would be noticed. */
const mark = (page) => page.evaluate(() => (window.isTheSamePage = true));
const isSame = (page) => page.evaluate(() => window.isTheSamePage === true);

/** Types into a field and puts the caret into the middle of it. */
async function typeInto(field) {
  await field.click();
  await field.pressSequentially(TYPED);
  await field.evaluate((one, caret) => one.setSelectionRange(caret, caret), CARET);
}

async function assertUntouched(page, field) {
  const state = await field.evaluate((one) => ({ value: one.value, start: one.selectionStart, end: one.selectionEnd, isFocused: document.activeElement === one }));
  assert.deepEqual(state, { value: TYPED, start: CARET, end: CARET, isFocused: true });
  assert.ok(await isSame(page), "the page was loaded anew");
  // And typing goes on where the caret is.
  await page.keyboard.type("!");
  assert.equal(await field.inputValue(), `${TYPED.slice(0, CARET)}!${TYPED.slice(CARET)}`);
}

export async function run(step) {
  const { person } = await inUse("live");
  const { context, watch, page } = await entered(person);
  const go = (path, on = page) => on.goto(`${person.origin()}${path}`);
  const folder = (name) => {
    const path = join(person.files, name);
    mkdirSync(path);
    writeFileSync(join(path, "a.txt"), `${name}\n`);
    return path;
  };

  await step("a set that the command line adds appears while a field is typed in", async () => {
    await go("/backups");
    await mark(page);
    const field = forms(page, "/backups/add").locator("input[name=name]").first();
    await typeInto(field);
    await person.run("backup", "add", folder("attic"), "--name", "attic-set");
    await timed("a new set, until an open page shows it", () => page.getByText("attic-set", { exact: true }).first().waitFor());
    await assertUntouched(page, field);
  });

  await step("a folder that the command line pauses is paused on the page", async () => {
    await go("/folders");
    await mark(page);
    const field = forms(page, "/folders/add").locator("input[name=name]").first();
    await typeInto(field);
    await person.run("sync", "pause", "notes");
    await page.locator("main").getByText("paused").first().waitFor();
    await assertUntouched(page, field);
    await person.run("sync", "resume", "notes");
    await page.locator("main").getByText("paused").first().waitFor({ state: "hidden" });
  });

  await step("what the command line switches off is off at home", async () => {
    await go("/");
    await mark(page);
    await page.getByRole("link", { name: "Sync is on. Switch it off" }).waitFor();
    await person.run("consent", "off", "sync");
    await page.getByRole("link", { name: "Sync is off. Switch it on" }).waitFor();
    assert.ok(await isSame(page), "the page was loaded anew");
    watch.assertQuiet();
  });

  await step("an open question stays open while the page below it changes", async () => {
    await go("/");
    await page.getByRole("link", { name: "Backup is on. Switch it off" }).click();
    const dialog = page.locator("dialog#dialog");
    await dialog.locator(".ask").waitFor();
    await person.run("backup", "add", folder("cellar"), "--name", "cellar-set");
    await page.locator("main").getByText("cellar-set", { exact: true }).first().waitFor();
    assert.ok(await dialog.evaluate((one) => one.open), "the question is gone");
    await page.keyboard.press("Escape");
    await dialog.waitFor({ state: "hidden" });
    watch.assertQuiet();
  });

  const banner = page.locator("#stale");
  const other = await context.newPage();
  const { token, port } = person.entry();
  await step("a program that is killed is noticed on every open page", async () => {
    await go("/backups");
    await go("/", other);
    for (const one of [page, other]) {
      await mark(one);
      assert.equal(await one.locator("#stale").isVisible(), false);
    }
    watch.expectFromNowOn(GONE);
    await person.kill();
    await timed("a killed program, until an open page says so", () => banner.waitFor({ timeout: NOTICED_MAX_MS }));
    await other.locator("#stale").waitFor({ timeout: NOTICED_MAX_MS });
    assert.match(await banner.innerText(), /does not answer/);
  });

  await step("it comes back, and the pages catch up, without a new token", async () => {
    await person.up();
    await person.run("backup", "add", folder("garden"), "--name", "garden-set");
    await timed("a program that is back, until an open page knows", () => banner.waitFor({ state: "hidden", timeout: NOTICED_MAX_MS }));
    await other.locator("#stale").waitFor({ state: "hidden", timeout: NOTICED_MAX_MS });
    assert.equal(person.entry().port, port, "it is at another address now");
    assert.notEqual(person.entry().token, token, "a token outlived the program");
    for (const one of [page, other]) {
      await one.locator("main").getByText("garden-set", { exact: true }).first().waitFor();
      assert.ok(await isSame(one), "the page was loaded anew");
    }
    assert.equal((await page.reload()).status(), 200);
  });

  await step("nothing else happened on these pages", () => watch.assertQuiet());
}
