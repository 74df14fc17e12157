// Chromium, and everything that a page must not do: messages, errors, violations of its policy, and requests to elsewhere.

import assert from "node:assert/strict";
import { chromium } from "playwright-core";

import { isRoot, settings } from "./settings.mjs";

/** How long a person would wait before they think that it hangs. */
const ACTION_MAX_MS = 20_000;

const browsers = new Set();

/** Starts Chromium. */
export async function launch(...flags) {
  const browser = await chromium.launch({
    executablePath: settings.chromium,
    headless: settings.headless,
    // Chromium refuses to build its sandbox as root.
    args: [...(isRoot ? ["--no-sandbox"] : []), ...flags],
  });
  browsers.add(browser);
  return browser;
}

export async function closeAll() {
  await Promise.all([...browsers].map((browser) => browser.close()));
  browsers.clear();
}

let shared = null;

/** A browser profile of its own, watched: see `Watch`. */
export async function profile(person, options = {}) {
  if (!shared?.isConnected()) shared = await launch();
  const context = await shared.newContext({ viewport: { width: 1280, height: 800 }, locale: "en-GB", timezoneId: "UTC", ...options });
  context.setDefaultTimeout(ACTION_MAX_MS);
  const watch = await Watch.over(context, person.origin());
  return { context, watch };
}

/** The same, let in, with one page open. */
export async function entered(person, options = {}) {
  const { context, watch } = await profile(person, options);
  const page = await context.newPage();
  const response = await page.goto(person.enterAddress());
  assert.equal(response.status(), 200, "the token does not let this browser in");
  return { context, watch, page };
}

/** Collects what must not happen in a profile. */
export class Watch {
  #findings = [];
  #expected = [];

  static async over(context, origin) {
    const watch = new Watch();
    // The listener's words arrive with the other messages of the console.
    await context.addInitScript(() => {
      document.addEventListener("securitypolicyviolation", (event) => {
        console.error(`content security policy: ${event.violatedDirective} ${event.blockedURI} ${event.sourceFile}:${event.lineNumber}`);
      });
    });
    context.on("console", (message) => {
      if (["error", "warning"].includes(message.type())) watch.#add(`console ${message.type()}: ${message.text()} (${message.location().url})`);
    });
    context.on("weberror", (error) => watch.#add(`error of a script: ${error.error().stack ?? error.error()}`));
    context.on("dialog", (dialog) => {
      watch.#add(`a script asks: ${dialog.message()}`);
      void dialog.dismiss();
    });
    context.on("request", (request) => {
      const url = request.url();
      if (url !== "about:blank" && new URL(url).origin !== origin) watch.#add(`a request to elsewhere: ${url}`);
    });
    return watch;
  }

  #add(finding) {
    if (!this.#expected.some((pattern) => pattern.test(finding))) this.#findings.push(finding);
  }

  /** What matches is meant to happen from now on. */
  expectFromNowOn(pattern) {
    this.#expected.push(pattern);
  }

  /** Runs `work`, which is meant to cause findings that match. */
  async expecting(pattern, work) {
    this.#expected.push(pattern);
    try {
      return await work();
    } finally {
      this.#expected.splice(this.#expected.indexOf(pattern), 1);
    }
  }

  /** What was found since the last time. */
  take() {
    return this.#findings.splice(0);
  }

  assertQuiet() {
    assert.deepEqual(this.take(), [], "the pages did what they must not do");
  }
}

/** What Chromium tells about every document whose status is an error. */
export const FAILED_DOCUMENT = /^console error: Failed to load resource: the server responded with a status of (4|5)\d\d/;

/** What it tells while the daemon is away, and htmx of a part that was on its way then. */
export const GONE = /net::ERR_(CONNECTION_REFUSED|CONNECTION_RESET|EMPTY_RESPONSE|INCOMPLETE_CHUNKED_ENCODING|ABORTED)|htmx:error: (Failed to fetch|network error)/;

/** An address with fields. */
export function query(path, fields) {
  const words = new URLSearchParams(Object.entries(fields).filter(([, value]) => value !== undefined));
  return words.size === 0 ? path : `${path}?${words}`;
}
