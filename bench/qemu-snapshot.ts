/**
 * How long a guest stands still for a live save, beside QEMU's background-snapshot of a guest with as much memory.
 *
 *   npm run bench:snapshot -- [--runs N] [--scratch FOLDER]
 *
 * QEMU: a Debian of 2 GiB that has worked, from its event STOP to RESUME. chkpt: memory of 2 GiB like that of a guest, in which a thread writes
 * 20,000 pages a second; `pausedMs` of `saveVm` with `live`, in huge pages and in pages of 4 KiB. Both write to the same tmpfs.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { performance } from 'node:perf_hooks';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { startAtWork, whyNoQemuCorpus } from './guests/qemu.ts';
import { type Cost, interleave } from './interleave.ts';
import { writerOf, writing } from './stages/live.ts';
import { shareOf, timesOf } from './times.ts';

const { GuestMemory, saveVm } = await import('../src/index.ts');
const { QmpClient } = await import('../src/adapters/qemu/index.ts');

const { values } = parseArgs({
  options: {
    runs: { type: 'string', default: '5' },
    scratch: { type: 'string', default: '/dev/shm' },
  },
});
const memoryBytes = 2 * 1024 ** 3;
const threads = 2;
const target = 0.25;
const kinds = { huge: 'saveVm, live, huge pages', small: 'saveVm, live, 4 KiB pages' } as const;
type Kind = keyof typeof kinds;

/** Seconds from the event STOP to RESUME. */
async function backgroundSnapshot(qmpPath: string, file: string): Promise<Cost> {
  await using qmp = await QmpClient.connect(qmpPath);
  const at = new Map<string, number>();
  qmp.onEvent(({ event }) => at.set(event, performance.now()));
  const capability = { capability: 'background-snapshot', state: true };
  await qmp.execute('migrate-set-capabilities', { capabilities: [capability] });
  rmSync(file, { force: true });
  await qmp.execute('migrate', { uri: `exec:cat > ${file}` });
  for (;;) {
    const { status } = (await qmp.execute('query-migrate')) as { status: string };
    if (status === 'completed') break;
    if (status === 'failed') throw new Error('background-snapshot does not work here');
    await sleep(50);
  }
  return { seconds: ((at.get('RESUME') ?? Number.NaN) - (at.get('STOP') ?? Number.NaN)) / 1000 };
}

async function measure(folder: string): Promise<void> {
  const closers: (() => Promise<void>)[] = [];
  try {
    await measureIn(folder, closers);
  } finally {
    for (const close of closers.reverse()) await close();
  }
}

async function measureIn(folder: string, closers: (() => Promise<void>)[]): Promise<void> {
  const subjects = [];
  for (const name of Object.keys(kinds) as Kind[]) {
    const memory = GuestMemory.allocate([{ base: 0n, bytes: memoryBytes }], { hugePages: name === 'huge' });
    closers.push(() => memory.close());
    await memory.native.fillGuestLike(1n, threads);
    const writer = writerOf(memory);
    closers.push(() => writer.stop());
    const vm = writing(memory, writer);
    const run = async (): Promise<Cost> => {
      const file = join(folder, name);
      rmSync(file, { force: true });
      await vm.resume();
      const { live, pausedMs } = await saveVm(vm, `file:${file}`, { live: true, threads });
      await vm.pause();
      if (live?.active !== true) throw new Error('the save was not live');
      return { seconds: pausedMs / 1000 };
    };
    subjects.push({ name, run });
  }
  const qemu = await startAtWork(folder, memoryBytes);
  closers.push(() => qemu.kill());
  const theirs = { name: 'qemu', run: () => backgroundSnapshot(qemu.qmpPath, join(folder, 'qemu')) };
  const result = await interleave({ runs: Number(values.runs), baselines: [theirs], subjects });
  const snapshots = result.baselines.get('qemu') ?? [];
  console.log('the guest of 2 GiB stands still for: median, least and greatest in brackets');
  console.log(`QEMU, background-snapshot   ${timesOf(snapshots, 1)}`);
  for (const [name, label] of Object.entries(kinds)) {
    const ours = result.subjects.get(name as Kind) ?? [];
    console.log(`${label.padEnd(26)}  ${timesOf(ours, 1)}   target ≤ 10 ms`);
    console.log(`  of QEMU's                 ${shareOf(ours, snapshots)}   target ≤ ${target}`);
  }
}

const missing = whyNoQemuCorpus();
if (missing !== undefined) {
  console.log(`skipped: ${missing}`);
  process.exit(3);
}
const folder = mkdtempSync(join(values.scratch, 'chkpt-snapshot-'));
try {
  await measure(folder);
} finally {
  rmSync(folder, { recursive: true, force: true });
}
