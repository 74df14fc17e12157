// The checks find what they are there to find: each gets a page that is wrong in one way, and one that is right.

import assert from "node:assert/strict";
import { createServer } from "node:http";

import { normalised } from "./aria.mjs";
import { closeAll, entered, profile } from "./browser.mjs";
import { checkAxe, checkKeyboard, checkPage } from "./checks.mjs";
import { finish, part } from "./report.mjs";
import { settings } from "./settings.mjs";

settings.rewritesAria = false;

const STYLE = "a:focus-visible, button:focus-visible, [tabindex]:focus-visible { outline: 2px solid blue } .quiet:focus-visible { outline: none }";
const whole = (body, head = "") =>
  `<!doctype html><html lang="en"><head><title>A page</title><meta name="viewport" content="width=device-width"><link rel="stylesheet" href="/style.css">${head}</head><body><main><h1>A page</h1>${body}</main></body></html>`;

const PAGES = {
  "/good": whole('<p><a href="/a">one</a> <button>two</button></p><label>three <input name="three"></label> <label><input type="radio" name="r"> a</label> <label><input type="radio" name="r" checked> b</label><details><summary>more</summary><a href="/b">inside</a></details>'),
  "/no-name": whole("<button></button>"),
  "/pale": whole('<p class="pale">one</p>'),
  "/wide": whole('<div class="wide">one</div>'),
  "/boxed": whole('<div class="box" tabindex="0" role="region" aria-label="Table"><div class="wide">one</div></div>'),
  "/unseen": whole('<a href="/a" class="quiet">one</a>'),
  "/order": whole('<a href="/a" tabindex="2">one</a> <a href="/b" tabindex="1">two</a> <a href="/c">three</a>'),
  "/unreachable": whole('<a href="/a">one</a> <button id="skipped">two</button>', '<script src="/steal.js" defer></script>'),
  "/two-headings": whole("<h1>another</h1>"),
  "/inline": whole("<script>document.title = 'x'</script>"),
  "/speaks": whole("", '<script src="/speaks.js" defer></script>'),
  "/throws": whole("", '<script src="/throws.js" defer></script>'),
  "/elsewhere": whole('<img alt="" src="http://other.invalid/x.png">'),
  "/asks": whole("", '<script src="/asks.js" defer></script>'),
  "/heavy": whole("", '<script src="/heavy.js" defer></script>'),
};
const FILES = {
  "/style.css": `${STYLE} .pale { color: #aaa; background: #fff } .wide { width: 500px } .box { overflow-x: auto }`,
  "/steal.js": "document.addEventListener('focusin', (event) => { if (event.target.id === 'skipped') document.querySelector('a').focus(); })",
  "/speaks.js": "console.warn('something')",
  "/throws.js": "throw new Error('something')",
  "/asks.js": "alert(1)",
  "/heavy.js": `// ${"x".repeat(65 << 10)}`,
};
const KINDS = { css: "text/css", js: "text/javascript" };

const server = createServer((request, response) => {
  const [path] = request.url.split("?");
  const body = PAGES[path] ?? FILES[path] ?? whole("");
  response.writeHead(200, {
    "content-type": KINDS[path.split(".")[1]] ?? "text/html; charset=utf-8",
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' http://other.invalid",
  });
  response.end(body);
});
await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
const origin = `http://127.0.0.1:${server.address().port}`;
const person = { origin: () => origin, enterAddress: () => `${origin}/enter` };

/** Everything that is found on one of the pages; what is kept of it is not looked at here. */
async function found(path) {
  const scene = await profile(person);
  const findings = await checkPage(scene, origin, { name: "self-test", path });
  await scene.context.close();
  return findings.filter((finding) => !finding.startsWith("there is no kept snapshot"));
}

const WRONG = {
  "/no-name": /axe button-name/,
  "/pale": /axe color-contrast/,
  "/wide": /at 360 pixels it is/,
  "/unseen": /the focus cannot be seen/,
  "/order": /Tab goes/,
  "/unreachable": /Tab goes/,
  "/two-headings": /2 first headings/,
  "/inline": /content security policy: script-src/,
  "/speaks": /console warning: something/,
  "/throws": /error of a script: .*something/,
  "/elsewhere": /a request to elsewhere: http:\/\/other.invalid/,
  "/asks": /a script asks: 1/,
  "/heavy": /it weighs \d+ bytes/,
};

await part("self-test: the checks find what they are there to find", async (_, independent) => {
  for (const path of ["/good", "/boxed"]) await independent(`${path}: nothing`, async () => assert.deepEqual(await found(path), []));
  for (const [path, pattern] of Object.entries(WRONG)) {
    await independent(`${path}: ${pattern}`, async () => {
      const findings = await found(path);
      assert.ok(findings.some((finding) => pattern.test(finding)), `found only: ${findings.join("\n")}`);
    });
  }
  await independent("in an open page, too", async () => {
    const { page } = await entered(person);
    await page.goto(`${origin}/no-name`);
    assert.match((await checkAxe(page)).join(), /button-name/);
    assert.deepEqual(await checkKeyboard(page), []);
  });
  await independent("snapshots forget times, sizes and ids, and nothing else", () => {
    const text = `- list:\n  - listitem: a1b2c3d4e5f6, 3 minutes ago, 12.5 KiB in ${settings.work}/x\n  - text: 12 files, 2026-01-31 12:00 UTC`;
    assert.equal(normalised(text), "- list:\n  - listitem: ID, WHEN, SIZE in WORK/x\n  - text: 12 files, TIME\n");
    const rows = "- rowgroup:\n  - row b 2:\n    - cell\n  - row a 1\n  - row b 1:\n    - cell";
    assert.equal(normalised(rows, true), "- rowgroup:\n  - row a N\n  - row b N:\n    - cell\n");
  });
});
await closeAll();
server.closeAllConnections();
server.close();
process.exit(finish() ? 0 : 1);
