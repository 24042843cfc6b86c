/**
 * How memory is held for a save while its guest runs on: frozen (`live`), copied (`copyMemory`, and where freezing cannot be
 * had), or not at all: then the guest stands still until the last page is written.
 */
import { CheckpointError } from '../errors/index.ts';
import { type GuestMemory, MemoryCopy, MemorySnapshot, type PageSet } from '../memory/index.ts';
import type { VirtualMachine } from './virtual-machine.ts';

export interface LiveOptions {
  /**
   * Pages that the guest overwrites before they are saved are set aside in at most so many bytes at a time; a save that needs
   * more rejects with `CHKPT_SNAPSHOT_LOST`, and the guest runs on. Default: a quarter of its memory, at least 64 MiB.
   */
  readonly maxSideBytes?: number | undefined;
}

/** Whether a save was live, and if not, why. */
export type LiveOutcome =
  | {
      readonly active: true;
      /** First writes of the guest to pages while it was saved; each waited a moment. */
      readonly faults: number;
      /** Pages that were set aside. */
      readonly savedPages: number;
      /** Most bytes set aside at one time. */
      readonly sideBytesPeak: number;
    }
  | { readonly active: false; readonly reason: string };

export interface AsideOptions {
  readonly copyMemory?: boolean | undefined;
  readonly live?: boolean | LiveOptions | undefined;
  readonly threads?: number | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** What to encode. */
export interface EncodeSource {
  readonly memory: GuestMemory;
  readonly snapshot?: MemorySnapshot | undefined;
  /** The guest may run while it is encoded. */
  readonly isAside: boolean;
}

const sideBytesLeast = 64 * 1024 ** 2;

/** Throws `TypeError`, `RangeError`. */
export function checkLiveOptions(live: boolean | LiveOptions | undefined): void {
  if (live === undefined || typeof live === 'boolean') return;
  if (typeof live !== 'object' || live === null) throw new TypeError('live must be a boolean or options');
  const { maxSideBytes } = live;
  if (maxSideBytes !== undefined && !(Number.isSafeInteger(maxSideBytes) && maxSideBytes > 0)) {
    throw new RangeError('maxSideBytes must be an integer above 0');
  }
}

export class MemoryAside implements AsyncDisposable {
  readonly #vm: VirtualMachine;
  readonly #options: AsideOptions;
  #copy: MemoryCopy | undefined;
  #snapshot: MemorySnapshot | undefined;
  #outcome: LiveOutcome | undefined;

  private constructor(vm: VirtualMachine, options: AsideOptions) {
    this.#vm = vm;
    this.#options = options;
  }

  /** While the guest runs: everything that need not wait until it stands still. Rejects with `CHKPT_NO_MEMORY`, `CHKPT_ABORTED`. */
  static async prepare(
    vm: VirtualMachine,
    memory: GuestMemory | undefined,
    options: AsideOptions,
  ): Promise<MemoryAside> {
    const aside = new MemoryAside(vm, options);
    try {
      await aside.#prepare(memory);
      return aside;
    } catch (error) {
      await aside.close();
      throw error;
    }
  }

  /** Memory can be frozen: the tracker had better look before the guest stands still. */
  get isLive(): boolean {
    return this.#snapshot !== undefined;
  }

  /** Undefined when nobody asked for it. */
  get outcome(): LiveOutcome | undefined {
    return this.#outcome;
  }

  /** The guest stands still. `changed`: the only pages that are wanted. */
  async take(now: GuestMemory, changed: PageSet | undefined): Promise<EncodeSource> {
    if (this.#snapshot !== undefined) return await this.#freeze(now, changed);
    if (this.#copy === undefined) return { memory: now, isAside: false };
    await this.#copy.update(now, this.#options);
    return { memory: this.#copy.memory, isAside: true };
  }

  /** All is encoded. Harmless when called twice. */
  async close(): Promise<void> {
    const snapshot = this.#snapshot;
    this.#snapshot = undefined;
    if (this.#outcome?.active && snapshot !== undefined) {
      this.#outcome = { active: true, ...snapshot.counts() };
    }
    await snapshot?.close();
    await this.#copy?.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #prepare(memory: GuestMemory | undefined): Promise<void> {
    const isLive = this.#options.live !== undefined && this.#options.live !== false;
    if (isLive) this.#outcome = { active: false, reason: 'the machine does not run' };
    if (isLive && memory === undefined) this.#outcome = { active: false, reason: 'no memory is saved' };
    if (memory === undefined || !this.#vm.running) return;
    if (isLive && (await this.#open(memory))) return;
    if (!isLive && this.#options.copyMemory !== true) return;
    this.#copy = MemoryCopy.of(memory);
    // Most of what a copy costs is getting the memory for it: now, while the guest runs.
    if (!memory.isAttached) await this.#copy.update(memory, this.#options);
  }

  async #open(memory: GuestMemory): Promise<boolean> {
    try {
      this.#snapshot = MemorySnapshot.open(memory, this.#vm.dirtyTracker);
    } catch (error) {
      this.#outcome = { active: false, reason: `copied instead: ${reasonOf(error)}` };
      return false;
    }
    await this.#snapshot.prepare(this.#sideBytesMax(memory));
    return true;
  }

  async #freeze(now: GuestMemory, changed: PageSet | undefined): Promise<EncodeSource> {
    let snapshot = this.#snapshot as MemorySnapshot;
    if (snapshot.memory !== now) {
      // Attached memory that has moved since.
      await snapshot.close();
      snapshot = MemorySnapshot.open(now, this.#vm.dirtyTracker);
      this.#snapshot = snapshot;
      await snapshot.prepare(this.#sideBytesMax(now));
    }
    await snapshot.freeze(this.#sideBytesMax(now), changed);
    this.#outcome = { active: true, ...snapshot.counts() };
    return { memory: now, snapshot, isAside: true };
  }

  #sideBytesMax(memory: GuestMemory): number {
    const { live } = this.#options;
    const asked = typeof live === 'object' ? live.maxSideBytes : undefined;
    return Math.min(asked ?? Math.max(sideBytesLeast, Math.floor(Number(memory.byteLength) / 4)), 2 ** 42);
  }
}

/** Only what this memory or machine lacks leads to a copy. */
function reasonOf(error: unknown): string {
  const isLack =
    error instanceof CheckpointError &&
    (error.code === 'CHKPT_UNSUPPORTED' || error.code === 'CHKPT_PERMISSION');
  if (!isLack) throw error;
  return error.message;
}
