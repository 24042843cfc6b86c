/**
 * Guest memory that is kept as it was at one moment while its guest writes: the native guard behind promises.
 *
 * Native threads hear of each write before it happens and copy the page aside; they never wait for JavaScript, whose own thread
 * may be the one that writes.
 */
import { awaitNative, callNative, type NativeSnapshot, nativeAddon } from '../native/index.ts';
import { deferred } from '../util/deferred.ts';
import type { DirtyTracker } from './dirty-tracker.ts';
import type { GuestMemory } from './guest-memory.ts';
import type { PageSet } from './page-set.ts';
import { MemoryTracker } from './track-memory.ts';

export interface SnapshotCounts {
  /** Writes of the guest that waited until they were heard of. */
  readonly faults: number;
  /** Pages that were copied aside. */
  readonly savedPages: number;
  /** Most bytes held aside at one time. */
  readonly sideBytesPeak: number;
}

export class MemorySnapshot implements AsyncDisposable {
  readonly memory: GuestMemory;
  /** For `src/memory`. */
  readonly native: NativeSnapshot;
  readonly #done = deferred();
  #closing: Promise<void> | undefined;

  private constructor(memory: GuestMemory, native: NativeSnapshot) {
    this.memory = memory;
    this.native = native;
    memory.keepUntil(this.#done.promise);
  }

  /**
   * Nothing is frozen yet. A `tracker` of this memory that has it write-protected goes on tracking, and hears of each first
   * write of a page itself from the first snapshot on.
   *
   * Throws `CHKPT_UNSUPPORTED` or `CHKPT_PERMISSION`, with the reason, where this memory cannot be frozen.
   */
  static open(memory: GuestMemory, tracker?: DirtyTracker): MemorySnapshot {
    const shared =
      tracker instanceof MemoryTracker && tracker.kind === 'write-protect' && tracker.memory === memory
        ? tracker.native
        : undefined;
    const native = callNative(() => new (nativeAddon().Snapshot)(memory.native, shared));
    return new MemorySnapshot(memory, native);
  }

  /** While the guest runs: makes `freeze` with the same `sideBytesMax` fast. Rejects with `CHKPT_IO`, `CHKPT_NO_MEMORY`. */
  prepare(sideBytesMax: number): Promise<void> {
    return awaitNative(callNative(() => this.native.prepare(sideBytesMax)));
  }

  /**
   * The image is what memory is now, or those pages of it that are in `changed`. The guest stands still until it resolves.
   * Rejects with `CHKPT_SNAPSHOT_LOST`, `CHKPT_UNSUPPORTED` when another snapshot of a tracked memory is not closed, `CHKPT_IO`.
   */
  freeze(sideBytesMax: number, changed: PageSet | undefined): Promise<void> {
    return awaitNative(callNative(() => this.native.freeze(sideBytesMax, changed?.native)));
  }

  counts(): SnapshotCounts {
    return this.native.counts();
  }

  /** After the encoder: the guest writes as it likes. Harmless when called twice. */
  close(): Promise<void> {
    this.#closing ??= this.native.close().finally(this.#done.resolve);
    return this.#closing;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}
