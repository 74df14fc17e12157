// Row A41 and C5 of the threat model, request by request: whatever is foreign about one, it is refused before anything looks at
// what it asks for. Each attack carries the right key, unless the key is what is wrong.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { readFileSync } from "node:fs";
import { networkInterfaces } from "node:os";
import { connect } from "node:net";

import { Skip } from "./report.mjs";
import { ask, closeConnections, send } from "./raw.mjs";
import { ACTIONS, everyAddress, OTHERS, PAGES } from "./routes.mjs";
import { inUse } from "./scenes.mjs";
import { isRoot, settings } from "./settings.mjs";

export const shows = "every address and method with a foreign head is refused, and another user gets no answer at all";

const METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
const NOBODY = "65534";

/** How long a good request may wait for its answer. */
const GOOD_MAX_MS = 30_000;

/** What is foreign about a request: changes to the head of a good one. `only`: for those methods alone. */
const foreign = (port) => ({
  "a foreign host": { host: `evil.example:${port}` },
  "a host without its port": { host: "127.0.0.1" },
  "another port's host": { host: `127.0.0.1:${port + 1}` },
  "an address with all bits clear": { host: `0.0.0.0:${port}` },
  "a foreign origin": { origin: "http://evil.example" },
  "the origin of another port": { origin: `http://127.0.0.1:${port + 1}` },
  "the origin of the other name": { origin: `http://localhost:${port}` },
  "an origin with TLS": { origin: `https://127.0.0.1:${port}` },
  "no origin to be told (null)": { origin: "null" },
  "a request across sites": { "sec-fetch-site": "cross-site" },
  "a request of the same site": { "sec-fetch-site": "same-site" },
  "a word that Fetch Metadata does not know": { "sec-fetch-site": "anything" },
  "an upgrade to WebSocket": { connection: "Upgrade", upgrade: "websocket", "sec-websocket-version": "13", "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==" },
  "an upgrade to HTTP/2": { connection: "Upgrade, HTTP2-Settings", upgrade: "h2c", "http2-settings": "AAMAAABkAAQAAP__" },
  "no key": { cookie: undefined },
  "a wrong key": { cookie: `candor=${"0".repeat(64)}` },
  "a key by another name": (good) => ({ cookie: good.cookie.replace("candor=", "Candor=") }),
});

/** A change without an origin is no browser's. */
const WITHOUT_ORIGIN = METHODS.filter((method) => !["GET", "HEAD"].includes(method));

