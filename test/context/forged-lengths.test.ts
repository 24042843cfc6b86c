/** Lengths and counts at their extremes: typed errors, and no memory that the input chose. */
import { beforeAll, describe, expect, it } from 'vitest';
import type { CheckpointError } from '../../src/errors/index.ts';
import type { Digest64 } from '../../src/format/digest.ts';
import { createWasmDigest64 } from '../../src/format/wasm-digest.ts';
import { largestAllocation } from '../support/allocations.ts';
import {
  type Change,
  forgedError,
  insert,
  payloadAt,
  places,
  redocument,
  set,
  soundStream,
} from '../support/forged.ts';
import { readStream } from '../support/read-stream.ts';
import { concat, padded, tagPayload, types, u32, u64 } from '../support/stream-builder.ts';

let digest: Digest64;
beforeAll(async () => {
  digest = await createWasmDigest64();
});

const extremes = [
  0n,
  1n,
  255n,
  256n,
  (1n << 20n) + 1n,
  1n << 31n,
  (1n << 32n) - 1n,
  1n << 53n,
  1n << 63n,
  (1n << 64n) - 1n,
];
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
  [
    'length of a long value',
    (value) => (b) => {
      const payload = Buffer.from(tagPayload('name', new Uint8Array(1 << 20)));
      payload.writeBigUInt64LE(value, 16);
      b.frames[2] = { type: types.tag, arg0: 0, payload };
    },
  ],
  ['number of regions', (value) => set(places.regionTable, { arg0: value })],
  ['page size', (value) => set(places.regionTable, { arg1: value })],
  [
    'base of a region',
    (value) => (b) => payloadAt(b, places.regionTable).writeBigUInt64LE(value, 16),
    1n << 31n,
  ],
  ['length of a region', (value) => (b) => payloadAt(b, places.regionTable).writeBigUInt64LE(value, 24)],
  [
    'length of a region, whole pages',
    (value) => (b) => payloadAt(b, places.regionTable).writeBigUInt64LE(BigInt.asUintN(64, value << 12n), 24),
  ],
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
  [
    'name length in the index',
    (value) => redocument((d: Uint8Array) => concat(d.subarray(0, 24), u64(value), d.subarray(32))),
  ],
  ['offset of END in the footer', (value) => (b) => Object.assign(b.footer, { 8: value })],
  ['length of the stream in the footer', (value) => (b) => Object.assign(b.footer, { 48: value })],
  [
    'creation time beyond 2^53',
    (value) => (b) => Object.assign(b.header, { createdMs: value | (1n << 53n) }),
  ],
  ['flags of the header', (value) => (b) => Object.assign(b.header, { flags: value | 1n })],
];

const allowed = new Set([
  'CHKPT_FORMAT',
  'CHKPT_LIMIT',
  'CHKPT_TRUNCATED',
  'CHKPT_ROOT_DIGEST',
  'CHKPT_TRAILING_DATA',
  'CHKPT_DIGEST',
]);

describe('a length field at its extremes is a typed error without a large allocation:', () => {
  it.each(lengthFields)('%s', async (_what, field, ...legal) => {
    for (const value of extremes.filter((candidate) => !legal.includes(candidate))) {
      let error: CheckpointError | undefined;
      const largest = await largestAllocation(async () => {
        error = await forgedError(digest, field(value)).catch((cause) => {
          throw new Error(`${value}`, { cause });
        });
      });
      expect(allowed, `${value}: ${error?.message}`).toContain(error?.code);
      expect(largest, `${value}`).toBeLessThanOrEqual(3 << 20);
    }
  });

  it.each([
    [
      'encoded bytes of a block',
      (value: number): Change =>
        (b) =>
          payloadAt(b, places.block).writeUInt32LE(value, 4),
    ],
    [
      'number of contexts in the index',
      (value: number): Change => redocument((d: Uint8Array) => concat(u32(value), d.subarray(4))),
    ],
    [
      'number of groups in the index',
      (value: number): Change =>
        redocument((d: Uint8Array) => concat(d.subarray(0, 4), u32(value), d.subarray(8))),
    ],
    [
      'number of tags in the index',
      (value: number): Change =>
        redocument((d: Uint8Array) => concat(d.subarray(0, 20), u32(value), d.subarray(24))),
    ],
  ] as [string, (value: number) => Change][])('%s', async (_what, field) => {
    for (const value of u32Extremes) {
      let error: CheckpointError | undefined;
      const largest = await largestAllocation(async () => {
        error = await forgedError(digest, field(value));
      });
      expect(allowed, `${value}: ${error?.message}`).toContain(error?.code);
      expect(largest).toBeLessThanOrEqual(3 << 20);
    }
  });
});

describe('limits', () => {
  it('more than 256 regions are CHKPT_LIMIT', async () => {
    const regions = Array.from({ length: 257 }, (_, index) => [index * 8192, 4096]).flat();
    const error = await forgedError(digest, set(places.regionTable, { arg0: 257, payload: u64(...regions) }));
    expect(error.code).toBe('CHKPT_LIMIT');
  });

  it('regions beyond 2^52 or 16 TiB are CHKPT_LIMIT', async () => {
    for (const fields of [u64(0, 20 * 4096, 2n ** 52n - 4096n, 8192), u64(0, 4096, 8192, 2n ** 44n)]) {
      expect((await forgedError(digest, set(places.regionTable, { payload: fields }))).code).toBe(
        'CHKPT_LIMIT',
      );
    }
  });

  it('a payload of exactly the limit is read, one byte more is CHKPT_LIMIT', async () => {
    const built = soundStream(digest);
    built.frames.splice(0, 0, { type: 0x8000_0001, payload: new Uint8Array(1_114_112) });
    for (const frame of built.frames)
      if (typeof frame.payload === 'function') frame.payload = shifted(frame.payload);
    await readStream(built.build(), digest);
    const error = await forgedError(digest, insert(0, 0x8000_0001, { payload: new Uint8Array(1_114_113) }));
    expect(error.code).toBe('CHKPT_LIMIT');
  });

  it('more bytes behind END than any index has are CHKPT_LIMIT', async () => {
    const error = await forgedError(digest, (b) => Object.assign(b.end, { arg1: 400 << 20 }));
    expect(error.code).toBe('CHKPT_LIMIT');
  });

  it('more than 256 MiB of values are CHKPT_LIMIT before they are read', async () => {
    const large = padded(tagPayload('large', new Uint8Array(1 << 20), 256 << 20));
    const error = await forgedError(digest, (b) => {
      b.frames[2] = { type: types.tag, arg0: 0, payload: large };
    });
    expect(error.code).toBe('CHKPT_LIMIT');
  });
});

function shifted(
  payload: (offsets: readonly number[]) => Uint8Array,
): (offsets: readonly number[]) => Uint8Array {
  return (offsets) => payload(offsets.slice(1));
}
