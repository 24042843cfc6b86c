/** Records that native threads encrypt: the same bytes as those that JavaScript does, in the order of the stream, out of memory that is the caller's. */
import { createCipheriv, createHash, createSecretKey, randomBytes } from 'node:crypto';
import { mkdtemp, open, readdir, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { encrypted, openStore, type Store } from '../../src/index.ts';
import { nativeAddon } from '../../src/native/index.ts';
import { SealingThreads } from '../../src/store/seal/sealing-threads.ts';
import type { DirectOutput } from '../../src/store/store.ts';
import { isSame, type SampleStream } from '../store/support/sample-stream.ts';
import { TestStore } from '../support/test-store.ts';
import { openSealed } from './second-decoder.ts';
import { key, streamOf } from './support.ts';

const algorithms = ['aes-256-gcm', 'chacha20-poly1305'] as const;
const mebibyte = 1024 ** 2;

function largeStream(byteCount: number): Pick<SampleStream, 'bytes' | 'summary'> {
  const { summary } = streamOf(0);
  return { bytes: randomBytes(byteCount), summary: { ...summary, bytes: byteCount } };
}

/** `bytes` in pieces whose sizes come again and again. */
function piecesOf(bytes: Uint8Array, sizes: readonly number[]): Uint8Array[] {
  const pieces: Uint8Array[] = [];
  for (let at = 0, index = 0; at < bytes.length; index += 1) {
    const size = sizes[index % sizes.length] ?? 1;
    pieces.push(bytes.subarray(at, at + size));
    at += size;
  }
  return pieces;
}

test.each(algorithms)('%s: a record is what Node makes of it, however its bytes lie', async (algorithm) => {
  const Sealer = nativeAddon().RecordSealer;
  const sealer = new Sealer(algorithm === 'aes-256-gcm' ? 1 : 2, key, 1000);
  const sizes = fc.array(fc.integer({ min: 0, max: 2500 }), { minLength: 1, maxLength: 6 });
  const firsts = fc.oneof(fc.nat(3), fc.constantFrom(255, 65_535, 2 ** 32 - 1, 2 ** 32, 2 ** 52));
  await fc.assert(
    fc.asyncProperty(fc.integer({ min: 1, max: 9 }), firsts, sizes, async (records, first, some) => {
      const { bytes } = largeStream(1000 * records);
      const out = new Uint8Array(1016 * records);
      expect(await sealer.seal(first, piecesOf(bytes, [...some, 700]), out, 0)).toBe(0);
      for (let index = 0; index < records; index += 1) {
        const nonce = Buffer.alloc(12);
        nonce.writeBigUInt64LE(BigInt(first + index));
        const cipher = createCipheriv(algorithm as 'aes-256-gcm', key, nonce, { authTagLength: 16 });
        const body = cipher.update(bytes.subarray(1000 * index, 1000 * (index + 1)));
        const expected = Buffer.concat([body, cipher.final(), cipher.getAuthTag()]);
        expect(isSame(out.subarray(1016 * index, 1016 * (index + 1)), expected)).toBe(true);
      }
    }),
    { numRuns: 60 },
  );
});

test('what is no key, no record and no room for them is a TypeError', () => {
  const Sealer = nativeAddon().RecordSealer;
  expect(() => new Sealer(3 as 1, key, 1000)).toThrow(TypeError);
  expect(() => new Sealer(1, key.subarray(1), 1000)).toThrow(TypeError);
  expect(() => new Sealer(1, key, 0)).toThrow(TypeError);
  expect(() => new Sealer(1, key, 4 * mebibyte + 1)).toThrow(TypeError);
  const sealer = new Sealer(1, key, 1000);
  const seal = (first: unknown, pieces: unknown, out: unknown) => () =>
    sealer.seal(first as number, pieces as Uint8Array[], out as Uint8Array, 0);
  const [record, room] = [new Uint8Array(1000), new Uint8Array(1016)];
  expect(seal(-1, [record], room)).toThrow(TypeError);
  expect(seal(2 ** 53, [record], room)).toThrow(TypeError);
  expect(seal(0, record, room)).toThrow(TypeError);
  expect(seal(0, ['record'], room)).toThrow(TypeError);
  expect(seal(0, [record.subarray(1)], room)).toThrow(TypeError);
  expect(seal(0, [record], room.subarray(1))).toThrow(TypeError);
  expect(seal(0, [record, record], room)).toThrow(TypeError);
});

test('this Node has the ciphers that native threads need', () => {
  for (const algorithm of algorithms) {
    const cipher = { algorithm, key: createSecretKey(key), recordBytes: 4096 };
    expect(SealingThreads.of(cipher)).toBeInstanceOf(SealingThreads);
  }
});

test.each([
  [4096, 'many records in a job'],
  [256 * 1024, 'some'],
  [4 * mebibyte, 'one'],
])(
  'records of %i bytes, %s: more than may be under way, out of memory that is used again',
  async (recordBytes) => {
    const { bytes, summary } = largeStream(19 * mebibyte + 5);
    const inner = new TestStore();
    const writer = await encrypted(inner, { key, recordBytes }).openWriter({ uuid: summary.uuid });
    const buffer = new Uint8Array(6 * mebibyte + 333);
    for (let at = 0; at < bytes.length; at += buffer.length) {
      const part = bytes.subarray(at, at + buffer.length);
      buffer.set(part);
      await writer.writeAll?.(piecesOf(buffer.subarray(0, part.length), [777_777, 1, 2_000_000, 13]));
      buffer.fill(0xee);
    }
    await writer.commit(summary);
    const stored = Buffer.from(inner.bytes ?? []);
    expect(isSame(openSealed(stored, key).stream, bytes)).toBe(true);
    const tags = createHash('sha256').update(stored.subarray(0, 104));
    for (let at = 104; at < stored.length; at += recordBytes + 16) {
      const end = Math.min(at + recordBytes + 16, stored.length - 16);
      if (end > at) tags.update(stored.subarray(end - 16, end));
    }
    expect(inner.summary?.root).toBe(tags.update(stored.subarray(-16)).digest('hex'));
  },
);

test('a store that fails while threads encrypt: told once they are done, nothing is committed', async () => {
  for (const failing of [1, 2, 4, 7]) {
    const failure = new Error('the disk is gone');
    let writes = 0;
    const inner = new TestStore({
      onCall: (name) => {
        if (name.startsWith('write') && ++writes > failing) throw failure;
      },
    });
    const { bytes, summary } = largeStream(12 * mebibyte);
    const writer = await encrypted(inner, { key }).openWriter({ uuid: summary.uuid });
    const work = async (): Promise<void> => {
      await writer.write(bytes);
      bytes.fill(0);
      await writer.commit(summary);
    };
    await expect(work()).rejects.toMatchObject({ cause: failure });
    await writer.abort();
    expect(inner.summary).toBeUndefined();
    expect(writes).toBe(failing + 1);
  }
});

describe('into a file, which threads write themselves', () => {
  let folder: string;
  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'chkpt-seal-'));
  });
  afterEach(() => rm(folder, { recursive: true }));

  test.each([4096, 256 * 1024])('in records of %i bytes, between small writes', async (recordBytes) => {
    const { bytes, summary } = largeStream(23 * mebibyte + 77);
    const store = encrypted(`file:${folder}/sealed`, { key, recordBytes });
    const writer = await store.openWriter({ uuid: summary.uuid });
    const sizes = [5, 4096, 3 * mebibyte, 1, 700_000, 262_144, 9 * mebibyte + 1];
    for (const piece of piecesOf(bytes, sizes)) await writer.writeAll?.(piecesOf(piece, [500_000, 3]));
    await writer.commit(summary);
    expect(isSame(openSealed(await readFile(`${folder}/sealed`), key).stream, bytes)).toBe(true);
  });

  test('where writing fails, the error is that of the store, and nothing is left', async () => {
    const file = openStore(`file:${folder}/sealed`);
    const readOnly = await open('/dev/null', 'r');
    const inner: Store = {
      url: file.url,
      openReader: (options) => file.openReader(options),
      openWriter: async (options) => {
        const writer = await file.openWriter(options);
        const direct = (): DirectOutput | undefined => {
          const output = writer.direct?.();
          return output && { ...output, descriptor: readOnly.fd };
        };
        return new Proxy(writer, {
          get: (target, name) => {
            const value = name === 'direct' ? direct : Reflect.get(target, name, target);
            return typeof value === 'function' ? value.bind(target) : value;
          },
        });
      },
    };
    try {
      const { bytes, summary } = largeStream(8 * mebibyte);
      const writer = await encrypted(inner, { key }).openWriter({ uuid: summary.uuid });
      const work = async (): Promise<void> => {
        await writer.write(bytes);
        await writer.commit(summary);
      };
      await expect(work()).rejects.toMatchObject({
        code: 'CHKPT_IO',
        message: expect.stringContaining('EBADF'),
      });
      await writer.abort();
      expect(await readdir(folder)).toEqual([]);
    } finally {
      await readOnly.close();
    }
  });
});
