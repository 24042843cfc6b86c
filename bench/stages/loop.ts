/** What a save and a load leave of the main thread, beside what the same number of bare threads leaves. */
import { setTimeout as sleep } from 'node:timers/promises';
import { loadVm } from '../../src/checkpoint/load-vm.ts';
import { saveVm } from '../../src/checkpoint/save-vm.ts';
import { defaultMemoryStoreSpace } from '../../src/store/index.ts';
import type { Bench } from '../bench.ts';
import { type Guest, storedBlocksOf, untouchedGuest } from '../guest.ts';
import { type LoopDelay, type MainThreadUse, measureDelay, measureUse } from '../main-thread.ts';
import { machineOf } from '../memory-machine.ts';
import { fixedIdentity } from './encode.ts';

const checkpointName = 'loop';
const idleMs = 1000;

interface Work {
  /** Not measured. */
  readonly before?: () => void;
  readonly run: () => Promise<unknown>;
  readonly after?: () => unknown;
}

export async function measureLoop(bench: Bench, guest: Guest): Promise<void> {
  if (!bench.wants('loop.delay', 'loop.busy', 'loop.utilization')) return;
  const { facts } = guest;
  const threads = Math.max(...bench.options.threads);
  const path = bench.scratch.path(checkpointName);
  try {
    await saveVm(guest.vm, `file:${path}`, { ...fixedIdentity, threads });
    const works = await worksOf(bench, guest, threads, path);
    for (const [name, work] of Object.entries(works)) {
      const delays: LoopDelay[] = [];
      const uses: MainThreadUse[] = [];
      const once = async <T>(measure: (run: () => Promise<unknown>) => Promise<T>): Promise<T> => {
        work.before?.();
        await bench.settle({ memoryBytes: facts.bytes, fileBytes: facts.bytes });
        const measured = await measure(work.run);
        await work.after?.();
        return measured;
      };
      for (let run = 0; run < bench.options.runs; run += 1) {
        delays.push(await once(measureDelay));
        uses.push(await once(measureUse));
      }
      const parameters = { memory: facts.memory, bytes: facts.bytes, threads, work: name };
      bench.value(
        { name: 'loop.delay', parameters, unit: 'ms' },
        delays.map(({ p99Ms }) => p99Ms),
      );
      bench.value(
        { name: 'loop.busy', parameters, unit: 'share' },
        uses.map(({ busy }) => busy),
      );
      bench.value(
        { name: 'loop.utilization', parameters, unit: 'share' },
        uses.map(({ utilization }) => utilization),
      );
    }
  } finally {
    bench.scratch.remove(checkpointName);
  }
}

/** `idle` and `liblz4` are the floor: how late a timer is on this machine, alone and with all processors busy. */
async function worksOf(
  bench: Bench,
  { memory, facts, vm }: Guest,
  threads: number,
  path: string,
): Promise<Record<string, Work>> {
  const blocks = await storedBlocksOf(memory, threads);
  const options = { ...fixedIdentity, threads };
  let target = untouchedGuest(facts.bytes);
  return {
    idle: { run: () => sleep(idleMs) },
    liblz4: { run: () => blocks.compress(threads, 1) },
    'save null:': { run: async () => await saveVm(vm, 'null:', options) },
    'save mem:': {
      run: async () => await saveVm(vm, 'mem:loop', options),
      after: () => defaultMemoryStoreSpace.delete('loop'),
    },
    'save file:': {
      before: () => bench.scratch.remove(checkpointName),
      run: async () => await saveVm(vm, `file:${path}`, options),
    },
    'save raw null:': { run: async () => await saveVm(vm, 'null:', { ...options, codec: 'raw' }) },
    'load file:': {
      run: async () => await loadVm(machineOf(target), `file:${path}`, { threads }),
      after: async () => {
        await target.close();
        target = untouchedGuest(facts.bytes);
      },
    },
  };
}
