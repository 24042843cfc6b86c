/** How long a save or load takes to end after it was aborted: no thread touches the guest any more, nothing was published. */
import { performance } from 'node:perf_hooks';
import { setTimeout as sleep } from 'node:timers/promises';
import { loadVm } from '../../src/checkpoint/load-vm.ts';
import { saveVm } from '../../src/checkpoint/save-vm.ts';
import type { Bench } from '../bench.ts';
import { type Guest, untouchedGuest } from '../guest.ts';
import { machineOf } from '../memory-machine.ts';
import { fixedIdentity } from './encode.ts';

const checkpointName = 'cancel';
/** Aborts of each kind, spread evenly over the time that the whole work takes. */
const abortCount = 20;

export async function measureCancel(bench: Bench, guest: Guest): Promise<void> {
  if (!bench.wants('cancel.save', 'cancel.load')) return;
  const { facts, vm } = guest;
  const threads = Math.max(...bench.options.threads);
  const path = bench.scratch.path(checkpointName);
  const parameters = { memory: facts.memory, bytes: facts.bytes, threads };
  try {
    const { elapsedMs } = await saveVm(vm, `file:${path}`, { ...fixedIdentity, threads });
    const saves = await abortMany(elapsedMs, (signal) =>
      saveVm(vm, `file:${path}.new`, { ...fixedIdentity, threads, signal }),
    );
    bench.value({ name: 'cancel.save', parameters, unit: 'ms' }, saves);
    const memory = untouchedGuest(facts.bytes);
    try {
      const target = machineOf(memory);
      const loaded = await loadVm(target, `file:${path}`, { threads });
      const loads = await abortMany(loaded.elapsedMs, (signal) =>
        loadVm(target, `file:${path}`, { threads, signal }),
      );
      bench.value({ name: 'cancel.load', parameters, unit: 'ms' }, loads);
    } finally {
      await memory.close();
    }
  } finally {
    bench.scratch.remove(checkpointName);
    bench.scratch.remove(`${checkpointName}.new`);
  }
}

/** Milliseconds from each abort to the rejection. Work that was done before its abort is left out. */
async function abortMany(
  wholeMs: number,
  start: (signal: AbortSignal) => PromiseLike<unknown>,
): Promise<number[]> {
  const samples: number[] = [];
  for (let i = 0; i < abortCount; i += 1) {
    const abort = new AbortController();
    let endedMs = 0;
    const ended = Promise.resolve(start(abort.signal)).then(
      () => false,
      () => {
        endedMs = performance.now();
        return true;
      },
    );
    await sleep((wholeMs * (i + 0.5)) / abortCount);
    const abortedMs = performance.now();
    abort.abort();
    if ((await ended) && endedMs >= abortedMs) samples.push(endedMs - abortedMs);
  }
  return samples;
}
