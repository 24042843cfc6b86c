/**
 * What every store promises, as tests. Each implementation, also one of a third party, runs all of them: the
 * file test/store/conformance.test.ts shows how.
 */
import { describe, expect, test } from 'vitest';
import { CheckpointError } from '../../src/errors/index.ts';
import type { Segment, Store } from '../../src/store/index.ts';
import {
  isSame,
  load,
  type SampleSegment,
  type SampleStream,
  sampleStream,
  save,
  writeSegments,
} from '../store/support/sample-stream.ts';
import { detached, outOfBounds } from '../support/lost-memory.ts';
import { describeClaims } from './store-claims.suite.ts';
import { describeDirectOutput } from './store-direct.suite.ts';
import { describeRandomAccess, readExactly } from './store-random.suite.ts';

/** One place for one checkpoint, fresh for each test. */
export interface StoreSubject {
  /** Opens the store at the place, anew each time, through a registry. */
  open(): Store;
  /** Whatever shows that space is taken: names of files, of objects. Absent when it cannot be told. */
  remains?(): readonly string[] | Promise<readonly string[]>;
}

export interface StoreTraits {
  /** The store has `readAt` and knows `byteLength`. */
  readonly randomAccess: boolean;
  /** The store has `remove`. Default true. */
  readonly removes?: boolean;
  /** The store has `claims`. Default true. */
  readonly claims?: boolean;
  /** What is removed while it is read takes its space until then. Default false. */
  readonly removesWhenClosed?: boolean;
  /** False: a connection, which keeps nothing: see `ForeignTraits.keeps`. Default true. */
  readonly keeps?: boolean;
  /** What is saved. Default: noise, of which no store may care. */
  readonly streams?: SuiteStreams;
}

/** Streams for a store that looks inside: what such a store gives back is, byte for byte, what it was given. */
export interface SuiteStreams {
  readonly older: SampleStream;
  readonly newer: SampleStream;
  /** Others with the UUID of `older`: three of them. */
  readonly again: readonly SampleStream[];
  /** Twenty, with UUIDs of their own, that take as many files as `older`. */
  readonly others: readonly SampleStream[];
  /** One with hundreds of contexts. */
  readonly many: SampleStream;
  /** One with a segment of several MiB. */
  readonly large: SampleStream;
  /** One without a byte, where that can be kept. */
  readonly empty?: SampleStream;
}

/** Registers the tests for one store. `makeSubject` is called by each of them. */
export function describeStore(
  name: string,
  traits: StoreTraits,
  makeSubject: () => StoreSubject | Promise<StoreSubject>,
): void {
  const { streams = noiseStreams(), keeps = true } = traits;
  describe(`store ${name}`, () => {
    if (keeps) describeKeeping(makeSubject, streams);
    describeVisibility(makeSubject, streams);
    describeBytes(makeSubject, streams);
    describeCalls(makeSubject, streams);
    describeCancels(makeSubject, streams);
    describeDirectOutput(makeSubject, streams.older);
    if (traits.randomAccess) describeRandomAccess(makeSubject, streams);
    if (traits.removes ?? true) describeRemoval(makeSubject, streams, traits.removesWhenClosed ?? false);
    if (traits.claims ?? true) describeClaims(makeSubject);
  });
}

export type MakeSubject = () => StoreSubject | Promise<StoreSubject>;

function noiseStreams(): SuiteStreams {
  const older = sampleStream('older');
  const contexts = Array.from(
    { length: 300 },
    (_, index) => ['values', `device ${index}`, index % 7] as const,
  );
  return {
    older,
    newer: sampleStream('newer', [
      ['start', 'start', 128],
      ['values', 'Ünïcode "quoted" \\ name', 1],
      ['values', 'x'.repeat(255), 4097],
      ['memory', 'memory', 70_001],
      ['values', 'after', 17],
      ['end', 'end', 64],
    ]),
    again: ['a', 'b', 'c'].map((seed) => withUuid(sampleStream(seed), older.summary.uuid)),
    others: Array.from({ length: 20 }, (_, index) => sampleStream(`save ${index}`)),
    many: sampleStream('many', contexts),
    large: sampleStream('large', [['memory', 'memory', 4 * 1024 * 1024 + 13]]),
    empty: sampleStream('empty', [['start', 'start', 0]]),
  };
}

const withUuid = (stream: SampleStream, uuid: string): SampleStream => ({
  ...stream,
  summary: { ...stream.summary, uuid },
});

