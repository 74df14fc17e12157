// Every page as people with and without eyes, a mouse, a wide screen or a fast line get it.

import assert from "node:assert/strict";
import { join } from "node:path";

import { compareWithKept } from "./aria.mjs";
import { entered, FAILED_DOCUMENT, profile } from "./browser.mjs";
import { checkAxe, checkPage } from "./checks.mjs";
import { openQuestion, perform } from "./forms.mjs";
import { factsOf, PAGES } from "./routes.mjs";
import { inUse, linkSecond, newcomer } from "./scenes.mjs";
import { settings } from "./settings.mjs";

export const shows = "axe, what a screen reader is told, Tab, 360 pixels, light and dark, weight, and a quiet console, on every page";

/** Pages that look otherwise while there is nothing on them. */
const EMPTY = ["home", "backup-on", "sync-on", "backups", "folders", "consent", "devices", "ledger", "log", "settings", "choose-backup", "stop", "delete"];

const assertNothing = (findings) => assert.equal(findings.length, 0, `${findings.length} findings\n- ${findings.join("\n- ")}`);

export async function run(step, independent) {
  const fresh = await step("a home with nothing in it", () => newcomer("looks-empty"));
  const empty = await entered(fresh);
  for (const route of PAGES.filter((page) => EMPTY.includes(page.name))) {
    const name = `empty-${route.name}`;
    await independent(name, async () => assertNothing(await checkPage(empty, fresh.origin(), { ...route, name, path: route.path({ files: fresh.files }) })));
  }

  const { person, facts } = await step("a home that is in use", () => inUse("looks"));
  await linkSecond(person, "looks-second");
  const used = await entered(person);
  const { set, folder, versioned, inside } = facts;
  const current = await factsOf(person, { set, folder, versioned, inside });
  await used.page.goto(`${person.origin()}/devices`);
  await perform(used.page, "/devices/link", { role: "full" });
  await used.page.goto(`${person.origin()}/`);
  for (const route of PAGES) {
    const page = { ...route, path: route.path(current) };
    await independent(route.name, async () => assertNothing(await checkPage(used, person.origin(), page)));
  }

  await independent("a page that is not there", async () => {
    const page = { name: "missing", path: "/no-such-page", status: 404 };
    assertNothing(await used.watch.expecting(FAILED_DOCUMENT, () => checkPage(used, person.origin(), page)));
  });

  await independent("a browser that is not let in", async () => {
    const stranger = await profile(person);
    const page = { name: "refused", path: "/", status: 403 };
    const findings = await stranger.watch.expecting(FAILED_DOCUMENT, () => checkPage(stranger, person.origin(), page));
    // It loads nothing and links to nothing: there is nothing to reach.
    assertNothing(findings.filter((finding) => finding !== "nothing on it can be reached with the keyboard"));
  });

  for (const colorScheme of ["light", "dark"]) {
    await independent(`a question above a page, ${colorScheme}`, async () => {
      await used.page.emulateMedia({ colorScheme });
      await used.page.goto(`${person.origin()}/`);
      await openQuestion(used.page, used.page.getByRole("link", { name: "Backup is on. Switch it off" }));
      await used.page.screenshot({ path: join(settings.screenshots, `question-${colorScheme}.png`) });
      const snapshot = await used.page.locator("dialog#dialog").ariaSnapshot();
      assertNothing([...(await checkAxe(used.page)), ...compareWithKept("question", snapshot), ...used.watch.take()]);
    });
  }
}
