/**
 * The whole native surface, typed. Thin: checks nothing, converts nothing; `src/memory` does.
 *
 * Errors thrown or rejected by the addon are plain `Error`s with `code`, and maybe `errno`, `frame`, `offset`, `page`;
 * `fromNative` makes CheckpointErrors of them.
 */
import type { NativeKvmMachine, NativeKvmSupport } from './kvm.ts';
import type {
  NativeBlockLayer,
  NativeBlockRequests,
  NativeLazyLayer,
  NativeLazyLoader,
  NativeLazyOptions,
  NativeMissingPages,
  NativePageFetch,
  NativeSharedImage,
} from './lazy.ts';
import type {
  NativeLoadOptions,
  NativeLoadPipeline,
  NativeSaveOptions,
  NativeSavePipeline,
} from './pipelines.ts';
import type { NativePooledContext, NativePooledSource, NativePoolWriter } from './pool.ts';
import type { NativeRecordSealerClass } from './sealer.ts';

/** `[base, bytes]` of a region. */
export type NativeRegion = readonly [base: bigint, bytes: bigint];

export interface NativeScan {
  readonly pages: number;
  readonly present: number;
  readonly zero: number;
  readonly fill: number;
}

export interface NativeStampCheck {
  readonly stamped: number;
  readonly damaged: number;
  readonly firstDamaged: number;
  readonly highestCounter: number;
}

export interface NativeMemory {
  read(address: bigint, target: Uint8Array): void;
  /** A few pages of one region as bytes, see native/core/lazy/page_run.h. */
  encodeRun(first: number, count: number): Uint8Array;
  write(address: bigint, source: Uint8Array): void;
  scan(threads: number): Promise<NativeScan>;
  digest(threads: number): Promise<bigint>;
  /** Pages that may hold something, found without reading them. */
  presence(): Promise<number>;
  /** Reads a byte of every page in the range, on a thread that may wait. */
  touch(address: bigint, bytes: number): Promise<void>;
  fillGuestLike(seed: bigint, threads: number): Promise<void>;
  checkStamps(): Promise<NativeStampCheck>;
  /** Both attach the same bytes of this process; also when their buffers were detached. */
  sharesBytesWith(other: NativeMemory): boolean;
  /** Of a clone of a shared image: drops what was written to it. */
  resetClone(): Promise<void>;
  close(): Promise<void> | undefined;
}

/** Pages of a memory; native threads may hold the same set. */
export interface NativePageSet {
  count(): number;
  markRun(first: number, count: number): void;
  /** Adds the pages of `other`, which keeps them. */
  merge(other: NativePageSet): void;
  /** Moves everything into a new set. */
  take(): NativePageSet;
  /** Moves the first `pages` pages, and at most 63 more, into a new set. */
  takeFirst(pages: number): NativePageSet;
  clearRun(first: number, count: number): void;
  /** Of the run that `page` is in, what lies inside of these; undefined: it is not in the set. */
  runAround(page: number, first: number, count: number): readonly [first: number, count: number] | undefined;
  /** Takes the pages of `other` out. */
  subtract(other: NativePageSet): void;
  /** One bit a page, in u64 words, little-endian. */
  bits(): Uint8Array;
  mergeBits(bits: Uint8Array): void;
  /** first, count, first, count, … of the first `limit` runs at or after page `from`. */
  runs(from: number, limit: number): Float64Array;
}

/** Pages are told by `harvest` until they are in a set that it resolved with. */
export interface NativeDirtyTracker {
  arm(): Promise<void>;
  harvest(): Promise<NativePageSet>;
  /** What `harvest` would tell; it will tell it again. */
  look(): Promise<NativePageSet>;
  firstWriteCost(): Promise<number | undefined>;
  mark(first: number, count: number): void;
  close(): Promise<void>;
}

/** The members of a chain, newest first, into one memory. */
export interface NativeChainLoad {
  /** The member is complete; the next one is its parent. */
  advance(): void;
  /** True: pages of this member were put off; it is to be read once more, with `resolve`. */
  deferred(): boolean;
  /** No member fills these pages. Before the first one is loaded. */
  leaveAlone(pages: NativePageSet): void;
}

/** Digest of each page of a memory, 16 bytes each. */
export interface NativePageDigests {
  /** These pages become unknown. */
  forget(pages: NativePageSet): void;
  /** Adds the pages that differ to `pages`. `other` was made with this one as its key. */
  differing(other: NativePageDigests, pages: NativePageSet): Promise<void>;
}

/** Pages as they were last sent, for those that are sent again. */
export interface NativeDeltaCache {
  /** These pages may be anything at the destination. No pipeline uses the cache. */
  forget(pages: NativePageSet): void;
  counts(): { readonly deltas: number; readonly unchanged: number; readonly versions: number };
}

export interface NativeMemoryCopy {
  /** Makes the target equal to the source, which may be written meanwhile. One call at a time. */
  update(source: NativeMemory, threads: number): Promise<void>;
  /** Ends the update under way, and every later one, with CHKPT_ABORTED. */
  cancel(): void;
  /** Cancels, and lets go of the target. */
  close(): void;
}

