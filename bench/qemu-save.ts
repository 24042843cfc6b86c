/**
 * Saves and loads of a Linux in QEMU, beside QEMU's own `migrate` to a file on the same tmpfs.
 *
 *   npm run bench:qemu -- [--runs N] [--scratch FOLDER]
 *
 * The guest is the one whose RAM is the corpus: 2 GiB, a Debian that has compiled, sorted and archived, with its page cache.
 * The guest stands still for each of QEMU's; chkpt stops and continues it itself. Loads are timed from the start of a new QEMU to
 * the moment when its guest runs.
 */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { performance } from 'node:perf_hooks';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { packageRoot } from '../src/util/package-root.ts';
import { LinuxQemu, startAtWork, whyNoQemuCorpus } from './guests/qemu.ts';
import { type ContestResult, type Cost, interleave } from './interleave.ts';
import { summarize } from './statistics.ts';
import { shareOf, timesOf } from './times.ts';

const { loadVm, saveVm } = await import('../src/index.ts');
const { QemuVm, QmpClient } = await import('../src/adapters/qemu/index.ts');

const { values } = parseArgs({
  options: {
    runs: { type: 'string', default: '5' },
    scratch: { type: 'string', default: '/dev/shm' },
  },
});
const mebibyte = 1024 ** 2;
const memoryBytes = 2048 * mebibyte;
const runs = Number(values.runs);
const migrations = ['exec', 'fd', 'lz4'] as const;
type Migration = (typeof migrations)[number];
const described = {
  exec: 'migrate "exec:cat > file"',
  fd: 'migrate fd:',
  lz4: 'migrate "exec:lz4 -1 > file"',
} as const;
const targets = { exec: 0.5, fd: 0.9, lz4: 0.3 } as const;

/** In a process of its own; the guest stands still meanwhile. */
async function migrate(qemu: LinuxQemu, kind: Migration, file: string): Promise<Cost> {
  const script = join(packageRoot(), 'bench/guests/qemu-migrate.py');
  const text = execFileSync('python3', [script, qemu.qmpPath, kind, file], { encoding: 'utf8' });
  return { seconds: Number(text), bytes: statSync(file).size };
}

/** Starts a QEMU that waits, calls `load`, and gives the seconds from the start until its guest runs. */
async function timeLoad(
  folder: string,
  incoming: string,
  load: (path: string) => Promise<void>,
): Promise<Cost> {
  const begin = performance.now();
  const qemu = await LinuxQemu.start({ folder, name: 'b', memoryBytes, incoming, guest: 'corpus' });
  try {
    await load(qemu.qmpPath);
    return { seconds: (performance.now() - begin) / 1000 };
  } finally {
    await qemu.kill();
  }
}

async function continueWhenLoaded(path: string): Promise<void> {
  await using qmp = await QmpClient.connect(path);
  for (;;) {
    const { status } = (await qmp.execute('query-status')) as { status: string };
    if (status !== 'inmigrate') break;
    await sleep(2);
  }
  await qmp.execute('cont');
}

