export type {
  Measured,
  NativeAddon,
  NativeBlockLayer,
  NativeChainLoad,
  NativeDirtyTracker,
  NativeLazyLayer,
  NativeLazyLoader,
  NativeLazyOptions,
  NativeLoadPipeline,
  NativeMemory,
  NativeMemoryCopy,
  NativeMissingPages,
  NativePageDigests,
  NativePageFetch,
  NativePageSet,
  NativeRegion,
  NativeSavePipeline,
  NativeSharedImage,
  NativeSlabs,
  NativeSnapshot,
  NativeStampCheck,
  NativeStampWriter,
  NativeStoredBlocks,
  NativeTotals,
} from './addon.ts';
export type { NativeDeviceAccess, NativeKvmMachine, NativeKvmSupport } from './kvm.ts';
export { hasNativeAddon, nativeAddon } from './load-addon.ts';
export { awaitNative, callNative, fromNative } from './native-error.ts';
