/** A reader whose first bytes were looked at: they are told again. Without random access; a reader with it was never moved. */
import type { Integrity, ReceivedSummary, StoredShares, StoreReader } from '../store.ts';

export class UnsealedReader implements StoreReader {
  readonly byteLength: number | undefined;
  readonly integrity: Integrity | undefined;
  readonly #inner: StoreReader;
  #first: Uint8Array;

  constructor(inner: StoreReader, first: Uint8Array) {
    this.#inner = inner;
    this.#first = first;
    this.byteLength = inner.byteLength;
    this.integrity = inner.integrity;
  }

  async read(target: Uint8Array): Promise<number> {
    if (this.#first.length === 0) return await this.#inner.read(target);
    const piece = this.#first.subarray(0, target.length);
    target.set(piece);
    this.#first = this.#first.subarray(piece.length);
    return piece.length;
  }

  async acknowledge(received: ReceivedSummary): Promise<void> {
    await this.#inner.acknowledge?.(received);
  }

  async refuse(error: unknown): Promise<void> {
    await this.#inner.refuse?.(error);
  }

  async shares(): Promise<StoredShares | undefined> {
    return await this.#inner.shares?.();
  }

  close(): Promise<void> {
    return this.#inner.close();
  }
}
