import type { Digest64 } from './digest.ts';

/**
 * XXH3-64 in WebAssembly, for when the addon cannot be loaded. The function keeps one hash state and is
 * synchronous, so that calls cannot mix.
 */
export async function createWasmDigest64(): Promise<Digest64> {
  // Not imported before it is needed: 2 MiB.
  const { createXXHash3 } = await import('hash-wasm');
  const hasher = await createXXHash3();
  return (bytes) => {
    hasher.init();
    if (bytes.byteLength > 0) hasher.update(bytes);
    // The hexadecimal form is the canonical one: most significant digit first.
    return BigInt(`0x${hasher.digest('hex')}`);
  };
}
