/** Part of store.suite.ts: reads at any place. */
import { expect, test } from 'vitest';
import type { StoreReader } from '../../src/store/index.ts';
import { isSame, save } from '../store/support/sample-stream.ts';
import type { MakeSubject, SuiteStreams } from './store.suite.ts';

export function describeRandomAccess(makeSubject: MakeSubject, { older, newer }: SuiteStreams): void {
  test('readAt() reads any range, across all borders, without moving read()', async () => {
    const subject = await makeSubject();
    await save(subject.open(), newer);
    const reader = await subject.open().openReader();
    try {
      expect(reader.byteLength).toBe(newer.bytes.length);
      const borders = [0];
      for (const { bytes } of newer.segments) borders.push((borders.at(-1) ?? 0) + bytes.length);
      const offsets = borders.flatMap((border) => [border - 3, border - 1, border, border + 1]);
      let position = 0;
      for (const offset of offsets.filter((value) => value >= 0)) {
        const expected = newer.bytes.subarray(offset, offset + 5000);
        expect(isSame(await readExactlyAt(reader, offset, 5000), expected)).toBe(true);
        const next = await readExactly(reader, 11);
        expect(isSame(next, newer.bytes.subarray(position, position + 11))).toBe(true);
        position += next.length;
      }
      expect(await reader.readAt?.(newer.bytes.length, new Uint8Array(4))).toBe(0);
      expect(await reader.readAt?.(newer.bytes.length + 12_345, new Uint8Array(4))).toBe(0);
    } finally {
      await reader.close();
    }
  });

  test('many readAt() at once, mixed with read(), all get their bytes', async () => {
    const subject = await makeSubject();
    await save(subject.open(), newer);
    const reader = await subject.open().openReader();
    try {
      const offsets = Array.from({ length: 50 }, (_, index) => index * 1400);
      const ranges = Promise.all(offsets.map((offset) => readExactlyAt(reader, offset, 2000)));
      const all = await readExactly(reader, newer.bytes.length);
      expect(isSame(all, newer.bytes)).toBe(true);
      for (const [index, range] of (await ranges).entries()) {
        const offset = index * 1400;
        expect(isSame(range, newer.bytes.subarray(offset, offset + 2000))).toBe(true);
      }
    } finally {
      await reader.close();
    }
  });

  test('close() waits for the reads in progress', async () => {
    const subject = await makeSubject();
    await save(subject.open(), newer);
    const reader = await subject.open().openReader();
    const target = new Uint8Array(3000);
    const reading = reader.readAt?.(1000, target);
    await reader.close();
    const byteCount = (await reading) ?? 0;
    expect(byteCount).toBeGreaterThan(0);
    const expected = newer.bytes.subarray(1000, 1000 + byteCount);
    expect(isSame(target.subarray(0, byteCount), expected)).toBe(true);
    await expect(reader.readAt?.(0, target)).rejects.toMatchObject({ code: 'CHKPT_CLOSED' });
  });

  test('an offset that is none is a RangeError', async () => {
    const subject = await makeSubject();
    await save(subject.open(), older);
    const reader = await subject.open().openReader();
    for (const offset of [-1, 0.5, Number.NaN, 2 ** 53, '0' as unknown as number]) {
      await expect(reader.readAt?.(offset, new Uint8Array(4))).rejects.toThrow(RangeError);
    }
    await reader.close();
  });
}

/** Less at the end of the stream. */
export async function readExactly(reader: StoreReader, byteCountMax: number): Promise<Uint8Array> {
  const target = new Uint8Array(byteCountMax);
  let done = 0;
  while (done < byteCountMax) {
    const byteCount = await reader.read(target.subarray(done));
    if (byteCount === 0) break;
    done += byteCount;
  }
  return target.subarray(0, done);
}

async function readExactlyAt(reader: StoreReader, offset: number, byteCountMax: number): Promise<Uint8Array> {
  const target = new Uint8Array(byteCountMax);
  let done = 0;
  while (done < byteCountMax) {
    const byteCount = (await reader.readAt?.(offset + done, target.subarray(done))) ?? 0;
    if (byteCount === 0) break;
    done += byteCount;
  }
  return target.subarray(0, done);
}
