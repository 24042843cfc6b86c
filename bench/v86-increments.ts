/**
 * Increments of a Linux in v86 that runs a shell loop: a steady number in each second, each on the one before, and how fast the guest
 * gets on meanwhile, beside how fast it gets on alone. REQUIRES: `linkPackage()` before it is imported.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { performance } from 'node:perf_hooks';
import { setTimeout as sleep } from 'node:timers/promises';
import { V86Vm } from '../src/adapters/v86/index.ts';
import { defaultMemoryStoreSpace, loadVm, type SaveReport, saveVm } from '../src/index.ts';
import type { SerialLine } from './guests/serial-line.ts';
import { createGuest, type Guest } from './guests/v86.ts';
import { summarize } from './statistics.ts';

const mebibyte = 1024 ** 2;
const secondsAlone = 2;

/** Counts in a file: shell, kernel and tmpfs are at work all the time. */
const shellLoop = 'i=0; while :; do i=$((i+1)); echo $i > /tmp/count; done &';

export interface IncrementPlan {
  readonly memoryBytes: number;
  /** For each kind of store. */
  readonly seconds: number;
  /** Increments to begin in a second. */
  readonly rate: number;
  /** A folder in memory, for `file:`. */
  readonly folder: string;
}

/** A booted guest that runs, with its serial line; it runs afterwards. */
export async function measureIncrements(guest: Guest, line: SerialLine, plan: IncrementPlan): Promise<void> {
  const { memoryBytes, rate } = plan;
  const folder = mkdtempSync(join(plan.folder, 'chkpt-increments-'));
  const spare = await createGuest({ memoryBytes, linux: true });
  await using vm = await V86Vm.wrap(guest);
  await using target = await V86Vm.wrap(spare);
  const { kind } = vm.trackChanges();
  console.log(`v86, ${memoryBytes / mebibyte} MiB, at a shell loop: increments by ${kind}, ${rate} a second`);
  try {
    await line.command(shellLoop);
    for (const prefix of ['mem:increments-', `file:${folder}/`]) {
      await measure(vm, guest, target, prefix, plan);
      for (const name of defaultMemoryStoreSpace.names()) defaultMemoryStoreSpace.delete(name);
    }
  } finally {
    rmSync(folder, { recursive: true, force: true });
    await spare.destroy();
  }
}

async function measure(
  vm: V86Vm,
  guest: Guest,
  target: V86Vm,
  prefix: string,
  plan: IncrementPlan,
): Promise<void> {
  const before = await speedAlone(guest);
  const { reports, seconds, speed } = await saveSteadily(vm, guest, prefix, plan);
  const alone = Math.sqrt(before * (await speedAlone(guest)));
  print(prefix, reports, seconds, speed / alone);
  await vm.pause();
  const { length } = reports;
  await saveVm(vm, `${prefix}${length}`, { parent: `${prefix}${length - 1}` });
  await loadVm(target, `${prefix}${length}`);
  const isEqual = (await target.memory.digest()) === (await vm.memory.digest());
  console.log(`  the chain of ${length + 1} loads as the guest is: ${isEqual ? 'yes' : 'NO'}`);
  if (!isEqual) process.exitCode = 1;
  await vm.resume();
}

/** One begins at each tick, or when the one before is done. The first is whole, and not counted. */
async function saveSteadily(
  vm: V86Vm,
  guest: Guest,
  prefix: string,
  { seconds, rate }: IncrementPlan,
): Promise<{ reports: SaveReport[]; seconds: number; speed: number }> {
  const reports = [await saveVm(vm, `${prefix}0`)];
  const begin = performance.now();
  const elapsed = (): number => (performance.now() - begin) / 1000;
  const count = instructionCounter(guest);
  let instructions = 0;
  for (let tick = 1; elapsed() < seconds; tick += 1) {
    const parent = `${prefix}${reports.length - 1}`;
    reports.push(await saveVm(vm, `${prefix}${reports.length}`, { parent }));
    await sleep(Math.max(1, 1000 * (tick / rate - elapsed())));
    instructions += count();
  }
  return { reports, seconds: elapsed(), speed: instructions / elapsed() };
}

/** Instructions of the guest in a second. */
async function speedAlone(guest: Guest): Promise<number> {
  const begin = performance.now();
  const count = instructionCounter(guest);
  await sleep(1000 * secondsAlone);
  return (1000 * count()) / (performance.now() - begin);
}

/** Each call gives the instructions since the one before. v86 counts in 32 bits. */
function instructionCounter(guest: Guest): () => number {
  const { cpu } = guest.v86 as unknown as { cpu: { instruction_counter: Int32Array } };
  let last = (cpu.instruction_counter[0] ?? 0) >>> 0;
  return () => {
    const before = last;
    last = (cpu.instruction_counter[0] ?? 0) >>> 0;
    return (last - before + 2 ** 32) % 2 ** 32;
  };
}

function print(prefix: string, reports: readonly SaveReport[], seconds: number, share: number): void {
  const increments = reports.slice(1);
  const line = (name: string, values: readonly number[], unit: string, digits = 0): void => {
    const { median, min, max } = summarize(values);
    const [middle, low, high] = [median, min, max].map((value) => value.toFixed(digits));
    console.log(`  ${name.padEnd(12)} ${middle} ${unit} [${low}–${high}]`);
  };
  const paused = increments.map(({ pausedMs }) => pausedMs);
  const pages = increments.map(({ totals }) => (totals?.pages ?? 0) - (totals?.parentPages ?? 0));
  const stopped = paused.reduce((sum, ms) => sum + ms, 0) / 1000 / seconds;
  console.log(`${prefix.slice(0, prefix.indexOf(':') + 1)}`);
  const rate = (increments.length / seconds).toFixed(2);
  console.log(`  ${'rate'.padEnd(12)} ${rate} a second for ${seconds.toFixed(1)} s   target ≥ 5`);
  line('pause', paused, 'ms', 1);
  const elapsed = increments.map(({ elapsedMs }) => elapsedMs);
  line('whole save', elapsed, 'ms', 1);
  line('pages', pages, 'pages');
  const sizes = increments.map(({ checkpointBytes }) => checkpointBytes / 1024);
  line('size', sizes, 'KiB');
  console.log(
    `  ${'guest runs'.padEnd(12)} ${(100 * (1 - stopped)).toFixed(0)} % of the time, ${(100 * share).toFixed(0)} % of the instructions that it does alone`,
  );
}
