import type { Digest64 } from '../format/digest.ts';
import { createWasmDigest64 } from '../format/wasm-digest.ts';
import { hasNativeAddon, nativeAddon } from '../native/index.ts';

/** XXH3 of the format: the addon's, or WebAssembly where the addon cannot load. */
export async function checkpointDigest(): Promise<Digest64> {
  if (!hasNativeAddon()) return createWasmDigest64();
  const addon = nativeAddon();
  return (bytes) => addon.xxh3(bytes);
}
