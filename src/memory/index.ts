export { ArrivingPages } from './arriving-pages.ts';
export { ChainLoad } from './chain-load.ts';
export { DeltaCache, type DeltaCounts } from './delta-cache.ts';
export type { DirtyTracker, TrackerKind } from './dirty-tracker.ts';
export {
  type AllocateOptions,
  type AttachedRegion,
  checkThreads,
  type FileRegion,
  GuestMemory,
  type MemoryScan,
  type RegionSpec,
  type WasmMemory,
} from './guest-memory.ts';
export { GzipImage, type GzipOptions, memberCount, memberEntryBytes, type PageRange } from './gzip-image.ts';
export { ClonePages, ImagePages } from './image-pages.ts';
export { type LazyCounts, LazyPages, type LazyPagesOptions } from './lazy-pages.ts';
export { MemoryCopy } from './memory-copy.ts';
export { MemorySnapshot, type SnapshotCounts } from './memory-snapshot.ts';
export type { MissingPages } from './missing-pages.ts';
export { type DecodeOptions, describeRegions, PageDecoder } from './page-decoder.ts';
export { PageDigests } from './page-digests.ts';
export { type EncodeOptions, PageEncoder } from './page-encoder.ts';
export { BlockLayer, type FetchCounts, type FetchOptions, fetchPages } from './page-fetch.ts';
export { PageSet } from './page-set.ts';
export { RequestedBytes } from './requested-bytes.ts';
export { MemoryTracker, type TrackOptions, trackMemory } from './track-memory.ts';