async function main(folder: string): Promise<void> {
  const qemu = await startAtWork(folder, memoryBytes);
  const [raw, packed, checkpoint] = ['raw', 'lz4', 'checkpoint'].map((name) => join(folder, name)) as [
    string,
    string,
    string,
  ];
  /** How long the guest stood still in each save with `copyMemory`. */
  const stopped: number[] = [];
  try {
    const saves = await interleave({
      runs,
      baselines: migrations.map((kind) => ({
        name: kind,
        run: () => migrate(qemu, kind, kind === 'lz4' ? packed : raw),
      })),
      subjects: [
        {
          name: 'saveVm',
          run: async () => {
            // As for the others: what it costs to give an older file back is not the save's.
            rmSync(checkpoint, { force: true });
            const begin = performance.now();
            await using vm = await QemuVm.connect(qemu.qmpPath);
            await saveVm(vm, `file:${checkpoint}`);
            return { seconds: (performance.now() - begin) / 1000, bytes: statSync(checkpoint).size };
          },
        },
        {
          name: 'copyMemory',
          run: async () => {
            rmSync(checkpoint, { force: true });
            const begin = performance.now();
            await using vm = await QemuVm.connect(qemu.qmpPath);
            const { pausedMs } = await saveVm(vm, `file:${checkpoint}`, { copyMemory: true });
            const seconds = (performance.now() - begin) / 1000;
            stopped.push(pausedMs / 1000);
            return { seconds, bytes: statSync(checkpoint).size };
          },
        },
      ],
    });
    await migrate(qemu, 'exec', raw);
    rmSync(packed, { force: true });
    const loads = await interleave({
      runs,
      baselines: [{ name: 'incoming', run: () => timeLoad(folder, `exec:cat ${raw}`, continueWhenLoaded) }],
      subjects: [
        {
          name: 'loadVm',
          run: () =>
            timeLoad(folder, 'defer', async (path) => {
              await using vm = await QemuVm.connect(path);
              await loadVm(vm, `file:${checkpoint}`);
              await vm.resume();
            }),
        },
      ],
    });
    report(saves, loads, stopped.slice(-runs));
  } finally {
    await qemu.kill();
  }
}

type Saves = ContestResult<Migration, 'saveVm' | 'copyMemory'>;
type Loads = ContestResult<'incoming', 'loadVm'>;

function report(saves: Saves, loads: Loads, stopped: readonly number[]): void {
  const ours = saves.subjects.get('saveVm') ?? [];
  const checkpointBytes = ours[0]?.bytes ?? 0;
  console.log(
    `QEMU, ${memoryBytes / mebibyte} MiB, a Debian that has worked, ${runs} runs each, least and greatest in brackets`,
  );
  console.log(`saveVm                          ${timesOf(ours)}  ${sizeOf(checkpointBytes)}`);
  for (const kind of migrations) {
    const theirs = saves.baselines.get(kind) ?? [];
    console.log(`${described[kind].padEnd(30)}  ${timesOf(theirs)}  ${sizeOf(theirs[0]?.bytes ?? 0)}`);
    console.log(`  saveVm takes                  ${shareOf(ours, theirs)}   target ≤ ${targets[kind]}`);
  }
  const rawBytes = saves.baselines.get('exec')?.[0]?.bytes ?? 1;
  console.log(
    `size                            ${(checkpointBytes / rawBytes).toFixed(2)} of the raw one   target ≤ 0.5`,
  );
  const aside = saves.subjects.get('copyMemory') ?? [];
  const shares = summarize(stopped.map((seconds, i) => seconds / (aside[i]?.seconds ?? 0)));
  console.log(`saveVm, copyMemory              ${timesOf(aside)}`);
  console.log(`  the guest stands still for    ${timesOf(stopped.map((seconds) => ({ seconds })))}`);
  console.log(
    `  share of the whole save       ${shares.median.toFixed(2)} [${shares.min.toFixed(2)}–${shares.max.toFixed(2)}]   target ≤ 0.25`,
  );
  const [incoming, loaded] = [loads.baselines.get('incoming') ?? [], loads.subjects.get('loadVm') ?? []];
  console.log(`-incoming "exec:cat file"       ${timesOf(incoming)}  start to running`);
  console.log(`loadVm                          ${timesOf(loaded)}  start to running`);
  console.log(`  loadVm takes                  ${shareOf(loaded, incoming)}   target ≤ 0.5`);
}

function sizeOf(bytes: number): string {
  return `${(bytes / mebibyte).toFixed(0)} MiB`;
}

const missing = whyNoQemuCorpus();
if (missing !== undefined) {
  console.log(`skipped: ${missing}`);
  process.exit(3);
}
const folder = mkdtempSync(join(values.scratch, 'chkpt-qemu-'));
try {
  await main(folder);
} finally {
  rmSync(folder, { recursive: true, force: true });
}
