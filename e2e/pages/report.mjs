// Parts and their steps: run one after another, told as they end, and summed up. A step that fails ends its part, because the
// steps after it build on it; the other parts still run.

import { inspect } from "node:util";

const failures = [];
const times = [];
let passed = 0;
let skipped = 0;

/** A step cannot be tried here. It is told, and never counts as passed. */
export class Skip extends Error {}

const seconds = (ms) => `${(ms / 1000).toFixed(1)} s`;

/** Runs one part. `body` gets the function that runs a step. */
export async function part(name, body) {
  console.log(`\n== ${name}`);
  let where = "its beginning";
  const step = async (title, work) => {
    where = title;
    const started = performance.now();
    try {
      const result = await work();
      passed += 1;
      console.log(`  ok    ${title} (${seconds(performance.now() - started)})`);
      where = `what comes after "${title}"`;
      return result;
    } catch (error) {
      if (!(error instanceof Skip)) throw error;
      skipped += 1;
      console.log(`  skip  ${title}: ${error.message}`);
      return undefined;
    }
  };
  // Where steps do not build on each other, all of them are to be seen failing.
  const independent = async (title, work) => {
    try {
      return await step(title, work);
    } catch (error) {
      fail(name, title, error);
      return undefined;
    }
  };
  try {
    await body(step, independent);
  } catch (error) {
    fail(name, where, error);
  }
}

function fail(name, title, error) {
  const text = error instanceof Error ? (error.stack ?? error.message) : inspect(error);
  console.log(`  FAIL  ${title}\n${text.replace(/^/gm, "        ")}`);
  failures.push(`${name}: ${title}`);
}

/** Measures something a person waits for. Told at the end, and never a reason to fail. */
export async function timed(name, work) {
  const started = performance.now();
  const result = await work();
  took(name, performance.now() - started);
  return result;
}

/** Notes a time that was measured elsewhere, in milliseconds. */
export function took(name, ms) {
  times.push([name, ms]);
}

/** Prints the times and the sum, and says whether everything passed. */
export function finish() {
  const width = Math.max(0, ...times.map(([name]) => name.length));
  console.log("\n== times (not judged)");
  for (const [name, ms] of times) console.log(`  ${name.padEnd(width)} ${ms.toFixed(0).padStart(7)} ms`);
  console.log(`\n${passed} steps passed, ${skipped} skipped, ${failures.length} failed`);
  for (const failure of failures) console.log(`  FAILED ${failure}`);
  // Nothing done is no success.
  return failures.length === 0 && passed > 0;
}
