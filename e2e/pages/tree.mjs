// The folders that are backed up, and the comparison of what came back. Names are bytes on Linux, so they are handled as bytes.

import { createHash, randomBytes } from "node:crypto";
import { chmodSync, lstatSync, mkdirSync, readFileSync, readdirSync, readlinkSync, symlinkSync, writeFileSync } from "node:fs";
import assert from "node:assert/strict";

const SEPARATOR = Buffer.from("/");

/** Names that a page must show as text, whatever they look like. */
export const HOSTILE_NAME = `<img src=x onerror="document.title='broken'">&amp;.txt`;
const TURNING_NAME = "invoice\u202Efdp.exe";

/** A path of bytes below another. */
export const below = (folder, name) => Buffer.concat([Buffer.from(folder), SEPARATOR, Buffer.from(name)]);

/** Makes a small tree of every kind that is common, and of names that are awkward on a page. */
export function plant(folder) {
  mkdirSync(`${folder}/letters/old`, { recursive: true });
  mkdirSync(`${folder}/empty`);
  writeFileSync(`${folder}/marker.txt`, `marker of ${folder}\n`);
  writeFileSync(`${folder}/letters/to grandma.txt`, "Dear grandma,\n");
  writeFileSync(`${folder}/letters/old/Grüße ✓.txt`, "Grüße\n");
  writeFileSync(`${folder}/letters/nothing`, "");
  writeFileSync(`${folder}/numbers.bin`, randomBytes(3 << 20));
  writeFileSync(`${folder}/private`, "for one person\n");
  chmodSync(`${folder}/private`, 0o600);
  writeFileSync(`${folder}/${HOSTILE_NAME.replaceAll("/", "-")}`, "hostile\n");
  writeFileSync(`${folder}/${TURNING_NAME}`, "turned\n");
  // No text in any encoding that this system uses.
  writeFileSync(below(folder, Buffer.from("caf\xe9.txt", "latin1")), "latin\n");
  symlinkSync("letters/to grandma.txt", `${folder}/link`);
  return folder;
}

/** A file that takes a while to read, and is like nothing else. */
export function plantLarge(file, mebibytes) {
  writeFileSync(file, randomBytes(0));
  for (let count = 0; count < mebibytes; count += 16) writeFileSync(file, randomBytes(16 << 20), { flag: "a" });
}

/** Path (in hex) to kind, mode and content of everything below a folder. */
export function described(folder, prefix = Buffer.alloc(0), found = new Map()) {
  const here = prefix.length === 0 ? Buffer.from(folder) : below(folder, prefix);
  for (const name of readdirSync(here, { encoding: "buffer" }).sort(Buffer.compare)) {
    const path = prefix.length === 0 ? name : Buffer.concat([prefix, SEPARATOR, name]);
    const full = below(folder, path);
    const status = lstatSync(full);
    found.set(path.toString("hex"), describedOne(full, status));
    if (status.isDirectory()) described(folder, path, found);
  }
  return found;
}

function describedOne(full, status) {
  const mode = (status.mode & 0o7777).toString(8);
  if (status.isSymbolicLink()) return `link to ${readlinkSync(full, { encoding: "buffer" }).toString("hex")}`;
  if (status.isDirectory()) return `folder ${mode}`;
  return `file ${mode} ${status.size} ${createHash("sha256").update(readFileSync(full)).digest("hex")}`;
}

/** Fails unless both hold the same, byte for byte. */
export function assertSameTree(actual, expected) {
  const wanted = described(expected);
  assert.ok(wanted.size > 0, `${expected} holds nothing to compare with`);
  const names = (map) => [...map].map(([name, what]) => `${Buffer.from(name, "hex").toString("latin1")} ${what}`);
  assert.deepEqual(names(described(actual)), names(wanted), `${actual} is not the same as ${expected}`);
}

/** Where a restored copy of `source` lies below `folder`: the one place that holds its marker. */
export function restoredCopy(folder, source) {
  const marker = readFileSync(`${source}/marker.txt`);
  const places = [];
  const look = (place) => {
    for (const entry of readdirSync(place, { withFileTypes: true, encoding: "buffer" })) {
      const path = below(place, entry.name);
      if (entry.isDirectory()) look(path);
      else if (entry.isFile() && entry.name.equals(Buffer.from("marker.txt")) && readFileSync(path).equals(marker)) places.push(place);
    }
  };
  look(Buffer.from(folder));
  assert.equal(places.length, 1, `${folder} holds ${places.length} copies of ${source}`);
  return places[0].toString();
}
