import fc from 'fast-check';
import { beforeAll, describe, expect, it } from 'vitest';
import type { MemoryFrameInput, StreamPosition } from '../../src/context/memory-frames.ts';
import type { Digest64 } from '../../src/format/digest.ts';
import { createLz4Decoder } from '../../src/format/lz4.ts';
import { createWasmDigest64 } from '../../src/format/wasm-digest.ts';
import { PortableVerifier } from '../../src/memory/portable-verifier.ts';
import { pageKinds, regions } from '../support/arbitraries.ts';
import { pageOfKind } from '../support/page-content.ts';
import { encodeLz4, PageEncoder } from '../support/page-encoder.ts';
import { concat, type DraftFrame, layOut, types } from '../support/stream-builder.ts';

let digest: Digest64;
beforeAll(async () => {
  digest = await createWasmDigest64();
});

const position: StreamPosition = { uuid: new Uint8Array(16).fill(7), epoch: 0n, sequence: 40, offset: 8000 };
const closing: DraftFrame = { type: types.contextClose };

/** An input over bytes of which the first `bufferedBytes` were read before. */
function inputOver(bytes: Uint8Array, bufferedBytes = 0, readBytesMax = bytes.length): MemoryFrameInput {
  let at = bufferedBytes;
  return {
    buffered: bytes.subarray(0, bufferedBytes),
    read: async (target) => {
      const piece = bytes.subarray(at, at + Math.min(target.length, readBytesMax));
      target.set(piece);
      at += piece.length;
      return piece.length;
    },
  };
}

