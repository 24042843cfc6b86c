/**
 * Guest memory as it was at one moment, in memory of its own, so that the guest can run on while it is saved.
 *
 * Takes as much memory as the guest has touched, and with huge pages up to 2 MiB around each page.
 */
import { awaitNative, callNative, type NativeMemoryCopy, nativeAddon } from '../native/index.ts';
import { checkThreads, GuestMemory } from './guest-memory.ts';

export class MemoryCopy implements AsyncDisposable {
  /** The copy. For reading only. */
  readonly memory: GuestMemory;
  readonly #native: NativeMemoryCopy;

  private constructor(memory: GuestMemory) {
    this.memory = memory;
    this.#native = callNative(() => new (nativeAddon().MemoryCopy)(memory.native));
  }

  /** Nothing is copied yet. Throws `CHKPT_NO_MEMORY`. */
  static of(source: GuestMemory): MemoryCopy {
    return new MemoryCopy(GuestMemory.allocate(source.regions));
  }

  /**
   * Makes the copy equal to `source`, which has the regions that the copy was made for. A guest may write meanwhile: each page is
   * then one of its versions, and a second call, when it stands still, is faster, because the copy has its memory by then.
   *
   * Rejects with `CHKPT_ABORTED`, `CHKPT_IO`, `CHKPT_MEMORY_SHORT`.
   */
  async update(
    source: GuestMemory,
    options: { readonly threads?: number | undefined; readonly signal?: AbortSignal | undefined } = {},
  ): Promise<void> {
    const { signal } = options;
    const threads = checkThreads(options.threads);
    signal?.throwIfAborted();
    const cancel = (): void => this.#native.cancel();
    signal?.addEventListener('abort', cancel, { once: true });
    try {
      const work = awaitNative(callNative(() => this.#native.update(source.native, threads)));
      await this.memory.hold(source.hold(work));
    } finally {
      signal?.removeEventListener('abort', cancel);
    }
  }

  /** Gives the memory back. */
  close(): Promise<void> {
    this.#native.close();
    return this.memory.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}
