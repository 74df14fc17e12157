// The account and this device: the phrase, the export, browsers that leave, deleting, stopping.

import assert from "node:assert/strict";
import { readdirSync } from "node:fs";
import { join } from "node:path";

import { entered, FAILED_DOCUMENT, GONE } from "./browser.mjs";
import { until } from "./daemon.mjs";
import { assertNoBadNotice, badNotice, forms, jobsEnd, perform } from "./forms.mjs";
import { inUse } from "./scenes.mjs";
import { assertSameTree, restoredCopy } from "./tree.mjs";

export const shows = "confirm the phrase, export everything, leave, delete and keep, stop";

/** Words of the list, and a phrase of nobody. */
const WRONG_WORDS = "abandon ".repeat(24).trim();

/** How long a browser that is put out may take to notice: its stream is opened anew first. */
const NOTICED_MAX_MS = 60_000;

export async function run(step) {
  const { person } = await inUse("settings");
  const { watch, page } = await entered(person);
  const go = (path) => page.goto(`${person.origin()}${path}`);

  await step("the facts are those of the command line", async () => {
    await go("/settings");
    const account = await person.account();
    // What is one click deeper, too.
    const text = (await page.locator("main").textContent()).replace(/\s+/g, " ");
    for (const fact of [account.device_name, account.region, account.root_fingerprint]) {
      assert.ok(text.includes(fact.replace(/\s+/g, " ")), `the page does not say ${fact}`);
    }
  });

  await step("words of another phrase confirm nothing", async () => {
    await watch.expecting(FAILED_DOCUMENT, () => perform(page, "/settings/phrase", { words: WRONG_WORDS }));
    assert.ok(await badNotice(page), "they were taken");
    assert.equal((await person.account()).phrase_confirmed, false);
  });

  await step("the 24 words confirm the phrase, and stand nowhere afterwards", async () => {
    await go("/settings");
    const words = person.words();
    await perform(page, "/settings/phrase", { words });
    await assertNoBadNotice(page);
    assert.equal((await person.account()).phrase_confirmed, true);
    assert.ok(!(await page.content()).includes(words), "the page holds the phrase");
    assert.ok(!page.url().includes(words.split(" ")[0]), "the address holds the phrase");
  });

  await step("everything is exported as plain files", async () => {
    const to = join(person.files, "export");
    await go("/settings");
    await perform(page, "/settings/export", { to, every: "yes" });
    await jobsEnd(page);
    await assertNoBadNotice(page);
    assert.ok(readdirSync(to).includes("backups"), "it holds no backups");
    assertSameTree(restoredCopy(join(to, "backups"), person.documents), person.documents);
  });

  await step("other browsers are put out", async () => {
    const other = await entered(person);
    await go("/settings");
    await perform(page, "/settings/leave", { others: "yes" });
    assert.equal((await page.reload()).status(), 200, "the browser that asked is out itself");
    // The other one notices by itself.
    other.watch.expectFromNowOn(FAILED_DOCUMENT);
    await other.page.getByRole("heading", { name: "This browser is not let in" }).waitFor({ timeout: NOTICED_MAX_MS });
    assert.equal((await other.page.reload()).status(), 403);
  });

  await step("the account is deleted, and kept after all", async () => {
    await go("/settings");
    await perform(page, "/settings/delete");
    await assertNoBadNotice(page);
    await until("no warning says that the account is erased", async () => {
      const { warnings } = await person.view("status", "status");
      return warnings.some((warning) => /eras|delet/i.test(warning));
    });
    await go("/settings");
    await perform(page, "/settings/keep");
    await assertNoBadNotice(page);
    await go("/settings");
    assert.equal(await forms(page, "/settings/keep").count(), 0, "there is still something to take back");
  });

  await step("this browser leaves", async () => {
    const leaving = await entered(person);
    await leaving.page.goto(`${person.origin()}/settings`);
    await leaving.watch.expecting(FAILED_DOCUMENT, async () => {
      await perform(leaving.page, "/settings/leave", {}, { without: "others" });
      assert.equal((await leaving.page.goto(`${person.origin()}/`)).status(), 403);
    });
    assert.equal((await page.reload()).status(), 200, "another browser is out, too");
  });

  await step("stop ends the program cleanly", async () => {
    watch.assertQuiet();
    await go("/settings");
    const { child } = person;
    await watch.expecting(GONE, async () => {
      if ((await forms(page, "/settings/stop").count()) === 0) await page.locator('a[href^="/settings/stop"]').first().click();
      await forms(page, "/settings/stop").first().locator("button").last().click();
      await until("candor up does not end", () => child.exitCode !== null || child.signalCode !== null);
    });
    assert.equal(child.exitCode, 0);
  });
}
