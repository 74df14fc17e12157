// Row A41 and C5 of the threat model, from inside a browser that was let in: a page of somebody else, at another port, under
// another name of this machine, and under a name whose owner lets it point to this machine (DNS rebinding).

import assert from "node:assert/strict";
import { createServer } from "node:http";

import { launch } from "./browser.mjs";
import { ACTIONS, everyAddress } from "./routes.mjs";
import { inUse } from "./scenes.mjs";

export const shows = "web pages of somebody else read nothing and change nothing, also when their name points here";

const EVIL = "evil.example";
const METHODS = ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"];
const TRY_MAX_MS = 15_000;

/** Sockets wait for each other. */
const STREAMS_MAX_MS = 120_000;

export async function run(step, independent) {
  const { person, facts } = await inUse("sites");
  const { port } = person.entry();
  const browser = await launch(`--host-resolver-rules=MAP ${EVIL} 127.0.0.1`);
  const context = await browser.newContext();
  const page = await context.newPage();
  assert.equal((await page.goto(person.enterAddress())).status(), 200);
  const [key] = await context.cookies();
  // An open page of the program refreshes itself, and what it is answered is no stranger's.
  await page.goto("about:blank");
  const before = await person.standing();
  const addresses = everyAddress(facts);
  const server = await attacker();
  const evilPort = server.address().port;

  // What was asked of the program in this profile, and what it answered. Of what a script may not see, Chromium tells no answer.
  const asked = [];
  const answers = [];
  const isHere = (url) => new URL(url).port === String(port);
  context.on("request", (request) => isHere(request.url()) && asked.push(request.url()));
  context.on("response", (response) => isHere(response.url()) && answers.push(`${response.status()} ${response.request().method()} ${response.url()}`));
  const forget = () => {
    asked.length = 0;
    answers.length = 0;
  };
  const assertAllRefused = (least) => {
    assert.deepEqual(answers.filter((answer) => !answer.startsWith("403 ")), [], "somebody else's page was answered");
    assert.ok(asked.length >= least, `only ${asked.length} requests were made, of ${least} that should have been`);
    forget();
  };

  await independent("rebinding: a name that points here gets nothing, with the key", async () => {
    // A key that such a page got hold of would not help it either.
    await context.addCookies([{ name: key.name, value: key.value, domain: EVIL, path: "/" }]);
    const fake = await context.newPage();
    forget();
    for (const path of addresses.filter((address) => !address.startsWith("/live"))) {
      const response = await fake.goto(`http://${EVIL}:${port}${path}`);
      assert.equal(response.status(), 403, path);
      const text = await fake.content();
      for (const secret of [facts.set, facts.snapshot, facts.files]) assert.ok(!text.includes(secret), `${path} tells ${secret}`);
      assert.equal(await fake.getByRole("navigation").count(), 0, path);
    }
    // From inside such a page everything is of the same origin, and readable: there must be nothing to read.
    for (const method of METHODS) {
      const readable = await fake.evaluate(fetchAll, { base: "", addresses, method, mode: "same-origin" });
      assert.deepEqual(readable.filter((one) => one.status !== 403), [], method);
    }
    assertAllRefused(addresses.length);
    await fake.close();
  });

  const origins = { "another port": `http://127.0.0.1:${evilPort}`, "another name of this machine": `http://localhost:${evilPort}`, "another site": `http://${EVIL}:${evilPort}` };
  for (const [whose, origin] of Object.entries(origins)) {
    const base = `http://127.0.0.1:${port}`;
    const visit = async (work) => {
      const evil = await context.newPage();
      forget();
      await evil.goto(`${origin}/`);
      try {
        return await work(evil);
      } finally {
        await evil.close();
      }
    };

    await independent(`${whose}: fetch, with and without CORS`, () =>
      visit(async (evil) => {
        for (const mode of ["cors", "no-cors"]) {
          for (const method of METHODS) {
            const readable = await evil.evaluate(fetchAll, { base, addresses, method, mode });
            assert.deepEqual(readable.filter((one) => one.isReadable), [], `${mode} ${method}`);
          }
        }
        // What needs no leave beforehand reaches the program: GET, HEAD and POST without CORS.
        assertAllRefused(addresses.length * 3);
      }));

    await independent(`${whose}: forms`, () =>
      visit(async (evil) => {
        for (const action of ACTIONS) {
          const [response] = await Promise.all([
            evil.waitForEvent("response", (one) => one.url() === `${base}${action.path}`),
            evil.evaluate(sendForm, { address: `${base}${action.path}`, fields: action.fields(facts) }),
          ]);
          assert.equal(response.status(), 403, action.path);
        }
        assertAllRefused(ACTIONS.length);
      }));

    await independent(`${whose}: frames, pictures, scripts, styles`, () =>
      visit(async (evil) => {
        const loaded = await evil.evaluate(embedAll, { base, addresses, maxMs: TRY_MAX_MS });
        assert.deepEqual(loaded, []);
        assertAllRefused(addresses.length);
      }));

    await independent(`${whose}: WebSocket and EventSource`, () =>
      visit(async (evil) => {
        const opened = await evil.evaluate(openStreams, { base, port, addresses, maxMs: STREAMS_MAX_MS });
        assert.deepEqual(opened, []);
        assertAllRefused(addresses.length);
      }));

    await independent(`${whose}: a link that leads here`, () =>
      visit(async (evil) => {
        await evil.evaluate((to) => {
          const link = Object.assign(document.createElement("a"), { href: to, textContent: "look" });
          document.body.append(link);
        }, `${base}/services/backup/off`);
        await Promise.all([evil.waitForURL(`${base}/**`), evil.getByText("look").click()]);
        assertAllRefused(1);
      }));
  }

  await step("nothing of it changed anything, and the browser is still in", async () => {
    assert.deepEqual(await person.standing(), before);
    assert.equal((await page.goto(`${person.origin()}/`)).status(), 200);
  });
  server.closeAllConnections();
  server.close();
}

