/**
 * What a store is to the rest of chkpt: a place that takes a stream of bytes, written strictly forward, and gives it
 * back. The store knows nothing of frames; contexts reach it only as segment boundaries that it may ignore.
 *
 * Third-party stores implement `Store` and register with `registerStore`. Every implementation passes
 * `test/conformance/store.suite.ts`.
 */
import type { CheckpointError } from '../errors/index.ts';
import type { NativePooledSource } from '../native/index.ts';
import type { StoreClaims } from './claims.ts';

/** Facts about the checkpoint that is about to be written. */
export interface StoreWriteOptions {
  /** UUID of the checkpoint, text form. Unique names for temporary files derive from it. */
  readonly uuid: string;
  readonly signal?: AbortSignal | undefined;
  /**
   * For stores that do not keep the stream as it is: told the digest of guest memory (`GuestMemory.digest`) that came as frames, before it
   * is translated. With that of the reader it says whether the same memory comes back.
   */
  readonly onMemoryDigest?: ((digest: bigint) => void) | undefined;
}

export interface StoreReadOptions {
  readonly signal?: AbortSignal | undefined;
  /** `keep`: the stream goes into another store as it is. For stores that make it while it is read. Default `load`. */
  readonly purpose?: 'load' | 'keep' | undefined;
  /** For stores that do not keep the stream as it is: told the digest of guest memory, as soon as it was read. */
  readonly onMemoryDigest?: ((digest: bigint) => void) | undefined;
}

/**
 * What it is worth that a stream was read without an error: `detect` finds accidental damage of every kind, not forgery; `authenticate`
 * finds forgery too; `none`: what the store keeps has nothing to check it by.
 */
export type Integrity = 'none' | 'detect' | 'authenticate';

/** A part of the stream that belongs together: the stream header, one context, or what follows the last context. */
export interface Segment {
  readonly kind: 'start' | 'values' | 'memory' | 'end';
  /** Context name; `start` and `end` for the others. */
  readonly name: string;
}

/** What a segment turned out to be, told when it is complete. */
export interface SegmentSummary {
  /** Bytes of the segment. */
  readonly bytes: number;
  /** Frames in it. */
  readonly frames: number;
  /** SHA-256, hex, over the header digests of its frames (8 bytes little-endian each), in order. */
  readonly digest: string;
}

/** What is known when the stream is complete. */
export interface CommitSummary {
  readonly uuid: string;
  readonly parent: string | undefined;
  readonly epoch: bigint;
  /** Root digest, hex. */
  readonly root: string;
  /** Bytes of the whole stream. */
  readonly bytes: number;
}

/**
 * One save in progress. Calls come one at a time, each after the promise of the one before has resolved.
 *
 * Nothing is visible before `commit()` resolves; an older checkpoint at the same place stays readable until then.
 * Errors are `CheckpointError`s (or become `CHKPT_STORE_FAILED` with the store's error as cause).
 */
export interface StoreWriter {
  /** A segment begins; the bytes that follow belong to it. Optional. */
  beginSegment?(segment: Segment): Promise<void>;
  /** The current segment is complete. Optional. */
  endSegment?(summary: SegmentSummary): Promise<void>;
  /** Appends. When the promise resolves the bytes are no longer read: the caller reuses the memory. */
  write(bytes: Uint8Array): Promise<void>;
  /**
   * Appends several pieces, one behind the other, as `write` does with one: for stores that can do it in one operation.
   * Optional: without it `write` is called for each piece.
   */
  writeAll?(pieces: readonly Uint8Array[]): Promise<void>;
  /**
   * Where the bytes that follow go, for native threads that write them without JavaScript, in any order. Until they are done nothing
   * but the result is called. Absent, or `undefined`, when the store cannot: then `writeAll` and `write` are called. Optional.
   */
  direct?(): DirectOutput | undefined;
  /**
   * For stores that keep guest memory in a way of their own: takes a whole memory context, which then has no part in the stream. All of
   * it was read when the promise resolves to true; with false nothing was, and its frames are written. Optional.
   */
  takeMemory?(context: string, memory: MemoryHandOver): Promise<boolean>;
  /** Makes the checkpoint visible, and durable where the store is durable. */
  commit(summary: CommitSummary): Promise<void>;
  /** After `commit`: bytes that the checkpoint takes, where that is not the length of the stream. Optional. */
  readonly storedBytes?: number | undefined;
  /** With `storedBytes`: what is read back is the stream that was written, all the same. Optional. */
  readonly keepsStream?: boolean | undefined;
  /** Drops everything written. Safe after a failure of any other call, and when called twice. */
  abort(): Promise<void>;
}

