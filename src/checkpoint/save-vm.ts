/** Saves a whole virtual machine: header first, then devices and cores, then memory. */
import { tracingChannel } from 'node:diagnostics_channel';
import { openCheckpoint as openInStore } from '../context/checkpoint.ts';
import type { SaveCheckpoint } from '../context/save-checkpoint.ts';
import { CheckpointError } from '../errors/index.ts';
import { pageBytes } from '../limits.ts';
import { type EncodeOptions, PageEncoder } from '../memory/index.ts';
import type { CommitSummary, Store } from '../store/index.ts';
import { checkpointDigest } from './digest.ts';
import { toStore } from './open.ts';
import { Operation, type Progress } from './operation.ts';
import { producer } from './producer.ts';
import type { SkipPart, StateContext, VirtualMachine } from './virtual-machine.ts';
import { headerContext, headerOf, headerState } from './vm-header.ts';
import { devicesContext, memoryContext, planOf, tableTags, type VmPlan } from './vm-plan.ts';

export interface SaveVmOptions extends Pick<EncodeOptions, 'acceleration' | 'dedup' | 'threads'> {
  /** `auto` (default) is `lz4`. `raw` stores pages as they are. */
  readonly codec?: 'auto' | 'lz4' | 'raw' | undefined;
  /** Parts to leave out; recorded in the checkpoint. */
  readonly skip?: readonly SkipPart[] | undefined;
  /** UUID of the checkpoint, text form; default random. With `createdMs` fixed too, equal machines give equal bytes. */
  readonly uuid?: string | undefined;
  /** Milliseconds since 1970-01-01T00:00:00Z; 0 tells nothing; default now. */
  readonly createdMs?: number | undefined;
  /** Cancels at the next block of each thread; nothing is published, and the machine runs again if it ran. */
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: ((progress: Progress) => void) | undefined;
}

/** What a save did. */
export interface SaveReport {
  readonly url: string;
  readonly uuid: string;
  /** Root digest, hexadecimal: names the content. */
  readonly root: string;
  /** Bytes of guest memory, zero pages included; 0 when memory was skipped. */
  readonly memoryBytes: number;
  /** Bytes of the checkpoint. */
  readonly checkpointBytes: number;
  /** Wall time, milliseconds. */
  readonly elapsedMs: number;
  /** How long the guest was stopped, milliseconds; 0 when it was stopped before. */
  readonly pausedMs: number;
}

const channel = tracingChannel('chkpt:save');

/**
 * Saves `vm` into a store. A running machine is paused for the time of the save and runs again afterwards, whatever happens.
 *
 * Rejects with `CHKPT_VM_FAILED`, `CHKPT_ABORTED`, `CHKPT_NO_SPACE`, `CHKPT_IO` and the other errors of the store; then
 * nothing was published and an older checkpoint at the same place is untouched.
 */
export function saveVm(
  vm: VirtualMachine,
  target: string | Store,
  options: SaveVmOptions = {},
): Operation<SaveReport> {
  const url = typeof target === 'string' ? target : target.url;
  return new Operation<SaveReport>((report) => {
    const work = (): Promise<SaveReport> => savePaused(vm, toStore(target), options, report);
    return channel.tracePromise(work, { url, vm: vm.id });
  }, options.onProgress);
}

type Report = (progress: Omit<Progress, 'elapsedMs'>) => void;

async function savePaused(
  vm: VirtualMachine,
  store: Store,
  options: SaveVmOptions,
  report: Report,
): Promise<SaveReport> {
  const begin = performance.now();
  if (vm.failure !== undefined) {
    throw new CheckpointError('CHKPT_VM_FAILED', 'the machine holds a mixture of two states', {
      cause: vm.failure,
    });
  }
  const plan = planOf(vm, options.skip ?? []);
  const { encoder, memoryBytes } = encoderOf(vm, plan, options, report);
  const { uuid, createdMs, signal } = options;
  const checkpoint = await openInStore(store, {
    mode: 'save',
    digest: await checkpointDigest(),
    uuid,
    createdMs,
    signal,
  });
  const wasRunning = vm.running;
  let pausedAt = performance.now();
  let pausedMs = 0;
  try {
    if (wasRunning) await vm.pause();
    pausedAt = performance.now();
    report({ phase: 'state', memoryBytesDone: 0, memoryBytes });
    await saveStates(vm, plan, checkpoint, options.skip ?? []);
    if (encoder !== undefined) await checkpoint.saveMemory(memoryContext, encoder, { signal });
    if (wasRunning) {
      await vm.resume();
      pausedMs = performance.now() - pausedAt;
    }
    report({ phase: 'commit', memoryBytesDone: memoryBytes, memoryBytes });
    const summary = await checkpoint.commit();
    return reportOf(store, summary, memoryBytes, performance.now() - begin, pausedMs);
  } catch (error) {
    await checkpoint.abort();
    throw abortedOr(error, signal);
  } finally {
    if (wasRunning && !vm.running) await vm.resume();
  }
}

function encoderOf(
  vm: VirtualMachine,
  plan: VmPlan,
  options: SaveVmOptions,
  report: Report,
): { encoder: PageEncoder | undefined; memoryBytes: number } {
  const { memory } = vm;
  if (memory === undefined || !plan.hasMemory) return { encoder: undefined, memoryBytes: 0 };
  const memoryBytes = Number(memory.byteLength);
  const { codec = 'auto', acceleration, dedup, threads } = options;
  const encoder = new PageEncoder(memory, {
    codec: codec === 'auto' ? 'lz4' : codec,
    acceleration,
    dedup,
    threads,
    onPages: (pages) => report({ phase: 'memory', memoryBytesDone: pages * pageBytes, memoryBytes }),
  });
  return { encoder, memoryBytes };
}

async function saveStates(
  vm: VirtualMachine,
  plan: VmPlan,
  checkpoint: SaveCheckpoint,
  skip: readonly SkipPart[],
): Promise<void> {
  const header = await checkpoint.openContext(headerContext);
  await header.save(headerState, headerOf(vm, skip, producer()));
  await header.close();
  if (plan.devices !== undefined) {
    const table = await checkpoint.openContext(devicesContext);
    await table.saveAll(Object.fromEntries(tableTags(plan.devices)));
    await table.close();
  }
  for (const state of plan.states) await saveState(checkpoint, state);
}

async function saveState(checkpoint: SaveCheckpoint, { name, parts }: StateContext): Promise<void> {
  const context = await checkpoint.openContext(name);
  for (const part of parts) await context.save(part.state, await part.get());
  await context.close();
}

function reportOf(
  store: Store,
  summary: CommitSummary,
  memoryBytes: number,
  elapsedMs: number,
  pausedMs: number,
): SaveReport {
  const { uuid, root, bytes } = summary;
  return { url: store.url, uuid, root, memoryBytes, checkpointBytes: bytes, elapsedMs, pausedMs };
}

/** Whatever an abort made fail on the way is reported as the abort. */
export function abortedOr(error: unknown, signal: AbortSignal | undefined): unknown {
  if (!signal?.aborted || (error instanceof CheckpointError && error.code === 'CHKPT_ABORTED')) return error;
  return new CheckpointError('CHKPT_ABORTED', 'aborted', { cause: error });
}