function describeKeeping(makeSubject: MakeSubject, { older, newer }: SuiteStreams): void {
  test('a place without checkpoint rejects with CHKPT_NOT_FOUND', async () => {
    const subject = await makeSubject();
    await expect(subject.open().openReader()).rejects.toMatchObject({ code: 'CHKPT_NOT_FOUND' });
  });

  test('nothing is visible before commit() resolves', async () => {
    const subject = await makeSubject();
    const writer = await subject.open().openWriter({ uuid: newer.summary.uuid });
    await writeSegments(writer, newer);
    await expect(subject.open().openReader()).rejects.toMatchObject({ code: 'CHKPT_NOT_FOUND' });
    await writer.commit(newer.summary);
    expect(isSame(await load(subject.open()), newer.bytes)).toBe(true);
  });

  test('the older checkpoint is what readers get until the newer one is committed', async () => {
    const subject = await makeSubject();
    await save(subject.open(), older);
    const writer = await subject.open().openWriter({ uuid: newer.summary.uuid });
    await writeSegments(writer, newer);
    expect(isSame(await load(subject.open()), older.bytes)).toBe(true);
    await writer.commit(newer.summary);
    expect(isSame(await load(subject.open()), newer.bytes)).toBe(true);
  });

  test('a reader goes on reading what it opened when the checkpoint is replaced', async () => {
    const subject = await makeSubject();
    await save(subject.open(), older);
    const reader = await subject.open().openReader();
    try {
      const start = await readExactly(reader, 100);
      await save(subject.open(), newer);
      const rest = await readExactly(reader, older.bytes.length);
      expect(isSame(Buffer.concat([start, rest]), older.bytes)).toBe(true);
    } finally {
      await reader.close();
    }
  });

  test('loads beside saves get one checkpoint or the other, whole', async () => {
    const subject = await makeSubject();
    await save(subject.open(), older);
    const found = new Set<string>();
    const loading = async (turns: number): Promise<void> => {
      for (let turn = 0; turn < turns; turn += 1) await new Promise(setImmediate);
      const bytes = await load(subject.open());
      found.add(isSame(bytes, older.bytes) ? 'older' : isSame(bytes, newer.bytes) ? 'newer' : 'a mixture');
    };
    for (const stream of [newer, older, newer, older, newer, older]) {
      const loads = [0, 1, 2, 4, 8, 16, 32].map(loading);
      await Promise.all([save(subject.open(), stream), ...loads]);
    }
    expect([...found].sort()).toEqual(['newer', 'older']);
  });
}

function describeVisibility(makeSubject: MakeSubject, { older, newer, again, others }: SuiteStreams): void {
  test('abort() leaves no trace, at any point, however often it is called', async () => {
    const subject = await makeSubject();
    await save(subject.open(), older);
    const before = await subject.remains?.();
    const [first] = newer.segments as [SampleSegment];
    for (let point = 0; point < 4; point += 1) {
      const writer = await subject.open().openWriter({ uuid: newer.summary.uuid });
      if (point > 0) await writer.beginSegment?.(first.segment);
      if (point > 1) await writer.write(first.bytes);
      if (point > 2) await writer.endSegment?.(first.summary);
      await Promise.all([writer.abort(), writer.abort()]);
      await writer.abort();
      expect(await subject.remains?.()).toEqual(before);
      expect(isSame(await load(subject.open()), older.bytes)).toBe(true);
    }
  });

  test('abort() after commit() keeps the checkpoint', async () => {
    const subject = await makeSubject();
    const writer = await subject.open().openWriter({ uuid: newer.summary.uuid });
    await writeSegments(writer, newer);
    await writer.commit(newer.summary);
    await writer.abort();
    expect(isSame(await load(subject.open()), newer.bytes)).toBe(true);
  });

  test('two saves beside each other both succeed and the last commit counts', async () => {
    const subject = await makeSubject();
    const first = await subject.open().openWriter({ uuid: older.summary.uuid });
    const second = await subject.open().openWriter({ uuid: newer.summary.uuid });
    await Promise.all([writeSegments(first, older), writeSegments(second, newer)]);
    await second.commit(newer.summary);
    expect(isSame(await load(subject.open()), newer.bytes)).toBe(true);
    await first.commit(older.summary);
    expect(isSame(await load(subject.open()), older.bytes)).toBe(true);
  });

  test('a checkpoint can be replaced by one with the same UUID', async () => {
    const subject = await makeSubject();
    for (const stream of [older, ...again]) {
      await save(subject.open(), stream);
      expect(isSame(await load(subject.open()), stream.bytes)).toBe(true);
    }
  });

  test('twenty saves take no more room than one', async () => {
    const subject = await makeSubject();
    if (subject.remains === undefined) return;
    await save(subject.open(), older);
    const once = (await subject.remains()).length;
    for (const stream of others) await save(subject.open(), stream);
    expect(await subject.remains()).toHaveLength(once);
  });
}

