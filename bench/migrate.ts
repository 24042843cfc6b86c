/**
 * Live migrations over loopback, each end a process of its own.
 *
 *   npm run bench:migrate -- [--runs N] [--image RAM_IMAGE] [--scratch FOLDER] [--only NAMES]
 *
 * idle: a RAM image that nobody writes to, beside two QEMUs with the same memory, plain and multifd over a UNIX socket. quarter, busy: a guest of
 * 1 GiB that writes stamped pages at 25 % and 90 % of a link of 1 Gbit/s. lanes: pages as they are, over one connection and two. postcopy: all
 * pages after the guest.
 */
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { copyFileSync, existsSync, mkdtempSync, rmSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import type { SendReport, SendVmOptions, VirtualMachine } from '../src/index.ts';
import { IdleQemu } from './guests/idle-qemu.ts';
import { summarize } from './statistics.ts';

/** What the other end says when its guest is whole. */
export interface Arrival {
  readonly cpuSeconds: number;
  /** Of threads for pages, microseconds. */
  readonly waits: readonly number[];
}

interface Moved extends Arrival {
  readonly report: SendReport;
  readonly seconds: number;
}

const gibibyte = 2 ** 30;
const linkBytesPerSecond = 125e6;
const pageBytes = 4096;

const { values } = parseArgs({
  options: {
    runs: { type: 'string', default: '3' },
    image: { type: 'string', default: 'bench/corpus/data/linux-2g.ram' },
    scratch: { type: 'string', default: '/dev/shm' },
    only: { type: 'string', default: 'idle,quarter,busy,lanes,postcopy' },
  },
});
const runs = Number(values.runs);

const { sendVm } = await import('../src/index.ts');
const { readGuest } = await import('./guest.ts');
const { machineOf } = await import('./memory-machine.ts');
const { SyntheticVm } = await import('../src/adapters/synthetic/index.ts');
const { QmpClient } = await import('../src/adapters/qemu/index.ts');

/** Sends `vm` to a new process. */
async function move(
  vm: VirtualMachine,
  kind: string,
  folder: string,
  options: SendVmOptions,
): Promise<Moved> {
  const own = mkdtempSync(join(folder, 'move-'));
  const script = join(dirname(fileURLToPath(import.meta.url)), 'migrate-child.js');
  const bytes = String((vm.memory?.pageCount ?? 0) * pageBytes);
  const child = fork(script, [kind, bytes, `unix:${own}/socket`, join(own, 'there')]);
  const gone = once(child, 'exit');
  const [{ address }] = (await once(child, 'message')) as [{ address: string }];
  const arrived = once(child, 'message') as Promise<[{ arrival: Arrival }]>;
  const cpu = process.cpuUsage();
  const begin = performance.now();
  const report = await sendVm(vm, address, { journal: join(own, 'here'), ...options });
  const seconds = (performance.now() - begin) / 1000;
  const { user, system } = process.cpuUsage(cpu);
  const [{ arrival }] = await arrived;
  await gone;
  rmSync(own, { recursive: true, force: true });
  return { report, seconds, waits: arrival.waits, cpuSeconds: arrival.cpuSeconds + (user + system) / 1e6 };
}

/** Seconds and CPU seconds of both ends. */
async function moveByQemu(
  folder: string,
  image: string,
  multifd: boolean,
): Promise<{ seconds: number; cpuSeconds: number }> {
  const connect = (path: string) => QmpClient.connect(path);
  const own = mkdtempSync(join(folder, 'qemu-'));
  const source = await IdleQemu.start(connect, join(own, 'a'), 2 * gibibyte, image);
  const target = await IdleQemu.start(connect, join(own, 'b'), 2 * gibibyte);
  try {
    for (const { qmp } of [source, target]) {
      await qmp.execute('migrate-set-parameters', {
        'max-bandwidth': 100 * gibibyte,
        ...(multifd ? { 'multifd-channels': 2 } : {}),
      });
      const capabilities = [{ capability: 'multifd', state: multifd }];
      await qmp.execute('migrate-set-capabilities', { capabilities });
    }
    const uri = `unix:${own}/stream`;
    await target.qmp.execute('migrate-incoming', { uri });
    const cpu = source.cpuSeconds() + target.cpuSeconds();
    const begin = performance.now();
    await source.qmp.execute('migrate', { uri });
    for (;;) {
      const { status } = (await source.qmp.execute('query-migrate')) as { status?: string };
      if (status === 'completed') break;
      if (status === 'failed') throw new Error('QEMU does not migrate');
      await sleep(2);
    }
    const seconds = (performance.now() - begin) / 1000;
    await sleep(100);
    return { seconds, cpuSeconds: source.cpuSeconds() + target.cpuSeconds() - cpu };
  } finally {
    await source.kill();
    await target.kill();
    rmSync(own, { recursive: true, force: true });
  }
}

function tell(name: string, what: string, samples: readonly number[], unit: string, digits = 2): void {
  const { median, min, max } = summarize(samples);
  const show = (value: number): string => value.toFixed(digits);
  console.log(`${name.padEnd(30)}${what.padEnd(26)}${show(median)} ${unit} [${show(min)}–${show(max)}]`);
}

/** `samples` as shares of the median of `baseline`. */
function tellRatio(
  name: string,
  what: string,
  samples: readonly number[],
  baseline: readonly number[],
  target: string,
): void {
  const { median } = summarize(baseline);
  tell(
    name,
    `${what} (target ${target})`,
    samples.map((sample) => sample / median),
    'x',
  );
}

async function measureIdle(folder: string): Promise<void> {
  if (!existsSync(values.image)) return console.log(`idle: no ${values.image}: npm run corpus`);
  const { memory } = await readGuest(values.image, 2);
  const image = join(folder, 'ram');
  copyFileSync(values.image, image);
  const results: Record<string, { seconds: number; cpuSeconds: number }[]> = {};
  const contenders = {
    'QEMU plain': () => moveByQemu(folder, image, false),
    'QEMU multifd': () => moveByQemu(folder, image, true),
    'chkpt, 1 connection': () => move(machineOf(memory), 'idle', folder, {}),
    'chkpt, 2 connections': () => move(machineOf(memory), 'idle', folder, { streams: 2 }),
    'chkpt raw, 2 connections': () => move(machineOf(memory), 'idle', folder, { streams: 2, codec: 'raw' }),
  };
  for (let run = 0; run < runs; run += 1) {
    for (const [name, contender] of Object.entries(contenders)) {
      results[name] ??= [];
      results[name].push(await contender());
    }
  }
  const of = (name: string, what: 'seconds' | 'cpuSeconds'): number[] =>
    (results[name] ?? []).map((cost) => cost[what]);
  for (const name of Object.keys(contenders)) {
    tell(`idle 2 GiB, ${name}`, '', of(name, 'seconds'), 's');
    tell('', 'CPU of both ends', of(name, 'cpuSeconds'), 's');
    if (!name.startsWith('chkpt')) continue;
    tellRatio('', 'of QEMU plain', of(name, 'seconds'), of('QEMU plain', 'seconds'), '<= 0.5');
    tellRatio('', 'of QEMU multifd', of(name, 'seconds'), of('QEMU multifd', 'seconds'), '<= 0.8');
    tellRatio('', 'CPU of QEMU plain', of(name, 'cpuSeconds'), of('QEMU plain', 'cpuSeconds'), '<= 0.7');
  }
  await memory.close();
}

/** A writing guest, anew for each run. */
async function moveWriter(
  folder: string,
  pagesPerSecond: number,
  options: SendVmOptions,
): Promise<Moved | string> {
  const vm = await SyntheticVm.create({
    id: 'bench',
    memoryBytes: gibibyte,
    pagesPerSecond,
    guestLike: true,
  });
  try {
    await vm.resume();
    return await move(vm, 'writer', folder, options);
  } catch (error) {
    return (error as { code?: string }).code ?? String(error);
  } finally {
    await vm.close();
  }
}

async function measureWriter(
  folder: string,
  name: string,
  share: number,
  options: SendVmOptions,
  target: string,
): Promise<void> {
  const pagesPerSecond = Math.round((share * linkBytesPerSecond) / pageBytes);
  const moved: Moved[] = [];
  for (let run = 0; run < runs; run += 1) {
    const result = await moveWriter(folder, pagesPerSecond, { bandwidth: linkBytesPerSecond, ...options });
    if (typeof result === 'string') console.log(`${name}: ${result}`);
    else moved.push(result);
  }
  if (moved.length === 0) return;
  tell(
    name,
    `downtime (target ${target})`,
    moved.map(({ report }) => report.downtime.totalMs),
    'ms',
    1,
  );
  const parts = moved.map(({ report }) => report.downtime);
  for (const part of Object.keys(parts[0] ?? {}) as (keyof SendReport['downtime'])[]) {
    if (part === 'totalMs') continue;
    const samples = parts.map((each) => each[part]).filter((each) => typeof each === 'number');
    if (samples.length > 0) tell('', `  ${part}`, samples, 'ms', 1);
  }
  tell(
    '',
    'rounds',
    moved.map(({ report }) => report.rounds.length),
    '',
    0,
  );
  tell(
    '',
    'whole',
    moved.map(({ seconds }) => seconds),
    's',
  );
  tell(
    '',
    'bytes',
    moved.map(({ report }) => report.bytesSent / 2 ** 20),
    'MiB',
    0,
  );
}

async function measureLanes(folder: string): Promise<void> {
  if (!existsSync(values.image)) return;
  const { memory, facts } = await readGuest(values.image, 2);
  const one: number[] = [];
  const two: number[] = [];
  let perPage = 0;
  for (let run = 0; run < runs; run += 1) {
    const single = await move(machineOf(memory), 'idle', folder, { codec: 'raw', dedup: false });
    one.push(single.seconds);
    perPage = single.report.bytesSent / (facts.storedPages + facts.samePages);
    two.push(
      (await move(machineOf(memory), 'idle', folder, { codec: 'raw', dedup: false, streams: 2 })).seconds,
    );
  }
  tellRatio('raw, 1 connection', 'of 2 connections', one, two, '>= 1.5');
  console.log(`${''.padEnd(30)}bytes on the wire for each page (target <= 4112): ${perPage.toFixed(1)}`);
  await memory.close();
}

async function measurePostcopy(folder: string): Promise<void> {
  const options = { strategy: 'postcopy', precopyRounds: 0 } as const;
  const moved: Moved[] = [];
  for (let run = 0; run < runs; run += 1) {
    const result = await moveWriter(folder, 3000, options);
    if (typeof result === 'string') console.log(`postcopy: ${result}`);
    else moved.push(result);
  }
  if (moved.length === 0) return;
  const quantile = (waits: readonly number[], share: number): number =>
    [...waits].sort((a, b) => a - b)[Math.floor(share * (waits.length - 1))] ?? 0;
  tell(
    'postcopy, 1 GiB',
    'runs after (target 30)',
    moved.map(({ report }) => report.downtime.totalMs),
    'ms',
    1,
  );
  tell(
    '',
    'fault p50',
    moved.map(({ waits }) => quantile(waits, 0.5) / 1000),
    'ms',
  );
  tell(
    '',
    'fault p99 (target 2)',
    moved.map(({ waits }) => quantile(waits, 0.99) / 1000),
    'ms',
  );
  tell(
    '',
    'faults',
    moved.map(({ waits }) => waits.length),
    '',
    0,
  );
  tell(
    '',
    'until all is there',
    moved.map(({ report }) => (report.postcopy?.ms ?? 0) / 1000),
    's',
  );
}

const folder = mkdtempSync(join(values.scratch, 'chkpt-migrate-'));
try {
  const only = values.only.split(',');
  if (only.includes('idle')) await measureIdle(folder);
  if (only.includes('quarter'))
    await measureWriter(folder, '25 % of 1 Gbit/s', 0.25, { downtimeTargetMs: 20 }, '20');
  if (only.includes('busy')) {
    await measureWriter(folder, '90 % of 1 Gbit/s', 0.9, { downtimeTargetMs: 60, totalMaxMs: 60_000 }, '60');
    const plain = { downtimeTargetMs: 60, totalMaxMs: 30_000, deltaCache: 0, codec: 'raw' } as const;
    await measureWriter(folder, '90 %, raw, no differences', 0.9, plain, 'none');
  }
  if (only.includes('lanes')) await measureLanes(folder);
  if (only.includes('postcopy')) await measurePostcopy(folder);
} finally {
  rmSync(folder, { recursive: true, force: true });
}
process.exit(0);
