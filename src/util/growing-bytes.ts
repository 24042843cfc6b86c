/**
 * Bytes put together from pieces. The final length is known but not trusted: memory grows with what has
 * really arrived, at most to twice as much, and ends at exactly the final length.
 */
export class GrowingBytes {
  readonly #finalLength: number;
  #bytes = new Uint8Array(0);
  #length = 0;

  constructor(finalLength: number) {
    this.#finalLength = finalLength;
  }

  /** Bytes so far. */
  get length(): number {
    return this.#length;
  }

  get isComplete(): boolean {
    return this.#length === this.#finalLength;
  }

  /** Copies a piece to the end. Throws RangeError beyond the final length. */
  append(piece: Uint8Array): void {
    const needed = this.#length + piece.length;
    if (needed > this.#finalLength) throw new RangeError(`${needed} bytes of ${this.#finalLength}`);
    if (needed > this.#bytes.length) {
      const grown = new Uint8Array(Math.min(Math.max(2 * this.#bytes.length, needed), this.#finalLength));
      grown.set(this.#bytes.subarray(0, this.#length));
      this.#bytes = grown;
    }
    this.#bytes.set(piece, this.#length);
    this.#length = needed;
  }

  /** All bytes, without copying. REQUIRES: complete. */
  take(): Uint8Array {
    if (!this.isComplete) throw new RangeError(`only ${this.#length} bytes of ${this.#finalLength}`);
    return this.#bytes;
  }
}