export async function run(step, independent) {
  const { person, facts } = await inUse("requests");
  const { port } = person.entry();
  const cookie = await enter(person);
  const good = { host: `127.0.0.1:${port}`, origin: `http://127.0.0.1:${port}`, "sec-fetch-site": "same-origin", cookie };
  const body = Object.fromEntries(ACTIONS.map((action) => [action.path, new URLSearchParams(action.fields(facts)).toString()]));
  const addresses = everyAddress(facts);
  const secrets = [facts.set, facts.snapshot, facts.files, person.entry().token];
  const before = await person.standing();

  const assertRefused = async (method, path, head) => {
    const content = WITHOUT_ORIGIN.includes(method) ? (body[path] ?? "") : "";
    const headers = { ...head, ...(content && { "content-type": "application/x-www-form-urlencoded" }), "content-length": Buffer.byteLength(content) };
    for (const [name, value] of Object.entries(headers)) if (value === undefined) delete headers[name];
    const answer = await ask(port, { method, path, headers, body: content });
    assert.equal(answer.status, 403, `${method} ${path}`);
    for (const secret of secrets) assert.ok(!answer.body.includes(secret), `${method} ${path} tells ${secret}`);
    for (const name of Object.keys(answer.headers)) assert.ok(!name.startsWith("access-control-") && name !== "set-cookie", `${method} ${path} answers with ${name}`);
  };

  await step("every address that the program has is among those that are tried", () => {
    const known = readFileSync(settings.routes, "utf8").trimEnd().split("\n").map((line) => line.split(" ")[1]);
    assert.ok(known.length > 0, "the program lists no address");
    const tried = new Set(addresses.map((address) => address.split("?")[0]));
    assert.deepEqual(known.filter((address) => !tried.has(address)), []);
  });

  await step("what is not foreign is answered, so that a refusal means something", async () => {
    for (const path of [...PAGES.map((page) => page.path(facts)), ...OTHERS.filter((path) => !path.startsWith("/live"))]) {
      const answer = await ask(port, { method: "GET", path, headers: good });
      assert.ok([200, 303].includes(answer.status), `GET ${path} answers with ${answer.status}`);
    }
  });

  for (const [what, change] of Object.entries(foreign(port))) {
    await independent(`${what}: ${addresses.length} addresses, ${METHODS.length} methods`, async () => {
      const head = { ...good, ...(typeof change === "function" ? change(good) : change) };
      for (const path of addresses) for (const method of METHODS) await assertRefused(method, path, head);
      // A token that would let somebody in does not help what is foreign for another reason.
      if (head.cookie === cookie) await assertRefused("GET", `/enter?token=${person.entry().token}`, head);
    });
  }

  await independent("a change without an origin", async () => {
    for (const path of addresses) for (const method of WITHOUT_ORIGIN) await assertRefused(method, path, { ...good, origin: undefined });
  });

  await independent("heads that a browser cannot send", async () => {
    const { host } = good;
    const rest = `Cookie: ${cookie}\r\nConnection: close\r\n\r\n`;
    const heads = {
      "two hosts": `GET / HTTP/1.1\r\nHost: ${host}\r\nHost: evil.example\r\n${rest}`,
      "no host": `GET / HTTP/1.1\r\n${rest}`,
      "no host, in the old version": `GET / HTTP/1.0\r\n${rest}`,
      "another host in the request line": `GET http://evil.example/ HTTP/1.1\r\nHost: ${host}\r\n${rest}`,
      "two origins": `GET / HTTP/1.1\r\nHost: ${host}\r\nOrigin: http://${host}\r\nOrigin: http://evil.example\r\n${rest}`,
      "two sites": `GET / HTTP/1.1\r\nHost: ${host}\r\nSec-Fetch-Site: same-origin\r\nSec-Fetch-Site: cross-site\r\n${rest}`,
      "a tunnel": `CONNECT evil.example:443 HTTP/1.1\r\nHost: evil.example:443\r\n${rest}`,
      "HTTP/2 at once": "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
    };
    for (const [what, head] of Object.entries(heads)) {
      const answer = await send(port, head);
      assert.doesNotMatch(answer, /^HTTP\/1\.[01] [123]/, what);
      for (const secret of secrets) assert.ok(!answer.includes(secret), `${what}: ${secret} is told`);
    }
    assert.match(await send(port, `GET / HTTP/1.1\r\nHost: ${host}\r\n${rest}`, GOOD_MAX_MS), /^HTTP\/1\.1 200/, "a good head is not answered");
  });

  await independent("no other address of this machine answers", async () => {
    const others = Object.values(networkInterfaces()).flat().filter((one) => !one.internal).map((one) => (one.scopeid ? `${one.address}%${one.scopeid}` : one.address));
    for (const address of [...others, "127.0.0.2", "::1"]) assert.equal(await isOpen(address, port), false, `${address} answers`);
    assert.equal(await isOpen("127.0.0.1", port), true);
  });

  await independent("another user of this machine gets no answer, whatever they know", async () => {
    const attempt = (command, words) => answered(command, words, port, good.host, cookie);
    assert.match(await attempt(process.execPath, []), /^HTTP\/1\.1 200/, "the same user gets no answer either");
    if (!isRoot) throw new Skip("only root can become somebody else");
    const answer = await attempt("setpriv", ["--reuid", NOBODY, "--clear-groups", process.execPath]);
    assert.equal(answer, "", "somebody else got an answer");
  });

  await step("nothing of it changed anything", async () => {
    closeConnections();
    assert.deepEqual(await person.standing(), before);
  });
}

/** Uses the token, and returns the key as a browser would send it. */
async function enter(person) {
  const { port, token } = person.entry();
  const answer = await ask(port, { method: "GET", path: `/enter?token=${token}`, headers: { host: `127.0.0.1:${port}` } });
  assert.equal(answer.status, 303);
  return answer.headers["set-cookie"][0].split(";")[0];
}

function isOpen(host, port) {
  return new Promise((resolve) => {
    const socket = connect({ host, port, timeout: 2000 });
    const done = (is) => {
      socket.destroy();
      resolve(is);
    };
    socket.once("connect", () => done(true));
    socket.once("timeout", () => done(false));
    socket.once("error", () => done(false));
  });
}

/** Whatever a process of its own is answered to a good request. It says whether it got a connection, so that silence is no accident. */
function answered(command, words, port, host, cookie) {
  const head = `GET / HTTP/1.1\r\nHost: ${host}\r\nCookie: ${cookie}\r\nConnection: close\r\n\r\n`;
  const script = `
    const socket = require("node:net").connect(${port}, "127.0.0.1", () => { process.stderr.write("connected"); socket.write(${JSON.stringify(head)}); });
    socket.setTimeout(${GOOD_MAX_MS}, () => socket.destroy());
    socket.on("data", (bytes) => process.stdout.write(bytes));
    socket.on("error", () => {});`;
  return new Promise((resolve, reject) => {
    execFile(command, [...words, "-e", script], { cwd: "/", env: { PATH: process.env.PATH } }, (error, stdout, stderr) => {
      if (error) reject(error);
      else if (!stderr.includes("connected")) reject(new Error(`it got no connection: ${stderr}`));
      else resolve(stdout);
    });
  });
}
