/**
 * Pages that another host still has, while the guest runs here (post-copy): native threads hold whoever touches one, JavaScript hears which
 * ones are wanted, asks for them, and decodes what comes straight into its place.
 */
import { CheckpointError } from '../errors/index.ts';
import {
  awaitNative,
  callNative,
  fromNative,
  type NativeMissingPages,
  nativeAddon,
} from '../native/index.ts';
import type { GuestMemory } from './guest-memory.ts';
import type { MissingPages } from './missing-pages.ts';
import type { PageSet } from './page-set.ts';

export class ArrivingPages implements MissingPages {
  /** For `PageDecoder`. */
  readonly native: NativeMissingPages;
  /** How many were missing at the beginning. */
  readonly count: number;
  #isLoading = true;
  #failure: unknown;
  #faults = 0;
  #waits: Uint32Array = new Uint32Array();
  #closing: Promise<void> | undefined;

  private constructor(native: NativeMissingPages, count: number) {
    this.native = native;
    this.count = count;
  }

  /**
   * Takes the pages of `missing` out of `memory`; when it resolves the guest may run. Rejects with `CHKPT_UNSUPPORTED` or
   * `CHKPT_PERMISSION` where pages of this memory cannot arrive later; then its content may be gone.
   */
  static async start(memory: GuestMemory, missing: PageSet): Promise<ArrivingPages> {
    await memory.replaceable();
    const native = callNative(() => new (nativeAddon().MissingPages)(memory.native, missing.native));
    const pages = new ArrivingPages(native, missing.count());
    await memory.replaceMissingPages(pages);
    try {
      await awaitNative(native.started());
      return pages;
    } catch (error) {
      pages.fail(error);
      await pages.close();
      throw error;
    }
  }

  get isLoading(): boolean {
    return this.#isLoading;
  }

  /** Pages that are not here yet. */
  get left(): number {
    return this.#isLoading ? this.native.left() : 0;
  }

  /** How often a thread of the guest had to wait, pages of zeros included. */
  get faults(): number {
    return this.#isLoading ? this.native.faults() : this.#faults;
  }

  /** How long threads of the guest have waited for a page, microseconds; the first 65,536, as they came. */
  get waits(): Uint32Array {
    return this.#isLoading ? this.native.waits() : this.#waits;
  }

  /**
   * Resolves to the pages that threads of the guest wait for, each of them once; to nothing when all are here. One call at a time. Rejects
   * when this thread has touched a missing page, and with `CHKPT_CLOSED`.
   */
  wanted(): Promise<Float64Array | undefined> {
    return awaitNative(this.native.wanted());
  }

  /**
   * Puts a few pages, as the other host has encoded them, in their place: on this thread, since somebody waits. Throws errors of kind `damaged`
   * for bytes that are none.
   */
  place(bytes: Uint8Array): void {
    if (this.#isLoading) callNative(() => this.native.place(bytes));
  }

  /** Those that were told and have not come are told again. */
  wantAgain(): void {
    if (this.#isLoading) this.native.wantAgain();
  }

  /** All are here: memory is ordinary again. */
  async finish(): Promise<void> {
    this.#faults = this.native.faults();
    this.#waits = this.native.waits();
    this.#isLoading = false;
    await this.close();
  }

  fail(error: unknown): void {
    this.#failure ??= error;
  }

  /** Nobody waits any longer: `wanted()` rejects with `CHKPT_ABORTED`. */
  abort(): void {
    if (this.#isLoading) this.native.abort();
  }

  /** The machine is stopped: threads that wait go on, with a pattern in place of the page. */
  release(): void {
    this.native.release();
  }

  check(): void {
    if (this.#failure !== undefined) throw fromNative(this.#failure);
    // Of this thread, which is told no earlier than it asks.
    if (this.#isLoading) callNative(() => this.native.check());
  }

  checkTouch(): void {
    if (!this.#isLoading) return;
    const what = 'pages of this guest are still on another host, and this thread has to fetch them';
    throw new CheckpointError('CHKPT_UNSUPPORTED', what);
  }

  close(): Promise<void> {
    // Whoever was reading has read zeros.
    if (this.#isLoading)
      this.#failure ??= new CheckpointError('CHKPT_CLOSED', 'pages of this memory never came');
    this.#closing ??= this.native.close();
    return this.#closing;
  }
}
