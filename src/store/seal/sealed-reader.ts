/**
 * The reading end of a sealed store: records are read whole, checked, and only then is anything of them told.
 *
 * Forward: two buffers of about 2 MiB of ciphertext; the next one is read while the records of one are opened. At any place: the records
 * that a range touches, of which the last one opened is kept, for whoever reads many small things side by side.
 */
import { MemoryRelease } from '../../util/release-memory.ts';
import type { ReceivedSummary, StoredShares, StoreReader } from '../store.ts';
import { sealHeaderBytes, tagBytes } from './seal-header.ts';
import { checkEnd, openRecord, type RecordCipher, type SealLayout, SealRoot } from './seal-record.ts';
import { readFully, readFullyAt, truncated } from './whole-reads.ts';

/** Ciphertext that is read at once, at least one record. */
const readBytesTarget = 2 * 1024 * 1024;
/** Of one `readAt`. */
const rangeBytesMax = 4 * 1024 * 1024;

export interface SealedSource {
  readonly inner: StoreReader;
  readonly cipher: RecordCipher;
  /** Complete, and checked. */
  readonly header: Uint8Array;
  /** Of an inner reader with random access, the end of which was checked. */
  readonly layout: SealLayout | undefined;
  readonly store: string;
}

export class SealedReader implements StoreReader {
  readonly integrity = 'authenticate';
  readonly byteLength: number | undefined;
  readonly readAt?: (offset: number, target: Uint8Array) => Promise<number>;
  readonly #source: SealedSource;
  readonly #root = new SealRoot();
  readonly #memory = new MemoryRelease();
  /** Bytes of a record in the store. */
  readonly #storedBytes: number;
  /** Room for what is left of the buffer before, then for what is read. */
  readonly #slack: number;
  readonly #buffers: [Uint8Array | undefined, Uint8Array | undefined] = [undefined, undefined];
  #turn: 0 | 1 = 0;
  /** What is read already, in the buffer whose turn it is next. */
  #ahead: Promise<number> | undefined;
  /** Ciphertext that is not opened yet. */
  #rest: Uint8Array = new Uint8Array(0);
  /** Content that is not told yet. */
  #opened: Buffer[] = [];
  #recordCount = 0;
  #byteCount = 0;
  #hasStarted = false;
  #hasEnded = false;
  #kept: { readonly index: number; readonly content: Buffer } | undefined;

  /** Owns the inner reader, which is at its start with a layout, else behind the header. */
  constructor(source: SealedSource) {
    this.#source = source;
    this.#storedBytes = source.cipher.recordBytes + tagBytes;
    this.#slack = this.#storedBytes + tagBytes;
    this.#root.add(source.header);
    const { layout } = source;
    this.byteLength = layout?.byteLength;
    if (layout !== undefined) this.readAt = (offset, target) => this.#readAt(layout, offset, target);
  }

