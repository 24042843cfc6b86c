import { beforeAll, describe, expect, it } from 'vitest';
import { type Inspection, inspectStream } from '../../src/context/inspect.ts';
import { StreamWriter } from '../../src/context/stream-writer.ts';
import { CheckpointError } from '../../src/errors/index.ts';
import type { Digest64 } from '../../src/format/digest.ts';
import { createWasmDigest64 } from '../../src/format/wasm-digest.ts';
import { frameAt, places, soundStream } from '../support/forged.ts';
import { pageOfKind } from '../support/page-content.ts';
import { referenceSource } from '../support/page-encoder.ts';
import { sampleCheckpoint, sampleUuid as uuid } from '../support/sample-checkpoint.ts';
import { concat, type StreamBuilder, tagPayload, types, u32, u64 } from '../support/stream-builder.ts';
import { TestStore, type TestStoreOptions } from '../support/test-store.ts';

let digest: Digest64;
let indexed: Uint8Array;
let plain: Uint8Array;
const large = new Uint8Array((2 << 20) + 100).map((_, index) => index >> 6);
beforeAll(async () => {
  digest = await createWasmDigest64();
  indexed = await withMemory(true);
  plain = await withMemory(false);
});

/**
 * A checkpoint of 600 MiB of guest memory in two groups, of which 2 MiB are noise, and one value of 2 MiB.
 */
async function withMemory(index: boolean): Promise<Uint8Array> {
  const store = new TestStore();
  const writer = await StreamWriter.open(await store.openWriter({ uuid }), { uuid, digest, index });
  await writer.openContext('vga');
  await writer.tag('ram', 'bytes', large);
  await writer.tag('mode', 'u16', Uint8Array.of(3, 0));
  await writer.closeContext();
  const regions = [{ base: 0n, bytes: 600n << 20n }];
  const pageAt = (page: number): Uint8Array | undefined =>
    page < 256 || (page >= 140_000 && page < 140_256) ? pageOfKind(9, page) : undefined;
  await writer.memory('memory', referenceSource(regions, pageAt, digest, { slabFrames: 100 }));
  await writer.openContext('pit');
  await writer.tag('name', 'string', Buffer.from('8254'));
  await writer.closeContext();
  await writer.finish();
  return store.bytes ?? new Uint8Array();
}

async function inspect(
  bytes: Uint8Array,
  options: TestStoreOptions = {},
): Promise<{ found: Inspection; store: TestStore }> {
  const store = new TestStore(options, bytes);
  const found = await inspectStream(await store.openReader(), { digest, store: store.url });
  return { found, store };
}

async function codeOf(bytes: Uint8Array, options: TestStoreOptions = {}): Promise<string> {
  try {
    await inspect(bytes, options);
    return 'sound';
  } catch (error) {
    if (error instanceof CheckpointError) return error.code;
    throw error;
  }
}

