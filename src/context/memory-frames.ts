/**
 * How guest memory enters and leaves a stream without JavaScript touching a page: the context layer hands its position
 * to a source or sink, which produces or consumes the ZERO_RUN, PARENT_RUN, PAGE_BLOCK and BLOCK_INDEX frames of one memory context
 * (docs/format.md section 6). CONTEXT_OPEN, REGION_TABLE and CONTEXT_CLOSE stay with the context layer.
 *
 * `src/memory` implements both over the native pipelines; `src/memory/portable-verifier.ts` is a sink without native code.
 */

import type { NativePooledSource } from '../native/index.ts';
import type { DirectOutput, MemoryHandOver } from '../store/store.ts';

/** Where the next frame goes: what its digest is bound to. */
export interface StreamPosition {
  /** 16 bytes. */
  readonly uuid: Uint8Array;
  /** Not 0: the checkpoint has a parent, and pages may be left to it. */
  readonly epoch: bigint;
  /** Sequence number of the next frame. */
  readonly sequence: number;
  /** Offset of the next frame in the stream, bytes. */
  readonly offset: number;
}

/** A region of guest-physical memory, bytes. */
export interface MemoryRegion {
  readonly base: bigint;
  readonly bytes: bigint;
}

/** One BLOCK_INDEX frame that was written. */
export interface IndexGroup {
  readonly firstPage: number;
  readonly pageCount: number;
  /** Offset of the BLOCK_INDEX frame in the stream. */
  readonly offset: number;
}

/** Counts of a memory context, as the END frame states them. */
export interface MemoryTotals {
  readonly pages: number;
  readonly zeroPages: number;
  readonly fillPages: number;
  readonly storedPages: number;
  readonly samePages: number;
  /** Left to the parent. */
  readonly parentPages: number;
  /** Sum of the encoded bytes of all PAGE_BLOCK frames. */
  readonly encodedBytes: number;
}

/** Whole frames in stream order, in the slabs that were ready. */
export interface SlabBatch {
  /** One behind the other in the stream; only valid until `release()`. */
  readonly pieces: readonly Uint8Array[];
  readonly frameCount: number;
  /** Header digests of the frames, 8 bytes little-endian each, in order. Owned by the receiver. */
  readonly digests: Uint8Array;
  readonly groups: readonly IndexGroup[];
  /** Bytes of the frames, when the source writes them to its output itself: there are no pieces. */
  readonly written?: number | undefined;
  release(): void;
}

export interface MemoryFrameSource {
  readonly regions: readonly MemoryRegion[];
  /** The memory itself, when frames would hold all of it and nothing else: for stores that keep it in a way of their own. */
  readonly handOver?: MemoryHandOver | undefined;
  /**
   * Starts encoding. At most one batch is taken at a time; each is released before the next is asked for. A source that can writes to
   * `output` itself; all is written when `next()` resolves to `undefined`, and nothing more when `close()` resolves.
   */
  open(
    position: StreamPosition,
    signal: AbortSignal | undefined,
    output?: DirectOutput | undefined,
  ): MemoryFrameStream;
}

export interface MemoryFrameStream {
  /** The next slabs, or `undefined` after the last ones. */
  next(): Promise<SlabBatch | undefined>;
  /** Valid after `next()` returned `undefined`. */
  totals(): MemoryTotals;
  /** Stops the work, also half-way. Resolves when no thread touches the memory any more. */
  close(): Promise<void>;
}

/** The rest of the stream, from the first frame after REGION_TABLE on. */
export interface MemoryFrameInput {
  /** Bytes already read but not consumed. Valid during the call of `consume`. */
  readonly buffered: Uint8Array;
  /** Reads on, as `StoreReader.read`. */
  read(target: Uint8Array): Promise<number>;
  /** Behind `buffered`: the next bytes in an open file, for a sink that reads them itself. */
  readonly direct?: DirectInput | undefined;
}

export interface DirectInput {
  /** A descriptor, which is duplicated before use, or a source of its own. */
  readonly from: number | NativePooledSource;
  /** Of the next byte in it. */
  readonly position: number;
  /** As far as it goes. */
  readonly bytes: number;
  /** So many were read: `read` goes on behind them. */
  took(byteCount: number): void;
}

/** What a sink did. */
export interface MemoryFrameResult {
  readonly frameCount: number;
  /** Bytes of all frames consumed. */
  readonly byteCount: number;
  readonly totals: MemoryTotals;
  /**
   * The BLOCK_INDEX frames, in order. With them the reader compares the index at the end of the stream entry by entry;
   * without them it only checks that the index is well-formed.
   */
  readonly groups?: readonly IndexGroup[] | undefined;
  /** Bytes that were read but belong to the frames that follow; owned by the receiver. */
  readonly leftover: Uint8Array;
}

export interface MemoryFrameSink {
  /**
   * Consumes frames up to the first one that is not a page frame (or the end of input, which the caller then reports
   * as truncation), and resolves when every page is in place. Frames of an unknown optional type count as page frames:
   * their digests are checked, and they are passed over.
   *
   * `onDigests` gets the header digests (8 bytes each) in order. Throws CheckpointError of kind `damaged`; then the
   * destination memory is undefined.
   */
  consume(
    position: StreamPosition,
    regions: readonly MemoryRegion[],
    input: MemoryFrameInput,
    onDigests: (digests: Uint8Array, frameCount: number) => void,
    signal: AbortSignal | undefined,
  ): Promise<MemoryFrameResult>;
}
