// The first run, led by the pages: a name, the phrase and some of its words, what to protect, and consent.

import assert from "node:assert/strict";
import { join } from "node:path";

import { entered } from "./browser.mjs";
import { checkPage } from "./checks.mjs";
import { exists, Person } from "./daemon.mjs";
import { assertNoBadNotice, badNotice, perform, row } from "./forms.mjs";
import { plant } from "./tree.mjs";

export const shows = "somebody new is led from nothing to a first backup that is allowed, by pages alone";

export async function run(step, independent) {
  const person = new Person("welcome");
  person.documents = plant(join(person.files, "documents"));
  await step("candor up on a desktop starts a browser with the address that lets it in", async () => {
    assert.equal(await person.upOnADesktop(), person.enterAddress());
  });
  const scene = await entered(person);
  const { page, watch } = scene;
  const origin = person.origin();
  const look = async (name, path) => assert.deepEqual(await checkPage(scene, origin, { name, path }), []);

  await independent("how the first page looks", () => look("welcome", "/welcome"));

  await step("a name, and keys that are protected or not by choice alone", async () => {
    assert.equal(new URL(page.url()).pathname, "/welcome");
    assert.equal(await page.locator("ol.steps > li[aria-current=step]").innerText(), "Name");
    // Neither a passphrase nor the box: there is no default.
    await watch.expecting(/Failed to load resource/, () => perform(page, "/welcome", { name: "me" }));
    assert.ok(await badNotice(page), "the keys are unprotected, and nobody was asked");
    await page.goto(`${origin}/welcome`);
    await perform(page, "/welcome", { name: "me", unprotected: "yes" });
    await page.waitForURL(`${origin}/welcome/phrase`);
  });

  const words = await step("the phrase is shown", async () => {
    const shown = await page.locator("ol.words > li").allInnerTexts();
    assert.equal(shown.length, 24);
    return shown.map((word) => word.trim());
  });

  await step("some of the words are asked back, and wrong ones make no account", async () => {
    await page.getByRole("link", { name: "I have written them down" }).click();
    await page.waitForURL(`${origin}/welcome/words`);
    const asked = page.getByLabel(/^Word \d+$/);
    assert.ok((await asked.count()) > 0, "no word is asked for");
    for (const field of await asked.all()) await field.fill("wrong");
    await watch.expecting(/Failed to load resource/, () => perform(page, "/welcome/words"));
    assert.ok(await badNotice(page), "wrong words are taken");
    assert.ok(!exists(join(person.home, "device.sqlite")), "an account was made with wrong words");
  });

  await independent("how the page that asks for the words looks", async () => {
    // Which words are asked for is drawn anew each time; the kept snapshot forgets numbers.
    assert.deepEqual(await checkPage(scene, origin, { name: "welcome-words", path: "/welcome/words", unordered: true }), []);
  });

  await step("the right words make the account, and its phrase counts as confirmed", async () => {
    await page.goto(`${origin}/welcome/words`);
    for (const field of await page.getByLabel(/^Word \d+$/).all()) {
      const [, place] = (await field.getAttribute("id")).match(/(\d+)$/);
      await field.fill(words[Number(place) - 1]);
    }
    await perform(page, "/welcome/words");
    await page.waitForURL(/\/choose\?/);
    const account = await person.account();
    assert.equal(account.name, "me");
    assert.equal(account.phrase_confirmed, true);
    assert.deepEqual(await person.consents(), []);
  });

  await step("what to protect, and a yes", async () => {
    await page.getByRole("main").getByRole("link", { name: "documents", exact: true }).click();
    await perform(page, "/backups/add", {}, { button: "Back up this folder" });
    await row(page, "documents").waitFor();
    assert.deepEqual(await person.consents(), []);
    await page.goto(`${origin}/services/backup/on`);
    await perform(page, "/services/backup/on", {}, { button: "Yes, switch it on" });
    await assertNoBadNotice(page);
    assert.equal((await person.sets())[0].consent, "on");
  });

  await step("the first pages lead nowhere any more, and the phrase is shown never again", async () => {
    for (const path of ["/welcome", "/welcome/phrase", "/welcome/words"]) {
      await watch.expecting(/Failed to load resource/, () => page.goto(`${origin}${path}`));
      const text = await page.content();
      assert.ok(!text.includes(words.join("</li><li>")) && (await page.locator("ol.words").count()) === 0, `${path} shows the phrase`);
    }
    watch.assertQuiet();
  });
}
