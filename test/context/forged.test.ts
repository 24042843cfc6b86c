/** Streams whose digests are all right and whose fields are not: the reader checks every rule of docs/format.md. */
import { beforeAll, describe, expect, it } from 'vitest';
import { CheckpointError } from '../../src/errors/index.ts';
import type { Digest64 } from '../../src/format/digest.ts';
import { createWasmDigest64 } from '../../src/format/wasm-digest.ts';
import { largestAllocation } from '../support/allocations.ts';
import { forgedPage, frameAt, payloadAt, places, soundStream } from '../support/forged.ts';
import { readStream } from '../support/read-stream.ts';
import { concat, padded, type StreamBuilder, tagPayload, types, u32, u64 } from '../support/stream-builder.ts';

let digest: Digest64;
beforeAll(async () => {
  digest = await createWasmDigest64();
});

type Change = (built: StreamBuilder) => unknown;

async function errorOf(change: Change): Promise<CheckpointError> {
  const built = soundStream(digest);
  change(built);
  const bytes = built.build();
  try {
    await readStream(bytes, digest);
  } catch (error) {
    if (error instanceof CheckpointError) return error;
    throw error;
  }
  throw new Error('loaded');
}

const insert =
  (at: number, type: number, fields = {}): Change =>
  (built) =>
    built.frames.splice(at, 0, { type, ...fields });
const remove =
  (at: number, count = 1): Change =>
  (built) =>
    built.frames.splice(at, count);
const set =
  (at: number, fields: object): Change =>
  (built) =>
    Object.assign(frameAt(built, at), fields);
const poke =
  (at: number, offset: number, ...bytes: number[]): Change =>
  (built) =>
    payloadAt(built, at).set(bytes, offset);

describe('the unchanged stream', () => {
  it('is sound, and its frames lie where the changes expect them', async () => {
    const built = soundStream(digest);
    const { summary, pages } = await readStream(built.build(), digest);
    expect([...pages]).toEqual([0, 1, 2, 3, 20].map((page) => [page, forgedPage(page)]));
    expect(summary.counts).toMatchObject({ contexts: 3, tags: 3, pages: 53, storedPages: 3, fillPages: 1, samePages: 1 });
    expect(Object.entries(places).map(([, at]) => frameAt(built, at).type)).toEqual([
      ...[types.contextOpen, types.tag, types.tag, types.contextClose, types.contextOpen, types.regionTable],
      ...[types.pageBlock, types.blockIndex, types.zeroRun, types.pageBlock, types.contextClose],
      ...[types.contextOpen, types.tag, types.contextClose],
    ]);
  });
});

