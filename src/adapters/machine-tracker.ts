/**
 * The dirty tracker of a machine whose memory may move, or whose writer may be replaced, while the machine lives: an emulator's memory
 * that has grown elsewhere, a process that was started anew. A tracker of the new one is opened then, and the next harvest tells all
 * pages. So it is one tracker for as long as the machine lives, and no change is lost.
 *
 * Calls run one after the other.
 */
import {
  CheckpointError,
  type DirtyTracker,
  type GuestMemory,
  type MemoryTracker,
  type PageSet,
  type TrackerKind,
} from '../index.ts';
import { CallQueue } from '../util/call-queue.ts';

/** What is tracked now. */
export interface TrackedMemory {
  readonly memory: GuestMemory;
  /** Opens a tracker of it. Throws what `trackMemory` does. */
  open(): MemoryTracker;
  /** False when a tracker of that kind does not see all of the machine's writes any more. */
  isCurrent(kind: TrackerKind): boolean;
  /** Nobody tracks `memory` any more. */
  release?(): Promise<void>;
}

export class MachineTracker implements DirtyTracker {
  readonly #queue = new CallQueue();
  readonly #find: () => TrackedMemory;
  #tracked: TrackedMemory;
  #tracker: MemoryTracker;
  #isClosed = false;

  /** Throws what `trackMemory` does. */
  constructor(find: () => TrackedMemory) {
    this.#find = find;
    this.#tracked = find();
    this.#tracker = this.#tracked.open();
  }

  get kind(): TrackerKind {
    return this.#tracker.kind;
  }

  get reason(): string {
    return this.#tracker.reason;
  }

  get isClosed(): boolean {
    return this.#isClosed;
  }

  arm(): Promise<void> {
    return this.#run(async () => {
      await this.#follow();
      await this.#tracker.arm();
    });
  }

  harvest(): Promise<PageSet> {
    return this.#run(async () => {
      if (await this.#follow()) await this.#markAll();
      return await this.#tracker.harvest();
    });
  }

  look(): Promise<PageSet> {
    return this.#run(async () => {
      if (await this.#follow()) await this.#markAll();
      return await this.#tracker.look();
    });
  }

  firstWriteCost(): Promise<number | undefined> {
    return this.#run(() => this.#tracker.firstWriteCost());
  }

  /** As that of `MemoryTracker`: pages that were written past the tracker. Throws `RangeError`, `CHKPT_CLOSED`. */
  mark(first: number, count: number): void {
    this.#tracker.mark(first, count);
  }

  close(): Promise<void> {
    return this.#queue.run(async () => {
      if (this.#isClosed) return;
      this.#isClosed = true;
      await this.#tracker.close();
      await this.#tracked.release?.();
    });
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #markAll(): Promise<void> {
    await this.#tracker.arm();
    this.#tracker.mark(0, this.#tracked.memory.pageCount);
  }

  /** True when it has opened another tracker, which is not armed. */
  async #follow(): Promise<boolean> {
    if (this.#tracked.isCurrent(this.kind)) return false;
    // The old one first: a range of memory can have one tracker of some kinds.
    await this.#tracker.close();
    await this.#tracked.release?.();
    // When there is none now, the next call looks again.
    const tracked = this.#find();
    this.#tracker = tracked.open();
    this.#tracked = tracked;
    return true;
  }

  #run<T>(work: () => Promise<T>): Promise<T> {
    return this.#queue.run(async () => {
      if (this.#isClosed) throw new CheckpointError('CHKPT_CLOSED', 'the dirty tracker is closed');
      return await work();
    });
  }
}

/** A machine's place for its tracker, of which it has one at most. */
export class TrackerPlace {
  #tracker: MachineTracker | undefined;

  /** Undefined when there is none, or it was closed. */
  get current(): MachineTracker | undefined {
    return this.#tracker?.isClosed === false ? this.#tracker : undefined;
  }

  /** Throws `TypeError` when there is one, and what `trackMemory` does. */
  open(find: () => TrackedMemory): MachineTracker {
    if (this.current !== undefined) throw new TypeError('the changes of this machine are tracked already');
    this.#tracker = new MachineTracker(find);
    return this.#tracker;
  }

  async close(): Promise<void> {
    await this.#tracker?.close();
  }
}
