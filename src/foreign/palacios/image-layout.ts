/**
 * Where guest memory lies in the context `memory_img`: the size of a block, how many there are, then the blocks, ascending from
 * guest-physical address 0. The last block is whole, also where memory ends inside it; how large memory was is not told.
 */
import { CheckpointError } from '../../errors/index.ts';
import { formatError, type Place } from '../../format/bytes.ts';
import { memoryBytesMax, pageBytes } from '../../limits.ts';
import type { PalaciosRecord } from './record.ts';
import { memoryImageContext } from './schema.ts';

export interface ImageBlocks {
  /** Bytes of a block, whole pages. */
  readonly blockBytes: number;
  readonly blockCount: number;
}

/** What original builds use unless told otherwise: 128 MiB. An original loads no other than its own. */
export const blockBytesDefault = 134_217_728;

const place: Place = { context: memoryImageContext };

/** Throws `CHKPT_UNSUPPORTED` for memory that reaches beyond 16 TiB: all below its end takes part. */
export function blocksFor(memoryEnd: bigint, blockBytes: number): ImageBlocks {
  if (memoryEnd > memoryBytesMax) {
    throw new CheckpointError('CHKPT_UNSUPPORTED', 'memory ends at too high an address for this form', {
      details: { expected: memoryBytesMax, actual: memoryEnd },
    });
  }
  return { blockBytes, blockCount: Math.ceil(Number(memoryEnd) / blockBytes) };
}

/** The blocks of an image that has memory. Throws as `blocksFor`. */
export function blocksOf(
  { regions }: { readonly regions: readonly { readonly base: bigint; readonly bytes: bigint }[] },
  blockBytes: number,
): ImageBlocks {
  const last = regions.at(-1);
  return blocksFor(last === undefined ? 0n : last.base + last.bytes, blockBytes);
}

/** Bytes of guest memory. */
export function imageBytes({ blockBytes, blockCount }: ImageBlocks): number {
  return blockBytes * blockCount;
}

export function encodeImageHead({ blockBytes, blockCount }: ImageBlocks): PalaciosRecord[] {
  const size = new Uint8Array(8);
  new DataView(size.buffer).setBigUint64(0, BigInt(blockBytes), true);
  const count = new Uint8Array(4);
  new DataView(count.buffer).setUint32(0, blockCount, true);
  return [
    { tag: 'region_size', data: size },
    { tag: 'num_regions', data: count },
  ];
}

/**
 * Reads the two records whose tags and lengths were checked. Throws `CHKPT_FORMAT` for blocks that are not whole pages, or none;
 * `CHKPT_LIMIT` above 16 TiB in all.
 */
export function decodeImageHead(records: readonly PalaciosRecord[]): ImageBlocks {
  const [size, count] = records.map(
    ({ data }) => new DataView(data.buffer, data.byteOffset, data.byteLength),
  );
  const blockBytes = size?.getBigUint64(0, true) ?? 0n;
  const blockCount = count?.getUint32(0, true) ?? 0;
  if (blockBytes === 0n || blockBytes % BigInt(pageBytes) !== 0n) {
    throw formatError(
      'a block is not made of whole pages',
      { ...place, tag: 'region_size' },
      { actual: blockBytes },
    );
  }
  if (blockCount === 0) throw formatError('memory without blocks', { ...place, tag: 'num_regions' });
  const total = blockBytes * BigInt(blockCount);
  if (total > memoryBytesMax) {
    throw new CheckpointError('CHKPT_LIMIT', 'more memory than any machine has', {
      details: { ...place, tag: 'num_regions', expected: memoryBytesMax, actual: total },
    });
  }
  return { blockBytes: Number(blockBytes), blockCount };
}

/** Decimal digits of all numbers below `count`, together. */
export function digitsBelow(count: number): number {
  let digits = 0;
  for (let [width, from] = [1, 0]; from < count; width += 1) {
    const until = Math.min(count, 10 ** width);
    digits += width * (until - from);
    from = until;
  }
  return digits;
}
