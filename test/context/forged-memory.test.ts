/** Forged guest memory: all digests are right, one field is not. */
import { beforeAll, describe, expect, it } from 'vitest';
import type { Digest64 } from '../../src/format/digest.ts';
import { createWasmDigest64 } from '../../src/format/wasm-digest.ts';
import {
  type Change,
  forgedError,
  forgedPage,
  frameAt,
  insert,
  payloadAt,
  places,
  poke,
  remove,
  set,
  soundStream,
} from '../support/forged.ts';
import { readStream } from '../support/read-stream.ts';
import { concat, types, u32, u64 } from '../support/stream-builder.ts';

let digest: Digest64;
beforeAll(async () => {
  digest = await createWasmDigest64();
});

describe('the unchanged stream', () => {
  it('is sound, and its frames lie where the changes expect them', async () => {
    const built = soundStream(digest);
    const { summary, pages } = await readStream(built.build(), digest);
    expect([...pages]).toEqual([0, 1, 2, 3, 20].map((page) => [page, forgedPage(page)]));
    expect(summary.counts).toMatchObject({
      contexts: 3,
      tags: 3,
      pages: 53,
      storedPages: 3,
      fillPages: 1,
      samePages: 1,
    });
    expect(Object.entries(places).map(([, at]) => frameAt(built, at).type)).toEqual([
      ...[types.contextOpen, types.tag, types.tag, types.contextClose, types.contextOpen, types.regionTable],
      ...[types.pageBlock, types.blockIndex, types.zeroRun, types.pageBlock, types.contextClose],
      ...[types.contextOpen, types.tag, types.contextClose],
    ]);
  });
});

const format: [string, Change][] = [
  // Regions.
  ['no regions', set(places.regionTable, { arg0: 0, payload: new Uint8Array() })],
  ['another page size', set(places.regionTable, { arg1: 8192 })],
  ['fewer regions than said', set(places.regionTable, { arg0: 3 })],
  ['an empty region', set(places.regionTable, { payload: u64(0, 20 * 4096, 0x100000, 0) })],
  ['a region of half a page', set(places.regionTable, { payload: u64(0, 20 * 4096, 0x100000, 2048) })],
  ['a region that starts in a page', set(places.regionTable, { payload: u64(0, 20 * 4096, 0x100001, 4096) })],
  ['regions that overlap', set(places.regionTable, { payload: u64(0, 20 * 4096, 19 * 4096, 4096) })],
  ['regions that descend', set(places.regionTable, { payload: u64(0x100000, 4096, 0, 4096) })],
  // Pages.
  ['missing pages', remove(places.zeroRun)],
  ['missing pages at the end', remove(places.closeMemory - 2)],
  ['pages twice', insert(places.blockIndex + 1, types.zeroRun, { arg0: 16, arg1: 4 })],
  ['pages beyond the regions', insert(places.closeMemory, types.zeroRun, { arg0: 53, arg1: 16 })],
  ['an empty zero run', insert(places.zeroRun, types.zeroRun, { arg0: 16, arg1: 0 })],
  ['a zero run that ends inside a block', set(places.zeroRun, { arg1: 3 })],
  ['a zero run across regions', set(places.zeroRun, { arg1: 49 })],
  ['a zero run with payload', set(places.zeroRun, { payload: u64(0) })],
  ['a parent run without a parent', set(places.zeroRun, { type: types.parentRun })],
  ['a block with fewer pages', set(places.block, { arg1: 15 })],
  ['a block with more pages', set(places.block, { arg1: 17 })],
  ['a block that starts elsewhere', set(places.block, { arg0: 1 })],
  ['an unknown codec', poke(places.block, 0, 2)],
  ['a reserved byte in a block', poke(places.block, 3, 1)],
  ['a block of zero pages only', set(places.block, { payload: new Uint8Array(16) })],
  ['a class for the parent', poke(places.block, 15, 0x40)],
  ['an unknown class', poke(places.block, 15, 0xf0)],
  [
    'a block without its words',
    (b) => set(places.block, { payload: payloadAt(b, places.block).subarray(0, -8) })(b),
  ],
  [
    'a block with a word more',
    (b) => set(places.block, { payload: concat(payloadAt(b, places.block), u64(0)) })(b),
  ],
  [
    'padding behind the data of a block',
    (b) => {
      const payload = payloadAt(b, places.block);
      const end = 16 + payload.readUInt32LE(4);
      expect(end % 8).not.toBe(0);
      payload[end] = 1;
    },
  ],
  ['a raw block with fewer bytes', poke(places.rawBlock, 4, 0, 0x0f)],
  [
    'an LZ4 block that is not smaller',
    (b) => {
      const payload = payloadAt(b, places.rawBlock);
      payload[0] = 1;
    },
  ],
  [
    'a page that equals itself',
    (b) => {
      const payload = payloadAt(b, places.block);
      payload.writeBigUInt64LE(3n, payload.length - 8);
    },
  ],
  [
    'a page that equals a later one',
    (b) => {
      const payload = payloadAt(b, places.block);
      payload.writeBigUInt64LE(1n << 63n, payload.length - 8);
    },
  ],
  [
    'classes beyond the end of a region',
    (b) => {
      b.frames[places.zeroRun] = {
        type: types.pageBlock,
        arg0: 16,
        arg1: 4,
        payload: concat(u32(0, 0), u64(0x1_0001), u64(5), u64(5)),
      };
    },
  ],
  // Block indexes.
  [
    'a block index before any block',
    insert(places.block, types.blockIndex, { arg1: 20, payload: concat(u64(0), u32(1, 1)) }),
  ],
  ['a block index twice', (b) => b.frames.splice(places.blockIndex, 0, { ...frameAt(b, places.blockIndex) })],
  ['a block index with another first page', set(places.blockIndex, { arg0: 16 })],
  ['a block index with another page count', set(places.blockIndex, { arg1: 53 })],
  [
    'a block index with another base',
    set(places.blockIndex, { payload: concat(u64(8), u32(0, 0xffff_ffff)) }),
  ],
  [
    'a block index that hides a block',
    set(places.blockIndex, { payload: concat(u64(8), u32(0xffff_ffff, 0xffff_ffff)) }),
  ],
  [
    'a block index that invents a block',
    set(places.blockIndex, {
      payload: (offsets: readonly number[]) => concat(u64(offsets[places.block] ?? 0), u32(0, 0)),
    }),
  ],
  ['a block index that is short', set(places.blockIndex, { payload: concat(u64(0), u32(0)) })],
  ['a block index that is long', set(places.blockIndex, { payload: concat(u64(0), u32(0, 0, 0)) })],
  [
    'a block behind the index of its group',
    (b) => {
      const blockIndex = b.frames.splice(places.blockIndex, 1);
      b.frames.splice(places.zeroRun, 1, ...blockIndex, {
        type: types.pageBlock,
        arg0: 16,
        arg1: 4,
        payload: concat(u32(0, 0), u64(1), u64(5)),
      });
      const frame = frameAt(b, places.zeroRun);
      frame.payload = (offsets) => concat(u64(offsets[places.block] ?? 0), u32(0, 0xffff_ffff));
    },
  ],
];

