// The program itself: homes, its command line, and a running `candor up`.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { createWriteStream, mkdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { request } from "node:http";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";

import { settings } from "./settings.mjs";

/** A daemon makes keys, a cell and an account before it answers. */
const START_MAX_MS = 60_000;
const STOP_MAX_MS = 20_000;
const COMMAND_MAX_MS = 120_000;

const running = new Set();

/** Ends what was started, whatever happened. */
export async function stopAll() {
  await Promise.all([...running].map((child) => end(child)));
}

async function end(child) {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const ended = new Promise((resolve) => child.once("exit", resolve));
  child.kill("SIGTERM");
  const force = setTimeout(() => child.kill("SIGKILL"), STOP_MAX_MS);
  await ended;
  clearTimeout(force);
}

/** Waits until `look` returns something true, and fails with `what` if it never does. */
export async function until(what, look, maxMs = 30_000) {
  const started = performance.now();
  for (;;) {
    const found = await look();
    if (found) return found;
    if (performance.now() - started > maxMs) throw new Error(`after ${maxMs / 1000} s: ${what}`);
    await sleep(100);
  }
}

/** One person with one home, in a folder of their own. */
export class Person {
  constructor(name) {
    this.folder = join(settings.work, name);
    // Short names: the path of a Unix socket has little more than 100 bytes.
    this.home = join(this.folder, "h");
    this.files = join(this.folder, "files");
    this.phrase = join(this.folder, "phrase.txt");
    mkdirSync(this.files, { recursive: true });
    this.child = null;
  }

