export type {
  Measured,
  NativeAddon,
  NativeChainLoad,
  NativeDeltaCache,
  NativeDirtyTracker,
  NativeGzipImage,
  NativeMemory,
  NativeMemoryCopy,
  NativePageDigests,
  NativePageSet,
  NativeRegion,
  NativeSnapshot,
  NativeStampCheck,
  NativeStampWriter,
  NativeStoredBlocks,
} from './addon.ts';
export type { NativeDeviceAccess, NativeKvmMachine, NativeKvmSupport } from './kvm.ts';
export type {
  NativeBlockLayer,
  NativeBlockRequests,
  NativeLazyLayer,
  NativeLazyLoader,
  NativeLazyOptions,
  NativeMissingPages,
  NativePageFetch,
  NativeSharedImage,
} from './lazy.ts';
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
