/** No damage of any kind may pass: every load of a damaged stream ends in an error that says so. */
import { beforeAll, describe, expect, it } from 'vitest';
import { CheckpointError } from '../../src/errors/index.ts';
import type { Digest64 } from '../../src/format/digest.ts';
import { createWasmDigest64 } from '../../src/format/wasm-digest.ts';
import { errorOfBoth } from '../support/forged.ts';
import { readStream } from '../support/read-stream.ts';
import { sampleCheckpoint } from '../support/sample-checkpoint.ts';

let digest: Digest64;
let sample: Uint8Array;
let withoutIndex: Uint8Array;
beforeAll(async () => {
  digest = await createWasmDigest64();
  sample = await sampleCheckpoint(digest);
  withoutIndex = await sampleCheckpoint(digest, { index: false });
});

/** The error of a load; throws when the load succeeds or fails as it must not. */
async function damageOf(bytes: Uint8Array, what: string): Promise<CheckpointError> {
  let error: unknown;
  try {
    await readStream(bytes, digest, { bufferBytes: 8192 });
  } catch (caught) {
    error = caught;
  }
  if (!(error instanceof CheckpointError)) throw new Error(`${what}: ${String(error ?? 'loaded')}`);
  if (error.kind !== 'damaged' && error.kind !== 'unsupported') throw new Error(`${what}: ${error.message}`);
  return error;
}

/** The same, and the native reader must say the same: for damage that moves whole frames, which each reader has to notice itself. */
async function damageOfBoth(bytes: Uint8Array, what: string): Promise<CheckpointError> {
  const { code } = await damageOf(bytes, what);
  const both = await errorOfBoth(bytes, digest).catch((cause: unknown) => {
    throw new Error(what, { cause });
  });
  expect(both.code, what).toBe(code);
  return both;
}

/** Where the frames of a sound stream lie. */
function frameSpans(bytes: Uint8Array): { start: number; end: number; type: number }[] {
  const view = Buffer.from(bytes);
  const spans: { start: number; end: number; type: number }[] = [];
  let at = 128;
  do {
    const end = at + 56 + Math.ceil(Number(view.readBigUInt64LE(at + 8)) / 8) * 8;
    spans.push({ start: at, end, type: view.readUInt32LE(at) });
    at = end;
  } while (spans.at(-1)?.type !== 0x20);
  return spans;
}

describe('the sample', () => {
  it('is sound, about 6 KB, and has every class of page', async () => {
    expect(sample.length).toBeGreaterThan(3000);
    expect(sample.length).toBeLessThan(8000);
    const { summary, pages } = await readStream(sample, digest);
    const { zeroPages, fillPages, storedPages, samePages } = summary.counts;
    expect({ zeroPages, fillPages, storedPages, samePages }).toEqual({
      zeroPages: 47,
      fillPages: 1,
      storedPages: 3,
      samePages: 2,
    });
    expect([...pages.keys()]).toEqual([0, 1, 2, 17, 19, 40]);
    await readStream(withoutIndex, digest);
  });
});

describe('a load refuses', () => {
  it('a stream with any single bit flipped, and names the offset at or before the bit', async () => {
    const bytes = sample.slice();
    for (let bit = 0; bit < 8 * bytes.length; bit++) {
      const at = bit >> 3;
      const mask = 1 << (bit & 7);
      bytes[at] = (bytes[at] ?? 0) ^ mask;
      const error = await damageOf(bytes, `bit ${bit & 7} of byte ${at}`);
      if (!(Number(error.details.offset) <= at)) throw new Error(`byte ${at}: ${error.message}`);
      bytes[at] = (bytes[at] ?? 0) ^ mask;
    }
  }, 300_000);

  it('a stream cut at any byte, with or without index, as truncated', async () => {
    for (const whole of [sample, withoutIndex]) {
      for (let length = 0; length < whole.length; length++) {
        const error = await damageOf(whole.subarray(0, length), `${length} bytes`);
        if (error.code !== 'CHKPT_TRUNCATED') throw new Error(`${length} bytes: ${error.message}`);
        if (error.details.offset !== length) throw new Error(`${length} bytes: ${error.message}`);
      }
    }
  });

  it('bytes behind the end, with or without index', async () => {
    for (const whole of [sample, withoutIndex]) {
      for (const extra of [1, 7, 8, 56, 64, 4096]) {
        const error = await damageOfBoth(Buffer.concat([whole, Buffer.alloc(extra)]), `${extra} more`);
        expect(error.code).toBe('CHKPT_TRAILING_DATA');
      }
    }
    expect((await damageOfBoth(Buffer.concat([sample, sample]), 'twice')).code).toBe('CHKPT_TRAILING_DATA');
  });

  it('frames dropped, doubled or swapped', async () => {
    const spans = frameSpans(sample);
    expect(spans.length).toBeGreaterThan(15);
    const head = sample.subarray(0, 128);
    const tail = sample.subarray(spans.at(-1)?.end);
    const frames = spans.map(({ start, end }) => sample.subarray(start, end));
    const join = (list: readonly Uint8Array[]): Uint8Array => Buffer.concat([head, ...list, tail]);
    for (const [index, frame] of frames.entries()) {
      await damageOfBoth(join(frames.toSpliced(index, 1)), `without frame ${index}`);
      await damageOfBoth(join(frames.toSpliced(index, 0, frame)), `frame ${index} twice`);
      for (let other = index + 1; other < frames.length; other++) {
        const swapped = frames.with(index, frames[other] ?? frame).with(other, frame);
        await damageOfBoth(join(swapped), `frames ${index} and ${other} swapped`);
      }
    }
  });

  it('a frame of another checkpoint in the same place, also when only UUID, time or one value differs', async () => {
    const spans = frameSpans(sample);
    const others = [
      { options: { uuid: 'a0a1a2a3-a4a5-a6a7-a8a9-aaabacadaeae' }, equalFrames: 0 },
      { options: { createdMs: 1_700_000_000_001 }, equalFrames: spans.length - 1 },
      { options: { irr: 8 }, equalFrames: spans.length - 2 },
    ];
    for (const { options, equalFrames } of others) {
      const other = await sampleCheckpoint(digest, options);
      let equal = 0;
      for (const { start, end } of spans) {
        const mixed = Buffer.from(sample);
        mixed.set(other.subarray(start, end), start);
        if (Buffer.compare(mixed, sample) === 0) equal += 1;
        else await damageOfBoth(mixed, `frame at ${start} with ${JSON.stringify(options)}`);
      }
      expect(equal).toBe(equalFrames);
      const header = Buffer.from(sample);
      header.set(other.subarray(0, 128));
      if (Buffer.compare(header, sample) !== 0) await damageOfBoth(header, 'foreign header');
    }
  });

  it('every aligned 64-byte piece turned to zeros or ones', async () => {
    for (let at = 0; at < sample.length; at += 64) {
      for (const value of [0, 0xff]) {
        const bytes = sample.slice();
        bytes.fill(value, at, at + 64);
        if (Buffer.compare(bytes, sample) !== 0) await damageOfBoth(bytes, `${value} at ${at}`);
      }
    }
  });

  it('what is no checkpoint at all', async () => {
    for (const text of ['PK\x03\x04', '\x89PNG\r\n\x1a\n', '\x89CKP\n\x1a\n', 'x']) {
      expect((await damageOf(Buffer.from(text, 'latin1'), text)).code).toBe('CHKPT_BAD_MAGIC');
    }
    expect((await damageOf(new Uint8Array(), 'nothing')).code).toBe('CHKPT_TRUNCATED');
  });
});
