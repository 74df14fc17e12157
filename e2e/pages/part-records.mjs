// What is kept for the person to look at and to show others: consents and their receipts, the ledger, the log.

import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import { entered, query } from "./browser.mjs";
import { assertNoBadNotice, forms, jobsEnd, perform } from "./forms.mjs";
import { timed } from "./report.mjs";
import { inUse } from "./scenes.mjs";

export const shows = "receipts that verify, withdrawing, the ledger as a file, the log looked through";

export async function run(step) {
  const { person, facts } = await inUse("records");
  const { watch, page } = await entered(person);
  const go = (path) => page.goto(`${person.origin()}${path}`);

  /** Saves what a link downloads. */
  const saved = async (link, name) =>
    timed(`download ${name}`, async () => {
      const [download] = await Promise.all([page.waitForEvent("download"), link.click()]);
      const file = join(person.folder, name);
      await download.saveAs(file);
      return file;
    });

  await step("a receipt is downloaded, and verifies", async () => {
    await go("/consent");
    const link = page.locator(`a[href^="/consent/receipt?id=${facts.consent.slice(0, 12)}"]`);
    assert.equal(await link.first().innerText(), "Receipt");
    const file = await saved(link.first(), "consent.receipt");
    await person.run("consent", "verify", file);
    const spoilt = readFileSync(file);
    const middle = spoilt.length >> 1;
    spoilt[middle] = spoilt[middle] === 0x41 ? 0x42 : 0x41;
    const bad = join(person.folder, "spoilt.receipt");
    writeFileSync(bad, spoilt);
    const { code } = await person.attempt("consent", "verify", bad);
    assert.ok([2, 4].includes(code), `a spoilt receipt is accepted: ${code}`);
  });

  await step("the history holds every consent", async () => {
    const history = await person.view("consents", "consent", "history");
    const receipts = page.locator('a[href^="/consent/receipt"]');
    assert.ok(history.length >= 2, "there is too little to compare");
    assert.equal(await receipts.count(), history.length);
  });

  await step("withdraw one set, after a question", async () => {
    await page.locator(`a[href^="/services/backup/off?set=${facts.set}"]`).filter({ hasText: "Withdraw" }).first().click();
    await forms(page, "/services/backup/off").first().waitFor();
    await perform(page, "/services/backup/off", { stored: "stays" }, { button: "Switch it off" });
    await assertNoBadNotice(page);
    const consent = (await person.view("consents", "consent", "history")).find((one) => one.id === facts.consent);
    assert.equal(consent.state, "withdrawn");
    await go("/consent");
    await page.getByText(/withdrawn/i).first().waitFor();
  });

  await step("an erasure of what is no set any more is taken back, and nothing is switched off", async () => {
    await person.run("consent", "on", "backup", "--yes");
    await person.run("backup", "run", "--all");
    await person.run("consent", "off", "backup", facts.set, "--erase");
    await person.run("consent", "on", "backup", "--yes");
    await go("/consent");
    await perform(page, "/consent/keep");
    await assertNoBadNotice(page);
    assert.equal(await forms(page, "/consent/keep").count(), 0, "there is still something to take back");
    const status = await person.view("status", "status");
    assert.deepEqual(status.erasures.map((one) => one.state), ["cancelled"]);
    assert.equal((await person.set(facts.set)).consent, "on");
  });

  await step("the ledger shows what is asked for alone", async () => {
    await go(query("/ledger", { since: "24h" }));
    await page.getByRole("img").first().waitFor();
    assert.ok((await page.getByRole("table").count()) >= 1);
    const all = await ledgerRows(page);
    await go(query("/ledger", { service: "backup", since: "24h" }));
    const some = await ledgerRows(page);
    const lines = await person.ledger();
    assert.ok(lines.some((line) => line.service !== "backup"), "there is nothing to leave out");
    assert.ok(some > 0 && some < all, `${some} of ${all} lines are shown`);
    // The filter's own form leads to the same.
    await go("/ledger");
    const filter = page.locator("form").filter({ has: page.locator("select[name=service], input[name=service]") }).first();
    await filter.locator("select[name=service]").selectOption("backup");
    await filter.locator("button").last().click();
    await page.waitForURL(/service=backup/);
  });

  await step("the ledger as a file: every line is JSON", async () => {
    await go("/ledger");
    const before = await person.ledger();
    const file = await saved(page.locator('a[href^="/ledger/export"]').first(), "ledger.jsonl");
    const lines = readFileSync(file, "utf8").trimEnd().split("\n").map((line) => JSON.parse(line));
    assert.ok(lines.every((line) => line.version === 1 && line["ledger-line"]), "a line is not what the document says");
    const exported = lines.map((line) => line["ledger-line"].sequence);
    assert.deepEqual(before.map((line) => line.sequence).filter((number) => !exported.includes(number)), [], "lines are missing");
  });

  await step("the ledger is whole", async () => {
    await perform(page, "/ledger/verify");
    await jobsEnd(page);
    await assertNoBadNotice(page);
    await page.locator("main .notice").filter({ hasText: /whole/i }).first().waitFor();
  });

  await step("the log is looked through now", async () => {
    const before = (await person.view("status", "status")).log.checked_ms;
    await go("/log");
    await perform(page, "/log/look");
    await jobsEnd(page);
    await assertNoBadNotice(page);
    const after = (await person.view("status", "status")).log.checked_ms;
    assert.ok(after > before, "nothing was looked at");
  });

  await step("nothing happened on these pages that must not", () => watch.assertQuiet());
}

/** Rows of the table of lines, which is the last one of the page. */
const ledgerRows = (page) => page.getByRole("table").last().locator("tbody tr").count();
