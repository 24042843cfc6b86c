// A machine at work, saved whole once and then only what has changed; the chain is loaded, and made one checkpoint.
//   node increments.mjs [FOLDER]      where the checkpoints go; default: a new temporary folder
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { flattenCheckpoint, loadVm, saveVm } from 'chkpt';
import { SyntheticVm } from 'chkpt/synthetic';

const folder = process.argv[2] ?? (await mkdtemp(join(tmpdir(), 'chkpt-increments-')));
const at = (number) => `file:${join(folder, `${number}.chkpt`)}`;
const options = {
  memoryBytes: 64 << 20,
  guestLike: true,
  pagesPerSecond: 5000,
  writePages: { first: 0, count: 1000 },
};
const vm = await SyntheticVm.create(options);
const copy = await SyntheticVm.create(options);

// From here on the machine knows which pages were written.
const tracker = vm.trackChanges();
console.log(`changes are tracked by ${tracker.kind}: ${tracker.reason}`);

const base = await saveVm(vm, at(0));
console.log(`base: ${base.memoryBytes / 4096} pages, ${base.checkpointBytes} bytes`);
await vm.resume();
for (let number = 1; number <= 3; number += 1) {
  await sleep(100);
  // Only the pages that were written since the one before are read, compressed and stored.
  const { totals, checkpointBytes, pausedMs } = await saveVm(vm, at(number), { parent: at(number - 1) });
  const changed = totals.pages - totals.parentPages;
  console.log(
    `increment ${number}: ${changed} pages, ${checkpointBytes} bytes, stood still for ${pausedMs.toFixed(1)} ms`,
  );
}
await vm.pause();
await saveVm(vm, at(4), { parent: at(3) });

// A load of the newest finds its parents by itself, and writes each page once.
const { parents } = await loadVm(copy, at(4));
const isEqual = (await copy.digest()) === (await vm.digest());
console.log(`loaded from a chain of ${parents.length + 1}: ${isEqual ? 'equal' : 'NOT EQUAL'}`);

// Lazily: the guest runs at once, and a page comes when it is touched.
const { lazy } = await loadVm(copy, at(4), { lazy: true });
if (lazy.active) await lazy.load.resident;
console.log(lazy.active ? 'loaded lazily as well' : `not loaded lazily: ${lazy.reason}`);

// The chain as one checkpoint, in the place of its newest member; the others may go.
const flat = await flattenCheckpoint(at(4), at(4));
for (const number of [0, 1, 2, 3]) await rm(at(number).slice('file:'.length));
await loadVm(copy, at(4));
const isStillEqual = (await copy.digest()) === (await vm.digest());
console.log(`flattened ${flat.members} into one: ${isStillEqual ? 'equal' : 'NOT EQUAL'}`);
await vm.close();
await copy.close();
if (process.argv[2] === undefined) await rm(folder, { recursive: true });
process.exitCode = isEqual && isStillEqual ? 0 : 1;