/** Guest memory on its way into a store. */
export interface MemoryHandOver {
  /** A `GuestMemory`, which this layer knows nothing of. */
  readonly image: { readonly regions: readonly { readonly base: bigint; readonly bytes: bigint }[] };
  readonly threads?: number | undefined;
  /** To be told now and then how many pages are done. */
  readonly onPages?: ((pageCount: number) => void) | undefined;
}

/** A place in an open file that takes bytes of a stream, or nowhere. */
export interface DirectOutput {
  /** It is duplicated before it is used, and must not append (`O_APPEND`). `discard`: the bytes are thrown away. */
  readonly descriptor: number | 'discard';
  /** Of the next byte in the file. */
  readonly position: number;
  /** So many bytes more are written, or about to be: all are before anything else is called. */
  wrote(byteCount: number): void;
  /** A write failed with this error, which has an errno code as `code`: the store's error for it. */
  failure(error: Error): CheckpointError;
}

/**
 * Where consecutive bytes of a stream are, for native threads: in an open file, in several of them by a map, or in memory that does not
 * change any more.
 */
export type StoreExtent =
  | { readonly bytes: number; readonly source: NativePooledSource }
  | { readonly bytes: number; readonly descriptor: number; readonly position: number }
  | { readonly bytes: number; readonly view: Uint8Array };

/** What a receiver says that it has. */
export type ReceivedSummary = Pick<CommitSummary, 'uuid' | 'root' | 'bytes'>;

/** Bytes of files. */
export interface StoredShares {
  /** Those that nobody else uses: what removing the checkpoint gives back. */
  readonly own: number;
  /** Those that other checkpoints use too. */
  readonly shared: number;
}

/** One load in progress. */
export interface StoreReader {
  /** Bytes of the whole stream, when the store knows. */
  readonly byteLength: number | undefined;
  /** Default `detect`: that is what the stream itself gives. */
  readonly integrity?: Integrity | undefined;
  /** What the checkpoint takes, where it shares bytes with others; `undefined` where it does not. Optional. */
  shares?(): Promise<StoredShares | undefined>;
  /**
   * Reads the next bytes of the stream into the start of `target`.
   * Resolves to how many, between 1 and `target.length`; 0 means the end.
   */
  read(target: Uint8Array): Promise<number>;
  /**
   * Random access: reads at `offset`, without moving `read`'s position. Absent when the store cannot.
   * May return less than asked for; 0 means the end.
   */
  readAt?(offset: number, target: Uint8Array): Promise<number>;
  /**
   * All bytes of the stream, in order, for threads that must not wait for JavaScript: what a lazy load needs. Descriptors are
   * duplicated before the reader is closed; views are kept as long as they are needed and must not change. Absent, or
   * `undefined`, when the store cannot.
   */
  extents?(): readonly StoreExtent[] | undefined;
  /** With `extents`: so many of the next bytes were read there, and `read` goes on behind them. Optional. */
  skip?(byteCount: number): void;
  /**
   * The stream was verified as a whole and, where it was to be kept, is kept: for a sender who waits to hear it. After the last `read`,
   * once. Optional.
   */
  acknowledge?(received: ReceivedSummary): Promise<void>;
  /** The stream was not taken, and why. Instead of `acknowledge`, at any moment between two reads; never rejects. Optional. */
  refuse?(error: unknown): Promise<void>;
  close(): Promise<void>;
}

export interface Store {
  /** The URL it was opened with. */
  readonly url: string;
  /** Throws `CHKPT_PERMISSION`, `CHKPT_NO_SPACE`, `CHKPT_IO`, … */
  openWriter(options: StoreWriteOptions): Promise<StoreWriter>;
  /** Throws `CHKPT_NOT_FOUND`, `CHKPT_PERMISSION`, `CHKPT_MANIFEST`, … */
  openReader(options?: StoreReadOptions): Promise<StoreReader>;
  /**
   * Removes the checkpoint that is here, durably where the store is durable; does nothing when there is none. Who has it open may go
   * on reading. Optional.
   */
  remove?(): Promise<void>;
  /**
   * Who goes on with the checkpoints that are or were here, for `loadVm` with `as: 'continue'`. Claims go with their checkpoint, when
   * another one replaces it or it is removed. Optional.
   */
  readonly claims?: StoreClaims | undefined;
  /** What lies here is encrypted. Optional. */
  readonly isSealed?: boolean | undefined;
  /** It looks into what is saved, so that must be a stream as docs/format.md has it, not one that is encrypted. Optional. */
  readonly readsFrames?: boolean | undefined;
  /** Opens another checkpoint, a parent for one, as this one was opened: with its keys. Optional. */
  beside?(url: string): Store;
}

/** Makes a store from the part of the URL behind `scheme:`. Throws `CHKPT_STORE_URL` when that part is not valid. */
export type StoreFactory = (rest: string, url: string) => Store;
