export type {
  Measured,
  NativeAddon,
  NativeBlockLayer,
  NativeBlockRequests,
  NativeChainLoad,
  NativeDeltaCache,
  NativeDirtyTracker,
  NativeGzipImage,
  NativeLazyLayer,
  NativeLazyLoader,
  NativeLazyOptions,
  NativeMemory,
  NativeMemoryCopy,
  NativeMissingPages,
  NativePageDigests,
  NativePageFetch,
  NativePageSet,
  NativeRegion,
  NativeSharedImage,
  NativeSnapshot,
  NativeStampCheck,
  NativeStampWriter,
  NativeStoredBlocks,
} from './addon.ts';
export type { NativeDeviceAccess, NativeKvmMachine, NativeKvmSupport } from './kvm.ts';
export { hasNativeAddon, nativeAddon } from './load-addon.ts';
export { awaitNative, callNative, fromNative, outputErrorOf } from './native-error.ts';
export type {
  NativeFed,
  NativeLoadPipeline,
  NativeSavePipeline,
  NativeSlabs,
  NativeTotals,
} from './pipelines.ts';
export type { NativePooledSource, NativePoolWriter } from './pool.ts';
export type { NativeRecordSealer } from './sealer.ts';
