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
export { MemoryCopy } from './memory-copy.ts';
export { type DecodeOptions, describeRegions, PageDecoder } from './page-decoder.ts';
export { type EncodeOptions, PageEncoder } from './page-encoder.ts';
export { PageSet } from './page-set.ts';
export { MemoryTracker, type TrackOptions, trackMemory } from './track-memory.ts';
