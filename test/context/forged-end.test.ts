/** Forged END, index and footer: all digests are right, one field is not. */
import { beforeAll, describe, expect, it } from 'vitest';
import type { Digest64 } from '../../src/format/digest.ts';
import { createWasmDigest64 } from '../../src/format/wasm-digest.ts';
import { type Change, forgedError, redocument } from '../support/forged.ts';
import { concat, types, u32, u64 } from '../support/stream-builder.ts';

let digest: Digest64;
beforeAll(async () => {
  digest = await createWasmDigest64();
});

const format: [string, Change][] = [
  ['another number of frames in END', (b) => Object.assign(b.end, { arg0: 15 })],
  ['an END that is short', (b) => Object.assign(b.end, { payload: new Uint8Array(96) })],
  ['an END that is long', (b) => Object.assign(b.end, { payload: new Uint8Array(112) })],
  ['an END that announces too little', (b) => Object.assign(b.end, { arg1: 64 })],
  ['an END that announces no multiple of 8', (b) => Object.assign(b.end, { arg1: 577 })],
  ['an END that announces one frame more', (b) => Object.assign(b.end, { arg1: 4096 })],
  ['an index without its last group', redocument((d: Uint8Array) => concat(u32(3, 1), d.subarray(8, -24)))],
  [
    'an index with a group more',
    redocument((d: Uint8Array) => concat(u32(3, 3), d.subarray(8), u64(0, 1, 128))),
  ],
  ['an index with another name', redocument((d: Uint8Array) => Buffer.from(d).fill('P', 32, 33))],
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
    const error = await forgedError(digest, change);
    expect(error.code, error.message).toBe('CHKPT_FORMAT');
    expect(error.details.offset, error.message).toBeTypeOf('number');
  });
});

const others: [string, string, Change][] = [
  ['CHKPT_ROOT_DIGEST', 'another root digest', (b) => Object.assign(b, { root: new Uint8Array(32) })],
  ...(
    [
      'contexts',
      'tags',
      'pages',
      'zeroPages',
      'fillPages',
      'storedPages',
      'samePages',
      'parentPages',
      'encodedBytes',
    ] as const
  ).map((count): [string, string, Change] => [
    'CHKPT_ROOT_DIGEST',
    `another count of ${count}`,
    (b) => Object.assign(b.counts, { [count]: 99 }),
  ]),
  [
    'CHKPT_TRUNCATED',
    'an END that announces more than there is',
    (b) => Object.assign(b, { hasIndex: false, end: { arg1: 4096 } }),
  ],
  [
    'CHKPT_TRAILING_DATA',
    'an END that does not announce its index',
    (b) => Object.assign(b.end, { arg1: 0 }),
  ],
];

describe('a stream with right digests is refused', () => {
  it.each(others)('as %s with %s', async (code, _what, change) => {
    const error = await forgedError(digest, change);
    expect(error.code, error.message).toBe(code);
  });
});
