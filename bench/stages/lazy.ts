/** Lazy loads: until the guest runs, what a fault costs, and what a recorded working set gains. */
import { performance } from 'node:perf_hooks';
import type { LazyLoad, LazyOptions } from '../../src/checkpoint/lazy-options.ts';
import { loadVm } from '../../src/checkpoint/load-vm.ts';
import { saveVm } from '../../src/checkpoint/save-vm.ts';
import type { GuestMemory } from '../../src/memory/index.ts';
import { nativeAddon } from '../../src/native/index.ts';
import type { Bench } from '../bench.ts';
import { type Guest, gibBytes, untouchedGuest } from '../guest.ts';
import { machineOf } from '../memory-machine.ts';
import { fixedIdentity } from './encode.ts';

const names = { guest: 'lazy', small: 'lazy.small', large: 'lazy.large', set: 'lazy.set' };
const faultFigures = ['lazy.fault.p50', 'lazy.fault.p99', 'lazy.fault.bare'] as const;
const faultCount = 1000;
const roundTripCount = 2000;
const runs = 7;
const blockPages = 16;
/** Neither fill nor anything else: only what is touched comes. */
const idle: LazyOptions = { fillDelayMs: 1e9 };

export async function measureLazy(bench: Bench, guest: Guest): Promise<void> {
  if (!bench.wants('lazy.start', ...faultFigures, 'lazy.replay')) return;
  const reason = await whyNot();
  if (reason !== undefined) {
    bench.skip('lazy loads', reason);
    return;
  }
  const { scratch } = bench;
  try {
    if (bench.wants('lazy.start')) await measureStart(bench);
    await saveVm(guest.vm, `file:${scratch.path(names.guest)}`, fixedIdentity);
    if (bench.wants(...faultFigures)) await measureFaults(bench, guest);
    if (bench.wants('lazy.replay')) await measureReplay(bench, guest);
  } finally {
    for (const name of Object.values(names)) scratch.remove(name);
  }
}

async function whyNot(): Promise<string | undefined> {
  return nativeAddon()
    .bench.faultRoundTrip(1)
    .then(
      () => undefined,
      (error: Error) => error.message,
    );
}

/** Loads into new memory, does `work` and gives the memory back. */
async function withLoad<T>(
  path: string,
  bytes: number,
  options: LazyOptions,
  work: (load: LazyLoad, memory: GuestMemory, elapsedMs: number) => Promise<T>,
): Promise<T> {
  const memory = untouchedGuest(bytes);
  try {
    const { lazy, elapsedMs } = await loadVm(machineOf(memory), `file:${path}`, { lazy: options });
    if (!lazy.active) throw new Error(`not lazy: ${lazy.reason}`);
    const result = work(lazy.load, memory, elapsedMs);
    return await result;
  } finally {
    await memory.close();
  }
}

/** Memory whose every 2 MiB holds something, so that its index is as large as any. */
async function measureStart(bench: Bench): Promise<void> {
  for (const [name, bytes] of [
    [names.small, gibBytes / 4],
    [names.large, 8 * gibBytes],
  ] as const) {
    const path = bench.scratch.path(name);
    const source = untouchedGuest(bytes);
    for (let at = 0; at < bytes; at += 2 * 1024 ** 2) source.write(at, Uint8Array.of(1, 2, 3));
    await saveVm(machineOf(source), `file:${path}`, fixedIdentity);
    await source.close();
    const samples: number[] = [];
    for (let i = 0; i <= runs; i += 1) {
      const elapsedMs = await withLoad(path, bytes, idle, async (_, __, elapsed) => elapsed);
      if (i > 0) samples.push(elapsedMs);
    }
    const parameters = { memory: `${bytes / gibBytes} GiB, sparse`, bytes, threads: 2 };
    bench.value({ name: 'lazy.start', parameters, unit: 'ms' }, samples);
  }
}

/** Every `every`-th block that holds something, first page, in an order that no reader ahead guesses. */
function scattered(memoryBytes: number, count: number): Uint32Array {
  const blocks = Math.floor(memoryBytes / 65536);
  const order = new Uint32Array(Math.min(count, blocks));
  // A step that shares no factor with the number of blocks visits each once.
  let step = Math.floor(blocks * 0.618) | 1;
  while (gcd(step, blocks) !== 1) step += 2;
  for (let i = 0; i < order.length; i += 1) order[i] = ((i * step) % blocks) * blockPages;
  return order;
}

function gcd(a: number, b: number): number {
  return b === 0 ? a : gcd(b, a % b);
}

const bytesOf = (words: Uint32Array): Uint8Array => new Uint8Array(words.buffer);

function quantile(samples: ArrayLike<number>, share: number): number {
  const sorted = Float64Array.from(samples).sort();
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? Number.NaN;
}

async function measureFaults(bench: Bench, { facts }: Guest): Promise<void> {
  const { touch, faultRoundTrip } = nativeAddon().bench;
  const pages = bytesOf(scattered(facts.bytes, faultCount));
  const samples: Record<'lazy.fault.p50' | 'lazy.fault.p99' | 'lazy.fault.bare', number[]> = {
    'lazy.fault.p50': [],
    'lazy.fault.p99': [],
    'lazy.fault.bare': [],
  };
  for (let i = 0; i < runs; i += 1) {
    const bare = quantile(await faultRoundTrip(roundTripCount), 0.5);
    const times = await withLoad(bench.scratch.path(names.guest), facts.bytes, idle, (_, memory) =>
      memory.hold(touch(memory.native, pages)),
    );
    // Blocks of zeros come without the checkpoint.
    const busy = Array.from(times).filter((ns) => ns > bare);
    samples['lazy.fault.bare'].push(bare / 1e6);
    samples['lazy.fault.p50'].push((quantile(busy, 0.5) - bare) / 1e6);
    samples['lazy.fault.p99'].push((quantile(busy, 0.99) - bare) / 1e6);
  }
  const parameters = { memory: facts.memory, bytes: facts.bytes, threads: 2 };
  for (const [name, values] of Object.entries(samples)) {
    bench.value({ name: name as keyof typeof samples, parameters, unit: 'ms' }, values);
  }
}

/** From the end of loadVm until the same pages were touched, in the same order. */
async function measureReplay(bench: Bench, { facts }: Guest): Promise<void> {
  const path = bench.scratch.path(names.guest);
  const set = bench.scratch.path(names.set);
  const { touch } = nativeAddon().bench;
  const pages = bytesOf(scattered(facts.bytes, faultCount));
  const run = (options: LazyOptions, after?: (load: LazyLoad) => Promise<void>): Promise<number> =>
    withLoad(path, facts.bytes, options, async (load, memory) => {
      const begin = performance.now();
      await memory.hold(touch(memory.native, pages));
      const elapsed = (performance.now() - begin) / 1000;
      await after?.(load);
      return elapsed;
    });
  await run({ ...idle, workingSet: { mode: 'record', path: set } }, (load) => load.saveWorkingSet());
  const plain = [await run(idle)];
  const replayed: number[] = [];
  for (let i = 0; i < runs; i += 1) {
    replayed.push(await run({ ...idle, workingSet: { mode: 'replay', path: set } }));
    plain.push(await run(idle));
  }
  const parameters = { memory: facts.memory, bytes: facts.bytes, threads: 2 };
  bench.ratio(
    { name: 'lazy.replay', baseline: 'plain lazy load', parameters, cost: 'seconds' },
    replayed,
    plain,
  );
}
