/** Forged frames, contexts and tags: all digests are right, one field is not. */
import { beforeAll, describe, expect, it } from 'vitest';
import type { Digest64 } from '../../src/format/digest.ts';
import { createWasmDigest64 } from '../../src/format/wasm-digest.ts';
import {
  type Change,
  forgedError,
  frameAt,
  insert,
  places,
  poke,
  remove,
  set,
  soundStream,
} from '../support/forged.ts';
import { readStream } from '../support/read-stream.ts';
import { tagPayload, types, u32, u64 } from '../support/stream-builder.ts';

let digest: Digest64;
beforeAll(async () => {
  digest = await createWasmDigest64();
});

const format: [string, Change][] = [
  // Order of frames.
  ['a tag between contexts', insert(0, types.tag, { arg0: 3, payload: tagPayload('x', Uint8Array.of(1)) })],
  ['a close between contexts', insert(0, types.contextClose)],
  [
    'a region table between contexts',
    insert(0, types.regionTable, { arg0: 1, arg1: 4096, payload: u64(0, 4096) }),
  ],
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
  [
    'a tag in a memory context',
    insert(6, types.tag, { arg0: 3, payload: tagPayload('x', Uint8Array.of(1)) }),
  ],
  [
    'a second memory context',
    (b) => {
      const memory = b.frames.slice(places.openMemory, places.closeMemory + 1).map((frame) => ({ ...frame }));
      b.frames.push(...memory);
      Object.assign(frameAt(b, 16), { arg0: 3, payload: Buffer.from('memory2') });
      Object.assign(frameAt(b, b.frames.length - 1), { arg0: 3 });
    },
  ],
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
  [
    'a value without its second piece',
    (b) => {
      const large = new Uint8Array((1 << 20) + 5);
      b.frames[2] = { type: types.tag, arg0: 0, payload: tagPayload('name', large) };
    },
  ],
  ...(
    [
      ['at another place', { arg0: (1 << 20) + 8 }],
      ['that is short', { payload: new Uint8Array(4) }],
      ['that is long', { payload: new Uint8Array(6) }],
      ['with arg1', { arg1: 1 }],
      ['that is an unknown optional frame', { type: 0x8000_7777 }],
    ] as [string, object][]
  ).map(([what, fields]): [string, Change] => [
    `a piece of a value ${what}`,
    (b) => {
      const large = new Uint8Array((1 << 20) + 5);
      const more = { type: types.tagMore, arg0: 1 << 20, payload: large.subarray(1 << 20), ...fields };
      b.frames.splice(2, 1, { type: types.tag, arg0: 0, payload: tagPayload('name', large) }, more);
    },
  ]),
];

describe('a stream with right digests is refused as CHKPT_FORMAT with', () => {
  it.each(format)('%s', async (_what, change) => {
    const error = await forgedError(digest, change);
    expect(error.code, error.message).toBe('CHKPT_FORMAT');
    expect(error.details.offset, error.message).toBeTypeOf('number');
  });
});

const others: [string, string, Change][] = [
  ['CHKPT_VERSION', 'an unknown critical frame between contexts', insert(0, 0x0000_7777)],
  ['CHKPT_VERSION', 'an unknown critical frame in a value context', insert(1, 0x0000_7777)],
  ['CHKPT_VERSION', 'type 0', insert(0, 0)],
  ['CHKPT_DIGEST', 'a payload digest of another payload', set(1, { payloadDigest: 1n })],
  ['CHKPT_DIGEST', 'another header digest', set(1, { headerDigest: 1n })],
  ['CHKPT_DIGEST', 'a frame bound to another checkpoint', set(1, { bind: { uuid: new Uint8Array(16) } })],
  ['CHKPT_DIGEST', 'a frame bound to another epoch', set(1, { bind: { epoch: 1n } })],
  ['CHKPT_DIGEST', 'a frame bound to another place', set(1, { bind: { offset: 0 } })],
];

describe('a stream with right digests is refused', () => {
  it.each(others)('as %s with %s', async (code, _what, change) => {
    const error = await forgedError(digest, change);
    expect(error.code, error.message).toBe(code);
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
