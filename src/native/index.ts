export type {
  Measured,
  NativeAddon,
  NativeChainLoad,
  NativeDeviceAccess,
  NativeKvmMachine,
  NativeKvmSupport,
  NativeLazyLayer,
  NativeLazyLoader,
  NativeLoadPipeline,
  NativeMemory,
  NativeMemoryCopy,
  NativePageDigests,
  NativePageSet,
  NativeRegion,
  NativeSavePipeline,
  NativeSlabs,
  NativeStampCheck,
  NativeStampWriter,
  NativeStoredBlocks,
  NativeTotals,
} from './addon.ts';
export { hasNativeAddon, nativeAddon } from './load-addon.ts';
export { awaitNative, callNative, fromNative } from './native-error.ts';