describe('a stream with right digests is refused as CHKPT_FORMAT with', () => {
  it.each(format)('%s', async (_what, change) => {
    const error = await forgedError(digest, change);
    expect(error.code, error.message).toBe('CHKPT_FORMAT');
    expect(error.details.offset, error.message).toBeTypeOf('number');
  });
});

const others: [string, string, Change][] = [
  [
    'CHKPT_VERSION',
    'an unknown critical frame for the region table',
    set(places.regionTable, { type: 0x7777 }),
  ],
  ['CHKPT_VERSION', 'an unknown critical frame between pages', insert(places.zeroRun, 0x0000_7777)],
  ['CHKPT_VERSION', 'differences of pages outside of a migration', insert(places.zeroRun, 0x0000_0015)],
  ['CHKPT_DIGEST', 'a page block bound to another place', set(places.block, { bind: { offset: 0 } })],
  ['CHKPT_DECODE', 'an LZ4 block that does not decode', (b) => payloadAt(b, places.block).fill(0xff, 16, 40)],
  [
    'CHKPT_DECODE',
    'an LZ4 block that decodes to less',
    (b) => {
      // The same data, but one page more is said to be stored.
      const payload = payloadAt(b, places.block);
      payload.writeBigUInt64LE(payload.readBigUInt64LE(8) | (2n << 60n), 8);
    },
  ],
  [
    'CHKPT_DECODE',
    'an LZ4 block that decodes to more',
    (b) => {
      const payload = payloadAt(b, places.block);
      payload.writeBigUInt64LE(payload.readBigUInt64LE(8) & ~0xfn, 8);
    },
  ],
];

describe('a stream with right digests is refused', () => {
  it.each(others)('as %s with %s', async (code, _what, change) => {
    const error = await forgedError(digest, change);
    expect(error.code, error.message).toBe(code);
  });
});

describe('a block index', () => {
  it('may stand before the zero run that ends its group', async () => {
    const built = soundStream(digest);
    const [blockIndex] = built.frames.splice(places.blockIndex, 1);
    if (blockIndex !== undefined) built.frames.splice(places.zeroRun, 0, blockIndex);
    expect((await readStream(built.build(), digest)).pages.size).toBe(5);
  });
});
