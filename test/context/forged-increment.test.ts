/** Forged increments: all digests are right, one rule of guest memory with a parent is broken. */
import { beforeAll, describe, expect, it } from 'vitest';
import type { Digest64 } from '../../src/format/digest.ts';
import { createWasmDigest64 } from '../../src/format/wasm-digest.ts';
import { hasNativeAddon } from '../../src/native/index.ts';
import { type Change, errorOf, errorOfBoth, insert, remove, set } from '../support/forged.ts';
import {
  blockPayload,
  incrementPages,
  loadMembers,
  ownPages,
  incrementPlaces as places,
  soundIncrement,
} from '../support/forged-increment.ts';
import { readStream } from '../support/read-stream.ts';
import { concat, types, u32, u64 } from '../support/stream-builder.ts';

let digest: Digest64;
beforeAll(async () => {
  digest = await createWasmDigest64();
});

const zeros = (count: number): number[] => Array(count).fill(0);
const payload = (...parameters: Parameters<typeof blockPayload>): { payload: Uint8Array } => ({
  payload: blockPayload(...parameters),
});

describe('the unchanged increment', () => {
  it('is sound', async () => {
    const { pages, summary } = await readStream(soundIncrement(digest).build(), digest);
    expect(pages).toEqual(incrementPages);
    expect(summary.counts).toMatchObject({
      pages: 53,
      zeroPages: 17,
      fillPages: 1,
      storedPages: 1,
      samePages: 3,
      parentPages: 31,
    });
  });

  it.skipIf(!hasNativeAddon())('fills its own pages and leaves those of the parent alone', async () => {
    const pages = await loadMembers([soundIncrement(digest).build()], digest, 0xaa);
    for (const [page, bytes] of pages.entries()) {
      const own = incrementPages.get(page) ?? new Uint8Array(4096);
      const expected = ownPages.includes(page) ? own : new Uint8Array(4096).fill(0xaa);
      expect(Buffer.compare(bytes, expected), `page ${page}`).toBe(0);
    }
  });
});

const format: [string, Change][] = [
  // Runs.
  ['a zero run beside a parent', set(places.parentRun, { type: types.zeroRun })],
  ['a zero run as large as a region', set(places.secondRun, { type: types.zeroRun })],
  ['a parent run with payload', set(places.parentRun, payload([4], []))],
  ['an empty parent run', insert(places.parentRun, types.parentRun, { arg0: 16, arg1: 0 })],
  ['a parent run that ends inside a block', set(places.secondRun, { arg1: 15 })],
  ['a parent run across regions', set(places.parentRun, { arg1: 20 })],
  ['a parent run that starts inside a block', set(places.secondRun, { arg0: 37, arg1: 15 })],
  ['missing pages', remove(places.secondRun)],
  ['missing pages at the end', remove(places.shortBlock)],
  ['pages twice', insert(places.secondRun, types.parentRun, { arg0: 20, arg1: 16 })],
  ['pages beyond the regions', insert(places.close, types.parentRun, { arg0: 53, arg1: 16 })],
  // Blocks.
  ['a block of only the parent’s pages', set(places.zeroBlock, payload(Array(16).fill(4)))],
  ['a short block of only the parent’s page', set(places.shortBlock, payload([4]))],
  ['a class above parent', set(places.zeroBlock, payload([5, ...zeros(15)]))],
  ['a parent’s page behind the end of its block', set(places.shortBlock, payload([0, 4]))],
  ['a word for a parent’s page', set(places.zeroBlock, payload([4, ...zeros(15)], [0]))],
  // Equal pages.
  [
    'a page that equals a parent’s page of its block',
    set(places.zeroBlock, payload([4, 3, ...zeros(14)], [20])),
  ],
  ['a page that equals a parent’s page of an earlier block', set(places.shortBlock, payload([3], [0]))],
  ['a page that equals the last parent’s page of a block', set(places.shortBlock, payload([3], [15]))],
  ['a page that equals a page of a parent run', set(places.shortBlock, payload([3], [16]))],
  ['a page that equals a page of a parent run just before', set(places.shortBlock, payload([3], [51]))],
  ['a page that equals itself', set(places.shortBlock, payload([3], [52]))],
  ['a page that equals a page beyond all', set(places.shortBlock, payload([3], [2n ** 64n - 1n]))],
  // Block indexes.
  [
    'a block index that invents a block in a parent run',
    set(places.blockIndex, {
      payload: (offsets: readonly number[]) => concat(u64(offsets[places.block] ?? 0), u32(0, 0)),
    }),
  ],
  [
    'a block index of a region with only a parent run',
    (b) => {
      b.frames.splice(places.zeroBlock, 3, { type: types.parentRun, arg0: 20, arg1: 33 });
      b.frames.splice(places.zeroBlock + 1, 0, {
        type: types.blockIndex,
        arg0: 20,
        arg1: 33,
        payload: concat(u64(0), u32(0xffff_ffff, 0xffff_ffff, 0xffff_ffff)),
      });
    },
  ],
  // The header: what makes it an increment.
  [
    'class 4 without a parent',
    (b) => {
      const none = { minor: 1, parentUuid: new Uint8Array(16), parentRoot: new Uint8Array(32), epoch: 0n };
      Object.assign(b.header, none);
    },
  ],
  ['a parent in a stream of 1.0', (b) => Object.assign(b.header, { minor: 0 })],
];

/**
 * The error of every reader: portable, native, native into memory, and native behind a newer member that has the same pages. They
 * agree on code and place.
 */
async function errorOfAll(change: Change): ReturnType<typeof errorOf> {
  const built = soundIncrement(digest);
  change(built);
  const bytes = built.build();
  const error = await errorOfBoth(bytes, digest);
  if (hasNativeAddon()) {
    const newer = soundIncrement(digest).build();
    for (const members of [[bytes], [newer, bytes]]) {
      const loading = await errorOf(() => loadMembers(members, digest, 0));
      expect([loading.code, loading.details.offset]).toEqual([error.code, error.details.offset]);
    }
  }
  return error;
}

describe('an increment with right digests is refused as CHKPT_FORMAT with', () => {
  it.each(format)('%s', async (_what, change) => {
    const error = await errorOfAll(change);
    expect(error.code, error.message).toBe('CHKPT_FORMAT');
    expect(error.details.offset, error.message).toBeTypeOf('number');
  });
});

describe('an increment with right digests is refused as CHKPT_ROOT_DIGEST with', () => {
  it.each([
    ['pages of the parent counted as zero', { zeroPages: 48, parentPages: 0 }],
    ['a page of the parent too few', { parentPages: 30 }],
  ])('%s', async (_what, counts) => {
    const error = await errorOfAll((b) => Object.assign(b.counts, counts));
    expect(error.code, error.message).toBe('CHKPT_ROOT_DIGEST');
  });
});