function describeBytes(makeSubject: MakeSubject, { older, newer, many, large, empty }: SuiteStreams): void {
  test('the stream comes back byte for byte, whatever the sizes of writes and reads', async () => {
    const subject = await makeSubject();
    for (const [writeBytes, readBytes] of [
      [1 << 20, 1 << 20],
      [4096, 1000],
      [997, 65_536],
      [64, 333],
    ] as const) {
      const writer = await subject.open().openWriter({ uuid: newer.summary.uuid });
      await writeSegments(writer, newer, writeBytes);
      await writer.commit(newer.summary);
      expect(isSame(await load(subject.open(), readBytes), newer.bytes)).toBe(true);
    }
  });

  test('a write of several MiB from the middle of a larger buffer is stored exactly', async () => {
    const subject = await makeSubject();
    const writer = await subject.open().openWriter({ uuid: large.summary.uuid });
    for (const { segment, bytes, summary } of large.segments) {
      const around = new Uint8Array(bytes.length + 13).fill(0x55);
      around.set(bytes, 8);
      await writer.beginSegment?.(segment);
      await writer.write(around.subarray(8, 8 + bytes.length));
      await writer.write(new Uint8Array(0));
      await writer.endSegment?.(summary);
    }
    await writer.commit(large.summary);
    expect(isSame(await load(subject.open(), 1 << 20), large.bytes)).toBe(true);
  });

  test.runIf(empty !== undefined)('an empty stream is kept as one', async () => {
    const subject = await makeSubject();
    await save(subject.open(), empty ?? older);
    expect(await load(subject.open())).toHaveLength(0);
  });

  test('read() writes only into its target and says 0 at the end, again and again', async () => {
    const subject = await makeSubject();
    await save(subject.open(), older);
    const reader = await subject.open().openReader();
    try {
      const around = new Uint8Array(1024).fill(0x55);
      let done = 0;
      for (;;) {
        const byteCount = await reader.read(around.subarray(100, 300));
        if (byteCount === 0) break;
        expect(
          isSame(around.subarray(100, 100 + byteCount), older.bytes.subarray(done, done + byteCount)),
        ).toBe(true);
        done += byteCount;
      }
      expect(done).toBe(older.bytes.length);
      expect(await reader.read(around.subarray(100, 300))).toBe(0);
      const outside = [...around.subarray(0, 100), ...around.subarray(300)];
      expect(outside.every((byte) => byte === 0x55)).toBe(true);
    } finally {
      await reader.close();
    }
  });

  test('hundreds of segments keep their order', async () => {
    const subject = await makeSubject();
    await save(subject.open(), many);
    expect(isSame(await load(subject.open(), 100), many.bytes)).toBe(true);
  });
}

function describeCalls(makeSubject: MakeSubject, { older, newer }: SuiteStreams): void {
  test('every call after commit() or abort() rejects with CHKPT_CLOSED', async () => {
    const subject = await makeSubject();
    for (const end of ['commit', 'abort'] as const) {
      const writer = await subject.open().openWriter({ uuid: older.summary.uuid });
      await writeSegments(writer, older);
      await (end === 'commit' ? writer.commit(older.summary) : writer.abort());
      const late = { code: 'CHKPT_CLOSED' };
      await expect(writer.write(new Uint8Array(1))).rejects.toMatchObject(late);
      await expect(writer.commit(older.summary)).rejects.toMatchObject(late);
      await expect(writer.beginSegment?.({ kind: 'values', name: 'late' })).rejects.toMatchObject(late);
      await expect(writer.endSegment?.({ bytes: 0, frames: 0, digest: '' })).rejects.toMatchObject(late);
    }
    expect(isSame(await load(subject.open()), older.bytes)).toBe(true);
  });

  test('wrong calls are TypeError or RangeError and do not harm the save', async () => {
    const subject = await makeSubject();
    const uuid = older.summary.uuid;
    await expect(subject.open().openWriter({ uuid: '../../etc' })).rejects.toThrow(TypeError);
    const writer = await subject.open().openWriter({ uuid });
    const [first] = older.segments;
    if (first === undefined) throw new Error('no segment');
    await expect(writer.endSegment?.(first.summary)).rejects.toThrow(TypeError);
    await writer.beginSegment?.(first.segment);
    await expect(writer.beginSegment?.(first.segment)).rejects.toThrow(TypeError);
    await expect(writer.write('text' as unknown as Uint8Array)).rejects.toThrow(TypeError);
    await expect(writer.write([1, 2] as unknown as Uint8Array)).rejects.toThrow(TypeError);
    for (const make of [detached, outOfBounds]) {
      await expect(writer.write(make(Uint8Array))).rejects.toThrow(TypeError);
      await expect(writer.writeAll?.([Uint8Array.of(1), make(Uint8Array)])).rejects.toThrow(TypeError);
    }
    const writing = writer.write(first.bytes);
    await expect(writer.write(first.bytes)).rejects.toThrow(TypeError);
    await expect(writer.commit(older.summary)).rejects.toThrow(TypeError);
    await writing;
    await expect(writer.endSegment?.({ ...first.summary, bytes: 7 })).rejects.toThrow(RangeError);
    await writer.endSegment?.(first.summary);
    await writeSegments(writer, { ...older, segments: older.segments.slice(1) });
    await expect(writer.commit({ ...older.summary, bytes: 7 })).rejects.toThrow(RangeError);
    await expect(writer.commit({ ...older.summary, uuid: newer.summary.uuid })).rejects.toThrow(TypeError);
    await writer.commit(older.summary);
    expect(isSame(await load(subject.open()), older.bytes)).toBe(true);
  });

  test('a segment that is none is a TypeError', async () => {
    const subject = await makeSubject();
    const writer = await subject.open().openWriter({ uuid: older.summary.uuid });
    const wrong = [undefined, {}, { kind: 'values' }, { kind: 'other', name: 'x' }] as unknown as Segment[];
    for (const segment of wrong) await expect(writer.beginSegment?.(segment)).rejects.toThrow(TypeError);
    await writer.abort();
  });

  test('wrong reads are TypeError or RangeError, and a closed reader is CHKPT_CLOSED', async () => {
    const subject = await makeSubject();
    await save(subject.open(), older);
    const reader = await subject.open().openReader();
    await expect(reader.read(new Uint8Array(0))).rejects.toThrow(RangeError);
    await expect(reader.read(new ArrayBuffer(8) as unknown as Uint8Array)).rejects.toThrow(TypeError);
    const reading = reader.read(new Uint8Array(8));
    await expect(reader.read(new Uint8Array(8))).rejects.toThrow(TypeError);
    expect(await reading).toBe(8);
    await Promise.all([reader.close(), reader.close()]);
    await expect(reader.read(new Uint8Array(8))).rejects.toMatchObject({ code: 'CHKPT_CLOSED' });
  });
}

