/**
 * The memory of a checkpoint, decoded once and shared by any number of clones: the native image behind promises. What a clone writes
 * is its own. Pages come when a clone touches them, and by a background fill.
 */
import { CheckpointError } from '../errors/index.ts';
import {
  awaitNative,
  callNative,
  fromNative,
  type NativeLazyOptions,
  type NativeMemory,
  type NativeSharedImage,
  nativeAddon,
} from '../native/index.ts';
import { GuestMemory, type RegionSpec, toRegions } from './guest-memory.ts';
import type { LazyCounts } from './lazy-pages.ts';
import type { MissingPages } from './missing-pages.ts';

/** Threads that serve the faults of all clones. */
const handlerThreads = 2;

export class ImagePages {
  readonly #native: NativeSharedImage;
  readonly #regions: readonly RegionSpec[];
  readonly #clones = new Map<GuestMemory, ClonePages>();
  #failure: unknown;
  #final: LazyCounts | undefined;
  #resident: Promise<Uint8Array> | undefined;
  #isResident = false;
  #isClosed = false;
  #closing: Promise<void> | undefined;

  private constructor(native: NativeSharedImage, regions: readonly RegionSpec[]) {
    this.#native = native;
    this.#regions = regions;
  }

  /**
   * Reads and verifies the block indexes; from then on clones can be made. Rejects with `CHKPT_UNSUPPORTED` or `CHKPT_PERMISSION`
   * where the kernel cannot do it, `CHKPT_NO_MEMORY`, and errors of kind `damaged` and `io`.
   */
  static async open(
    regions: readonly RegionSpec[],
    options: Omit<NativeLazyOptions, 'handlerThreads' | 'poison'>,
  ): Promise<ImagePages> {
    const native = callNative(
      () =>
        new (nativeAddon().SharedImage)(toRegions(regions), { ...options, handlerThreads, poison: false }),
    );
    try {
      await awaitNative(native.wait(1));
      native.arm();
      await awaitNative(native.wait(3));
      return new ImagePages(native, regions);
    } catch (error) {
      await native.close();
      throw error;
    }
  }

  get isLoading(): boolean {
    return !this.#isResident && this.#failure === undefined;
  }

  /** Resolves when all pages are there, to the header digests of all frames. Rejects with what went wrong. */
  resident(): Promise<Uint8Array> {
    this.#resident ??= this.#waitResident();
    return this.#resident;
  }

  async #waitResident(): Promise<Uint8Array> {
    try {
      await awaitNative(this.#native.wait(4));
      this.#isResident = true;
      return this.#native.digests();
    } catch (error) {
      this.fail(error);
      throw error;
    }
  }

  /** The content is not to be trusted, whoever found out. */
  fail(error: unknown): void {
    this.#failure ??= error;
    for (const clone of this.#clones.values()) clone.releaseUnlessHeld();
  }

  /** `check`, when what native threads have found may not have been heard of yet. */
  async checkSettled(): Promise<void> {
    if (this.#failure === undefined && this.#closing === undefined && this.#native.hasFailed()) {
      await this.resident();
    }
    this.check();
  }

  check(): void {
    if (this.#failure !== undefined) throw fromNative(this.#failure);
    if (this.#closing === undefined && this.#native.hasFailed()) {
      throw new CheckpointError('CHKPT_VM_FAILED', 'a page of guest memory could not be loaded');
    }
  }

  counts(): LazyCounts {
    return this.#final ?? this.#native.counts();
  }

  /** New memory with the content of the image. Throws `CHKPT_CLOSED`, `CHKPT_NO_MEMORY`, and what has made the image fail. */
  clone(): GuestMemory {
    if (this.#isClosed) throw new CheckpointError('CHKPT_CLOSED', 'the shared image is closed');
    this.check();
    const native = callNative(() => this.#native.clone());
    const pages = new ClonePages(this, native);
    const memory: GuestMemory = GuestMemory.cloned(native, this.#regions, pages, () => this.#forget(memory));
    this.#clones.set(memory, pages);
    return memory;
  }

  /** Undefined: the memory is no clone of this image. */
  pagesOf(memory: GuestMemory): ClonePages | undefined {
    return this.#clones.get(memory);
  }

  /** For ClonePages. */
  holdClone(native: NativeMemory): void {
    this.#native.holdClone(native);
  }

  /** For ClonePages. */
  releaseClone(native: NativeMemory): void {
    this.#native.releaseClone(native);
  }

  /** The memory of a clone was given back. */
  async #forget(memory: GuestMemory): Promise<void> {
    this.#clones.delete(memory);
    if (this.#isClosed && this.#clones.size === 0) await this.#close();
  }

  /** No more clones. It is given back when the last clone is. Harmless when called twice. */
  async close(): Promise<void> {
    this.#isClosed = true;
    if (this.#clones.size === 0) await this.#close();
  }

  #close(): Promise<void> {
    this.#final ??= this.#native.counts();
    this.#closing ??= this.#native.close();
    return this.#closing;
  }
}

/** The pages that a clone has not got yet, or has not written. */
export class ClonePages implements MissingPages {
  readonly image: ImagePages;
  readonly #native: NativeMemory;
  #failure: unknown;
  #onClose: (() => void) | undefined;
  #isHeld = false;

  constructor(image: ImagePages, native: NativeMemory) {
    this.image = image;
    this.#native = native;
  }

  get isLoading(): boolean {
    return this.image.isLoading && this.#failure === undefined;
  }

  check(): void {
    if (this.#failure !== undefined) throw fromNative(this.#failure);
    this.image.check();
  }

  /** Drops what was written to the clone. The guest stands still. Rejects with `CHKPT_IO`. */
  async reset(): Promise<void> {
    this.#failure = undefined;
    await awaitNative(callNative(() => this.#native.resetClone()));
  }

  checkSettled(): Promise<void> {
    return this.image.checkSettled();
  }

  fail(error: unknown): void {
    this.#failure ??= error;
  }

  /** A guest is going to run: threads that touch a damaged page wait until its machine knows (`release`). */
  hold(): void {
    this.#isHeld = true;
    callNative(() => this.image.holdClone(this.#native));
  }

  /** The image has failed: where no machine would hear of it nobody waits. */
  releaseUnlessHeld(): void {
    if (!this.#isHeld) this.release();
  }

  /** The machine knows: threads that wait for a damaged page may go on, and be stopped. */
  release(): void {
    this.#isHeld = false;
    try {
      callNative(() => this.image.releaseClone(this.#native));
    } catch (error) {
      // Nobody can wait in memory that was given back.
      if (!(error instanceof CheckpointError) || error.code !== 'CHKPT_CLOSED') throw error;
    }
  }

  /** Told when the memory is given back. */
  set onClose(told: (() => void) | undefined) {
    this.#onClose = told;
  }

  /**
   * Something else is loaded into the memory, or it is given back. Pages that are not written still come from the image; who asks for
   * one that is damaged does not wait: no guest runs, and who loads has to check (`checkSettled`).
   */
  async close(): Promise<void> {
    this.#onClose?.();
    this.#onClose = undefined;
    this.release();
  }
}
