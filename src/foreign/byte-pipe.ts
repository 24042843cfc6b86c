/**
 * Bytes from one task of this process to another, without a buffer in between: a write is done when its bytes were read. Large pieces are
 * copied off the main thread. One writer, one reader; each calls again when its call before has resolved.
 */
import { copyPieces } from '../store/memory-chunks.ts';
import { deferred } from '../util/deferred.ts';

interface Offer {
  readonly bytes: Uint8Array;
  done: number;
  readonly taken: ReturnType<typeof deferred<void>>;
}

export class BytePipe {
  #offer: Offer | undefined;
  #ended = false;
  #failure: { readonly error: unknown } | undefined;
  /** Resolved when there is something new for a reader that waits. */
  #news = deferred<void>();
  /** A copy out of the offer, under way: its bytes are read until it has ended. */
  #copying: Promise<unknown> | undefined;

  /** Resolves when all was read. Rejects with what `fail` was given. `bytes` is not read any more then. */
  async write(bytes: Uint8Array): Promise<void> {
    this.#check();
    if (bytes.length === 0) return;
    const offer = { bytes, done: 0, taken: deferred<void>() };
    this.#offer = offer;
    this.#tell();
    await offer.taken.promise;
  }

  /** No more bytes come. */
  end(): void {
    this.#ended = true;
    this.#tell();
  }

  /** Reads into the start of `target`: at least one byte, 0 at the end. Rejects with what `fail` was given. */
  async read(target: Uint8Array): Promise<number> {
    for (;;) {
      this.#check();
      const offer = this.#offer;
      if (offer !== undefined) return await this.#take(offer, target);
      if (this.#ended) return 0;
      await this.#news.promise;
    }
  }

  /** Both ends fail with `error`, now and from now on; the first one counts. */
  fail(error: unknown): void {
    this.#failure ??= { error };
    this.#tell();
    const offer = this.#offer;
    this.#offer = undefined;
    const reject = (): void => offer?.taken.reject(this.#failure?.error);
    if (this.#copying === undefined) reject();
    else void this.#copying.then(reject, reject);
  }

  async #take(offer: Offer, target: Uint8Array): Promise<number> {
    const piece = offer.bytes.subarray(offer.done, offer.done + target.length);
    this.#copying = copyPieces(target, [piece]);
    try {
      await this.#copying;
    } finally {
      this.#copying = undefined;
    }
    this.#check();
    offer.done += piece.length;
    if (offer.done === offer.bytes.length) {
      this.#offer = undefined;
      offer.taken.resolve();
    }
    return piece.length;
  }

  #tell(): void {
    this.#news.resolve();
    this.#news = deferred<void>();
  }

  #check(): void {
    if (this.#failure !== undefined) throw this.#failure.error;
  }
}