describe('inspectStream', () => {
  it('tells the same whether by index, by hopping or by reading', async () => {
    const { found: byIndex } = await inspect(indexed);
    const { found: byScan } = await inspect(indexed, { byteLength: false });
    const { found: byReading } = await inspect(indexed, { readAt: false });
    expect([byIndex, byScan, byReading].map(({ source, verified }) => [source, verified])).toEqual([
      ['index', false],
      ['scan', false],
      ['read', true],
    ]);
    for (const { contexts, regions, groups, root, counts, header, bytes } of [byScan, byReading]) {
      expect({ contexts, regions, groups, root, counts, header, bytes }).toEqual({
        contexts: byIndex.contexts,
        regions: byIndex.regions,
        groups: byIndex.groups,
        root: byIndex.root,
        counts: byIndex.counts,
        header: byIndex.header,
        bytes: byIndex.bytes,
      });
    }
    expect(
      byIndex.contexts.map(({ name, kind, tags }) => [name, kind, tags.map((tag) => tag.dataBytes)]),
    ).toEqual([
      ['vga', 'values', [large.length, 2]],
      ['memory', 'memory', []],
      ['pit', 'values', [4]],
    ]);
    expect(byIndex.groups.map(({ firstPage, pageCount }) => [firstPage, pageCount])).toEqual([
      [0, 131_072],
      [131_072, 22_528],
    ]);
    expect(byIndex.bytes).toBe(indexed.length);
  });

  it('reads single values on demand in every way', async () => {
    const ways: [Uint8Array, TestStoreOptions][] = [
      [indexed, {}],
      [plain, {}],
      [plain, { byteLength: false }],
      [indexed, { readAt: false, readBytesMax: 1000 }],
      [indexed, { readBytesMax: 777 }],
    ];
    for (const [bytes, options] of ways) {
      const { found } = await inspect(bytes, options);
      expect(await found.readTag('pit', 'name')).toEqual({ type: 'string', value: '8254' });
      expect(await found.readTag('vga', 'mode')).toEqual({ type: 'u16', value: 3 });
      expect(await found.readBytes('vga', 'mode')).toEqual(Uint8Array.of(3, 0));
      const ram = await found.readTag('vga', 'ram');
      expect(Buffer.compare(ram.value as Uint8Array, large)).toBe(0);
      const details = { store: 'test:store', context: 'vga', tag: 'x' };
      await expect(found.readTag('vga', 'x')).rejects.toMatchObject({ code: 'CHKPT_NO_TAG', details });
      await expect(found.readTag('x', 'y')).rejects.toMatchObject({ code: 'CHKPT_NO_CONTEXT' });
    }
  });

  it('by index needs a handful of reads, by hopping one for each frame at most, and no guest memory', async () => {
    expect((await inspect(indexed)).store.readOffsets.length).toBeLessThanOrEqual(6);
    const { store } = await inspect(plain);
    expect(store.readOffsets.length).toBeLessThanOrEqual(32 + 15);
  });

  it('sees a small checkpoint whole', async () => {
    const { found } = await inspect(await sampleCheckpoint(digest));
    expect(found.contexts.map(({ name }) => name)).toEqual(['pic', 'memory', 'pit']);
    expect(found.regions.map(({ pageCount }) => pageCount)).toEqual([20, 33]);
  });
});

describe('damage', () => {
  it('of any bit that is looked at is an error, and of any other changes nothing that is told', async () => {
    const sound = await sampleCheckpoint(digest);
    const { store: _, found } = await inspect(sound);
    const told = JSON.stringify(found, (_key, value) => (typeof value === 'bigint' ? `${value}n` : value));
    let seen = 0;
    const cases = [...sound.keys()].flatMap((at) =>
      [true, false].map((byteLength) => ({ offset: at, byteLength })),
    );
    for (const { offset, ...options } of cases) {
      const bytes = sound.slice();
      bytes[offset] = (bytes[offset] ?? 0) ^ (1 << (offset & 7));
      const result = await inspect(bytes, options).catch((error: unknown) => error);
      if (result instanceof CheckpointError) {
        if (result.kind !== 'damaged' && result.kind !== 'unsupported') throw result;
        seen += 1;
      } else {
        const { found: again } = result as Awaited<ReturnType<typeof inspect>>;
        const retold = JSON.stringify({ ...again, source: found.source }, (_key, value) =>
          typeof value === 'bigint' ? `${value}n` : value,
        );
        if (retold !== told) throw new Error(`byte ${offset} changes what is told`);
      }
    }
    expect(seen).toBeGreaterThan(1000);
  });

  it('by a cut is CHKPT_TRUNCATED at every byte', async () => {
    const small = await sampleCheckpoint(digest);
    for (const options of [{}, { byteLength: false }, { readAt: false }]) {
      for (let length = 0; length < small.length; length += options.readAt === false ? 97 : 7) {
        const code = await codeOf(small.subarray(0, length), options);
        if (code !== 'CHKPT_TRUNCATED') throw new Error(`${length} bytes: ${code}`);
      }
    }
  });

  it('by bytes behind the end is CHKPT_TRAILING_DATA', async () => {
    const small = await sampleCheckpoint(digest);
    const longer = concat(small, new Uint8Array(8));
    for (const options of [{}, { byteLength: false }, { readAt: false }]) {
      expect(await codeOf(longer, options)).toBe('CHKPT_TRAILING_DATA');
    }
  });
});

