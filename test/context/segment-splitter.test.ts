/** A stream that goes by into a store has the segments that its save had, wherever reads cut it. */
import { beforeAll, expect, test } from 'vitest';
import { SegmentSplitter } from '../../src/context/segment-splitter.ts';
import { StreamReader, type StreamSummary } from '../../src/context/stream-reader.ts';
import { StreamWriter } from '../../src/context/stream-writer.ts';
import { CheckpointError } from '../../src/errors/index.ts';
import type { Digest64 } from '../../src/format/digest.ts';
import { createWasmDigest64 } from '../../src/format/wasm-digest.ts';
import { PortableVerifier } from '../../src/memory/portable-verifier.ts';
import { isSame } from '../store/support/sample-stream.ts';
import { sampleCheckpoint, sampleUuid } from '../support/sample-checkpoint.ts';
import { TestStore } from '../support/test-store.ts';

let digest: Digest64;

beforeAll(async () => {
  digest = await createWasmDigest64();
});

/** Pushes `bytes` in pieces whose lengths `next` gives; the memory of each is spoilt when it was taken. */
async function split(
  bytes: Uint8Array,
  next: () => number,
): Promise<{ store: TestStore; splitter: SegmentSplitter }> {
  const store = new TestStore();
  const splitter = new SegmentSplitter(digest, 'test:', ({ uuid }) => store.openWriter({ uuid }));
  for (let at = 0; at < bytes.length; ) {
    const piece = bytes.slice(at, at + next());
    await splitter.push(piece);
    at += piece.length;
    piece.fill(0xee);
  }
  return { store, splitter };
}

async function summaryOf(bytes: Uint8Array): Promise<StreamSummary> {
  const reader = new StreamReader(await new TestStore({}, bytes).openReader(), { digest });
  for await (const item of reader) {
    if (item.kind === 'context-open' && item.contextKind === 'memory')
      await reader.readMemory(new PortableVerifier({ digest }));
    if (item.kind === 'end') return item.summary;
  }
  throw new Error('no end');
}

/** What a save of values alone tells its store; `index` as given. */
async function savedDirectly(index: boolean): Promise<TestStore> {
  const store = new TestStore();
  const options = { uuid: sampleUuid, digest, index, createdMs: 1 };
  const writer = await StreamWriter.open(await store.openWriter({ uuid: sampleUuid }), options);
  for (const name of ['a', 'ü'.repeat(127), 'empty']) {
    await writer.openContext(name);
    if (name !== 'empty') await writer.tag('t', 'bytes', new Uint8Array(name.length * 7).fill(5));
    await writer.closeContext();
  }
  await writer.finish();
  return store;
}

test.each([true, false])(
  'segments, their digests and the bytes are those of the save, with index: %s',
  async (index) => {
    const direct = await savedDirectly(index);
    const bytes = direct.bytes ?? new Uint8Array();
    const summary = await summaryOf(bytes);
    const sizes: (() => number)[] = [1, 2, 3, 55, 56, 57, 127, 128, 129, 300, 4096].map((size) => () => size);
    sizes.push(
      () => 1 + Math.floor(Math.random() * 200),
      () => bytes.length,
    );
    for (const next of sizes) {
      const { store, splitter } = await split(bytes, next);
      expect(store.bytes).toBeUndefined();
      await splitter.commit(summary);
      expect(store.bytes !== undefined && isSame(store.bytes, bytes)).toBe(true);
      expect(store.segments).toEqual(direct.segments);
      expect(store.summary).toEqual(direct.summary);
    }
  },
);

test('guest memory is a segment, too, cut in two at any byte', async () => {
  const bytes = await sampleCheckpoint(digest);
  const summary = await summaryOf(bytes);
  for (let cut = 1; cut < bytes.length; cut += 7) {
    let isFirst = true;
    const { store, splitter } = await split(bytes, () => {
      const length = isFirst ? cut : bytes.length;
      isFirst = false;
      return length;
    });
    await splitter.commit(summary);
    expect(store.bytes !== undefined && isSame(store.bytes, bytes), `cut at ${cut}`).toBe(true);
    expect(store.segments.map(({ segment }) => segment)).toEqual([
      { kind: 'start', name: 'start' },
      { kind: 'values', name: 'pic' },
      { kind: 'memory', name: 'memory' },
      { kind: 'values', name: 'pit' },
      { kind: 'end', name: 'end' },
    ]);
  }
});

test('bytes in the middle of a frame go to the store as they came, uncopied', async () => {
  const bytes = await sampleCheckpoint(digest);
  const { store } = await split(bytes, () => bytes.length);
  expect(new Set(store.writeBuffers).size).toBe(1);
});

test('a flipped bit in a header is damage, and what is wrong elsewhere passes for the reader to find', async () => {
  const bytes = await sampleCheckpoint(digest);
  let refused = 0;
  for (let at = 0; at < bytes.length; at += 3) {
    const bad = bytes.slice();
    bad[at] = (bad[at] ?? 0) ^ (1 << (at % 8));
    const error = await split(bad, () => 1000).then(
      () => undefined,
      (reason: unknown) => reason,
    );
    if (error === undefined) continue;
    refused += 1;
    expect(error instanceof CheckpointError && /damaged|unsupported/.test(error.kind), String(error)).toBe(
      true,
    );
  }
  expect(refused).toBeGreaterThan(100);
});
