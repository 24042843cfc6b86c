/**
 * The writing end of a sealed store. What is written is encrypted at once, straight from the caller's memory, in one pass: whole records by
 * native threads, what one `write` leaves of a record here. The ciphertext goes into the inner store in the order of the stream, the next
 * being made while the one before is written.
 *
 * Bounds: what `SealingThreads` has, and two batches of ciphertext, of 1 MiB and what one `write` adds to it at most. Nothing of the content
 * is kept. Memory of ciphertext is used again or given back as soon as it was written, or the collector would take half as long as the
 * cipher.
 */
import type { CipherGCM } from 'node:crypto';
import { MemoryRelease } from '../../util/release-memory.ts';
import type { CommitSummary, DirectOutput, StoreWriter } from '../store.ts';
import { PieceCursor } from './piece-cursor.ts';
import { sealHeaderBytes, tagBytes } from './seal-header.ts';
import { type RecordCipher, SealRoot, sealEnd, sealRecord } from './seal-record.ts';
import { type SealedRecords, SealingThreads } from './sealing-threads.ts';

/** Ciphertext that is written at once, and pieces of it: more than that no system call takes. */
const batchBytesMax = 1024 * 1024;
const batchPiecesMax = 256;
/** Plaintext that is encrypted in one call: some 0.1 ms. */
const pieceBytesMax = 256 * 1024;

/** All that the inner store hears of what is in it. */
const segment = { kind: 'values', name: 'sealed' } as const;

/** Jobs of native threads between two batches. */
interface SealedRun {
  /** They write into it themselves; undefined: what they have encrypted is written here. */
  readonly output: DirectOutput | undefined;
  /** Bytes in front of it in the inner store. */
  readonly start: number;
}

export class SealedWriter implements StoreWriter {
  readonly #inner: StoreWriter;
  readonly #cipher: RecordCipher;
  readonly #root = new SealRoot();
  /** The record that is being filled. */
  #record: CipherGCM | undefined;
  readonly #threads: SealingThreads | undefined;
  #recordBytes = 0;
  #recordCount = 0;
  #byteCount = 0;
  #batch: Uint8Array[] = [];
  #batchBytes = 0;
  /** Those in the batch. */
  #tags: Uint8Array[] = [];
  #storedBytes = 0;
  /** The batch on its way. Never rejects: a failure is told by the call after it. */
  #writing: Promise<void> = Promise.resolve();
  readonly #memory = new MemoryRelease();
  #run: SealedRun | undefined;
  #failure: { readonly error: unknown } | undefined;
  /** What is read back is the stream that was written, whatever lies in the store. */
  readonly keepsStream = true;

  private constructor(inner: StoreWriter, cipher: RecordCipher) {
    this.#inner = inner;
    this.#cipher = cipher;
    this.#threads = SealingThreads.of(cipher);
  }

  /** Owns `inner`. `header`: complete. */
  static async open(inner: StoreWriter, cipher: RecordCipher, header: Uint8Array): Promise<SealedWriter> {
    try {
      await inner.beginSegment?.(segment);
      const writer = new SealedWriter(inner, cipher);
      writer.#root.add(header);
      writer.#add(header);
      return writer;
    } catch (error) {
      await inner.abort().catch(() => undefined);
      throw error;
    }
  }

  get storedBytes(): number {
    return this.#inner.storedBytes ?? this.#storedBytes;
  }

  write(bytes: Uint8Array): Promise<void> {
    return this.writeAll([bytes]);
  }

