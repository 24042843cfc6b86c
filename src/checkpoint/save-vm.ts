/** Saves a whole virtual machine: header first, then devices and cores, then memory. */
import { tracingChannel } from 'node:diagnostics_channel';
import { openCheckpoint as openInStore } from '../context/checkpoint.ts';
import type { MemoryTotals } from '../context/memory-frames.ts';
import type { StreamWritten } from '../context/stream-writer.ts';
import { CheckpointError } from '../errors/index.ts';
import { pageBytes } from '../limits.ts';
import { checkpointDigest } from '../memory/digest.ts';
import { type EncodeOptions, type GuestMemory, PageEncoder } from '../memory/index.ts';
import { type Store, type TeeOutcome, TeeStore } from '../store/index.ts';
import { Increment, type IncrementOptions, type TrackerReport } from './increment.ts';
import { saveStates } from './machine-states.ts';
import { checkLiveOptions, type LiveOptions, type LiveOutcome, MemoryAside } from './memory-aside.ts';
import { type KeyOptions, toStores } from './open.ts';
import { Operation, type Progress } from './operation.ts';
import { pagesIn, type ScrubOptions, scrubbedRanges } from './scrub.ts';
import { tellTotals } from './tell-totals.ts';
import { inTurn } from './turns.ts';
import type { SkipPart, VirtualMachine } from './virtual-machine.ts';
import { memoryContext, planOf } from './vm-plan.ts';

export interface SaveVmOptions
  extends Pick<EncodeOptions, 'acceleration' | 'dedup' | 'threads'>,
    Pick<IncrementOptions, 'parent' | 'parents' | 'skipEqual'>,
    KeyOptions,
    ScrubOptions {
  /** `auto` (default) is `lz4`. `raw` stores pages as they are. */
  readonly codec?: 'auto' | 'lz4' | 'raw' | undefined;
  /**
   * Lets a running guest run on while its memory is compressed and written: it stands still only while its state is taken and
   * its memory is copied aside. Needs free memory for all that the guest has touched. Default false: the guest stands still until
   * the last page is written. The checkpoint is the same.
   */
  readonly copyMemory?: boolean | undefined;
  /**
   * Lets a running guest run on while its memory is compressed and written, without a copy of it: it stands still only while
   * its state is taken. What it overwrites before it was saved is set aside. Where that cannot be had memory is copied as with
   * `copyMemory`, and `SaveReport.live` says why. See docs/live-snapshot.md.
   */
  readonly live?: boolean | LiveOptions | undefined;
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
  /** What became of the pages; undefined when memory was skipped, or the store keeps it in a way of its own. */
  readonly totals?: MemoryTotals | undefined;
  /** Bytes of the checkpoint in its store. */
  readonly checkpointBytes: number;
  /** Of an increment: UUID of its parent. */
  readonly parent?: string | undefined;
  /** Of an increment: who said what has changed, and why nobody else. */
  readonly tracker?: TrackerReport | undefined;
  /** Whether it was live, and if not, why; undefined when that was not asked for. */
  readonly live?: LiveOutcome | undefined;
  /** Wall time, milliseconds. */
  readonly elapsedMs: number;
  /** Of a save into several stores: what became of each, in the order given. */
  readonly stores?: readonly TeeOutcome[] | undefined;
  /** How long the guest was stopped, milliseconds; 0 when it was stopped before. */
  readonly pausedMs: number;
}

const channel = tracingChannel('chkpt:save');

/**
 * Saves `vm` into a store, or into several at once: memory is scanned and compressed once, and a store that fails does not spoil the
 * others (`SaveReport.stores`). Saves and loads of one machine wait for each other. A running machine is paused for the time of the save (less with `live` or `copyMemory`) and runs again
 * afterwards, whatever happens.
 *
 * Rejects with `CHKPT_VM_FAILED`, `CHKPT_KEY`, `CHKPT_ABORTED`, `CHKPT_NO_MEMORY`, `CHKPT_NO_SPACE`, `CHKPT_IO`, with `live` `CHKPT_SNAPSHOT_LOST`, and the other errors of the store; then
 * nothing was published, an older checkpoint at the same place is untouched, and what a dirty tracker told is kept for the next
 * save. With a parent also `CHKPT_PARENT_MISSING`, `CHKPT_PARENT_FOREIGN`, `CHKPT_PARENT_CYCLE`, `CHKPT_VM_REGIONS`.
 */
export function saveVm(
  vm: VirtualMachine,
  target: string | Store | readonly (string | Store)[],
  options: SaveVmOptions = {},
): Operation<SaveReport> {
  const url = [target].flat().map(urlOf).join(' ');
  return new Operation<SaveReport>((report) => {
    const work = (): Promise<SaveReport> =>
      inTurn(vm, options.signal, () => savePaused(vm, toStores(target, options.key), options, report));
    return channel.tracePromise(work, { url, vm: vm.id });
  }, options.onProgress);
}

function urlOf(target: string | Store): string {
  return typeof target === 'string' ? target : target.url;
}

type Report = (progress: Omit<Progress, 'elapsedMs'>) => void;

