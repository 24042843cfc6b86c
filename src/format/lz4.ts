import { createRequire } from 'node:module';
import { blockPagesMax, pageBytes } from '../limits.ts';
import type { DecodeLz4 } from './page-block.ts';

const decodedBytesMax = blockPagesMax * pageBytes;

/**
 * LZ4 without the addon. lz4-napi wants the decoded size in front of the block and allocates that much, so
 * the size is bounded here, by what a block of guest memory can have, before the library sees it.
 */
export function createLz4Decoder(): DecodeLz4 {
  // Not imported: it takes 4 MiB, and processes that have the addon never need it.
  const { uncompressSync } = createRequire(import.meta.url)('lz4-napi') as typeof import('lz4-napi');
  // An encoded block is always smaller than what it decodes to.
  const scratch = Buffer.alloc(4 + decodedBytesMax);
  return (encoded, decodedBytes) => {
    if (decodedBytes > decodedBytesMax || encoded.length >= decodedBytesMax) {
      throw new RangeError(`a block of ${encoded.length} bytes cannot decode to ${decodedBytes}`);
    }
    scratch.writeUInt32LE(decodedBytes, 0);
    scratch.set(encoded, 4);
    return uncompressSync(scratch.subarray(0, 4 + encoded.length));
  };
}