  #spawn(words, log, environment = {}) {
    const child = spawn(settings.program, ["--home", this.home, ...words], {
      stdio: ["ignore", "pipe", "pipe"],
      env: { PATH: process.env.PATH, HOME: this.files, NO_COLOR: "1", LANG: "C.UTF-8", ...environment },
    });
    running.add(child);
    child.once("exit", () => running.delete(child));
    if (log) {
      const file = createWriteStream(join(this.folder, log), { flags: "a" });
      child.stdout.pipe(file, { end: false });
      child.stderr.pipe(file, { end: false });
    }
    return child;
  }

  /** Starts a command and returns it with what it says, as it says it. */
  start(...words) {
    const child = this.#spawn(words);
    const said = { stdout: "", stderr: "" };
    child.stdout.setEncoding("utf8").on("data", (text) => (said.stdout += text));
    child.stderr.setEncoding("utf8").on("data", (text) => (said.stderr += text));
    const ended = new Promise((resolve, reject) => {
      child.once("error", reject);
      child.once("close", (code, signal) => resolve({ code: code ?? signal, ...said }));
    });
    return { child, said, ended };
  }

  /** Runs a command and returns how it ended, whatever that was. */
  async attempt(...words) {
    const { child, ended } = this.start(...words);
    const late = setTimeout(() => child.kill("SIGKILL"), COMMAND_MAX_MS);
    try {
      return await ended;
    } finally {
      clearTimeout(late);
    }
  }

  /** Runs a command that has to succeed, and returns what it printed. */
  async run(...words) {
    const { code, stdout, stderr } = await this.attempt(...words);
    assert.equal(code, 0, `candor ${words.join(" ")} ended with ${code}\n${stdout}${stderr}`);
    return stdout;
  }

  /** The same with `--json`: the objects that it printed. */
  async objects(...words) {
    const lines = (await this.run("--json", ...words)).split("\n").filter((line) => line !== "");
    return lines.map((line) => JSON.parse(line));
  }

  /** The one thing of that name among them. */
  async view(field, ...words) {
    const found = (await this.objects(...words)).find((object) => Object.hasOwn(object, field));
    assert.ok(found, `candor ${words.join(" ")} told no ${field}`);
    return found[field];
  }

  sets() {
    return this.view("sets", "backup", "list");
  }

  async set(name) {
    return (await this.sets()).find((set) => set.name === name);
  }

  folders() {
    return this.view("folders", "sync", "status");
  }

  async syncedFolder(name) {
    return (await this.folders()).find((folder) => folder.name === name);
  }

  consents() {
    return this.view("consents", "consent", "list");
  }

  devices() {
    return this.view("devices", "device", "list");
  }

  account() {
    return this.view("account", "account", "show");
  }

  async ledger() {
    const objects = await this.objects("ledger");
    return objects.filter((object) => "ledger-line" in object).map((object) => object["ledger-line"]);
  }

  /** What a stranger's request must not change: nothing of it changes by itself. */
  async standing() {
    const pick = (views, ...names) => views.map((view) => Object.fromEntries(names.map((name) => [name, view[name]])));
    return {
      consents: pick(await this.consents(), "id", "service", "set", "state"),
      sets: pick(await this.sets(), "name", "paths", "excludes", "consent"),
      folders: pick(await this.folders(), "name", "path", "consent", "paused"),
      devices: pick(await this.devices(), "device", "name", "role", "revoked_ms"),
      phraseConfirmed: (await this.account()).phrase_confirmed,
      // How many browsers are in, and who comes in next.
      entry: this.entry(),
    };
  }

  /** Starts `candor up` and waits until its pages answer. The first time it makes the account. */
  async up() {
    const isNew = !exists(join(this.home, "keys"));
    const first = isNew ? ["--recovery-file", this.phrase, "--unprotected-keys"] : [];
    return this.#answering(this.#spawn(["up", "--no-open", ...first], "daemon.log"));
  }

  /** The same as on a desktop, where the pages lead somebody new. Returns the address that the browser is started with. */
  async upOnADesktop() {
    const [browser, told] = ["browser", "address"].map((name) => join(this.folder, name));
    // In one piece, so that no half of it is read.
    writeFileSync(browser, `#!/bin/sh\nprintf '%s' "$1" >'${told}.part' && mv '${told}.part' '${told}'\n`, { mode: 0o700 });
    await this.#answering(this.#spawn(["up"], "daemon.log", { DISPLAY: ":0", BROWSER: browser }));
    await until("no browser was started", () => exists(told));
    return readFileSync(told, "utf8");
  }

  async #answering(child) {
    this.child = child;
    await until(
      `the pages of ${this.home} do not answer; see daemon.log`,
      async () => {
        assert.equal(child.exitCode ?? child.signalCode, null, `candor up ended\n${this.log()}`);
        return exists(join(this.home, "pages")) && this.entry().port > 0 && (await answers(this.entry().port));
      },
      START_MAX_MS,
    );
    return this;
  }

  log() {
    return exists(join(this.folder, "daemon.log")) ? readFileSync(join(this.folder, "daemon.log"), "utf8") : "";
  }

  /** Asks the daemon to end, and returns its exit code. */
  async down() {
    await end(this.child);
    return this.child.exitCode;
  }

  /** Ends it as a loss of power would. */
  async kill() {
    const ended = new Promise((resolve) => this.child.once("exit", resolve));
    this.child.kill("SIGKILL");
    await ended;
  }

  /** What lets browsers in: port, token and keys. */
  entry() {
    return JSON.parse(readFileSync(join(this.home, "pages"), "utf8"));
  }

  entryMode() {
    return statSync(join(this.home, "pages")).mode & 0o7777;
  }

  origin() {
    return `http://127.0.0.1:${this.entry().port}`;
  }

  enterAddress() {
    return `${this.origin()}/enter?token=${this.entry().token}`;
  }

  words() {
    // Numbers before the words, if there are any, are no part of the phrase.
    const words = readFileSync(this.phrase, "utf8").match(/[a-z]+/g) ?? [];
    assert.equal(words.length, 24, "the recovery file does not hold 24 words");
    return words.join(" ");
  }
}

export function exists(path) {
  try {
    statSync(path);
    return true;
  } catch {
    return false;
  }
}

function answers(port) {
  return new Promise((resolve) => {
    const asked = request({ host: "127.0.0.1", port, path: "/", agent: false }, (response) => {
      response.resume();
      response.once("end", () => resolve(response.statusCode === 403));
    });
    asked.once("error", () => resolve(false));
    asked.end();
  });
}