const format: [string, Change][] = [
  // Order of frames.
  ['a tag between contexts', insert(0, types.tag, { arg0: 3, payload: tagPayload('x', Uint8Array.of(1)) })],
  ['a close between contexts', insert(0, types.contextClose)],
  ['a region table between contexts', insert(0, types.regionTable, { arg0: 1, arg1: 4096, payload: u64(0, 4096) })],
  ['a zero run between contexts', insert(0, types.zeroRun, { arg1: 16 })],
  ['an index frame before END', insert(0, types.index, { arg1: 8, payload: u64(0) })],
  ['a block index between contexts', insert(0, types.blockIndex, { arg1: 16, payload: u64(0) })],
  ['a context in a context', insert(1, types.contextOpen, { arg0: 1, payload: Buffer.from('inner') })],
  ['pages in a value context', insert(1, types.zeroRun, { arg1: 16 })],
  ['END in a context', (b) => b.frames.splice(3)],
  ['END in a memory context', (b) => b.frames.splice(places.closeMemory)],
  ['a piece without a value', insert(2, types.tagMore, { payload: Uint8Array.of(1) })],
  ['no region table', remove(places.regionTable)],
  ['an unknown optional frame before the region table', insert(places.regionTable, 0x8000_7777)],
  ['a second region table', insert(6, types.regionTable, { arg0: 1, arg1: 4096, payload: u64(0, 4096) })],
  ['a tag in a memory context', insert(6, types.tag, { arg0: 3, payload: tagPayload('x', Uint8Array.of(1)) })],
  ['a second memory context', (b) => {
    const memory = b.frames.slice(places.openMemory, places.closeMemory + 1).map((frame) => ({ ...frame }));
    b.frames.push(...memory);
    Object.assign(frameAt(b, 16), { arg0: 3, payload: Buffer.from('memory2') });
    Object.assign(frameAt(b, b.frames.length - 1), { arg0: 3 });
  }],
  // Frame headers.
  ['frame flags', set(0, { flags: 1 })],
  ['the top frame flag', set(0, { flags: 0x8000_0000 })],
  ['another sequence number', set(1, { sequence: 2 })],
  ['padding that is not zero', set(0, { padding: 1 })],
  // Contexts.
  ['a context ordinal too high', set(0, { arg0: 1 })],
  ['another ordinal at close', set(places.closePic, { arg0: 1 })],
  ['an unknown kind of context', set(0, { arg1: 2 })],
  ['an empty context name', set(0, { payload: new Uint8Array() })],
  ['a context name of 256 bytes', set(0, { payload: new Uint8Array(256).fill(0x61) })],
  ['a context name that is not UTF-8', set(0, { payload: Uint8Array.of(0xff) })],
  ['a context name with a slash', set(0, { payload: Buffer.from('a/b') })],
  ['a context name that climbs', set(0, { payload: Buffer.from('..') })],
  ['a context name twice', set(places.openPit, { payload: Buffer.from('pic') })],
  ['a payload at close', set(places.closePic, { payload: Uint8Array.of(0) })],
  ['a wrong number of tags at close', set(places.closePic, { arg1: 3 })],
  ['a wrong number of pages at close', set(places.closeMemory, { arg1: 52 })],
  // Tags.
  ['a tag twice', set(2, { payload: tagPayload('irr', Buffer.from('8259A')) })],
  ['an unknown value type', set(1, { arg0: 13 })],
  ['an unknown vector type', set(1, { arg0: 0x81 })],
  ['arg1 of a tag', set(1, { arg1: 1 })],
  ['a value too short for its type', set(1, { arg0: 4 })],
  ['a vector that is no multiple', set(2, { arg0: 0x84 })],
  ['a bool of 7', set(1, { arg0: 2 })],
  ['a string that is not UTF-8', set(2, { payload: tagPayload('name', Uint8Array.of(0xc0, 0x80)) })],
  ['less data than the tag says', set(2, { payload: tagPayload('name', Buffer.from('8259A'), 6) })],
  ['more data than the tag says', set(2, { payload: tagPayload('name', Buffer.from('8259A'), 4) })],
  ['padding behind the tag', poke(1, 8 + 3, 1)],
  ['a tag frame without room for a tag', set(1, { payload: u32(1) })],
  ['a tag frame without data length', set(1, { payload: u64(3, 0) })],
  ['a value without its second piece', (b) => {
    const large = new Uint8Array((1 << 20) + 5);
    b.frames[2] = { type: types.tag, arg0: 0, payload: tagPayload('name', large) };
  }],
  ...([
    ['at another place', { arg0: (1 << 20) + 8 }],
    ['that is short', { payload: new Uint8Array(4) }],
    ['that is long', { payload: new Uint8Array(6) }],
    ['with arg1', { arg1: 1 }],
    ['that is an unknown optional frame', { type: 0x8000_7777 }],
  ] as [string, object][]).map(([what, fields]): [string, Change] => [
    `a piece of a value ${what}`,
    (b) => {
      const large = new Uint8Array((1 << 20) + 5);
      const more = { type: types.tagMore, arg0: 1 << 20, payload: large.subarray(1 << 20), ...fields };
      b.frames.splice(2, 1, { type: types.tag, arg0: 0, payload: tagPayload('name', large) }, more);
    },
  ]),
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
  ['a block with fewer pages', set(places.block, { arg1: 15 })],
  ['a block with more pages', set(places.block, { arg1: 17 })],
  ['a block that starts elsewhere', set(places.block, { arg0: 1 })],
  ['an unknown codec', poke(places.block, 0, 2)],
  ['a reserved byte in a block', poke(places.block, 3, 1)],
  ['a block of zero pages only', set(places.block, { payload: new Uint8Array(16) })],
  ['a class for the parent', poke(places.block, 15, 0x40)],
  ['an unknown class', poke(places.block, 15, 0xf0)],
  ['a block without its words', (b) => set(places.block, { payload: payloadAt(b, places.block).subarray(0, -8) })(b)],
  ['a block with a word more', (b) => set(places.block, { payload: concat(payloadAt(b, places.block), u64(0)) })(b)],
  ['padding behind the data of a block', (b) => {
    const payload = payloadAt(b, places.block);
    const end = 16 + payload.readUInt32LE(4);
    expect(end % 8).not.toBe(0);
    payload[end] = 1;
  }],
  ['a raw block with fewer bytes', poke(places.rawBlock, 4, 0, 0x0f)],
  ['an LZ4 block that is not smaller', (b) => {
    const payload = payloadAt(b, places.rawBlock);
    payload[0] = 1;
  }],
  ['a page that equals itself', (b) => {
    const payload = payloadAt(b, places.block);
    payload.writeBigUInt64LE(3n, payload.length - 8);
  }],
  ['a page that equals a later one', (b) => {
    const payload = payloadAt(b, places.block);
    payload.writeBigUInt64LE(1n << 63n, payload.length - 8);
  }],
  ['classes beyond the end of a region', (b) => {
    b.frames[places.zeroRun] = {
      type: types.pageBlock,
      arg0: 16,
      arg1: 4,
      payload: concat(u32(0, 0), u64(0x1_0001), u64(5), u64(5)),
    };
  }],
  // Block indexes.
  ['a block index before any block', insert(places.block, types.blockIndex, { arg1: 20, payload: concat(u64(0), u32(1, 1)) })],
  ['a block index twice', (b) => b.frames.splice(places.blockIndex, 0, { ...frameAt(b, places.blockIndex) })],
  ['a block index with another first page', set(places.blockIndex, { arg0: 16 })],
  ['a block index with another page count', set(places.blockIndex, { arg1: 53 })],
  ['a block index with another base', set(places.blockIndex, { payload: concat(u64(8), u32(0, 0xffff_ffff)) })],
  ['a block index that hides a block', set(places.blockIndex, { payload: concat(u64(8), u32(0xffff_ffff, 0xffff_ffff)) })],
  ['a block index that invents a block', set(places.blockIndex, {
    payload: (offsets: readonly number[]) => concat(u64(offsets[places.block] ?? 0), u32(0, 0)),
  })],
  ['a block index that is short', set(places.blockIndex, { payload: concat(u64(0), u32(0)) })],
  ['a block index that is long', set(places.blockIndex, { payload: concat(u64(0), u32(0, 0, 0)) })],
  ['a block behind the index of its group', (b) => {
    const blockIndex = b.frames.splice(places.blockIndex, 1);
    b.frames.splice(places.zeroRun, 1, ...blockIndex, {
      type: types.pageBlock,
      arg0: 16,
      arg1: 4,
      payload: concat(u32(0, 0), u64(1), u64(5)),
    });
    const frame = frameAt(b, places.zeroRun);
    frame.payload = (offsets) => concat(u64(offsets[places.block] ?? 0), u32(0, 0xffff_ffff));
  }],
  // END, index, footer.
  ['another number of frames in END', (b) => Object.assign(b.end, { arg0: 15 })],
  ['an END that is short', (b) => Object.assign(b.end, { payload: new Uint8Array(96) })],
  ['an END that is long', (b) => Object.assign(b.end, { payload: new Uint8Array(112) })],
  ['an END that announces too little', (b) => Object.assign(b.end, { arg1: 64 })],
  ['an END that announces no multiple of 8', (b) => Object.assign(b.end, { arg1: 577 })],
  ['an END that announces one frame more', (b) => Object.assign(b.end, { arg1: 4096 })],
  ['an index without its last group', (b) => Object.assign(b, { document: (d: Uint8Array) => concat(u32(3, 1), d.subarray(8, -24)) })],
  ['an index with a group more', (b) => Object.assign(b, { document: (d: Uint8Array) => concat(u32(3, 3), d.subarray(8), u64(0, 1, 128)) })],
  ['an index with another name', (b) => Object.assign(b, { document: (d: Uint8Array) => Buffer.from(d).fill('P', 32, 33) })],
  ['an index of nothing', (b) => Object.assign(b, { document: u32(0, 0) })],
  ['an index piece at another place', (b) => b.indexFrames.push({ arg0: 8 })],
  ['an index piece of another document', (b) => b.indexFrames.push({ arg1: 4096 })],
  ['an index piece of another type', (b) => b.indexFrames.push({ type: 0x8000_7777 })],
  ['a tag behind END', (b) => b.indexFrames.push({ type: types.tag })],
  ...[8, 16, 24, 32, 40, 48].map((at): [string, Change] => [
    `another footer field at ${at}`,
    (b) => Object.assign(b.footer, { [at]: 256 }),
  ]),
  ['another footer magic', (b) => Object.assign(b.footer, { 0: 0x0a1a_0a0d_504b_4389n })],
];

