/** What is stored is what docs/encryption.md says, as a second decoder reads it. */
import { randomBytes } from 'node:crypto';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { encrypted, keyIdOf } from '../../src/index.ts';
import { isSame, load } from '../store/support/sample-stream.ts';
import { TestStore } from '../support/test-store.ts';
import { openSealed } from './second-decoder.ts';
import { key, otherKey, recordBytes, seal, storeWith, streamOf } from './support.ts';

const edges = [0, 1, 15, 16, 17, 4079, 4080, 4081, 4095, 4096, 4097, 8191, 8192, 8193, 70_000];

describe.each(['aes-256-gcm', 'chacha20-poly1305'] as const)('%s', (algorithm) => {
  test.each(edges)('a stream of %i bytes is what a second decoder reads', async (byteCount) => {
    const { stream, stored } = await seal(byteCount, { algorithm });
    const opened = openSealed(stored, key);
    expect(isSame(opened.stream, stream.bytes)).toBe(true);
    expect(opened).toMatchObject({ recordBytes, algorithm, records: Math.ceil(byteCount / recordBytes) });
    expect(stored).toHaveLength(104 + byteCount + 16 * (opened.records + 1));
  });

  test.each(edges)('and it comes back, forward and at any place: %i bytes', async (byteCount) => {
    const { stream, stored } = await seal(byteCount, { algorithm });
    expect(isSame(await load(storeWith(stored)), stream.bytes)).toBe(true);
    expect(isSame(await load(storeWith(stored, { isForward: true }), 77), stream.bytes)).toBe(true);
    const reader = await storeWith(stored).openReader();
    expect(reader.byteLength).toBe(byteCount);
    expect(reader.integrity).toBe('authenticate');
    await reader.close();
  });
});

test('any sizes of writes, reads and ranges give the same bytes', async () => {
  const sizes = fc.array(fc.integer({ min: 0, max: 9000 }), { maxLength: 12 });
  const places = fc.array(fc.tuple(fc.nat(60_000), fc.integer({ min: 1, max: 20_000 })), { maxLength: 6 });
  await fc.assert(
    fc.asyncProperty(sizes, places, async (writes, ranges) => {
      const byteCount = writes.reduce((sum, size) => sum + size, 0);
      const { bytes, summary } = streamOf(byteCount);
      const inner = new TestStore();
      const writer = await encrypted(inner, { key, recordBytes }).openWriter({ uuid: summary.uuid });
      let at = 0;
      for (const size of writes) {
        await writer.write(bytes.subarray(at, at + size));
        at += size;
      }
      await writer.commit(summary);
      const stored = Buffer.from(inner.bytes ?? []);
      expect(isSame(openSealed(stored, key).stream, bytes)).toBe(true);
      const reader = await storeWith(stored).openReader();
      for (const [offset, size] of ranges) {
        const target = new Uint8Array(size);
        const found = (await reader.readAt?.(offset, target)) ?? 0;
        expect(found).toBe(Math.max(0, Math.min(size, byteCount - offset)));
        expect(isSame(target.subarray(0, found), bytes.subarray(offset, offset + found))).toBe(true);
      }
      await reader.close();
    }),
    { numRuns: 60 },
  );
});

test('the caller may use the memory again as soon as a write has resolved', async () => {
  const { bytes, summary } = streamOf(60_000);
  const inner = new TestStore();
  const writer = await encrypted(inner, { key, recordBytes }).openWriter({ uuid: summary.uuid });
  const buffer = new Uint8Array(5000);
  for (let at = 0; at < bytes.length; at += buffer.length) {
    buffer.set(bytes.subarray(at, at + buffer.length));
    await writer.write(buffer);
    buffer.fill(0xee);
  }
  await writer.commit(summary);
  expect(isSame(openSealed(Buffer.from(inner.bytes ?? []), key).stream, bytes)).toBe(true);
});

test('two seals of one stream have nothing in common but their parameters and key', async () => {
  const [one, other] = [await seal(9000), await seal(9000)];
  expect(one.stored.subarray(0, 32)).toEqual(other.stored.subarray(0, 32));
  const blocks = new Set<string>();
  for (const { stored } of [one, other]) {
    for (let at = 32; at + 16 <= stored.length; at += 8) blocks.add(stored.toString('hex', at, at + 16));
  }
  expect(blocks.size).toBe(2 * (Math.floor((one.stored.length - 48) / 8) + 1));
});

test('nothing of the content stands in what the inner store hears', async () => {
  const inner = new TestStore();
  const { bytes, summary } = streamOf(50_000);
  const writer = await encrypted(inner, { key, recordBytes }).openWriter({ uuid: summary.uuid });
  await writer.beginSegment?.({ kind: 'memory', name: 'a name that is nobodys business' });
  await writer.write(bytes);
  await writer.endSegment?.({ bytes: bytes.length, frames: 1, digest: summary.root });
  await writer.commit({ ...summary, parent: summary.uuid, epoch: 7n });
  const { bytes: stored, segments, summary: told } = inner;
  expect(segments.map(({ segment }) => segment)).toEqual([{ kind: 'values', name: 'sealed' }]);
  expect(told).toMatchObject({ uuid: summary.uuid, parent: undefined, epoch: 0n, bytes: stored?.length });
  expect(JSON.stringify([segments, told?.root])).not.toContain(summary.root);
  for (let at = 0; at < bytes.length - 16; at += 4001) {
    expect(Buffer.from(stored ?? []).indexOf(bytes.subarray(at, at + 16))).toBe(-1);
  }
});

test('a failed write of the inner store is told by the next call, and commit() never hides it', async () => {
  for (const size of [10, 2 * 1024 * 1024]) {
    const failure = new Error('the disk is gone');
    const inner = new TestStore({
      onCall: (name) => {
        if (name.startsWith('write')) throw failure;
      },
    });
    const { summary } = streamOf(size);
    const writer = await encrypted(inner, { key }).openWriter({ uuid: summary.uuid });
    const work = async (): Promise<void> => {
      for (let count = 0; count < 3; count += 1) await writer.write(new Uint8Array(size));
      await writer.commit({ ...summary, bytes: 3 * size });
    };
    await expect(work()).rejects.toMatchObject({ code: 'CHKPT_STORE_FAILED', cause: failure });
    expect(inner.summary).toBeUndefined();
    expect(inner.aborted).toBeGreaterThan(0);
  }
});

test('key ids differ, and are those of the document', async () => {
  const { stored } = await seal(10);
  expect(openSealed(stored, key).keyId).toBe(Buffer.from(keyIdOf(key)).toString('hex'));
  expect(keyIdOf(key)).not.toEqual(keyIdOf(otherKey));
});

test('what is no key, no algorithm and no record size is a TypeError or RangeError', () => {
  const store = new TestStore();
  for (const wrong of [randomBytes(31), randomBytes(33), 'text', undefined, []]) {
    expect(() => encrypted(store, { key: wrong as Uint8Array })).toThrow(TypeError);
  }
  expect(() => encrypted(store, { key, algorithm: 'rot13' as 'aes-256-gcm' })).toThrow(TypeError);
  for (const size of [0, 2048, 5000, 2 ** 23, Number.NaN]) {
    expect(() => encrypted(store, { key, recordBytes: size })).toThrow(RangeError);
  }
  expect(() => encrypted(encrypted(store, { key }), { key })).toThrow(TypeError);
});
