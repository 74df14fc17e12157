// How a browser gets in, and what it is given.

import assert from "node:assert/strict";

import { FAILED_DOCUMENT, profile } from "./browser.mjs";
import { newcomer } from "./scenes.mjs";

export const shows = "a token lets one browser in, once";

const POLICY = {
  "default-src": "'none'",
  "style-src": "'self'",
  "img-src": "'self'",
  "connect-src": "'self'",
  "form-action": "'self'",
  "base-uri": "'none'",
  "frame-ancestors": "'none'",
};

/** A policy as its directives. */
const directives = (text) => Object.fromEntries(text.split(";").map((one) => one.trim()).filter(Boolean).map((one) => one.split(/ (.*)/).slice(0, 2)));

export async function run(step) {
  const person = await step("candor up makes an account and serves its pages", () => newcomer("entering"));
  const { token } = person.entry();
  const address = person.enterAddress();

  await step("the file with the token is for its owner alone", () => assert.equal(person.entryMode(), 0o600));

  await step("the token stands in nothing that the program says", () => assert.ok(!person.log().includes(token)));

  await step("without a token nobody gets in, and nothing is told", async () => {
    const { context, watch } = await profile(person);
    const page = await context.newPage();
    await watch.expecting(FAILED_DOCUMENT, async () => {
      for (const path of ["/", "/enter", "/enter?token=00", "/no-such-page"]) {
        const response = await page.goto(`${person.origin()}${path}`);
        assert.equal(response.status(), 403, path);
        await page.getByRole("heading", { name: "This browser is not let in" }).waitFor();
        assert.equal(await page.getByRole("navigation").count(), 0, path);
      }
    });
    assert.deepEqual(await context.cookies(), []);
    watch.assertQuiet();
  });

  const first = await profile(person);
  await step("the token lets a browser in", async () => {
    const page = await first.context.newPage();
    const response = await page.goto(address);
    assert.equal(response.status(), 200);
    assert.equal(page.url(), `${person.origin()}/`, "the token stays in the address bar");
    await page.getByRole("navigation", { name: "Pages" }).waitFor();
    const [cookie, ...others] = await first.context.cookies();
    assert.deepEqual(others, []);
    assert.deepEqual(
      { name: cookie.name, path: cookie.path, httpOnly: cookie.httpOnly, sameSite: cookie.sameSite, domain: cookie.domain },
      { name: "candor", path: "/", httpOnly: true, sameSite: "Strict", domain: "127.0.0.1" },
    );
    assert.notEqual(cookie.value, token, "the token is the key");
    first.watch.assertQuiet();
  });

  await step("the same token lets no second browser in", async () => {
    assert.notEqual(person.entry().token, token, "the file still holds the used token");
    const { context, watch } = await profile(person);
    const page = await context.newPage();
    await watch.expecting(FAILED_DOCUMENT, async () => {
      const response = await page.goto(address);
      assert.equal(response.status(), 403);
      await page.getByRole("heading", { name: "This browser is not let in" }).waitFor();
    });
    assert.deepEqual(await context.cookies(), []);
  });

  await step("the file's new token lets a second browser in, and the first stays in", async () => {
    const { context } = await profile(person);
    const page = await context.newPage();
    assert.equal((await page.goto(person.enterAddress())).status(), 200);
    const [own] = first.context.pages();
    assert.equal((await own.reload()).status(), 200);
  });

  await step("every answer has the policy that forbids what is not needed", async () => {
    const [page] = first.context.pages();
    const nonces = new Set();
    const pages = ["/", "/backups", "/settings"];
    for (const path of [...pages, "/parts/safe", "/assets/candor.js"]) {
      const { headers, status } = await page.evaluate(async (address) => {
        const response = await fetch(address);
        return { headers: Object.fromEntries(response.headers), status: response.status };
      }, path);
      assert.equal(status, 200, path);
      const { "script-src": scripts, ...rest } = directives(headers["content-security-policy"] ?? "");
      assert.deepEqual(rest, POLICY, path);
      // Scripts run in whole pages alone, and only those that bear this answer's own nonce.
      if (pages.includes(path)) assert.match(scripts, /^'nonce-[0-9a-f]{32}'$/, path);
      else assert.equal(scripts, undefined, path);
      nonces.add(scripts);
    }
    assert.equal(nonces.size, pages.length + 1, "a nonce is used twice");
    first.watch.assertQuiet();
  });

  await step("a restart throws nobody out, and keeps the port", async () => {
    const { port } = person.entry();
    assert.equal(await person.down(), 0, "candor up does not end cleanly when it is asked to");
    await person.up();
    assert.equal(person.entry().port, port);
    const [page] = first.context.pages();
    assert.equal((await page.goto(`${person.origin()}/`)).status(), 200);
  });
}
