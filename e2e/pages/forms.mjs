// Filling in and sending the forms of the pages, and waiting for what comes of it.

import assert from "node:assert/strict";
import { timed } from "./report.mjs";
import { until } from "./daemon.mjs";

/** Jobs of these tests are small. */
const JOB_MAX_MS = 120_000;

/** The forms that are sent to an address, those in the dialog included. */
export function forms(page, action) {
  return page.locator(`form[action="${action}"], form[action^="${action}?"]`).filter({ visible: true });
}

/** The row of a list or table that has this name in it. */
export function row(page, name) {
  return page.locator("main").locator("li, tr").filter({ has: page.getByText(name, { exact: true }) }).first();
}

/**
 * Does what a form does: finds it by its address, or opens the question that holds it; fills in the fields; sends it. `within`
 * narrows down where it is looked for, `without` names a field that it must not have, `button` says which button.
 */
export async function perform(page, action, fields = {}, { within = page, without, button, label } = {}) {
  return timed(label ?? `POST ${action}`, async () => {
    // What was clicked before may still be on its way.
    await page.waitForLoadState();
    const form = await found(page, within, action, fields, without);
    await fill(form, fields);
    const chosen = button ? form.getByRole("button", { name: button, exact: true }) : await buttonOf(form, fields);
    const [response] = await Promise.all([
      page.waitForResponse((one) => one.request().method() === "POST" && new URL(one.url()).pathname === action),
      page.waitForEvent("domcontentloaded"),
      chosen.click(),
    ]);
    await page.waitForLoadState();
    return response;
  });
}

/** The form among several whose hidden fields are what is asked for. */
async function found(page, within, action, fields, without) {
  let candidates = forms(within, action);
  if ((await candidates.count()) === 0) {
    await within.locator(`a[href="${action}"], a[href^="${action}?"]`).filter({ visible: true }).first().click();
    candidates = forms(page, action);
    await candidates.first().waitFor();
  }
  for (const form of await candidates.all()) {
    const mustNot = without && (await form.locator(`[name="${without}"]`).count()) > 0;
    if (!mustNot && (await fits(form, fields))) return form;
  }
  assert.fail(`no form of ${page.url()} goes to ${action} with ${JSON.stringify(fields)}`);
}

/** The button that says one of the fields itself, or the last one. */
async function buttonOf(form, fields) {
  for (const [name, value] of Object.entries(fields)) {
    const one = form.locator(`button[name="${name}"][value="${value}"]`);
    if ((await one.count()) > 0) return one;
  }
  return form.locator("button:not([type=button])").last();
}

async function fits(form, fields) {
  for (const [name, value] of Object.entries(fields)) {
    const hidden = form.locator(`input[type=hidden][name="${name}"]`);
    const values = await hidden.evaluateAll((inputs) => inputs.map((input) => input.value));
    if (values.length > 0 && !values.includes(value)) return false;
    const buttons = form.locator(`button[name="${name}"]`);
    if (values.length === 0 && (await form.locator(`[name="${name}"]`).count()) === 0 && (await buttons.count()) === 0) return false;
  }
  return true;
}

async function fill(form, fields) {
  for (const [name, value] of Object.entries(fields)) {
    const control = form.locator(`[name="${name}"]`).first();
    const kind = await control.evaluate((one) => (one.type ?? one.localName).toLowerCase());
    if (kind === "hidden" || kind === "submit") continue;
    // What is one click deeper is opened first, as a person would.
    const deeper = form.locator("details:not([open])").filter({ has: form.page().locator(`[name="${name}"]`) }).locator("summary");
    if ((await deeper.count()) > 0) await deeper.first().click();
    if (kind === "radio") await form.locator(`input[name="${name}"][value="${value}"]`).check();
    else if (kind === "checkbox") await form.locator(`input[name="${name}"]`).first().setChecked(value === "yes");
    else if (kind.startsWith("select")) await control.selectOption(value);
    else await control.fill(value);
  }
}

/** Whether the open page says that something went wrong. */
export async function badNotice(page) {
  const bad = page.locator(".notice.bad").filter({ visible: true });
  return (await bad.count()) > 0 ? (await bad.first().innerText()) : null;
}

export async function assertNoBadNotice(page) {
  assert.equal(await badNotice(page), null, `${page.url()} says that something failed`);
}

/** Waits on the open page, which is not loaded anew, until no job is at work any more. */
export async function jobsEnd(page, maxMs = JOB_MAX_MS) {
  // A page that is not there yet has no jobs either.
  await page.waitForLoadState();
  const atWork = page.locator(".jobs .job").filter({ has: page.locator("progress, button:has-text('Stop')") });
  await until(`a job of ${page.url()} does not end`, async () => (await atWork.count()) === 0, maxMs);
}

/** From now on, notes on every page of a profile whether a job with its progress was ever shown. */
export async function noteProgress(context) {
  await context.addInitScript(() => {
    const look = () => {
      if (document.querySelector(".jobs .job progress")) sessionStorage.setItem("progress", "seen");
    };
    new MutationObserver(look).observe(document, { childList: true, subtree: true });
    addEventListener("DOMContentLoaded", look);
  });
}

export const sawProgress = (page) => page.evaluate(() => sessionStorage.getItem("progress") === "seen");

/** Opens the question behind a link, and waits until it stands above the page. */
export async function openQuestion(page, link) {
  return timed(`question ${await link.getAttribute("href")}`, async () => {
    await link.click();
    const dialog = page.locator("dialog#dialog");
    await dialog.locator(".ask").waitFor();
    assert.ok(await dialog.evaluate((one) => one.open && one.matches(":modal")), "the question does not stand above the page");
    return dialog;
  });
}

/**
 * What has the focus, as a person would call it. A browser gives it to what asks for it (`autofocus`) with the first frame that it
 * draws, which may come after the page has loaded.
 */
export const focused = (page) => until(`nothing of ${page.url()} has the focus`, () => page.evaluate(() => {
  const active = document.activeElement;
  return active && active !== document.body ? active.textContent.trim() || active.localName : null;
}));