/** Regions as files of gzip members. One call at a time. */
export interface NativeGzipImage {
  /** Resolves to the table of the members: for each its compressed bytes (u32) and its digest (u64), little-endian. */
  save(
    firstPage: number,
    pageCount: number,
    descriptor: number,
    memberBytes: number,
    threads: number,
  ): Promise<Uint8Array>;
  loadMembers(
    firstPage: number,
    pageCount: number,
    descriptor: number,
    table: Uint8Array,
    memberBytes: number,
    threads: number,
  ): Promise<void>;
  loadStream(firstPage: number, pageCount: number, descriptor: number, fileBytes: number): Promise<void>;
  /** Of all calls. */
  pagesDone(): number;
  /** Ends the call under way, and every later one, with CHKPT_ABORTED. */
  cancel(): void;
}

/** Memory that is kept as it was while its guest writes. */
export interface NativeSnapshot {
  /** While the guest runs: protects all pages, and makes room for what is going to be set aside. */
  prepare(sideBytesMax: number): Promise<void>;
  /** The image is what memory is now; the guest stands still. `changed`: the only pages that are wanted. */
  freeze(sideBytesMax: number, changed: NativePageSet | undefined): Promise<void>;
  counts(): { readonly faults: number; readonly savedPages: number; readonly sideBytesPeak: number };
  /** After the pipeline that encodes it. */
  close(): Promise<void>;
}

export interface NativeStampWriter {
  resume(): void;
  pause(): Promise<void>;
  stop(): Promise<void>;
  pagesWritten(): number;
  counter(): bigint;
  setCounter(counter: bigint): void;
}

export interface Measured {
  readonly seconds: number;
  readonly bytes: number;
  readonly result: bigint;
}

export interface NativeStoredBlocks {
  add(frames: Uint8Array): void;
  compress(threads: number, acceleration: number): Promise<Measured>;
  /** Each extent's blocks into an extent of their own, or all of them one behind the other. */
  decode(threads: number, packed: boolean): Promise<Measured>;
}

