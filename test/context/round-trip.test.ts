import fc from 'fast-check';
import { beforeAll, expect, it } from 'vitest';
import type { MemoryRegion } from '../../src/context/memory-frames.ts';
import { StreamWriter } from '../../src/context/stream-writer.ts';
import type { Digest64 } from '../../src/format/digest.ts';
import { encodeUnknown, type TypedValue } from '../../src/format/value.ts';
import { createWasmDigest64 } from '../../src/format/wasm-digest.ts';
import { name, pageKinds, regions, typedValue } from '../support/arbitraries.ts';
import { pageOfKind } from '../support/page-content.ts';
import { referenceSource } from '../support/page-encoder.ts';
import { readStream } from '../support/read-stream.ts';
import { indexDocument, StreamBuilder, types } from '../support/stream-builder.ts';
import { TestStore } from '../support/test-store.ts';

let digest: Digest64;
beforeAll(async () => {
  digest = await createWasmDigest64();
});

const uuid = 'a0a1a2a3-a4a5-a6a7-a8a9-aaabacadaeaf';

interface Content {
  readonly contexts: readonly { readonly name: string; readonly tags: readonly [string, TypedValue][] }[];
  readonly memoryAt: number;
  readonly regions: readonly MemoryRegion[];
  readonly kinds: readonly number[];
  readonly lz4: boolean;
  readonly dedup: boolean;
  readonly blockIndex: boolean;
  readonly index: boolean;
  readonly segments: boolean;
  readonly readBytesMax: number;
  readonly bufferBytes: number;
}

const content: fc.Arbitrary<Content> = fc.record({
  contexts: fc.uniqueArray(
    fc.record({
      name,
      tags: fc.uniqueArray(fc.tuple(name, typedValue), { selector: ([tag]) => tag, maxLength: 8 }),
    }),
    { selector: (context) => context.name, maxLength: 5 },
  ),
  memoryAt: fc.integer({ min: -1, max: 5 }),
  regions,
  kinds: pageKinds,
  lz4: fc.boolean(),
  dedup: fc.boolean(),
  blockIndex: fc.boolean(),
  index: fc.boolean(),
  segments: fc.boolean(),
  readBytesMax: fc.constantFrom(1, 7, 64, 1000, 1 << 20),
  bufferBytes: fc.constantFrom(64, 129, 4096, 1 << 18),
});

function pageAt({ kinds }: Content): (page: number) => Uint8Array | undefined {
  return (page) => pageOfKind(kinds[page] ?? 0, page);
}

async function save(given: Content, store: TestStore): Promise<void> {
  const { contexts, memoryAt, index, blockIndex, lz4, dedup } = given;
  const writer = await StreamWriter.open(await store.openWriter({ uuid }), { uuid, digest, index });
  const saveMemory = (): Promise<void> =>
    writer.memory(
      '~memory~',
      referenceSource(given.regions, pageAt(given), digest, { lz4, dedup, index: blockIndex }),
    );
  for (const [position, context] of contexts.entries()) {
    if (position === memoryAt) await saveMemory();
    await writer.openContext(context.name);
    for (const [tag, { type, value }] of context.tags)
      await writer.tag(tag, type, encodeUnknown(type, value, {}));
    await writer.closeContext();
  }
  if (memoryAt >= contexts.length) await saveMemory();
  await writer.finish();
}

it('what is written is read back, whatever the content, the slicing of reads and the size of buffers', async () => {
  await fc.assert(
    fc.asyncProperty(content, async (given) => {
      const store = new TestStore({ segments: given.segments, readBytesMax: given.readBytesMax });
      await save(given, store);
      const bytes = store.bytes ?? new Uint8Array();
      const read = await readStream(bytes, digest, given);
      const values = read.contexts.filter(({ kind }) => kind === 'values');
      expect(values.map((context) => ({ name: context.name, tags: context.tags }))).toEqual(
        given.contexts.map((context) => ({
          name: context.name,
          tags: context.tags.map(([tag, { type, value }]) => ({
            name: tag,
            type,
            data: Uint8Array.from(encodeUnknown(type, value, {})),
          })),
        })),
      );
      expect(read.summary.root).toBe(store.summary?.root);
      expect(read.summary.bytes).toBe(bytes.length);
      if (given.memoryAt < 0) return;
      const pageCount = given.regions.reduce((sum, region) => sum + Number(region.bytes) / 4096, 0);
      for (let page = 0; page < pageCount; page++) {
        const expected = pageAt(given)(page) ?? new Uint8Array(4096);
        const actual = read.pages.get(page) ?? new Uint8Array(4096);
        if (Buffer.compare(expected, actual) !== 0) throw new Error(`page ${page} differs`);
      }
    }),
    { numRuns: 120 },
  );
});

it('the stream is the one laid out by hand from the specification, byte for byte', async () => {
  const store = new TestStore();
  const writer = await StreamWriter.open(await store.openWriter({ uuid }), { uuid, digest });
  await writer.openContext('pic');
  await writer.tag('irr', 'u8', Uint8Array.of(7));
  await writer.tag('name', 'string', Buffer.from('8259A'));
  await writer.closeContext();
  const large = new Uint8Array((2 << 20) + 13).map((_, index) => index * 31);
  await writer.openContext('vga');
  await writer.tag('ram', 'bytes', large);
  await writer.closeContext();
  await writer.finish();

  const built = new StreamBuilder(digest);
  built
    .contextOpen('pic')
    .tag('irr', 3, Uint8Array.of(7))
    .tag('name', 1, Buffer.from('8259A'))
    .contextClose();
  built.contextOpen('vga').tag('ram', 0, large).contextClose();
  expect(built.frames.filter(({ type }) => type === types.tagMore)).toHaveLength(2);
  expect(Buffer.compare(store.bytes ?? Buffer.alloc(0), built.build())).toBe(0);
});

it('an index larger than one frame is written and read in pieces', async () => {
  const store = new TestStore({ segments: false });
  const writer = await StreamWriter.open(await store.openWriter({ uuid }), { uuid, digest });
  const tail = 'x'.repeat(240);
  for (let context = 0; context < 4600; context++) {
    await writer.openContext(`${tail}${context}`);
    await writer.closeContext();
  }
  await writer.finish();
  const built = new StreamBuilder(digest);
  for (let context = 0; context < 4600; context++) built.contextOpen(`${tail}${context}`).contextClose();
  const { bytes, offsets, endOffset } = built.buildParts();
  expect(indexDocument(built.frames, offsets).length).toBeGreaterThan(1 << 20);
  expect(Buffer.compare(store.bytes ?? Buffer.alloc(0), bytes)).toBe(0);
  const read = await readStream(bytes, digest);
  expect(read.contexts).toHaveLength(4600);
  expect(offsets.filter((offset) => offset > endOffset)).toHaveLength(2);
});
