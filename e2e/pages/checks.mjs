// What holds for every page: each check returns its findings, so that one run tells all of them.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";

import { compareWithKept } from "./aria.mjs";
import { took } from "./report.mjs";
import { settings } from "./settings.mjs";

/** A page with everything it needs, before images. */
const PAGE_MAX_BYTES = 64 << 10;
const NARROW = { width: 360, height: 740 };
const WIDE = { width: 1280, height: 800 };
const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const AXE_TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"];

/** Everything, on a page that is opened anew. */
export async function checkPage({ context, watch }, origin, { name, path, unordered, status = 200 }) {
  const page = await context.newPage();
  try {
    const findings = await checkWeight(page, `${origin}${path}`, name, status);
    if (findings.length > 0 && (await page.locator("main, h1").count()) === 0) return findings;
    // What is looked for is found.
    await page.locator('[data-live^="found-"] progress').waitFor({ state: "detached" });
    findings.push(...(await checkHeadings(page)));
    findings.push(...compareWithKept(name, await page.locator("body").ariaSnapshot(), unordered));
    findings.push(...(await checkLook(page, name)));
    await page.setViewportSize(WIDE);
    findings.push(...(await checkKeyboard(page)));
    return [...findings, ...watch.take()];
  } finally {
    await page.close();
  }
}

/** Opens the page without a cache, weighs what came, and notes when there was something to see. */
async function checkWeight(page, url, name, status) {
  const session = await page.context().newCDPSession(page);
  await session.send("Network.enable");
  await session.send("Network.setCacheDisabled", { cacheDisabled: true });
  const kinds = new Map();
  let bytes = 0;
  session.on("Network.responseReceived", (event) => kinds.set(event.requestId, event.type));
  session.on("Network.loadingFinished", (event) => {
    if (kinds.get(event.requestId) !== "Image") bytes += event.encodedDataLength;
  });
  const response = await page.goto(url, { waitUntil: "load" });
  const findings = response.status() === status ? [] : [`it answers with ${response.status()} instead of ${status}`];
  const paint = await page.waitForFunction(() => performance.getEntriesByName("first-contentful-paint")[0]?.startTime);
  took(`first paint of ${name}`, await paint.jsonValue());
  await session.detach();
  if (bytes === 0) findings.push("nothing of it was weighed");
  if (bytes > PAGE_MAX_BYTES) findings.push(`it weighs ${bytes} bytes, more than ${PAGE_MAX_BYTES}`);
  return findings;
}

async function checkHeadings(page) {
  const count = await page.getByRole("heading", { level: 1 }).count();
  const language = await page.locator("html").getAttribute("lang");
  return [...(count === 1 ? [] : [`it has ${count} first headings`]), ...(language === "en" ? [] : ["it does not say its language"])];
}

/** Light, dark and narrow: a picture of each, and what can be measured. */
async function checkLook(page, name) {
  const findings = [];
  const picture = (kind) => page.screenshot({ path: join(settings.screenshots, `${name}-${kind}.png`), fullPage: true });
  await page.setViewportSize(WIDE);
  for (const colorScheme of ["light", "dark"]) {
    await page.emulateMedia({ colorScheme, reducedMotion: "reduce" });
    await picture(colorScheme);
    findings.push(...(await checkAxe(page)).map((finding) => `${colorScheme}: ${finding}`));
  }
  await page.emulateMedia({ colorScheme: "light", reducedMotion: "reduce" });
  await page.setViewportSize(NARROW);
  await picture("360");
  findings.push(...(await checkNarrow(page)));
  findings.push(...(await checkAxe(page)).map((finding) => `narrow: ${finding}`));
  return findings;
}

/** What axe finds against WCAG 2.1 A and AA and good practice. */
export async function checkAxe(page) {
  // Evaluated from outside, so that the page's policy needs no exception for it.
  await page.evaluate(AXE);
  const violations = await page.evaluate(async (tags) => {
    const results = await window.axe.run(document, { runOnly: tags, resultTypes: ["violations"] });
    return results.violations.map(({ id, help, nodes }) => ({ id, help, where: nodes.map((node) => `${node.target.join(" ")}: ${node.failureSummary}`) }));
  }, AXE_TAGS);
  return violations.map(({ id, help, where }) => `axe ${id}: ${help}\n  ${where.join("\n  ").replaceAll("\n", "\n  ")}`);
}