async function savePaused(
  vm: VirtualMachine,
  store: Store,
  options: SaveVmOptions,
  report: Report,
): Promise<SaveReport> {
  const begin = performance.now();
  checkWhole(vm);
  checkLiveOptions(options.live);
  const plan = planOf(vm, options.skip ?? []);
  const memory = plan.hasMemory ? vm.memory : undefined;
  const encode = encoderOf(memory, options, report);
  const scrubbed = scrubbedRanges(options, memory?.regions);
  const increment = await Increment.prepare(vm, memory, store, options);
  checkWhole(vm);
  const memoryBytes = Number(memory?.byteLength ?? 0n);
  const { uuid, createdMs, signal } = options;
  const checkpoint = await openInStore(store, {
    mode: 'save',
    digest: await checkpointDigest(),
    uuid,
    createdMs,
    signal,
    ...increment.reference,
  });
  const stop = new Stop(vm);
  let aside: MemoryAside | undefined;
  try {
    aside = await MemoryAside.prepare(vm, memory, options);
    if (aside.isLive) await increment.lookAhead();
    checkWhole(vm);
    await stop.begin();
    report({ phase: 'state', memoryBytesDone: 0, memoryBytes });
    await saveStates(vm, plan, checkpoint, {
      skip: options.skip ?? [],
      parentUrl: increment.link(store.url),
      scrubbed,
    });
    const changes = await increment.take(pagesIn(scrubbed, memory?.regions ?? []));
    const now = plan.hasMemory ? vm.memory : undefined;
    let totals: MemoryTotals | undefined;
    if (now !== undefined) {
      const source = await aside.take(now, changes.changed);
      if (source.isAside) await stop.end();
      const pages = tellTotals(encode(source.memory, { ...changes, snapshot: source.snapshot }), (told) => {
        totals = told;
      });
      await checkpoint.saveMemory(memoryContext, pages, { signal });
    }
    await stop.end();
    await aside.close();
    report({ phase: 'commit', memoryBytesDone: memoryBytes, memoryBytes });
    const summary = await checkpoint.commit();
    increment.commit(summary, store);
    const { parent, tracker } = increment;
    return {
      ...reportOf(store, summary, memoryBytes, performance.now() - begin, stop.pausedMs),
      ...(aside.outcome === undefined ? {} : { live: aside.outcome }),
      ...(totals === undefined ? {} : { totals }),
      ...(store instanceof TeeStore ? { stores: store.outcomes } : {}),
      ...(parent === undefined ? {} : { parent: parent.uuid, tracker }),
    };
  } catch (error) {
    increment.rollback();
    await checkpoint.abort();
    throw abortedOr(error, signal);
  } finally {
    try {
      await stop.end();
    } finally {
      await aside?.close();
    }
  }
}

function checkWhole(vm: VirtualMachine): void {
  if (vm.failure === undefined) return;
  throw new CheckpointError('CHKPT_VM_FAILED', 'the machine holds a mixture of two states', {
    cause: vm.failure,
  });
}

/** The time in which a machine that ran stands still. */
class Stop {
  readonly #vm: VirtualMachine;
  /** Undefined: it did not run, or runs again. */
  #beginMs: number | undefined;
  pausedMs = 0;

  constructor(vm: VirtualMachine) {
    this.#vm = vm;
  }

  async begin(): Promise<void> {
    if (!this.#vm.running) return;
    // Also when pause() fails, the machine runs afterwards.
    this.#beginMs = performance.now();
    await this.#vm.pause();
    this.#beginMs = performance.now();
  }

  /** Once: whoever pauses the machine afterwards wants it so. */
  async end(): Promise<void> {
    if (this.#beginMs === undefined) return;
    if (!this.#vm.running) await this.#vm.resume();
    this.pausedMs = performance.now() - this.#beginMs;
    this.#beginMs = undefined;
  }
}

/** Checks the options before anything is done. */
function encoderOf(
  memory: GuestMemory | undefined,
  options: SaveVmOptions,
  report: Report,
): (
  source: GuestMemory,
  changes?: Pick<EncodeOptions, 'changed' | 'pageDigests' | 'scrubbed' | 'snapshot'>,
) => PageEncoder {
  const { codec = 'auto', acceleration, dedup, threads } = options;
  const memoryBytes = Number(memory?.byteLength ?? 0n);
  const encode: ReturnType<typeof encoderOf> = (source, changes) =>
    new PageEncoder(source, {
      ...changes,
      codec: codec === 'auto' ? 'lz4' : codec,
      acceleration,
      dedup,
      threads,
      onPages: (pages) => report({ phase: 'memory', memoryBytesDone: pages * pageBytes, memoryBytes }),
    });
  if (memory !== undefined) encode(memory);
  return encode;
}

function reportOf(
  store: Store,
  summary: StreamWritten,
  memoryBytes: number,
  elapsedMs: number,
  pausedMs: number,
): SaveReport {
  const { uuid, root, storedBytes } = summary;
  return { url: store.url, uuid, root, memoryBytes, checkpointBytes: storedBytes, elapsedMs, pausedMs };
}

/** Whatever an abort made fail on the way is reported as the abort. */
export function abortedOr(error: unknown, signal: AbortSignal | undefined): unknown {
  if (!signal?.aborted) return error;
  // Somebody else may have what was saved: that is more than being cancelled.
  if (error instanceof CheckpointError && (error.code === 'CHKPT_ABORTED' || error.kind === 'doubt'))
    return error;
  return new CheckpointError('CHKPT_ABORTED', 'aborted', { cause: error });
}
