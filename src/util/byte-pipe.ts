/**
 * Bytes from one task of this process to another, without a buffer in between: a write is done when its bytes were read. One writer, one
 * reader; each calls again when its call before has resolved.
 */
interface Waiting {
  readonly bytes: Uint8Array;
  readonly resolve: (byteCount: number) => void;
  readonly reject: (error: unknown) => void;
}

export class BytePipe {
  #offered: Waiting | undefined;
  #offeredDone = 0;
  #wanted: Waiting | undefined;
  #ended = false;
  #failure: { readonly error: unknown } | undefined;

  /** Resolves when all was read; `bytes` is not read afterwards. Rejects with what `fail` was given. */
  async write(bytes: Uint8Array): Promise<void> {
    if (this.#failure !== undefined) throw this.#failure.error;
    if (bytes.length === 0) return;
    await new Promise<number>((resolve, reject) => {
      this.#offered = { bytes, resolve, reject };
      this.#offeredDone = 0;
      this.#move();
    });
  }

  /** No more bytes come. */
  end(): void {
    this.#ended = true;
    this.#move();
  }

  /** Reads into the start of `target`: at least one byte, 0 at the end. Rejects with what `fail` was given. */
  async read(target: Uint8Array): Promise<number> {
    if (this.#failure !== undefined) throw this.#failure.error;
    return await new Promise<number>((resolve, reject) => {
      this.#wanted = { bytes: target, resolve, reject };
      this.#move();
    });
  }

  /** Both ends fail with `error`, now and from now on; the first one counts. */
  fail(error: unknown): void {
    this.#failure ??= { error };
    const waiting = [this.#offered, this.#wanted];
    this.#offered = undefined;
    this.#wanted = undefined;
    for (const one of waiting) one?.reject(this.#failure.error);
  }

  #move(): void {
    const wanted = this.#wanted;
    const offered = this.#offered;
    if (wanted === undefined) return;
    if (offered === undefined) {
      if (!this.#ended) return;
      this.#wanted = undefined;
      wanted.resolve(0);
      return;
    }
    const byteCount = Math.min(wanted.bytes.length, offered.bytes.length - this.#offeredDone);
    wanted.bytes.set(offered.bytes.subarray(this.#offeredDone, this.#offeredDone + byteCount));
    this.#offeredDone += byteCount;
    this.#wanted = undefined;
    wanted.resolve(byteCount);
    if (this.#offeredDone < offered.bytes.length) return;
    this.#offered = undefined;
    offered.resolve(byteCount);
  }
}