describe('a stream with right digests is refused as CHKPT_FORMAT with', () => {
  it.each(format)('%s', async (_what, change) => {
    const error = await errorOf(change);
    expect(error.code, error.message).toBe('CHKPT_FORMAT');
    expect(error.details.offset, error.message).toBeTypeOf('number');
  });
});

const others: [string, string, Change][] = [
  ['CHKPT_VERSION', 'an unknown critical frame between contexts', insert(0, 0x0000_7777)],
  ['CHKPT_VERSION', 'an unknown critical frame in a value context', insert(1, 0x0000_7777)],
  ['CHKPT_VERSION', 'an unknown critical frame for the region table', set(places.regionTable, { type: 0x7777 })],
  ['CHKPT_VERSION', 'an unknown critical frame between pages', insert(places.zeroRun, 0x0000_7777)],
  ['CHKPT_VERSION', 'type 0', insert(0, 0)],
  ['CHKPT_DIGEST', 'a payload digest of another payload', set(1, { payloadDigest: 1n })],
  ['CHKPT_DIGEST', 'another header digest', set(1, { headerDigest: 1n })],
  ['CHKPT_DIGEST', 'a frame bound to another checkpoint', set(1, { bind: { uuid: new Uint8Array(16) } })],
  ['CHKPT_DIGEST', 'a frame bound to another epoch', set(1, { bind: { epoch: 1n } })],
  ['CHKPT_DIGEST', 'a frame bound to another place', set(1, { bind: { offset: 0 } })],
  ['CHKPT_DIGEST', 'a page block bound to another place', set(places.block, { bind: { offset: 0 } })],
  ['CHKPT_ROOT_DIGEST', 'another root digest', (b) => Object.assign(b, { root: new Uint8Array(32) })],
  ...(['contexts', 'tags', 'pages', 'zeroPages', 'fillPages', 'storedPages', 'samePages', 'parentPages', 'encodedBytes'] as const).map(
    (count): [string, string, Change] => ['CHKPT_ROOT_DIGEST', `another count of ${count}`, (b) => Object.assign(b.counts, { [count]: 99 })],
  ),
  ['CHKPT_TRUNCATED', 'an END that announces more than there is', (b) => Object.assign(b, { hasIndex: false, end: { arg1: 4096 } })],
  ['CHKPT_TRAILING_DATA', 'an END that does not announce its index', (b) => Object.assign(b.end, { arg1: 0 })],
  ['CHKPT_DECODE', 'an LZ4 block that does not decode', (b) => payloadAt(b, places.block).fill(0xff, 16, 40)],
  ['CHKPT_DECODE', 'an LZ4 block that decodes to less', (b) => {
    // The same data, but one page more is said to be stored.
    const payload = payloadAt(b, places.block);
    payload.writeBigUInt64LE(payload.readBigUInt64LE(8) | (2n << 60n), 8);
  }],
  ['CHKPT_DECODE', 'an LZ4 block that decodes to more', (b) => {
    const payload = payloadAt(b, places.block);
    payload.writeBigUInt64LE(payload.readBigUInt64LE(8) & ~0xfn, 8);
  }],
];

