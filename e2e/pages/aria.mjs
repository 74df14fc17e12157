// What a page is to somebody who hears it, compared with what was kept. What differs from run to run is replaced, and nothing else.

import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { hostname } from "node:os";
import { join } from "node:path";

import { settings } from "./settings.mjs";

const UNIT = "(?:second|minute|hour|day)s?";

/** In this order: what comes later would spoil what comes before. */
const VOLATILE = [
  [/candor-link1:[\w-]+/g, "CODE"],
  [/\b[0-9a-f]{8,}\b/g, "ID"],
  [/(?:[0-9A-F]{4}[ -]){3,}[0-9A-F]{4}/gi, "FINGERPRINT"],
  [/\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d)?)?(?: UTC|Z)?/g, "TIME"],
  [new RegExp(`\\b\\d+ ${UNIT} ago|\\bin \\d+ ${UNIT}|\\bjust now|\\bin a moment`, "g"), "WHEN"],
  [/\b[\d.,]+ (?:B|bytes?|KiB|MiB|GiB)(?![\w])/g, "SIZE"],
  [/\b\d+(?:\.\d+)? m?s\b/g, "DURATION"],
  [/127\.0\.0\.1(?::|%3A)\d+/g, "ADDRESS"],
  [/\b\d{3} ?\d{3}\b/g, "DIGITS"],
  // Each second in which something of the account was published makes one more.
  [/(- term: Entries\n +- definition: )"[1-9]\d*"/g, '$1"COUNT"'],
];

const escaped = (text) => text.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");

function settled(text, isUnordered) {
  let out = text.replaceAll(settings.work, "WORK").replaceAll(encodeURIComponent(settings.work), "WORK");
  out = out.replace(new RegExp(`\\b${escaped(hostname())}\\b`, "g"), "DEVICE");
  for (const [pattern, word] of VOLATILE) out = out.replace(pattern, word);
  return isUnordered ? out.replace(/\b\d+\b/g, "N") : out;
}

/** Lines as a tree by their indentation. */
function parsed(lines) {
  const top = { depth: -1, text: "", children: [] };
  const open = [top];
  for (const line of lines.filter((one) => one.trim() !== "")) {
    const node = { depth: line.search(/\S/), text: line.trim(), children: [] };
    while (open.at(-1).depth >= node.depth) open.pop();
    open.at(-1).children.push(node);
    open.push(node);
  }
  return top;
}

function written(node, depth = 0) {
  const own = node.depth < 0 ? [] : [`${"  ".repeat(depth)}${node.text}`];
  const next = node.depth < 0 ? 0 : depth + 1;
  return [...own, ...node.children.flatMap((child) => written(child, next))];
}

/** Rows that are equal but for what differs from run to run are told once; of how many there are, nothing is known. */
function collapsed(node, isUnordered) {
  for (const child of node.children) collapsed(child, isUnordered);
  const text = (one) => written(one).join("\n");
  const isRow = (one) => /^- (row|listitem)\b/.test(one.text);
  const rows = node.children.filter(isRow);
  if (isUnordered && rows.length > 1) {
    const unique = [...new Map(rows.map((one) => [text(one), one])).values()].sort((a, b) => (text(a) < text(b) ? -1 : 1));
    node.children = [...node.children.filter((one) => !isRow(one)), ...unique];
  }
  return node;
}

/** A snapshot as it is kept. */
export function normalised(snapshot, isUnordered = false) {
  return `${written(collapsed(parsed(settled(snapshot, isUnordered).split("\n")), isUnordered)).join("\n")}\n`;
}

/** Compares a snapshot with the kept one, or keeps it. Returns what is wrong, or nothing. */
export function compareWithKept(name, snapshot, isUnordered) {
  const file = join(settings.aria, `${name}.yml`);
  const text = normalised(snapshot, isUnordered);
  if (settings.rewritesAria) {
    writeFileSync(file, text);
    return [];
  }
  if (!existsSync(file)) return [`there is no kept snapshot ${name}.yml; CANDOR_PAGES_REWRITE=1 keeps one`];
  const kept = readFileSync(file, "utf8");
  return kept === text ? [] : [`it is not what ${name}.yml keeps:\n${difference(kept, text)}`];
}

/** Lines that only one of the two has, by their longest common subsequence. */
function difference(before, after) {
  const [a, b] = [before.split("\n"), after.split("\n")];
  const common = Array.from({ length: a.length + 1 }, () => new Uint32Array(b.length + 1));
  for (let i = a.length - 1; i >= 0; i -= 1) {
    for (let j = b.length - 1; j >= 0; j -= 1) {
      common[i][j] = a[i] === b[j] ? common[i + 1][j + 1] + 1 : Math.max(common[i + 1][j], common[i][j + 1]);
    }
  }
  const out = [];
  for (let i = 0, j = 0; i < a.length || j < b.length; ) {
    if (i < a.length && j < b.length && a[i] === b[j]) [i, j] = [i + 1, j + 1];
    else if (j >= b.length || (i < a.length && common[i + 1][j] >= common[i][j + 1])) out.push(`- ${a[i++]}`);
    else out.push(`+ ${b[j++]}`);
  }
  return out.join("\n");
}
