/**
 * Guest memory whose pages come from a checkpoint when they are touched: the native lazy loader behind promises.
 *
 * Native threads serve the pages; JavaScript only hears of the stages. It may touch missing pages too: its thread then waits a
 * moment, as a guest does. Not where the bytes are `requests` that it has to answer itself: there it may touch what is here.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { CheckpointError } from '../errors/index.ts';
import {
  awaitNative,
  callNative,
  fromNative,
  type NativeLazyLayer,
  type NativeLazyLoader,
  nativeAddon,
} from '../native/index.ts';
import type { GuestMemory } from './guest-memory.ts';
import type { MissingPages } from './missing-pages.ts';
import type { RequestedBytes } from './requested-bytes.ts';

export interface LazyPagesOptions {
  /** The checkpoint, and the ones it builds on: newest first. */
  readonly layers: readonly NativeLazyLayer[];
  /** Threads of the background fill, 1 to 64. */
  readonly fillThreads: number;
  /** 0: no limit. */
  readonly fillBytesPerSecond: number;
  /** How long the fill waits before it begins, milliseconds. */
  readonly fillDelayMs: number;
  /** Block numbers, u32 little-endian, to fetch first. */
  readonly replay: Uint8Array;
  /** Damaged pages are a SIGBUS, not a pattern (Linux 6.6). */
  readonly poison: boolean;
  /** Of layers that native threads cannot read themselves. They are closed with the load. */
  readonly requests?: readonly RequestedBytes[] | undefined;
}

/** How far a lazy load is. Blocks are 64 KiB of guest memory that is not all zeros. */
export interface LazyCounts {
  readonly blocks: number;
  /** Of them, not there yet. */
  readonly missing: number;
  /** Faults served, of zero pages too. */
  readonly faults: number;
  /** Blocks that came because the guest asked for them. */
  readonly faultBlocks: number;
}

/** Threads that serve faults: a fault of a second core does not wait for the first one's block. */
const handlerThreads = 2;
/** Between a page and the mark that its block is here there are microseconds, unless the thread loses the processor. */
const settleMs = 1;

export class LazyPages implements MissingPages {
  readonly #memory: GuestMemory;
  readonly #native: NativeLazyLoader;
  readonly #requests: readonly RequestedBytes[];
  #isLoading = false;
  #failure: unknown;
  #final: { readonly counts: LazyCounts; readonly workingSet: Uint8Array } | undefined;
  #closing: Promise<void> | undefined;

  private constructor(memory: GuestMemory, native: NativeLazyLoader, requests: readonly RequestedBytes[]) {
    this.#memory = memory;
    this.#native = native;
    this.#requests = requests;
  }

  /**
   * Reads and verifies the block indexes; the memory is untouched. Rejects with `CHKPT_UNSUPPORTED` or `CHKPT_PERMISSION` where
   * this memory cannot be loaded lazily, and with every error of kind `damaged`.
   */
  static async prepare(memory: GuestMemory, options: LazyPagesOptions): Promise<LazyPages> {
    const { requests = [] } = options;
    const native = callNative(
      () => new (nativeAddon().LazyLoader)(memory.native, { handlerThreads, ...options }),
    );
    try {
      await awaitNative(native.wait(1));
      return new LazyPages(memory, native, requests);
    } catch (error) {
      await native.close();
      throw storeErrorOr(error, requests);
    }
  }

  get isLoading(): boolean {
    return this.#isLoading;
  }

  /** Drops what is in memory; from when it resolves on the guest may run. */
  async start(): Promise<void> {
    await this.#memory.replaceable();
    await this.#memory.replaceMissingPages(this);
    this.#isLoading = true;
    this.#native.arm();
    await awaitNative(this.#native.wait(3));
  }

  /**
   * Resolves when all pages are there and memory is ordinary again, to the header digests of all frames. Rejects with what went
   * wrong; then pages that could not be loaded still do not read as zeros.
   */
  async resident(): Promise<Uint8Array> {
    try {
      await awaitNative(this.#native.wait(4));
      const digests = this.#native.digests();
      this.#final = { counts: this.#native.counts(), workingSet: this.#native.workingSet() };
      await this.close();
      return digests;
    } catch (error) {
      throw storeErrorOr(error, this.#requests);
    } finally {
      this.#isLoading = false;
    }
  }

  /** The content of memory is not to be trusted, whoever found out. */
  fail(error: unknown): void {
    this.#failure ??= error;
  }

  /** Makes the load end: `resident()` rejects with `CHKPT_ABORTED`. */
  abort(): void {
    this.#native.abort();
  }

  /** The machine knows: threads that wait for a damaged page may go on, and be stopped. */
  release(): void {
    this.#native.release();
    // Whoever still waits for bytes goes on, too.
    for (const one of this.#requests) void one.close();
  }

  checkTouch(address?: bigint, bytes?: number): void {
    if (this.#requests.length === 0 || !this.#isLoading) return;
    if (address !== undefined && bytes !== undefined && this.#native.isHere(address, bytes)) return;
    const what = 'this thread has to fetch these pages from the store, and must not wait for them';
    throw new CheckpointError('CHKPT_UNSUPPORTED', what);
  }

  want(address: bigint, bytes: number): void {
    if (this.#isLoading) this.#native.want(address, bytes);
  }

  async settle(address: bigint, bytes: number): Promise<void> {
    if (this.#requests.length === 0) return;
    while (this.#isLoading && this.#failure === undefined && !this.#native.isHere(address, bytes)) {
      await sleep(settleMs);
    }
  }

  counts(): LazyCounts {
    return this.#final?.counts ?? this.#native.counts();
  }

  /** Block numbers, u32 little-endian, in the order of their first fault. */
  workingSet(): Uint8Array {
    return this.#final?.workingSet ?? this.#native.workingSet();
  }

  get isClosed(): boolean {
    return this.#closing !== undefined;
  }

  check(): void {
    if (this.#failure === undefined && this.#native.hasFailed()) {
      // This thread was let go before it could hear of it.
      const what = 'a page of guest memory could not be loaded';
      throw new CheckpointError('CHKPT_VM_FAILED', what);
    }
    if (this.#failure !== undefined) throw fromNative(this.#failure);
  }

  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    await this.#native.close();
    await Promise.all(this.#requests.map((one) => one.close()));
  }
}

/** What the store said, where native threads only know that it could not be read. */
function storeErrorOr(error: unknown, requests: readonly RequestedBytes[]): unknown {
  if (!(error instanceof CheckpointError) || error.code !== 'CHKPT_IO') return error;
  return requests.find(({ failure }) => failure !== undefined)?.failure ?? error;
}