describe('PortableVerifier', () => {
  it('decodes what the reference encoder wrote, counts it, and gives back what follows', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.record({
          regions,
          kinds: pageKinds,
          lz4: fc.boolean(),
          dedup: fc.boolean(),
          index: fc.boolean(),
          buffered: fc.double({ min: 0, max: 1, noNaN: true }),
          readBytesMax: fc.constantFrom(1 << 20, 4096, 333),
          zeroRunBlocks: fc.integer({ min: 1, max: 3 }),
        }),
        async ({ regions: spans, kinds, buffered, readBytesMax, ...options }) => {
          const pageAt = (page: number) => pageOfKind(kinds[page] ?? 0, page);
          const encoder = new PageEncoder(spans, pageAt, options);
          const layout = layOut([...encoder.frames, closing], position, digest);
          const pageCount = encoder.totals.pages;
          const memory = new Uint8Array(pageCount * 4096).fill(0xaa);
          const told: Uint8Array[] = [];
          const verifier = new PortableVerifier({
            digest,
            onPages: (firstPage, bytes) => memory.set(bytes, firstPage * 4096),
            onZeroPages: (firstPage, count) => memory.fill(0, firstPage * 4096, (firstPage + count) * 4096),
            readPage: (page) => memory.subarray(page * 4096, (page + 1) * 4096),
          });
          const input = inputOver(layout.bytes, Math.floor(buffered * layout.bytes.length), readBytesMax);
          const onDigests = (digests: Uint8Array): void => void told.push(digests.slice());
          const result = await verifier.consume(position, spans, input, onDigests, undefined);

          const expected = concat(
            ...Array.from({ length: pageCount }, (_, page) => pageAt(page) ?? new Uint8Array(4096)),
          );
          if (Buffer.compare(memory, expected) !== 0) throw new Error('other memory');
          expect(concat(...told)).toEqual(layout.digests.subarray(0, 8 * encoder.frames.length));
          expect(result.totals).toEqual(encoder.totals);
          expect(result.frameCount).toBe(encoder.frames.length);
          const after = layout.bytes.subarray(result.byteCount);
          expect(after).toHaveLength(56);
          expect(result.leftover).toEqual(after.subarray(0, result.leftover.length));
          expect(result.groups?.length).toBe(
            encoder.frames.filter(({ type }) => type === types.blockIndex).length,
          );
        },
      ),
      { numRuns: 60 },
    );
  });

  const oneRegion = [{ base: 0n, bytes: 32n * 4096n }];

  it('verifies without a callback, also pages that equal earlier ones, and refuses to guess them with one', async () => {
    const pageAt = (page: number) => (page === 0 || page === 20 ? pageOfKind(5, page) : undefined);
    const encoder = new PageEncoder(oneRegion, pageAt);
    expect(encoder.totals.samePages).toBe(1);
    const { bytes } = layOut([...encoder.frames, closing], position, digest);
    const silent = new PortableVerifier({ digest });
    const { totals } = await silent.consume(
      position,
      oneRegion,
      inputOver(bytes),
      () => undefined,
      undefined,
    );
    expect(totals.samePages).toBe(1);
    const curious = new PortableVerifier({ digest, onPages: () => undefined });
    const failure = curious.consume(position, oneRegion, inputOver(bytes), () => undefined, undefined);
    await expect(failure).rejects.toMatchObject({ code: 'CHKPT_UNSUPPORTED', details: { page: 16 } });
  });

  it('works on regions of several groups without memory for their zeros', async () => {
    const huge = [
      { base: 0n, bytes: 1n << 40n },
      { base: 1n << 41n, bytes: 1n << 30n },
    ];
    const zeros = [
      { type: types.zeroRun, arg0: 0, arg1: 2 ** 28 },
      { type: types.zeroRun, arg0: 2 ** 28, arg1: 2 ** 18 },
    ];
    const { bytes } = layOut([...zeros, closing], position, digest);
    const verifier = new PortableVerifier({ digest });
    const { totals } = await verifier.consume(position, huge, inputOver(bytes), () => undefined, undefined);
    expect(totals).toMatchObject({ pages: 2 ** 28 + 2 ** 18, zeroPages: 2 ** 28 + 2 ** 18 });
  });

  it('stops at the end of input and gives back the beginning of a frame', async () => {
    const encoder = new PageEncoder(oneRegion, (page) => pageOfKind(9, page));
    const { bytes } = layOut(encoder.frames, position, digest);
    const verifier = new PortableVerifier({ digest });
    const cut = bytes.subarray(0, bytes.length - 100);
    const result = await verifier.consume(position, oneRegion, inputOver(cut), () => undefined, undefined);
    expect(result.byteCount + result.leftover.length).toBe(cut.length);
    expect(result.frameCount).toBeLessThan(encoder.frames.length);
  });

  it('stops when it is cancelled', async () => {
    const verifier = new PortableVerifier({ digest });
    const result = verifier.consume(
      position,
      oneRegion,
      inputOver(new Uint8Array(100)),
      () => undefined,
      AbortSignal.abort(),
    );
    await expect(result).rejects.toMatchObject({ code: 'CHKPT_ABORTED' });
  });
});

describe('createLz4Decoder', () => {
  const text = new Uint8Array(16 * 4096).map((_, index) => index >> 8);

  it('decodes into exactly the bytes asked for', () => {
    expect(Buffer.compare(createLz4Decoder()(encodeLz4(text), text.length), text)).toBe(0);
  });

  it('refuses to make a buffer larger than a block', () => {
    expect(() => createLz4Decoder()(Uint8Array.of(0), 16 * 4096 + 1)).toThrow(RangeError);
    expect(() => createLz4Decoder()(Uint8Array.of(0), 2 ** 31)).toThrow(RangeError);
    expect(() => createLz4Decoder()(new Uint8Array(16 * 4096), 4096)).toThrow(RangeError);
  });

  it.each([
    ['an empty block', []],
    ['a match before the start', [0x14, 65, 2, 0, 0x50, 1, 2, 3, 4, 5]],
    ['a match at distance 0', [0x14, 65, 0, 0, 0x50, 1, 2, 3, 4, 5]],
    ['literals beyond the end', [0x50, 1]],
    ['an endless length', [0xf0, 0xff, 0xff, 0xff]],
  ])('refuses %s', (_what, bytes) => {
    expect(() => createLz4Decoder()(Uint8Array.from(bytes), 14)).toThrow();
  });
});
