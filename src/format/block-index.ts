/**
 * Payload of a BLOCK_INDEX frame: where the PAGE_BLOCK frames of one group lie (docs/format.md section 6).
 *
 *   0              8
 *   | base offset  | one u32 per block: (offset - base) / 8, or 0xFFFFFFFF
 */
import { blockPagesMax } from '../limits.ts';
import { checkEqual, formatError, type Place, readCount, viewOf } from './bytes.ts';

const headBytes = 8;
const entryBytes = 4;
const inZeroRun = 0xffff_ffff;

/** Blocks that have `pageCount` pages. */
export function countBlocks(pageCount: number): number {
  return Math.ceil(pageCount / blockPagesMax);
}

/**
 * `offsets`: per block of the group the offset of its PAGE_BLOCK, or `undefined`. At least one is defined.
 */
export function encodeBlockIndex(offsets: readonly (number | undefined)[]): Uint8Array {
  const bytes = new Uint8Array(headBytes + entryBytes * offsets.length);
  const view = viewOf(bytes);
  const base = offsets.find((offset) => offset !== undefined) ?? 0;
  view.setBigUint64(0, BigInt(base), true);
  for (const [index, offset] of offsets.entries()) {
    const entry = offset === undefined ? inZeroRun : (offset - base) / 8;
    view.setUint32(headBytes + entryBytes * index, entry, true);
  }
  return bytes;
}

/**
 * Per block of a group the offset of its PAGE_BLOCK, or `undefined`. Throws `CHKPT_FORMAT`, `CHKPT_LIMIT`.
 */
export function decodeBlockIndex(
  payload: Uint8Array,
  blockCount: number,
  place: Place,
): (number | undefined)[] {
  checkEqual(payload.length, headBytes + entryBytes * blockCount, 'length of a BLOCK_INDEX frame', place);
  const view = viewOf(payload);
  const base = readCount(view, 0, 'base of a block index', place);
  if (base % 8 !== 0)
    throw formatError('base of a block index is no place of a frame', place, { actual: base });
  return Array.from({ length: blockCount }, (_, index) => {
    const entry = view.getUint32(headBytes + entryBytes * index, true);
    return entry === inZeroRun ? undefined : base + 8 * entry;
  });
}
