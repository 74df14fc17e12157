// Homes to begin with.

import assert from "node:assert/strict";
import { mkdirSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";

import { Person, until } from "./daemon.mjs";
import { factsOf } from "./routes.mjs";
import { plant } from "./tree.mjs";

/** An account without anything in it, and a small tree that could be backed up. */
export async function newcomer(name) {
  const person = new Person(name);
  person.documents = plant(join(person.files, "documents"));
  return person.up();
}

/** Everything is on and was used, all of it by the command line. */
export async function inUse(name) {
  const person = await newcomer(name);
  const notes = join(person.files, "notes");
  mkdirSync(notes);
  writeFileSync(join(notes, "list.txt"), "milk\n");
  await person.run("backup", "add", person.documents, "--name", "documents");
  await person.run("consent", "on", "backup", "--yes");
  await person.run("backup", "run", "--all");
  await person.run("backup", "drill");
  // The program keeps it in step by itself from the yes on, and may be quicker than the command that asks.
  await person.attempt("sync", "add", notes, "--name", "notes", "--yes");
  const atRest = async () => {
    const { last_sync_ms: last, syncing } = await person.syncedFolder("notes");
    return !syncing && last;
  };
  const first = await until("the folder is never in step", atRest);
  writeFileSync(join(notes, "list.txt"), "milk and bread\n");
  await until("the change is never in step", async () => (await atRest()) > first);
  await person.run("log", "monitor");
  const found = await person.objects("backup", "find", "to grandma.txt");
  const inside = found.map((one) => one.entry?.path?.text).find(Boolean);
  assert.ok(inside, "the backup does not hold what was backed up");
  const names = { set: "documents", folder: "notes", versioned: join(notes, "list.txt"), inside: dirname(inside) };
  return { person, facts: await factsOf(person, names) };
}

/** A second home that joins the account with a code, given as `candor device link` shows it. */
export function joining(name, code) {
  const second = new Person(name);
  const file = join(second.folder, "code.txt");
  writeFileSync(file, `${code}\n`, { mode: 0o600 });
  return { second, join: second.start("device", "join", `@${file}`, "--unprotected-keys") };
}

/** The six digits that a joining home shows, once it shows them. */
export async function digitsOf(join) {
  const found = await until("the joining home shows no digits", () => {
    assert.equal(join.child.exitCode, null, `device join ended\n${join.said.stderr}`);
    return join.said.stderr.match(/^\s*(\d{3}[ -]?\d{3})\s*$/m);
  });
  return found[1].replace(/\D/g, "");
}

/** Takes a second home in, all of it by the command line. */
export async function linkSecond(person, name) {
  const link = person.start("--json", "device", "link", "--yes");
  const code = await until("no code to link with", () => {
    assert.equal(link.child.exitCode, null, `device link ended\n${link.said.stderr}`);
    const [line, ...more] = link.said.stdout.split("\n");
    return more.length > 0 && JSON.parse(line)["link-code"].code;
  });
  const { second, join: joined } = joining(name, code);
  for (const { ended } of [joined, link]) {
    const { code: exit, stderr } = await ended;
    assert.equal(exit, 0, stderr);
  }
  return second;
}
