/** Memory that comes page by page: lazy loads, pages that are placed while the guest runs, and fetches of single pages. */
import type { NativeMemory, NativePageSet } from './addon.ts';
import type { NativeGroup } from './pipelines.ts';
import type { NativePooledSource } from './pool.ts';

/** One checkpoint for a lazy load. */
export interface NativeLazyLayer {
  readonly uuid: Uint8Array;
  readonly epoch: bigint;
  readonly hasParent: boolean;
  /** Offset of END. */
  readonly endOffset: number;
  readonly groups: readonly NativeGroup[];
  readonly extents?:
    | readonly (
        | { readonly bytes: number; readonly descriptor: number; readonly position: number }
        | { readonly bytes: number; readonly source: NativePooledSource }
        | { readonly bytes: number; readonly view: Uint8Array }
      )[]
    | undefined;
  /** In place of extents; for lazy loads only. */
  readonly source?: NativeBlockRequests | undefined;
}

/** Bytes of a stream that native threads want and JavaScript reads. */
export interface NativeBlockRequests {
  /** Triples of id, offset, bytes (at most 4 MiB); undefined: closed. One call at a time. */
  next(): Promise<Float64Array | undefined>;
  /** All that was asked for, or fewer: the stream ends there. Copied. */
  answer(id: number, bytes: Uint8Array): void;
  /** It could not be read: CHKPT_IO for whoever wants it. */
  refuse(id: number): void;
  /** Everything under way, and later, ends with CHKPT_ABORTED. */
  close(): Promise<void>;
}

export interface NativeLazyOptions {
  /** Newest first. */
  readonly layers: readonly NativeLazyLayer[];
  readonly handlerThreads: number;
  readonly fillThreads: number;
  /** 0: no limit. */
  readonly fillBytesPerSecond: number;
  readonly fillDelayMs: number;
  /** u32 block numbers to fetch first. */
  readonly replay: Uint8Array;
  readonly poison: boolean;
}

export interface NativeLazyLoader {
  /** Stages: 1 prepared, 3 serving, 4 resident. One call at a time. */
  wait(stage: 1 | 3 | 4): Promise<void>;
  /** From now on missing pages are served; the guest stands still. */
  arm(): void;
  /** Makes the load fail. */
  abort(): void;
  /** The machine knows that the load has failed: threads that wait for damaged pages may go on. */
  release(): void;
  hasFailed(): boolean;
  /** Whether this thread may touch the range of a load with a `source`. */
  isHere(address: bigint, bytes: number): boolean;
  /** It is fetched, without waiting. */
  want(address: bigint, bytes: number): void;
  counts(): {
    readonly blocks: number;
    readonly missing: number;
    readonly faults: number;
    readonly faultBlocks: number;
  };
  /** u32 block numbers, little-endian, in the order of their first fault. */
  workingSet(): Uint8Array;
  /** Header digests of all frames before END. */
  digests(): Uint8Array;
  close(): Promise<void>;
}

/** Pages that are placed while the guest runs. One call of `started` and `wanted` at a time; both reject with what went wrong. */
export interface NativeMissingPages {
  started(): Promise<void>;
  /** Pages that threads wait for, each told once; undefined: all are here. */
  wanted(): Promise<Float64Array | undefined>;
  /** Throws what went wrong. */
  check(): void;
  /** Puts a run of pages, as `encodeRun` gives them, in their place. */
  place(bytes: Uint8Array): void;
  left(): number;
  faults(): number;
  /** How long threads have waited for a page, microseconds; the first 65,536. */
  waits(): Uint32Array;
  /** Tells those again that were told and have not come. */
  wantAgain(): void;
  /** Makes it fail. */
  abort(): void;
  /** The guest is stopped: who touches what is missing reads a pattern. */
  release(): void;
  close(): Promise<void>;
}

/** A checkpoint that is open for random access. */
export interface NativeBlockLayer {
  /** Once: reads and verifies the block indexes. */
  open(): Promise<void>;
  /** Adds the pages of all blocks in which it holds something itself. */
  markHeld(pages: NativePageSet): void;
}

export interface NativeFetchCounts {
  readonly pages: number;
  readonly written: number;
  readonly blocks: number;
}

export interface NativePageFetch {
  /** `pages` undefined: all that hold something in memory or in the checkpoint. One call at a time. */
  run(pages: NativePageSet | undefined, threads: number): Promise<NativeFetchCounts>;
  pagesDone(): number;
  /** Ends the run under way, and every later one, with CHKPT_ABORTED. */
  cancel(): void;
}

/** A lazy load into memory that clones share. */
export interface NativeSharedImage extends NativeLazyLoader {
  /** From stage 3 on. Throws CHKPT_UNSUPPORTED, CHKPT_PERMISSION, CHKPT_NO_MEMORY. */
  clone(): NativeMemory;
  /** As `release`, for the threads of one clone, until `holdClone`. */
  releaseClone(memory: NativeMemory): void;
  /** A guest is going to run in the clone: damage holds it. */
  holdClone(memory: NativeMemory): void;
}
