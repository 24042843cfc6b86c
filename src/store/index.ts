export type { Claim, StoreClaims } from './claims.ts';
export { defaultStoreRegistry, openStore, registeredSchemes, registerStore } from './default-registry.ts';
export { directoryStoreFactory, pooledDirectoryStoreFactory } from './directory-store.ts';
export { hostEnvironment, type ProcessTable, type StoreEnvironment } from './environment.ts';
export { fileStoreFactory } from './file-store.ts';
export { type FileStatus, type FileSystem, hostFileSystem, type OpenFile } from './file-system.ts';
export { defaultMemoryStoreSpace, MemoryStoreSpace, memoryStoreFactory } from './memory-store.ts';
export { nullStoreFactory } from './null-store.ts';
export { StoreRegistry } from './registry.ts';
export { openS3Store, s3StoreFactory } from './s3/open-s3.ts';
export type { S3Settings } from './s3/place.ts';
export {
  type EncryptOptions,
  encrypted,
  type KeyRequest,
  type KeySource,
  keyIdOf,
  type SealAlgorithm,
  type SealKey,
  sealKeyBytes,
} from './seal/index.ts';
export type {
  CommitSummary,
  DirectOutput,
  Integrity,
  MemoryHandOver,
  ReceivedSummary,
  Segment,
  SegmentSummary,
  Store,
  StoredShares,
  StoreExtent,
  StoreFactory,
  StoreReader,
  StoreReadOptions,
  StoreWriteOptions,
  StoreWriter,
} from './store.ts';
export {
  openStreamStore,
  type StreamStore,
  type StreamStoreOptions,
  streamStoreFactory,
} from './stream-store.ts';
export { type TeeOutcome, TeeStore } from './tee-store.ts';
