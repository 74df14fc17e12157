// Runs the parts that are named, or all of them. Exits with 0 only if every step passed.

import { finish, part } from "./report.mjs";
import { stopAll } from "./daemon.mjs";
import { closeAll } from "./browser.mjs";
import * as entering from "./part-entering.mjs";
import * as welcome from "./part-welcome.mjs";
import * as backups from "./part-backups.mjs";
import * as folders from "./part-folders.mjs";
import * as devices from "./part-devices.mjs";
import * as records from "./part-records.mjs";
import * as settingsPart from "./part-settings.mjs";
import * as looks from "./part-looks.mjs";
import * as live from "./part-live.mjs";
import * as noScripts from "./part-no-scripts.mjs";
import * as requests from "./part-requests.mjs";
import * as sites from "./part-sites.mjs";

const PARTS = {
  entering,
  welcome,
  backups,
  folders,
  devices,
  records,
  settings: settingsPart,
  looks,
  live,
  "no-scripts": noScripts,
  requests,
  sites,
};

const wanted = process.argv.slice(2);
const unknown = wanted.filter((name) => !Object.hasOwn(PARTS, name));
if (unknown.length > 0) {
  console.error(`no such part: ${unknown.join(", ")}; there are ${Object.keys(PARTS).join(", ")}`);
  process.exit(2);
}

for (const signal of ["SIGINT", "SIGTERM"]) {
  process.on(signal, async () => {
    await stopAll();
    process.exit(1);
  });
}

for (const [name, { shows, run }] of Object.entries(PARTS)) {
  if (wanted.length > 0 && !wanted.includes(name)) continue;
  await part(`${name}: ${shows}`, run);
  await closeAll();
  await stopAll();
}
process.exit(finish() ? 0 : 1);
