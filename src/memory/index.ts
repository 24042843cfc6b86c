export {
  type AllocateOptions,
  type AttachedRegion,
  checkThreads,
  type FileRegion,
  GuestMemory,
  type MemoryScan,
  type MissingPages,
  type RegionSpec,
  type WasmMemory,
} from './guest-memory.ts';
export { type LazyCounts, LazyPages, type LazyPagesOptions } from './lazy-pages.ts';
export { MemoryCopy } from './memory-copy.ts';
export { type DecodeOptions, describeRegions, PageDecoder } from './page-decoder.ts';
export { type EncodeOptions, PageEncoder } from './page-encoder.ts';