/** The page of somebody else, which allows itself everything. */
function attacker() {
  const server = createServer((_, response) => {
    response.writeHead(200, { "content-type": "text/html; charset=utf-8" });
    response.end("<!doctype html><html lang=en><title>Nice page</title><body><h1>Nice page</h1>");
  });
  return new Promise((resolve) => server.listen(0, "127.0.0.1", () => resolve(server)));
}

// The functions below run in somebody else's page.

/** Tries to fetch; tells what came of each. A stream that is let in never ends, so that nothing is read to its end. */
async function fetchAll({ base, addresses, method, mode }) {
  const one = async (address) => {
    const abort = new AbortController();
    const late = setTimeout(() => abort.abort(), 60_000);
    const body = method === "POST" ? new URLSearchParams({ set: "documents", accept: "yes", others: "yes" }) : undefined;
    try {
      // Without CORS, no redirect may be looked at.
      const redirect = mode === "no-cors" ? "follow" : "manual";
      const response = await fetch(base + address, { method, mode, body, credentials: "include", redirect, signal: abort.signal });
      return { address, status: response.status, type: response.type, isReadable: response.type !== "opaque" };
    } catch (error) {
      // An answer that only never ended was an answer.
      return { address, status: 403, type: error.name, isReadable: error.name === "AbortError" };
    } finally {
      clearTimeout(late);
      abort.abort();
    }
  };
  const results = [];
  for (const address of addresses) results.push(await one(address));
  return results;
}

function sendForm({ address, fields }) {
  const frame = Object.assign(document.createElement("iframe"), { name: `frame${Math.random()}` });
  const form = Object.assign(document.createElement("form"), { method: "post", action: address, target: frame.name });
  for (const [name, value] of Object.entries(fields)) form.append(Object.assign(document.createElement("input"), { name, value }));
  document.body.append(frame, form);
  form.submit();
}

/** Puts everything into the page in every way; tells what was loaded, and which frame could be looked into. */
async function embedAll({ base, addresses, maxMs }) {
  const found = [];
  const wait = (element, address, then) =>
    new Promise((resolve) => {
      const end = (what) => {
        clearTimeout(late);
        if (what) found.push(`${what} ${address}`);
        element.remove();
        resolve();
      };
      const late = setTimeout(() => end("no end of"), maxMs);
      element.onload = () => end(then(element));
      element.onerror = () => end(null);
      document.body.append(element);
    });
  const inside = (frame) => {
    try {
      return frame.contentWindow.document.body.textContent === undefined ? null : "the inside of";
    } catch {
      return null;
    }
  };
  for (const address of addresses) {
    const to = base + address;
    await wait(Object.assign(document.createElement("iframe"), { src: to }), address, inside);
    await wait(Object.assign(document.createElement("img"), { src: to }), address, () => "picture");
    await wait(Object.assign(document.createElement("script"), { src: to }), address, () => "script");
    await wait(Object.assign(document.createElement("link"), { rel: "stylesheet", href: to }), address, () => "style");
  }
  return found;
}

/** Tries to open streams; tells which opened. */
async function openStreams({ base, port, addresses, maxMs }) {
  const opened = [];
  const wait = (stream, what) =>
    new Promise((resolve) => {
      const end = (is) => {
        clearTimeout(late);
        if (is) opened.push(what);
        stream.close();
        resolve();
      };
      const late = setTimeout(() => end(true), maxMs);
      stream.onopen = () => end(true);
      stream.onmessage = () => end(true);
      stream.onerror = () => end(false);
    });
  for (const address of addresses) await wait(new EventSource(base + address, { withCredentials: true }), `EventSource ${address}`);
  // Chromium makes a page wait longer and longer between sockets that fail, so all of them are tried at once.
  await Promise.all(addresses.map((address) => wait(new WebSocket(`ws://127.0.0.1:${port}${address}`), `WebSocket ${address}`)));
  return opened;
}