export interface NativeAddon {
  allocateMemory(regions: readonly NativeRegion[], backing: number, hugePages: boolean): NativeMemory;
  /** mode: 0 mapped, 1 file, 2 fresh file. */
  openFileMemory(
    regions: readonly NativeRegion[],
    descriptors: readonly number[],
    offsets: readonly number[],
    mode: number,
    writable: boolean,
  ): NativeMemory;
  attachMemory(regions: readonly NativeRegion[], views: readonly Uint8Array[]): NativeMemory;
  describeMemory(regions: readonly NativeRegion[]): NativeMemory;
  readonly ChainLoad: new (pageCount: number) => NativeChainLoad;
  readonly PageDigests: new (pageCount: number, key?: NativePageDigests) => NativePageDigests;
  /** `versionCount`: pages of which it keeps what was sent. Throws CHKPT_NO_MEMORY. */
  readonly DeltaCache: new (
    pageCount: number,
    versionCount: number,
  ) => NativeDeltaCache;
  readonly PageSet: new (pageCount: number) => NativePageSet;
  /** kind: index of TrackerKind. process 0: this one. Throws why this kind cannot be had. */
  readonly DirtyTracker: new (
    memory: NativeMemory,
    kind: number,
    options: { readonly threads: number; readonly process: number },
  ) => NativeDirtyTracker;
  /** `tracker`: the memory's, when it is of the kind `write-protect`. Throws why this memory cannot be frozen. */
  readonly Snapshot: new (
    memory: NativeMemory,
    tracker: NativeDirtyTracker | undefined,
  ) => NativeSnapshot;
  /** The target is fresh memory. */
  readonly MemoryCopy: new (
    target: NativeMemory,
  ) => NativeMemoryCopy;
  readonly GzipImage: new (memory: NativeMemory) => NativeGzipImage;
  readonly PoolWriter: new (pool: string, work: string) => NativePoolWriter;
  readonly RecordSealer: NativeRecordSealerClass;
  readonly PooledSource: new (context: NativePooledContext) => NativePooledSource;
  readonly SavePipeline: new (memory: NativeMemory, options: NativeSaveOptions) => NativeSavePipeline;
  readonly LoadPipeline: new (memory: NativeMemory, options: NativeLoadOptions) => NativeLoadPipeline;
  /** Takes these pages out of memory. Throws CHKPT_UNSUPPORTED, CHKPT_PERMISSION where this memory cannot. */
  readonly MissingPages: new (
    memory: NativeMemory,
    missing: NativePageSet,
  ) => NativeMissingPages;
  /** Throws CHKPT_UNSUPPORTED, CHKPT_PERMISSION where memory cannot be loaded lazily. */
  readonly LazyLoader: new (
    memory: NativeMemory,
    options: NativeLazyOptions,
  ) => NativeLazyLoader;
  /** Throws the same. `poison` has no meaning. */
  readonly SharedImage: new (
    regions: readonly NativeRegion[],
    options: NativeLazyOptions,
  ) => NativeSharedImage;
  /** Of a stream of so many bytes. */
  readonly BlockRequests: new (
    byteCount: number,
  ) => NativeBlockRequests;
  readonly BlockLayer: new (memory: NativeMemory, layer: NativeLazyLayer) => NativeBlockLayer;
  /** The checkpoint, then its parents; all are open. */
  readonly PageFetch: new (
    memory: NativeMemory,
    layers: readonly NativeBlockLayer[],
  ) => NativePageFetch;
  readonly StampWriter: new (
    memory: NativeMemory,
    options: {
      readonly threads: number;
      readonly pagesPerSecond: number;
      readonly pattern: number;
      readonly seed: bigint;
      readonly firstPage: number;
      readonly pageCount: number;
    },
  ) => NativeStampWriter;
  /** Writes whole pages where the file holds nothing yet; zeros stay holes. */
  rangeToFile(
    memory: NativeMemory,
    address: bigint,
    bytes: bigint,
    descriptor: number,
    position: number,
  ): Promise<void>;
  /** Into memory that is zero there. */
  rangeFromFile(
    memory: NativeMemory,
    address: bigint,
    bytes: bigint,
    descriptor: number,
    position: number,
  ): Promise<void>;
  /** 1 to 256 pages, 4153 bytes each, see native/core/foreign/palacios_pages.h. */
  encodePalaciosPages(memory: NativeMemory, first: number, count: number): Uint8Array;
  placePalaciosPages(memory: NativeMemory, first: number, bytes: Uint8Array): void;
  /** Throws CHKPT_UNSUPPORTED where the file system cannot. */
  exchangePaths(left: string, right: string): void;
  /** Throws CHKPT_UNSUPPORTED where there is no usable KVM. */
  kvmSupport(): NativeKvmSupport;
  /** Absent where `kvmSupport` throws because of the platform. */
  readonly KvmMachine: new (
    memory: NativeMemory,
    options: {
      /** Entries of `kvm_cpuid_entry2` for each core. */
      readonly cpuid: readonly Uint8Array[];
      readonly ranges: readonly (readonly [mmio: boolean, base: bigint, bytes: bigint])[];
      /** Of the dirty ring of each vCPU, a power of two; 0: no rings. */
      readonly ringEntries: number;
      /** There is something to take. Must not throw. */
      readonly onNews: () => void;
    },
  ) => NativeKvmMachine;
  /** Zero bytes in huge pages, page-aligned; at most 1 GiB. */
  allocateBuffer(byteCount: number): Uint8Array;
  /**
   * On a thread of its own. The target has the length of all sources; none of them may be transferred before it resolves.
   */
  copyBytes(target: Uint8Array, sources: readonly Uint8Array[]): Promise<void>;
  /** On a thread of its own, without a copy; the bytes may not be transferred before. Rejects with CHKPT_UNSUPPORTED. */
  sha256(bytes: Uint8Array): Promise<Uint8Array>;
  /** Process id of the peer of a connected UNIX socket; 0 when it is not visible. */
  peerProcess(descriptor: number): number;
  xxh3(bytes: Uint8Array): bigint;
  lz4Encode(bytes: Uint8Array, acceleration: number): Uint8Array | undefined;
  lz4Decode(bytes: Uint8Array, decodedBytes: number): Uint8Array;
  capabilities(): {
    readonly simd: string;
    readonly pagemap: 'scan' | 'entries' | 'none';
    readonly lz4Version: number;
    readonly xxhashVersion: number;
    readonly napiVersion: number;
  };
  readonly bench: {
    /** Touches that much fresh memory and gives it back. */
    warm(byteCount: number): Promise<void>;
    /** Nanoseconds to touch each page; `pages` are u32 little-endian. */
    touch(memory: NativeMemory, pages: Uint8Array): Promise<Float64Array>;
    /** Nanoseconds of bare userfaultfd faults. Rejects with CHKPT_PERMISSION, CHKPT_UNSUPPORTED. */
    faultRoundTrip(count: number): Promise<Float64Array>;
    read(memory: NativeMemory, threads: number): Promise<Measured>;
    zeroScan(memory: NativeMemory, threads: number): Promise<Measured>;
    copy(memory: NativeMemory, threads: number): Promise<Measured>;
    palaciosRecords(memory: NativeMemory, descriptor: number): Promise<Measured>;
    /** Writes to pages of mapped memory. */
    dirty(memory: NativeMemory, perMille: number, seed: bigint): Promise<void>;
    /** PAGEMAP_SCAN over memory that a write-protect tracker has armed; takes its pages. */
    bareScan(memory: NativeMemory): Promise<Measured>;
    bitLoop(set: NativePageSet): Promise<Measured>;
    runs(set: NativePageSet): Promise<Measured>;
    readonly StoredBlocks: new () => NativeStoredBlocks;
  };
}