  async writeAll(pieces: readonly Uint8Array[]): Promise<void> {
    const rest = new PieceCursor(pieces);
    const threads = this.#threads;
    const sealing: Promise<unknown>[] = [];
    try {
      while (rest.byteCount > 0) {
        const records = this.#record === undefined ? threads?.recordsIn(rest.byteCount) : 0;
        if (threads !== undefined && records) sealing.push(...(await this.#sealMany(threads, rest, records)));
        else this.#update(rest);
        if (this.#batchBytes >= batchBytesMax || this.#batch.length >= batchPiecesMax) await this.#flush();
      }
    } finally {
      // Until then native threads read the caller's memory.
      await Promise.all(sealing);
    }
    this.#throwFailure();
  }

  async commit({ uuid }: CommitSummary): Promise<void> {
    this.#endRecord();
    const end = sealEnd(this.#cipher, this.#recordCount, this.#byteCount);
    this.#addTag(end);
    await this.#flush();
    await this.#writing;
    this.#throwFailure();
    const bytes = this.#storedBytes;
    const root = this.#root.end();
    await this.#inner.endSegment?.({ bytes, frames: this.#recordCount, digest: root });
    // Parent, epoch and root digest say something about the content: they stand in it.
    await this.#inner.commit({ uuid, parent: undefined, epoch: 0n, root, bytes });
  }

  async abort(): Promise<void> {
    this.#batch = [];
    this.#record = undefined;
    await this.#writing;
    await this.#inner.abort();
  }

  /** Encrypts some of `rest` here. */
  #update(rest: PieceCursor): void {
    const { recordBytes } = this.#cipher;
    const bytes = rest.next(Math.min(recordBytes - this.#recordBytes, pieceBytesMax));
    this.#record ??= sealRecord(this.#cipher, this.#recordCount);
    this.#add(this.#record.update(bytes));
    this.#recordBytes += bytes.length;
    if (this.#recordBytes === recordBytes) this.#endRecord();
  }

  /** Has native threads encrypt so many records of `rest`. The result, in an array lest it be awaited: until then they read them. */
  async #sealMany(threads: SealingThreads, rest: PieceCursor, records: number): Promise<[Promise<void>]> {
    const { recordBytes } = this.#cipher;
    if (this.#batch.length > 0) await this.#flush();
    const run = this.#run ?? (await this.#beginRun(threads));
    const room = await threads.room();
    this.#throwFailure();
    const sealed = threads.seal({
      first: this.#recordCount,
      records,
      pieces: rest.take(records * recordBytes),
      room,
      offset: this.#storedBytes - run.start,
    });
    const storedBytes = records * (recordBytes + tagBytes);
    this.#recordCount += records;
    this.#byteCount += records * recordBytes;
    this.#storedBytes += storedBytes;
    run.output?.wrote(storedBytes);
    const written = this.#writing.then(() => this.#writeSealed(sealed, run));
    this.#writing = written;
    threads.giveBack(room, written);
    // What goes wrong is told by the writes.
    const ended = sealed.then(
      () => undefined,
      () => undefined,
    );
    return [ended];
  }

  /** Nobody else writes until it has ended: when all of its jobs have. */
  async #beginRun(threads: SealingThreads): Promise<SealedRun> {
    await this.#writing;
    this.#throwFailure();
    const run = { output: threads.direct(this.#inner.direct?.()), start: this.#storedBytes };
    this.#run = run;
    return run;
  }

  /** Never rejects. */
  async #writeSealed(sealed: Promise<SealedRecords>, { output }: SealedRun): Promise<void> {
    try {
      const { stored, tags, failure } = await sealed;
      if (this.#failure !== undefined) return;
      if (failure !== undefined) throw output?.failure(failure) ?? failure;
      for (const tag of tags) this.#root.add(tag);
      if (output === undefined) await this.#inner.write(stored);
    } catch (error) {
      this.#failure ??= { error };
    }
  }

  #endRecord(): void {
    if (this.#record === undefined) return;
    this.#record.final();
    const tag = this.#record.getAuthTag();
    this.#addTag(tag);
    this.#byteCount += this.#recordBytes;
    this.#recordCount += 1;
    this.#record = undefined;
    this.#recordBytes = 0;
  }

  #add(stored: Uint8Array): void {
    this.#batch.push(stored);
    this.#batchBytes += stored.length;
  }

  #addTag(tag: Uint8Array): void {
    this.#add(tag);
    this.#tags.push(tag);
  }

  /** Gives the batch to the inner store when that has taken the one before. */
  async #flush(): Promise<void> {
    await this.#writing;
    this.#run = undefined;
    this.#throwFailure();
    const batch = this.#batch;
    for (const tag of this.#tags) this.#root.add(tag);
    this.#tags = [];
    this.#storedBytes += this.#batchBytes;
    this.#batch = [];
    this.#batchBytes = 0;
    this.#writing = this.#writeInner(batch).then(
      () => this.#memory.release(batch),
      (error: unknown) => {
        this.#failure = { error };
      },
    );
  }

  async #writeInner(batch: readonly Uint8Array[]): Promise<void> {
    if (this.#inner.writeAll !== undefined) return await this.#inner.writeAll(batch);
    for (const piece of batch) await this.#inner.write(piece);
  }

  #throwFailure(): void {
    if (this.#failure !== undefined) throw this.#failure.error;
  }
}

/** Bytes that a stream of `byteCount` bytes takes. */
export function sealedBytesOf(byteCount: number, recordBytes: number): number {
  return sealHeaderBytes + byteCount + tagBytes * (Math.ceil(byteCount / recordBytes) + 1);
}
