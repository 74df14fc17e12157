// Taking a second home in, and putting it out.

import assert from "node:assert/strict";

import { entered, query } from "./browser.mjs";
import { assertNoBadNotice, focused, forms, perform } from "./forms.mjs";
import { digitsOf, joining, newcomer } from "./scenes.mjs";

export const shows = "a code and its picture, six digits that are compared, no and yes, and out again";

/** Modules of a QR code side by side, at least: of the smallest version. */
const QR_MIN = 21;

export async function run(step) {
  const person = await newcomer("devices");
  const { watch, page } = await entered(person);
  const go = (path) => page.goto(`${person.origin()}${path}`);

  /** Asks for a code, and returns it as the page shows it. */
  const newCode = async (role) => {
    await go("/devices");
    const response = await perform(page, "/devices/link", { role });
    assert.equal(response.status(), 303);
    await page.waitForURL(/\/devices\/link/);
    const text = await page.locator(".code").filter({ hasText: "candor-link1:" }).innerText();
    return text.replace(/\s/g, "");
  };

  /** A second home asks with it, and both show the same digits. */
  const asked = async (name, code) => {
    const { second, join } = joining(name, code);
    const digits = await digitsOf(join);
    const shown = page.locator(".digits");
    await shown.waitFor();
    assert.equal((await shown.innerText()).replace(/\D/g, ""), digits, "the two show other digits");
    return { second, join };
  };

  const code = await step("a code is shown, also as a picture", async () => {
    const code = await newCode("full");
    assert.match(code, /^candor-link1:[\w-]+$/);
    const picture = page.locator("svg.qr");
    const size = await picture.boundingBox();
    assert.ok(size.width >= QR_MIN * 2 && Math.abs(size.width - size.height) < 1, `the picture is ${size.width} by ${size.height}`);
    assert.ok((await picture.locator("path, rect").count()) > 0, "the picture is empty");
    return code;
  });

  await step("no means no", async () => {
    const { join } = await asked("refused", code);
    await perform(page, "/devices/answer", { accept: "no" });
    assert.notEqual((await join.ended).code, 0, "it joined all the same");
    assert.equal((await person.devices()).length, 1);
  });

  let second = null;
  await step("yes takes it in", async () => {
    const linked = await asked("second", await newCode("full"));
    await perform(page, "/devices/answer", { accept: "yes" });
    await assertNoBadNotice(page);
    const { code, stderr } = await linked.join.ended;
    assert.equal(code, 0, stderr);
    second = linked.second;
    assert.equal((await person.devices()).length, 2);
    assert.equal((await second.account()).account, (await person.account()).account);
    await go("/devices");
    await page.getByRole("link", { name: "Revoke" }).first().waitFor();
  });

  await step("a device is put out, after a question", async () => {
    const other = (await person.devices()).find((device) => !device.this_device);
    await page.locator(`a[href^="/devices/revoke?device=${other.device}"]`).first().click();
    await forms(page, "/devices/revoke").first().waitFor();
    assert.equal(await focused(page), "Not now");
    await page.keyboard.press("Escape");
    assert.equal((await person.devices()).find((device) => device.device === other.device).revoked_ms, null);
    await go(query("/devices/revoke", { device: other.device }));
    await perform(page, "/devices/revoke", { device: other.device });
    await assertNoBadNotice(page);
    assert.ok((await person.devices()).find((device) => device.device === other.device).revoked_ms, "it is still in");
    assert.notEqual((await second.attempt("device", "list")).code, 0, "what was put out is still answered");
    await go("/devices");
    await page.getByText(/revoked/i).first().waitFor();
  });

  await step("a device that may only write", async () => {
    const { join } = await asked("writer", await newCode("write-only"));
    await perform(page, "/devices/answer", { accept: "yes" });
    assert.equal((await join.ended).code, 0);
    const roles = (await person.devices()).filter((device) => !device.revoked_ms).map((device) => device.role);
    assert.equal(new Set(roles).size, 2, `the roles are ${roles}`);
  });

  await step("a new code takes the place of one that nobody used", async () => {
    const unused = await newCode("full");
    const used = await newCode("full");
    assert.notEqual(used, unused);
    const { join } = await asked("late", used);
    await perform(page, "/devices/answer", { accept: "no" });
    await join.ended;
  });

  await step("nothing happened on these pages that must not", () => watch.assertQuiet());
}