describe('a stream with right digests is refused', () => {
  it.each(others)('as %s with %s', async (code, _what, change) => {
    const error = await errorOf(change);
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

describe('unknown optional frames', () => {
  it.each([0, 1, 2, 3, 4, 6, 7, 8, 9, 12, 13, 16])('are passed over at place %d', async (at) => {
    const built = soundStream(digest);
    built.frames.splice(at, 0, { type: 0x8000_7777, arg0: 1n << 63n, payload: new Uint8Array(5).fill(9) });
    for (const place of [places.blockIndex, places.blockIndex + 1, 11, 12]) {
      const frame = built.frames[place];
      if (frame?.type !== types.blockIndex) continue;
      // The frame that the index points at has moved by one.
      const { payload } = frame;
      if (typeof payload === 'function' && at <= places.rawBlock) {
        frame.payload = (offsets) => payload(at > blockOf(Number(frame.arg0)) ? offsets : offsets.slice(1));
      }
    }
    const { pages } = await readStream(built.build(), digest);
    expect(pages.size).toBe(5);
  });

  const blockOf = (firstPage: number): number => (firstPage === 0 ? places.block : places.rawBlock);
});

const extremes = [0n, 1n, 255n, 256n, (1n << 20n) + 1n, 1n << 31n, (1n << 32n) - 1n, 1n << 53n, 1n << 63n, (1n << 64n) - 1n];
const u32Extremes = [0, 65_536, 65_537, 2 ** 31, 2 ** 32 - 1];

/** Name, change, and the values that are legal there. */
const lengthFields: [string, (value: bigint) => Change, ...bigint[]][] = [
  ['payload length of a frame', (value) => set(1, { payloadBytes: value })],
  ['sequence number', (value) => set(1, { sequence: value }), 1n],
  ['ordinal of a context', (value) => set(0, { arg0: value }), 0n],
  ['kind of a context', (value) => set(0, { arg1: value }), 0n],
  ['number of tags', (value) => set(places.closePic, { arg1: value })],
  ['value type', (value) => set(1, { arg0: value }), 0n, 1n],
  ['length of a tag', (value) => (b) => payloadAt(b, 1).writeBigUInt64LE(value, 0)],
  ['length of a value', (value) => (b) => payloadAt(b, 2).writeBigUInt64LE(value, 16)],
  ['length of a long value', (value) => (b) => {
    const payload = Buffer.from(tagPayload('name', new Uint8Array(1 << 20)));
    payload.writeBigUInt64LE(value, 16);
    b.frames[2] = { type: types.tag, arg0: 0, payload };
  }],
  ['number of regions', (value) => set(places.regionTable, { arg0: value })],
  ['page size', (value) => set(places.regionTable, { arg1: value })],
  ['base of a region', (value) => (b) => payloadAt(b, places.regionTable).writeBigUInt64LE(value, 16), 1n << 31n],
  ['length of a region', (value) => (b) => payloadAt(b, places.regionTable).writeBigUInt64LE(value, 24)],
  ['length of a region, whole pages', (value) => (b) => payloadAt(b, places.regionTable).writeBigUInt64LE(BigInt.asUintN(64, value << 12n), 24)],
  ['first page of a zero run', (value) => set(places.zeroRun, { arg0: value })],
  ['length of a zero run', (value) => set(places.zeroRun, { arg1: value })],
  ['first page of a block', (value) => set(places.block, { arg0: value }), 0n],
  ['length of a block', (value) => set(places.block, { arg1: value })],
  ['first page of a block index', (value) => set(places.blockIndex, { arg0: value }), 0n],
  ['length of a block index', (value) => set(places.blockIndex, { arg1: value })],
  ['base of a block index', (value) => set(places.blockIndex, { payload: concat(u64(value), u32(0, 0)) })],
  ['number of frames in END', (value) => (b) => Object.assign(b.end, { arg0: value })],
  ['bytes behind END', (value) => (b) => Object.assign(b.end, { arg1: value })],
  ['length of the index', (value) => (b) => b.indexFrames.push({ arg1: value })],
  ['place of a piece of the index', (value) => (b) => b.indexFrames.push({ arg0: value }), 0n],
  ['number of contexts in END', (value) => (b) => Object.assign(b.counts, { contexts: value })],
  ['name length in the index', (value) => (b) =>
    Object.assign(b, { document: (d: Uint8Array) => concat(d.subarray(0, 24), u64(value), d.subarray(32)) })],
  ['offset of END in the footer', (value) => (b) => Object.assign(b.footer, { 8: value })],
  ['length of the stream in the footer', (value) => (b) => Object.assign(b.footer, { 48: value })],
  ['creation time beyond 2^53', (value) => (b) => Object.assign(b.header, { createdMs: value | (1n << 53n) })],
  ['flags of the header', (value) => (b) => Object.assign(b.header, { flags: value | 1n })],
];

const allowed = new Set(['CHKPT_FORMAT', 'CHKPT_LIMIT', 'CHKPT_TRUNCATED', 'CHKPT_ROOT_DIGEST', 'CHKPT_TRAILING_DATA', 'CHKPT_DIGEST']);

describe('a length field at its extremes is a typed error without a large allocation:', () => {
  it.each(lengthFields)('%s', async (_what, field, ...legal) => {
    for (const value of extremes.filter((candidate) => !legal.includes(candidate))) {
      let error: CheckpointError | undefined;
      const largest = await largestAllocation(async () => {
        error = await errorOf(field(value)).catch((cause) => {
          throw new Error(`${value}`, { cause });
        });
      });
      expect(allowed, `${value}: ${error?.message}`).toContain(error?.code);
      expect(largest, `${value}`).toBeLessThanOrEqual(3 << 20);
    }
  });

  it.each([
    ['encoded bytes of a block', (value: number): Change => (b) => payloadAt(b, places.block).writeUInt32LE(value, 4)],
    ['number of contexts in the index', (value: number): Change => (b) =>
      Object.assign(b, { document: (d: Uint8Array) => concat(u32(value), d.subarray(4)) })],
    ['number of groups in the index', (value: number): Change => (b) =>
      Object.assign(b, { document: (d: Uint8Array) => concat(d.subarray(0, 4), u32(value), d.subarray(8)) })],
    ['number of tags in the index', (value: number): Change => (b) =>
      Object.assign(b, { document: (d: Uint8Array) => concat(d.subarray(0, 20), u32(value), d.subarray(24)) })],
  ] as [string, (value: number) => Change][])('%s', async (_what, field) => {
    for (const value of u32Extremes) {
      let error: CheckpointError | undefined;
      const largest = await largestAllocation(async () => {
        error = await errorOf(field(value));
      });
      expect(allowed, `${value}: ${error?.message}`).toContain(error?.code);
      expect(largest).toBeLessThanOrEqual(3 << 20);
    }
  });
});

describe('limits', () => {
  it('more than 256 regions are CHKPT_LIMIT', async () => {
    const regions = Array.from({ length: 257 }, (_, index) => [index * 8192, 4096]).flat();
    const error = await errorOf(set(places.regionTable, { arg0: 257, payload: u64(...regions) }));
    expect(error.code).toBe('CHKPT_LIMIT');
  });

  it('regions beyond 2^52 or 16 TiB are CHKPT_LIMIT', async () => {
    for (const fields of [u64(0, 20 * 4096, 2n ** 52n - 4096n, 8192), u64(0, 4096, 8192, 2n ** 44n)]) {
      expect((await errorOf(set(places.regionTable, { payload: fields }))).code).toBe('CHKPT_LIMIT');
    }
  });

  it('a payload of exactly the limit is read, one byte more is CHKPT_LIMIT', async () => {
    const built = soundStream(digest);
    built.frames.splice(0, 0, { type: 0x8000_0001, payload: new Uint8Array(1_114_112) });
    for (const frame of built.frames) if (typeof frame.payload === 'function') frame.payload = shifted(frame.payload);
    await readStream(built.build(), digest);
    const error = await errorOf(insert(0, 0x8000_0001, { payload: new Uint8Array(1_114_113) }));
    expect(error.code).toBe('CHKPT_LIMIT');
  });

  it('more than 256 MiB of values are CHKPT_LIMIT before they are read', async () => {
    const large = padded(tagPayload('large', new Uint8Array(1 << 20), 256 << 20));
    const error = await errorOf((b) => {
      b.frames[2] = { type: types.tag, arg0: 0, payload: large };
    });
    expect(error.code).toBe('CHKPT_LIMIT');
  });
});

function shifted(payload: (offsets: readonly number[]) => Uint8Array): (offsets: readonly number[]) => Uint8Array {
  return (offsets) => payload(offsets.slice(1));
}
