/**
 * Chooses and opens the tracker of a memory. Trackers of KVM are made by the machines of `chkpt/kvm`.
 */
import { CheckpointError } from '../errors/index.ts';
import { awaitNative, callNative, type NativeDirtyTracker, nativeAddon } from '../native/index.ts';
import type { DirtyTracker, TrackerKind } from './dirty-tracker.ts';
import { checkThreads, type GuestMemory } from './guest-memory.ts';
import { PageSet } from './page-set.ts';

export interface TrackOptions {
  /** Which one; default: the best that works. */
  readonly kind?: TrackerKind;
  /** Threads that read memory for `digest`, 1 to 64; default: one for each processor. */
  readonly threads?: number;
  /** Process id of who writes, for `soft-dirty`; it has the files of the memory mapped. Default: this process. */
  readonly process?: number;
}

/** In the order of the core. */
const kinds: readonly TrackerKind[] = [
  'kvm-log',
  'kvm-ring',
  'write-protect',
  'soft-dirty',
  'digest',
  'reported',
];

/** A tracker of native code over one memory. */
export class MemoryTracker implements DirtyTracker, AsyncDisposable {
  readonly kind: TrackerKind;
  readonly reason: string;
  /** What it watches. */
  readonly memory: GuestMemory;
  readonly #native: NativeDirtyTracker;
  readonly #inFlight = new Set<Promise<unknown>>();
  #closing: Promise<void> | undefined;

  constructor(memory: GuestMemory, native: NativeDirtyTracker, kind: TrackerKind, reason: string) {
    this.memory = memory;
    this.#native = native;
    this.kind = kind;
    this.reason = reason;
  }

  async arm(): Promise<void> {
    await this.#run((native) => native.arm());
  }

  async harvest(): Promise<PageSet> {
    const native = await this.#run((tracker) => tracker.harvest());
    return new PageSet(this.memory.pageCount, native);
  }

  async look(): Promise<PageSet> {
    const native = await this.#run((tracker) => tracker.look());
    return new PageSet(this.memory.pageCount, native);
  }

  async firstWriteCost(): Promise<number | undefined> {
    return await this.#run((native) => native.firstWriteCost());
  }

  /**
   * Pages that were written past the tracker: all that `reported` knows, an addition for the other kinds. They are in the next
   * harvest. Throws `RangeError` for pages that the memory does not have, `CHKPT_CLOSED`.
   */
  mark(first: number, count: number): void {
    const legal = Number.isSafeInteger(first) && Number.isSafeInteger(count) && first >= 0 && count >= 0;
    if (!legal || first + count > this.memory.pageCount) {
      throw new RangeError(`no run of ${count} pages from ${first} on in ${this.memory.pageCount} pages`);
    }
    this.#checkOpen();
    callNative(() => this.#native.mark(first, count));
  }

  /** For `src/memory`. Throws `CHKPT_CLOSED`. */
  get native(): NativeDirtyTracker {
    this.#checkOpen();
    return this.#native;
  }

  async close(): Promise<void> {
    this.#closing ??= this.#close();
    await this.#closing;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #close(): Promise<void> {
    await Promise.allSettled([...this.#inFlight]);
    await awaitNative(this.#native.close());
  }

  #checkOpen(): void {
    if (this.#closing !== undefined) throw new CheckpointError('CHKPT_CLOSED', 'the dirty tracker is closed');
  }

  async #run<T>(work: (native: NativeDirtyTracker) => Promise<T>): Promise<T> {
    this.#checkOpen();
    void this.memory.native; // throws when the memory is closed
    const done = this.memory.hold(awaitNative(callNative(() => work(this.#native))));
    this.#inFlight.add(done);
    try {
      return await done;
    } finally {
      this.#inFlight.delete(done);
    }
  }
}

/**
 * Opens the best tracker that works, or the one asked for; `kind` and `reason` of the result tell. It is not armed.
 *
 * Throws `CHKPT_UNSUPPORTED` or `CHKPT_PERMISSION`, with the reason, when a kind asked for cannot be had; `CHKPT_NO_MEMORY`;
 * `CHKPT_CLOSED`. Close the tracker before the memory.
 */
export function trackMemory(memory: GuestMemory, options: TrackOptions = {}): MemoryTracker {
  const { kind } = options;
  if (kind !== undefined) {
    if (!kinds.includes(kind)) throw new TypeError(`unknown kind of tracker ${String(kind)}`);
    return open(memory, kind, 'asked for', options);
  }
  if (options.process !== undefined) return trackProcess(memory, options);
  if (memory.isMapped) {
    const why =
      'the files are mapped, so other processes may write too, and write-protect would not see them';
    return open(memory, 'digest', why, options);
  }
  try {
    return open(memory, 'write-protect', 'sees every write of this process at the page table', options);
  } catch (error) {
    return open(memory, 'digest', `compares digests; no write-protect: ${reasonOf(error)}`, options);
  }
}

function trackProcess(memory: GuestMemory, options: TrackOptions): MemoryTracker {
  try {
    return open(memory, 'soft-dirty', 'the kernel keeps soft-dirty bits of that process', options);
  } catch (error) {
    return open(memory, 'digest', `compares digests; no soft-dirty: ${reasonOf(error)}`, options);
  }
}

/** Only what a kind lacks here leads to the next one. */
function reasonOf(error: unknown): string {
  const isLack =
    error instanceof CheckpointError &&
    (error.code === 'CHKPT_UNSUPPORTED' || error.code === 'CHKPT_PERMISSION');
  if (!isLack) throw error;
  return error.message;
}

function open(memory: GuestMemory, kind: TrackerKind, reason: string, options: TrackOptions): MemoryTracker {
  const process = options.process ?? 0;
  if (!Number.isInteger(process) || process < 0 || process > 0x7fffffff) {
    throw new RangeError('process must be a process id');
  }
  const threads = checkThreads(options.threads);
  const native = callNative(
    () => new (nativeAddon().DirtyTracker)(memory.native, kinds.indexOf(kind), { threads, process }),
  );
  return new MemoryTracker(memory, native, kind, reason);
}
