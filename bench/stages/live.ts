/** Live saves: how long the guest stands still, beside an ordinary save and the bare protection, and what its writes cost. */
import { performance } from 'node:perf_hooks';
import { saveVm } from '../../src/checkpoint/save-vm.ts';
import type { VirtualMachine } from '../../src/checkpoint/virtual-machine.ts';
import { GuestMemory, MemorySnapshot } from '../../src/memory/index.ts';
import { type NativeStampWriter, nativeAddon } from '../../src/native/index.ts';
import type { Bench } from '../bench.ts';
import type { Cost } from '../interleave.ts';
import { machineOf } from '../memory-machine.ts';

const pagesPerSecond = 20_000;

export async function measureLive(bench: Bench, bytes: number): Promise<void> {
  if (!bench.wants('live.pause', 'live.pause.time', 'live.writes')) return;
  for (const hugePages of [true, false]) {
    await using memory = GuestMemory.allocate([{ base: 0n, bytes }], { hugePages });
    await memory.native.fillGuestLike(1n, Math.max(...bench.options.threads));
    try {
      await MemorySnapshot.open(memory).close();
    } catch (error) {
      bench.skip('live saves', (error as Error).message);
      return;
    }
    const writer = writerOf(memory);
    try {
      await measurePause(bench, bytes, memory, writer, hugePages);
    } finally {
      await writer.stop();
    }
  }
}

async function measurePause(
  bench: Bench,
  bytes: number,
  memory: GuestMemory,
  writer: NativeStampWriter,
  hugePages: boolean,
): Promise<void> {
  const threads = Math.max(...bench.options.threads);
  const vm = writing(memory, writer);
  const pauses: number[] = [];
  const rates: number[] = [];
  const pauseOf = async (live: boolean): Promise<Cost> => {
    const before = { pages: writer.pagesWritten(), at: performance.now() };
    const report = await saveVm(vm, 'null:', { threads, live });
    if (live && report.live?.active !== true) throw new Error('the save was not live');
    if (live) {
      pauses.push(report.pausedMs);
      const seconds = (performance.now() - before.at) / 1000;
      rates.push((writer.pagesWritten() - before.pages) / seconds / pagesPerSecond);
    }
    return { seconds: report.pausedMs / 1000 };
  };
  const bare = async (): Promise<Cost> => {
    await using snapshot = MemorySnapshot.open(memory);
    const begin = performance.now();
    await snapshot.prepare(2 ** 26);
    return { seconds: (performance.now() - begin) / 1000 };
  };
  await vm.resume();
  await bench.contest({
    parameters: { memory: hugePages ? 'guest-like, huge pages' : 'guest-like, 4 KiB pages', bytes, threads },
    memoryBytes: bytes,
    runs: bench.options.runs,
    baselines: { 'stopped save': () => pauseOf(false), 'bare protection': bare },
    subjects: { 'live.pause': () => pauseOf(true) },
  });
  await vm.pause();
  const parameters = { memory: hugePages ? 'huge pages' : '4 KiB pages', bytes, threads };
  bench.value({ name: 'live.pause.time', parameters, unit: 'ms' }, pauses);
  bench.value({ name: 'live.writes', parameters, unit: 'share' }, rates);
}

/** A thread that writes all over the memory, 20,000 pages a second. */
export function writerOf(memory: GuestMemory): NativeStampWriter {
  return new (nativeAddon().StampWriter)(memory.native, {
    threads: 1,
    pagesPerSecond,
    pattern: 1,
    seed: 1n,
    firstPage: 0,
    pageCount: memory.pageCount,
  });
}

/** A machine whose guest is the writer. */
export function writing(memory: GuestMemory, writer: NativeStampWriter): VirtualMachine {
  let running = false;
  return {
    ...machineOf(memory),
    get running() {
      return running;
    },
    pause: async () => {
      await writer.pause();
      running = false;
    },
    resume: async () => {
      writer.resume();
      running = true;
    },
  };
}