async function checkNarrow(page) {
  const { width, culprits } = await page.evaluate((max) => {
    // What scrolls inside a box of its own does not make the page scroll.
    const isBoxed = (one) => {
      for (let box = one.parentElement; box; box = box.parentElement) {
        if (box !== document.documentElement && box !== document.body && getComputedStyle(box).overflowX !== "visible") return true;
      }
      return false;
    };
    const wide = [...document.body.querySelectorAll("*")].filter((one) => one.getBoundingClientRect().right > max + 0.5 && !isBoxed(one));
    const named = wide.map((one) => `${one.localName}${one.className?.baseVal === undefined && one.className ? `.${one.className}` : ""} ${one.textContent.trim().slice(0, 40)}`);
    return { width: document.documentElement.scrollWidth, culprits: named.slice(0, 5) };
  }, NARROW.width);
  return width <= NARROW.width ? [] : [`at ${NARROW.width} pixels it is ${width} wide: ${culprits.join("; ")}`];
}

/** Tab reaches everything that can be used, in the order in which it stands, and shows where it is. */
export async function checkKeyboard(page, root = "body") {
  const stops = await page.evaluateHandle(collectStops, root);
  const names = await stops.evaluate((all) => all.map((stop) => stop.name));
  if (names.length === 0) return ["nothing on it can be reached with the keyboard"];
  // Once around, whatever else scrolls, and one more to see that it begins anew.
  const most = names.length * 2 + 10;
  const reached = [];
  const findings = [];
  for (let count = 0; count < most; count += 1) {
    await page.keyboard.press("Tab");
    const at = await stops.evaluate(lookAtFocus);
    if (at.kind === "nowhere") continue;
    if (at.kind === "other") {
      if (!at.scrolls) findings.push(`Tab reaches what cannot be used: ${at.name}`);
      continue;
    }
    if (reached.includes(at.index)) break;
    reached.push(at.index);
    if (!at.isVisible) findings.push(`the focus cannot be seen on: ${names[at.index]}`);
  }
  // Only autofocus makes the round begin somewhere else.
  const mayRotate = (await page.locator(`${root} [autofocus]`).count()) > 0;
  const start = mayRotate ? (reached[0] ?? 0) : 0;
  const wanted = names.map((_, index) => (start + index) % names.length);
  if (JSON.stringify(reached) !== JSON.stringify(wanted)) {
    const words = (list) => list.map((index) => names[index]).join(" | ");
    findings.push(`Tab goes\n  ${words(reached)}\ninstead of\n  ${words(wanted)}`);
  }
  return findings;
}

/** Runs in the page: what Tab has to reach, with how it looks while it has no focus. */
function collectStops(root) {
  document.activeElement?.blur();
  const usable = "a[href], button, input:not([type=hidden]), select, textarea, summary, [tabindex='0']";
  const looks = (one) => {
    const style = getComputedStyle(one);
    const outline = style.outlineStyle !== "none" && parseFloat(style.outlineWidth) > 0;
    return `${outline ? `${style.outlineStyle} ${style.outlineWidth} ${style.outlineColor}` : "none"} / ${style.boxShadow}`;
  };
  const isUsable = (one) => !one.disabled && one.tabIndex >= 0 && one.checkVisibility({ visibilityProperty: true });
  // Of radio buttons with one name, Tab reaches the chosen one, or the first.
  const isReached = (one) => {
    if (one.type !== "radio") return true;
    const group = [...document.querySelectorAll("input[type=radio]")].filter((other) => other.name === one.name && other.form === one.form);
    const chosen = group.find((other) => other.checked);
    return one === (chosen ?? group[0]);
  };
  const all = [...document.querySelector(root).querySelectorAll(usable)].filter((one) => isUsable(one) && isReached(one));
  return all.map((one) => ({
    one,
    looks,
    before: looks(one),
    name: `${one.localName} "${(one.getAttribute("aria-label") ?? one.innerText ?? one.name ?? "").trim().slice(0, 40) || one.name || ""}"`,
  }));
}

/** Runs in the page: which of the stops has the focus, and whether that can be seen. */
function lookAtFocus(stops) {
  const active = document.activeElement;
  if (!active || active === document.body || active === document.documentElement) return { kind: "nowhere" };
  const index = stops.findIndex((stop) => stop.one === active);
  if (index < 0) {
    const scrolls = active.scrollWidth > active.clientWidth || active.scrollHeight > active.clientHeight;
    return { kind: "other", scrolls, name: active.outerHTML.slice(0, 80) };
  }
  const { before, looks } = stops[index];
  const now = looks(active);
  return { kind: "stop", index, isVisible: now !== before && now !== "none / none" };
}