  async read(target: Uint8Array): Promise<number> {
    while (this.#opened.length === 0) {
      if (this.#hasEnded) return 0;
      await this.#openNext();
    }
    let done = 0;
    const told: Uint8Array[] = [];
    while (done < target.length) {
      const [first] = this.#opened;
      if (first === undefined) break;
      const piece = first.subarray(0, target.length - done);
      target.set(piece, done);
      done += piece.length;
      if (piece.length === first.length) {
        told.push(first);
        this.#opened.shift();
      } else this.#opened[0] = first.subarray(piece.length);
    }
    this.#memory.release(told);
    return done;
  }

  async acknowledge({ uuid }: ReceivedSummary): Promise<void> {
    const bytes = sealHeaderBytes + this.#byteCount + tagBytes * (this.#recordCount + 1);
    await this.#source.inner.acknowledge?.({ uuid, root: this.#root.end(), bytes });
  }

  async refuse(error: unknown): Promise<void> {
    await this.#source.inner.refuse?.(error);
  }

  async shares(): Promise<StoredShares | undefined> {
    return await this.#source.inner.shares?.();
  }

  async close(): Promise<void> {
    await this.#ahead?.catch(() => undefined);
    for (const content of [...this.#opened, this.#kept?.content]) content?.fill(0);
    this.#opened = [];
    this.#kept = undefined;
    await this.#source.inner.close();
  }

  /** Opens what one read of the inner store gives. */
  async #openNext(): Promise<void> {
    const { inner, layout, store } = this.#source;
    if (!this.#hasStarted && layout !== undefined)
      await readFully(inner, new Uint8Array(sealHeaderBytes), store);
    this.#hasStarted = true;
    const byteCount = await (this.#ahead ?? this.#readInto(this.#turn));
    this.#ahead = undefined;
    const buffer = this.#bufferOf(this.#turn);
    const start = this.#slack - this.#rest.length;
    buffer.set(this.#rest, start);
    this.#rest = buffer.subarray(start, this.#slack + byteCount);
    this.#turn = this.#turn === 0 ? 1 : 0;
    if (byteCount === 0) return this.#openEnd();
    this.#ahead = this.#readInto(this.#turn);
    // Told by whoever waits for it.
    this.#ahead.catch(() => undefined);
    // The last record and the end record can be as long together as a whole record: what follows tells.
    while (this.#rest.length >= this.#slack) this.#openOne(this.#storedBytes);
  }

  #openOne(storedBytes: number): void {
    const { cipher, store } = this.#source;
    const stored = this.#rest.subarray(0, storedBytes);
    const content = openRecord(cipher, this.#recordCount, stored, store);
    this.#root.add(stored.subarray(content.length));
    this.#opened.push(content);
    this.#rest = this.#rest.subarray(storedBytes);
    this.#recordCount += 1;
    this.#byteCount += content.length;
  }

  #openEnd(): void {
    const { cipher, store } = this.#source;
    const lastBytes = this.#rest.length - tagBytes;
    if (lastBytes < 0 || (lastBytes > 0 && lastBytes <= tagBytes)) throw truncated(store);
    if (lastBytes > 0) this.#openOne(lastBytes);
    checkEnd(cipher, this.#recordCount, this.#byteCount, this.#rest, store);
    this.#root.add(this.#rest);
    this.#hasEnded = true;
  }

  async #readInto(turn: 0 | 1): Promise<number> {
    return await this.#source.inner.read(this.#bufferOf(turn).subarray(this.#slack));
  }

  #bufferOf(turn: 0 | 1): Uint8Array {
    const records = Math.max(1, Math.floor(readBytesTarget / this.#storedBytes));
    const buffer = this.#buffers[turn] ?? new Uint8Array(this.#slack + records * this.#storedBytes);
    this.#buffers[turn] = buffer;
    return buffer;
  }

  async #readAt({ byteLength }: SealLayout, offset: number, target: Uint8Array): Promise<number> {
    const { cipher, inner, store } = this.#source;
    const { recordBytes } = cipher;
    const end = Math.min(offset + Math.min(target.length, rangeBytesMax), byteLength);
    if (offset >= end) return 0;
    const first = Math.floor(offset / recordBytes);
    const last = Math.floor((end - 1) / recordBytes);
    if (first === last && this.#kept?.index === first) {
      target.set(this.#kept.content.subarray(offset % recordBytes, end - first * recordBytes));
      return end - offset;
    }
    const contentEnd = Math.min((last + 1) * recordBytes, byteLength);
    const stored = new Uint8Array(contentEnd - first * recordBytes + (last - first + 1) * tagBytes);
    await readFullyAt(inner, sealHeaderBytes + first * this.#storedBytes, stored, store);
    for (let index = first; index <= last; index += 1) {
      const at = (index - first) * this.#storedBytes;
      const content = openRecord(cipher, index, stored.subarray(at, at + this.#storedBytes), store);
      const start = Math.max(offset, index * recordBytes);
      const stop = Math.min(end, index * recordBytes + content.length);
      target.set(content.subarray(start - index * recordBytes, stop - index * recordBytes), start - offset);
      if (index === last) this.#kept = { index, content };
    }
    return end - offset;
  }
}
