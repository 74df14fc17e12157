// Everything that matters without a line of script.

import assert from "node:assert/strict";
import { join } from "node:path";

import { entered, query } from "./browser.mjs";
import { until } from "./daemon.mjs";
import { assertNoBadNotice, perform, row } from "./forms.mjs";
import { newcomer } from "./scenes.mjs";
import { assertSameTree, restoredCopy } from "./tree.mjs";

export const shows = "with scripts off: enter, switch on, back up, restore, switch off";

export async function run(step) {
  const person = await newcomer("no-scripts");
  const { watch, page } = await step("enter", () => entered(person, { javaScriptEnabled: false }));
  const go = (path) => page.goto(`${person.origin()}${path}`);

  await step("add a set", async () => {
    await go("/backups");
    await perform(page, "/backups/add", { path: person.documents, name: "documents" });
    assert.equal((await person.set("documents")).consent, "off");
    await row(page, "documents").waitFor();
  });

  const switchOn = async () => {
    await go("/");
    await page.getByRole("link", { name: "Backup is off. Switch it on" }).click();
    await page.waitForURL(/\/services\/backup\/on/);
  };

  await step("the question is a page of its own, and Not now leads back", async () => {
    await switchOn();
    await page.getByRole("link", { name: "Not now" }).click();
    await page.waitForURL(`${person.origin()}/`);
    assert.deepEqual(await person.consents(), []);
  });

  await step("yes switches it on", async () => {
    await switchOn();
    await perform(page, "/services/backup/on", {}, { button: "Yes, switch it on" });
    await go("/");
    await page.getByRole("link", { name: "Backup is on. Switch it off" }).waitFor();
    assert.equal((await person.set("documents")).consent, "on");
  });

  await step("back up", async () => {
    await go("/backups");
    await perform(page, "/backups/run", { set: "documents" }, { within: row(page, "documents"), button: "Back up now" });
    await until("there is no backup", async () => (await person.set("documents")).last_backup_ms);
    await page.reload();
    await row(page, "documents").getByText("just now").first().waitFor();
    await assertNoBadNotice(page);
  });

  await step("restore", async () => {
    const restored = join(person.files, "restored");
    await go(query("/backups/snapshots", { set: "documents" }));
    await page.locator("ol.timeline > li").first().getByRole("link", { name: "Look inside" }).click();
    await page.waitForURL(/\/backups\/browse/);
    await perform(page, "/backups/restore", { to: restored }, { button: "Restore" });
    await until("the restore does not end", async () => {
      await go("/backups");
      return (await page.locator(".job").filter({ has: page.locator("progress") }).count()) === 0;
    });
    await assertNoBadNotice(page);
    assertSameTree(restoredCopy(restored, person.documents), person.documents);
  });

  await step("switch off", async () => {
    await go("/");
    await page.getByRole("link", { name: "Backup is on. Switch it off" }).click();
    await page.waitForURL(/\/services\/backup\/off/);
    await perform(page, "/services/backup/off", { stored: "stays" }, { button: "Switch it off" });
    await go("/");
    await page.getByRole("link", { name: "Backup is off. Switch it on" }).waitFor();
    assert.equal((await person.set("documents")).consent, "withdrawn");
  });

  await step("nothing happened on these pages that must not", () => watch.assertQuiet());
}
