/**
 * Saves of a booted Linux in v86, beside v86's own `save_state` whose result is written to the same disk.
 *
 *   npm run bench:v86 -- [--memory MIB] [--runs N] [--scratch FOLDER] [--only saves|increments] [--seconds N] [--rate N]
 *
 * Both flush what they wrote. The guest stands still for all of it; loads are timed too, into a fresh emulator. Increments of the
 * same guest while it runs follow: v86-increments.ts.
 */
import { execFileSync } from 'node:child_process';
import { closeSync, fsyncSync, mkdtempSync, openSync, rmSync, statSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { performance } from 'node:perf_hooks';
import { parseArgs } from 'node:util';
import type { SerialLine } from './guests/serial-line.ts';
import { createGuest, type Guest, serialLineOf, whyNoGuest } from './guests/v86.ts';
import { interleave } from './interleave.ts';
import { summarize } from './statistics.ts';

const { loadVm, saveVm } = await import('../src/index.ts');
const { V86Vm } = await import('../src/adapters/v86/index.ts');
const { measureIncrements } = await import('./v86-increments.ts');

const { values } = parseArgs({
  options: {
    memory: { type: 'string', default: '512' },
    runs: { type: 'string', default: '5' },
    scratch: { type: 'string', default: '/tmp' },
    only: { type: 'string' },
    seconds: { type: 'string', default: '10' },
    rate: { type: 'string', default: '5' },
  },
});
const mebibyte = 1024 ** 2;
const memoryBytes = Number(values.memory) * mebibyte;

/** Page cache, a heap, files in a tmpfs: a guest that has worked. */
const work =
  'seq 1 400000 > /tmp/text; sort -r /tmp/text > /tmp/sorted; gzip -k /tmp/text; for i in 1 2 3 4 5 6; do cp /bin/busybox /tmp/b$i; done';

async function bootedGuest(): Promise<{ guest: Guest; line: SerialLine }> {
  const guest = await createGuest({ memoryBytes, linux: true });
  const line = serialLineOf(guest);
  await guest.run();
  await line.waitFor(/^TICK 1/);
  await line.command(work);
  return { guest, line };
}

function writeFlushed(path: string, bytes: Uint8Array): void {
  const descriptor = openSync(path, 'w', 0o600);
  for (let done = 0; done < bytes.length; ) done += writeSync(descriptor, bytes, done);
  fsyncSync(descriptor);
  closeSync(descriptor);
}

async function timed(work: () => Promise<void>, path: string): Promise<{ seconds: number; bytes: number }> {
  const begin = performance.now();
  await work();
  return { seconds: (performance.now() - begin) / 1000, bytes: statSync(path).size };
}

const missing = whyNoGuest();
if (missing !== undefined) {
  console.log(`skipped: ${missing}`);
  process.exit(3);
}
const { guest, line } = await bootedGuest();
if (values.only !== 'increments') {
  await guest.stop();
  await measureSaves(guest);
  await guest.run();
}
if (values.only !== 'saves') {
  const [seconds, rate] = [Number(values.seconds), Number(values.rate)];
  await measureIncrements(guest, line, { memoryBytes, seconds, rate, folder: '/dev/shm' });
}
await guest.destroy();
process.exit();

async function measureSaves(guest: Guest): Promise<void> {
  const folder = mkdtempSync(join(values.scratch, 'chkpt-v86-'));
  try {
    const own = join(folder, 'state');
    const checkpoint = join(folder, 'checkpoint');
    const { baselines, subjects } = await interleave({
      runs: Number(values.runs),
      baselines: [
        {
          name: 'save_state',
          run: () => timed(async () => writeFlushed(own, new Uint8Array(await guest.save_state())), own),
        },
      ],
      subjects: [
        {
          name: 'saveVm',
          // A new wrapper each time: it takes the state of the devices anew.
          run: () =>
            timed(async () => {
              const vm = await V86Vm.wrap(guest);
              await saveVm(vm, `file:${checkpoint}`);
              await vm.close();
            }, checkpoint),
        },
      ],
    });
    const target = await V86Vm.wrap(await createGuest({ memoryBytes, linux: true }));
    const loads: number[] = [];
    for (let run = 0; run < Number(values.runs); run += 1)
      loads.push((await loadVm(target, `file:${checkpoint}`)).elapsedMs / 1000);
    report(baselines.get('save_state') ?? [], subjects.get('saveVm') ?? [], own, loads);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

function report(
  baseline: readonly { seconds: number; bytes?: number }[],
  subject: readonly { seconds: number; bytes?: number }[],
  own: string,
  loads: readonly number[],
): void {
  const [theirs, ours] = [baseline, subject].map((costs) => summarize(costs.map(({ seconds }) => seconds)));
  const ratios = summarize(
    subject.map(
      ({ seconds }, i) => Math.sqrt((baseline[i]?.seconds ?? 0) * (baseline[i + 1]?.seconds ?? 0)) / seconds,
    ),
  );
  const [raw = 0, packed = 0] = [baseline[0]?.bytes, subject[0]?.bytes];
  const mib = (bytes: number): string => `${(bytes / mebibyte).toFixed(1)} MiB`;
  const ms = (seconds = 0): string => `${(1000 * seconds).toFixed(0)} ms`;
  console.log(`v86, ${mib(memoryBytes)}, booted Linux at work`);
  console.log(
    `save_state + write   ${ms(theirs?.median)} [${ms(theirs?.min)}–${ms(theirs?.max)}]   ${mib(raw)}`,
  );
  console.log(
    `saveVm               ${ms(ours?.median)} [${ms(ours?.min)}–${ms(ours?.max)}]   ${mib(packed)}`,
  );
  console.log(
    `faster               ${ratios.median.toFixed(2)} × [${ratios.min.toFixed(2)}–${ratios.max.toFixed(2)}]   target ≥ 4`,
  );
  console.log(`size                 ${(packed / raw).toFixed(2)} of its raw form   target ≤ 0.6`);
  console.log(`loadVm               ${ms(summarize(loads).median)}`);
  try {
    execFileSync('zstd', ['-q', '-f', '-k', own]);
    console.log(`zstd -3 of its raw form: ${mib(statSync(`${own}.zst`).size)}`);
  } catch {
    console.log('zstd of its raw form: no zstd command');
  }
}
