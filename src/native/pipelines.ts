/** The pipelines between guest memory and a stream of frames: part of the surface that addon.ts types. */
import type {
  NativeChainLoad,
  NativeDeltaCache,
  NativePageDigests,
  NativePageSet,
  NativeSnapshot,
} from './addon.ts';
import type { NativeMissingPages } from './lazy.ts';
import type { NativePooledSource } from './pool.ts';

export interface NativePosition {
  readonly uuid: Uint8Array;
  readonly epoch: bigint;
  readonly sequence: number;
  readonly offset: number;
}

export interface NativeTotals {
  readonly pages: number;
  readonly zeroPages: number;
  readonly fillPages: number;
  readonly storedPages: number;
  readonly samePages: number;
  readonly parentPages: number;
  readonly encodedBytes: number;
}

/** A BLOCK_INDEX frame. */
export interface NativeGroup {
  readonly firstPage: number;
  readonly pageCount: number;
  readonly offset: number;
}

/** All slabs that were ready. */
export interface NativeSlabs {
  /** The frames of each slab, in order. */
  readonly pieces: readonly Uint8Array[];
  readonly digests: Uint8Array;
  readonly groups: readonly NativeGroup[];
  /** Pages of the whole memory that are done with these slabs. */
  readonly pages: number;
  /** With an output: bytes of the frames, which have left for it. There are no pieces. */
  readonly written?: number;
}

export interface NativeSaveOptions extends NativePosition {
  readonly codec: number;
  readonly acceleration: number;
  readonly dedup: boolean;
  readonly threads: number;
  readonly slabCount: number;
  readonly changed?: NativePageSet | undefined;
  readonly scrubbed?: NativePageSet | undefined;
  readonly pageDigests?: NativePageDigests | undefined;
  readonly deltas?: NativeDeltaCache | undefined;
  readonly snapshot?: NativeSnapshot | undefined;
  /** Frames go there by themselves; without a descriptor they are thrown away. An error of it has `ofOutput`. */
  readonly output?: { readonly descriptor: number | undefined; readonly position: number } | undefined;
}

export interface NativeLoadOptions extends NativePosition {
  readonly threads: number;
  readonly bufferCount: number;
  /** Of each buffer; 0: the most. */
  readonly readBytes: number;
  readonly chain?: NativeChainLoad | undefined;
  readonly resolve?: boolean | undefined;
  /** DELTA_BLOCK frames are known. */
  readonly deltas?: boolean | undefined;
  readonly pageDigests?: NativePageDigests | undefined;
  readonly placer?: NativeMissingPages | undefined;
}

export interface NativeSavePipeline {
  next(): Promise<NativeSlabs | undefined>;
  /** Gives back what the last `next()` gave, before the next one. */
  release(): void;
  totals(): NativeTotals;
  close(): Promise<void>;
}

/** What was read and pushed since the last one. */
export interface NativeFed {
  readonly digests: Uint8Array;
  readonly bytes: number;
  /** Pages seen so far. */
  readonly pages: number;
  /** The stretch has come to its end, or guest memory, or the file could not be read on, or there is an error. */
  readonly over: boolean;
  readonly ended: boolean;
  readonly leftover?: Uint8Array;
  /** Of `push`. */
  readonly error?: unknown;
}

export interface NativeLoadPipeline {
  acquire(): Promise<{ readonly buffer: number; readonly view: Uint8Array }>;
  push(
    buffer: number,
    bytes: number,
  ): {
    readonly digests: Uint8Array;
    /** Pages seen so far. */
    readonly pages: number;
    readonly ended: boolean;
    readonly leftover?: Uint8Array;
  };
  giveBack(buffer: number): void;
  /**
   * Reads and pushes the next `bytes` of an open file, or of a source, on a thread; until `fed()` says that it is over, nothing else is
   * called.
   */
  feed(from: number | NativePooledSource, position: number, bytes: number): void;
  fed(): Promise<NativeFed>;
  finish(): Promise<NativeTotals & { readonly groups: readonly NativeGroup[] }>;
  /** Resolves, or rejects with the first damage, when all that was pushed is done. */
  settle(): Promise<unknown>;
  close(): Promise<void>;
}
