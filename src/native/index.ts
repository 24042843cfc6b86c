export type {
  Measured,
  NativeAddon,
  NativeDeviceAccess,
  NativeKvmMachine,
  NativeKvmSupport,
  NativeLazyLayer,
  NativeLazyLoader,
  NativeLoadPipeline,
  NativeMemory,
  NativeMemoryCopy,
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