describe('a forged index', () => {
  const forged: [string, (built: StreamBuilder) => unknown][] = [
    [
      'more contexts than it has',
      (b) => Object.assign(b, { document: (d: Uint8Array) => concat(u32(4), d.subarray(4)) }),
    ],
    [
      '2^32 - 1 contexts',
      (b) => Object.assign(b, { document: (d: Uint8Array) => concat(u32(2 ** 32 - 1), d.subarray(4)) }),
    ],
    [
      'more tags than it has',
      (b) =>
        Object.assign(b, { document: (d: Uint8Array) => concat(d.subarray(0, 20), u32(9), d.subarray(24)) }),
    ],
    [
      'fewer groups',
      (b) =>
        Object.assign(b, { document: (d: Uint8Array) => concat(d.subarray(0, 4), u32(1), d.subarray(8)) }),
    ],
    [
      'a name twice',
      (b) =>
        Object.assign(b, {
          document: (d: Uint8Array) =>
            Buffer.from(Buffer.from(d).toString('latin1').replace('pit', 'pic'), 'latin1'),
        }),
    ],
    [
      'an unknown kind',
      (b) =>
        Object.assign(b, { document: (d: Uint8Array) => concat(d.subarray(0, 16), u32(7), d.subarray(20)) }),
    ],
    [
      'an offset behind END',
      (b) =>
        Object.assign(b, {
          document: (d: Uint8Array) => concat(d.subarray(0, 8), u64(1n << 40n), d.subarray(16)),
        }),
    ],
    [
      'padding that is not zero',
      (b) => Object.assign(b, { document: (d: Uint8Array) => Buffer.from(d).fill(1, 35, 36) }),
    ],
    ['nothing', (b) => Object.assign(b, { document: u32(0, 0) })],
    ['an empty document', (b) => Object.assign(b, { document: u32(0) })],
    ['another document length', (b) => b.indexFrames.push({ arg1: 2n ** 63n })],
    ['another END in the footer', (b) => Object.assign(b.footer, { 8: 128 })],
    ['another stream length in the footer', (b) => Object.assign(b.footer, { 48: 2n ** 63n })],
  ];

  it.each(forged)('with %s is refused', async (_what, change) => {
    const built = soundStream(digest);
    change(built);
    expect(['CHKPT_FORMAT', 'CHKPT_LIMIT', 'CHKPT_DIGEST']).toContain(await codeOf(built.build()));
  });

  it('that names another tag than there is, is found when the tag is read', async () => {
    const built = soundStream(digest);
    built.document = (d) => Buffer.from(Buffer.from(d).toString('latin1').replace('irr', 'isr'), 'latin1');
    const { found } = await inspect(built.build());
    await expect(found.readTag('pic', 'isr')).rejects.toMatchObject({
      code: 'CHKPT_FORMAT',
      details: { tag: 'isr' },
    });
    expect(await found.readTag('pic', 'name')).toEqual({ type: 'string', value: '8259A' });
  });
});

describe('a scan', () => {
  const changes: [string, (built: StreamBuilder) => unknown, string][] = [
    [
      'a tag between contexts',
      (b) => b.frames.unshift({ type: types.tag, payload: tagPayload('x', u32(1)) }),
      'CHKPT_FORMAT',
    ],
    ['an unknown critical frame', (b) => b.frames.unshift({ type: 0x7777 }), 'CHKPT_VERSION'],
    [
      'a context twice',
      (b) => Object.assign(frameAt(b, places.openPit), { payload: Buffer.from('pic') }),
      'CHKPT_FORMAT',
    ],
    ['END in a context', (b) => b.frames.pop(), 'CHKPT_FORMAT'],
    [
      'a value that goes on in nothing',
      (b) =>
        Object.assign(frameAt(b, 2), {
          arg0: 0,
          payload: tagPayload('x', new Uint8Array(1 << 20), (1 << 20) + 1),
        }),
      'CHKPT_FORMAT',
    ],
    ['other counts', (b) => Object.assign(b.counts, { tags: 9 }), 'CHKPT_FORMAT'],
    ['no region table', (b) => b.frames.splice(places.regionTable, 1), 'CHKPT_FORMAT'],
  ];

  it.each(changes)('of a stream with %s is refused', async (_what, change, code) => {
    const built = soundStream(digest);
    built.hasIndex = false;
    change(built);
    expect(await codeOf(built.build())).toBe(code);
  });

  it('passes over unknown optional frames', async () => {
    const built = soundStream(digest);
    built.hasIndex = false;
    for (const at of [0, 2, 5, 10])
      built.frames.splice(at, 0, { type: 0x8000_7777, payload: new Uint8Array(3) });
    expect((await inspect(built.build())).found.contexts).toHaveLength(3);
  });
});