function describeCancels(makeSubject: MakeSubject, { older, newer }: SuiteStreams): void {
  test('a cancelled save rejects with CHKPT_ABORTED at its next call and leaves no trace', async () => {
    const subject = await makeSubject();
    await save(subject.open(), older);
    const before = await subject.remains?.();
    const uuid = newer.summary.uuid;
    const late = { uuid, signal: AbortSignal.abort() };
    await expect(subject.open().openWriter(late)).rejects.toMatchObject({ code: 'CHKPT_ABORTED' });
    for (const stopAtCommit of [false, true]) {
      const controller = new AbortController();
      const writer = await subject.open().openWriter({ uuid, signal: controller.signal });
      if (stopAtCommit) await writeSegments(writer, newer);
      controller.abort();
      const call = stopAtCommit ? writer.commit(newer.summary) : writer.write(new Uint8Array(9));
      await expect(call).rejects.toMatchObject({ code: 'CHKPT_ABORTED' });
      expect(await subject.remains?.()).toEqual(before);
      await writer.abort();
    }
    expect(isSame(await load(subject.open()), older.bytes)).toBe(true);
  });

  test('a cancelled load rejects with CHKPT_ABORTED at its next call', async () => {
    const subject = await makeSubject();
    await save(subject.open(), older);
    const controller = new AbortController();
    const reader = await subject.open().openReader({ signal: controller.signal });
    expect(await reader.read(new Uint8Array(10))).toBe(10);
    controller.abort();
    await expect(reader.read(new Uint8Array(10))).rejects.toMatchObject({ code: 'CHKPT_ABORTED' });
    await reader.close();
    const late = subject.open().openReader({ signal: controller.signal });
    await expect(late).rejects.toBeInstanceOf(CheckpointError);
  });
}

function describeRemoval(
  makeSubject: MakeSubject,
  { older, newer }: SuiteStreams,
  removesWhenClosed: boolean,
): void {
  test('remove() leaves nothing of the checkpoint, who has it open reads on, and a new one can be saved', async () => {
    const subject = await makeSubject();
    await subject.open().remove?.();
    const before = await subject.remains?.();
    await save(subject.open(), newer);
    const reader = await subject.open().openReader();
    try {
      await subject.open().remove?.();
      await expect(subject.open().openReader()).rejects.toMatchObject({ code: 'CHKPT_NOT_FOUND' });
      if (!removesWhenClosed) expect(await subject.remains?.()).toEqual(before);
      expect(isSame(await readExactly(reader, newer.bytes.length), newer.bytes)).toBe(true);
    } finally {
      await reader.close();
    }
    expect(await subject.remains?.()).toEqual(before);
    await subject.open().remove?.();
    await save(subject.open(), older);
    expect(isSame(await load(subject.open()), older.bytes)).toBe(true);
  });
}
