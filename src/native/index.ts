export type {
  Measured,
  NativeAddon,
  NativeDeviceAccess,
  NativeDirtyTracker,
  NativeKvmMachine,
  NativeKvmSupport,
  NativeLoadPipeline,
  NativeMemory,
  NativeMemoryCopy,
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
