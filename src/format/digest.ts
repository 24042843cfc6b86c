/**
 * XXH3-64 of the bytes (seed 0, default secret), as the number whose little-endian form stands in the stream.
 *
 * Injected everywhere, because the native one needs the addon: `createWasmDigest64()` is the one without it.
 */
export type Digest64 = (bytes: Uint8Array) => bigint;
