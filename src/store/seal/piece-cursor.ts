/** Bytes that lie in pieces, taken from the front without copying them. */
export class PieceCursor {
  readonly #pieces: readonly Uint8Array[];
  #index = 0;
  #at = 0;
  /** Bytes that are left. */
  byteCount: number;

  constructor(pieces: readonly Uint8Array[]) {
    this.#pieces = pieces;
    this.byteCount = pieces.reduce((sum, { length }) => sum + length, 0);
  }

  /** As many of the next bytes as lie together, at most `byteCount`. Throws `TypeError` where there are none, as in memory that was made smaller. */
  next(byteCount: number): Uint8Array {
    for (;;) {
      const piece = this.#pieces[this.#index];
      if (piece === undefined) throw new TypeError('the bytes to write have become fewer');
      const bytes = piece.subarray(this.#at, this.#at + byteCount);
      this.#at += bytes.length;
      if (this.#at >= piece.length) {
        this.#index += 1;
        this.#at = 0;
      }
      this.byteCount -= bytes.length;
      if (bytes.length > 0) return bytes;
    }
  }

  /** REQUIRES: so many are left. */
  take(byteCount: number): Uint8Array[] {
    const taken: Uint8Array[] = [];
    for (let rest = byteCount; rest > 0; ) {
      const bytes = this.next(rest);
      taken.push(bytes);
      rest -= bytes.length;
    }
    return taken;
  }
}
