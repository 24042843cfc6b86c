/** Whatever is done to what is stored: a typed error of kind `damaged` before anything wrong is told, or, for the magic, that it is none. */
import { expect, test } from 'vitest';
import { CheckpointError, type EncryptOptions } from '../../src/index.ts';
import { isSame } from '../store/support/sample-stream.ts';
import { key, otherKey, recordBytes, seal, storeWith } from './support.ts';

const storedRecord = recordBytes + 16;

interface Outcome {
  readonly error: unknown;
  readonly told: Buffer;
}

/** Reads to the end, forward. */
async function readForward(
  stored: Uint8Array,
  options: Partial<EncryptOptions> & { isForward?: boolean },
): Promise<Outcome> {
  const told: Uint8Array[] = [];
  try {
    const reader = await storeWith(stored, options).openReader();
    try {
      for (;;) {
        const target = new Uint8Array(1500);
        const byteCount = await reader.read(target);
        if (byteCount === 0) return { error: undefined, told: Buffer.concat(told) };
        told.push(target.subarray(0, byteCount));
      }
    } finally {
      await reader.close();
    }
  } catch (error) {
    return { error, told: Buffer.concat(told) };
  }
}

/** Every way of reading refuses it, and what was told until then is right. */
async function expectDamage(stored: Uint8Array, content: Uint8Array, what: string): Promise<void> {
  for (const isForward of [true, false]) {
    const { error, told } = await readForward(stored, { isForward });
    expect(error, what).toBeInstanceOf(CheckpointError);
    expect((error as CheckpointError).kind, what).toBe('damaged');
    expect(isSame(told, content.subarray(0, told.length)), what).toBe(true);
  }
}

test('a flipped bit at any byte', async () => {
  const { stream, stored } = await seal(recordBytes + 40);
  const places = [
    ...Array.from({ length: 200 }, (_, at) => at),
    ...Array.from({ length: 150 }, (_, at) => 104 + storedRecord - 50 + at).filter(
      (at) => at < stored.length,
    ),
    stored.length - 1,
  ];
  for (const place of places) {
    const damaged = Buffer.from(stored);
    damaged[place] = (damaged[place] ?? 0) ^ (1 << (place % 8));
    await expectDamage(damaged, stream.bytes, `byte ${place}`);
  }
});

test('a cut at any length', async () => {
  const { stream, stored } = await seal(2 * recordBytes + 40);
  const borders = [0, 1, 2].map((index) => 104 + index * storedRecord);
  const near = borders.flatMap((border) => Array.from({ length: 70 }, (_, at) => border - 35 + at));
  const lengths = [
    ...Array.from({ length: 140 }, (_, at) => at),
    ...near,
    stored.length - 16,
    stored.length - 1,
  ];
  for (const length of lengths.filter((at) => at < stored.length)) {
    await expectDamage(stored.subarray(0, length), stream.bytes, `cut to ${length}`);
  }
});

test('bytes behind the end, records left out, swapped, repeated, and an end of its own', async () => {
  const { stream, stored } = await seal(3 * recordBytes + 40);
  const header = stored.subarray(0, 104);
  const records = [0, 1, 2].map((at) =>
    stored.subarray(104 + at * storedRecord, 104 + (at + 1) * storedRecord),
  );
  const rest = stored.subarray(104 + 3 * storedRecord, -16);
  const end = stored.subarray(-16);
  const [a = header, b = header, c = header] = records;
  const made: Readonly<Record<string, readonly Buffer[]>> = {
    'a byte more': [stored, Buffer.alloc(1)],
    'a tag more': [stored, end],
    'the first record left out': [header, b, c, rest, end],
    'the last record left out': [header, a, b, c, end],
    'two records swapped': [header, b, a, c, rest, end],
    'a record twice': [header, a, a, b, c, rest, end],
    'a record in place of another': [header, a, a, c, rest, end],
    'no end': [header, a, b, c, rest],
    'an end of zeros': [header, a, b, c, rest, Buffer.alloc(16)],
    'the end in front': [header, end, a, b, c, rest],
  };
  for (const [what, pieces] of Object.entries(made))
    await expectDamage(Buffer.concat(pieces), stream.bytes, what);
});

test('records and ends of another checkpoint with the same key', async () => {
  const [one, other] = [await seal(2 * recordBytes), await seal(2 * recordBytes)];
  for (const [from, to] of [
    [104, 104 + storedRecord],
    [104 + storedRecord, 104 + 2 * storedRecord],
    [one.stored.length - 16, one.stored.length],
    [32, 64],
    [0, 104],
  ] as const) {
    const mixed = Buffer.from(one.stored);
    other.stored.copy(mixed, from, from, to);
    await expectDamage(mixed, one.stream.bytes, `bytes ${from} to ${to}`);
  }
});

test('a reader at any place refuses a record that was changed, and gives the others', async () => {
  const { stream, stored } = await seal(3 * recordBytes);
  const damaged = Buffer.from(stored);
  damaged[104 + storedRecord + 5] = (damaged[104 + storedRecord + 5] ?? 0) ^ 1;
  const reader = await storeWith(damaged).openReader();
  const target = new Uint8Array(recordBytes);
  for (const offset of [recordBytes - 1, recordBytes, recordBytes + 1, 2 * recordBytes - 1]) {
    target.fill(0x55);
    await expect(reader.readAt?.(offset, target)).rejects.toMatchObject({ code: 'CHKPT_SEAL' });
    const place = Math.max(0, recordBytes - offset);
    expect(target.subarray(place).every((byte) => byte === 0x55)).toBe(true);
  }
  expect(await reader.readAt?.(2 * recordBytes, target)).toBe(recordBytes);
  expect(isSame(target, stream.bytes.subarray(2 * recordBytes))).toBe(true);
  await reader.close();
});

test('another key is no damage, and damage is not taken for another key', async () => {
  const { stored } = await seal(5000);
  for (const isForward of [true, false]) {
    const { error, told } = await readForward(stored, { key: otherKey, isForward });
    expect(error).toMatchObject({ code: 'CHKPT_KEY', kind: 'mismatch' });
    expect(told).toHaveLength(0);
  }
  const damaged = Buffer.from(stored);
  damaged[20] = (damaged[20] ?? 0) ^ 1;
  expect((await readForward(damaged, {})).error).toMatchObject({ code: 'CHKPT_SEAL' });
});

test('a header that somebody without the key made whole again is forged, or asks for another key', async () => {
  const { createHash } = await import('node:crypto');
  const { stored } = await seal(5000);
  for (const [place, value, expected] of [
    [8, 2, 'CHKPT_VERSION'],
    [10, 2, 'CHKPT_SEAL'],
    [10, 9, 'CHKPT_VERSION'],
    [11, 13, 'CHKPT_SEAL'],
    [11, 63, 'CHKPT_SEAL'],
    [12, 1, 'CHKPT_SEAL'],
    [16, 0, 'CHKPT_KEY'],
    [40, 0, 'CHKPT_SEAL'],
    [64, 0, 'CHKPT_SEAL'],
  ] as const) {
    const forged = Buffer.from(stored);
    forged[place] = value;
    createHash('sha256').update(forged.subarray(0, 96)).digest().copy(forged, 96, 0, 8);
    expect((await readForward(forged, { key })).error).toMatchObject({ code: expected });
  }
});
