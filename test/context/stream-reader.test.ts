import { beforeAll, describe, expect, it } from 'vitest';
import type { MemoryFrameSink } from '../../src/context/memory-frames.ts';
import { skipMemorySink } from '../../src/context/portable-sink.ts';
import { StreamReader } from '../../src/context/stream-reader.ts';
import { CheckpointError } from '../../src/errors/index.ts';
import type { Digest64 } from '../../src/format/digest.ts';
import { createWasmDigest64 } from '../../src/format/wasm-digest.ts';
import type { StoreReader } from '../../src/store/store.ts';
import { frameAt, places, soundStream } from '../support/forged.ts';
import { concat, type StreamBuilder, types, u32, u64 } from '../support/stream-builder.ts';
import { TestStore } from '../support/test-store.ts';

let digest: Digest64;
let sound: Uint8Array;
beforeAll(async () => {
  digest = await createWasmDigest64();
  sound = soundStream(digest).build();
});

async function open(
  bytes: Uint8Array,
  changes: Partial<StoreReader> = {},
  signal?: AbortSignal,
): Promise<StreamReader> {
  const reader = await new TestStore({}, bytes).openReader();
  return new StreamReader({ ...reader, ...changes }, { digest, store: 'test:store', signal });
}

async function readAll(
  stream: StreamReader,
  sink: MemoryFrameSink = skipMemorySink(digest),
): Promise<string[]> {
  const kinds: string[] = [];
  for await (const item of stream) {
    kinds.push(item.kind);
    if (item.kind === 'context-open' && item.contextKind === 'memory') await stream.readMemory(sink);
  }
  return kinds;
}

/** Changes what a sink reports. */
function altered(
  change: (result: Awaited<ReturnType<MemoryFrameSink['consume']>>) => object,
): MemoryFrameSink {
  return {
    async consume(...parameters) {
      const result = await skipMemorySink(digest).consume(...parameters);
      return { ...result, ...change(result) };
    },
  };
}

const withoutGroups = altered(() => ({ groups: undefined }));

describe('StreamReader', () => {
  it('yields items in stream order, and undefined behind the end', async () => {
    const stream = await open(sound);
    expect(await readAll(stream)).toEqual([
      ...['header', 'context-open', 'tag', 'tag', 'context-close'],
      ...['context-open', 'context-close', 'context-open', 'tag', 'context-close', 'end'],
    ]);
    expect(await stream.next()).toBeUndefined();
  });

  it('rejects with the first error for ever after', async () => {
    const stream = await open(sound.subarray(0, 300));
    const first = await readAll(stream).catch((error: unknown) => error);
    expect(first).toMatchObject({
      code: 'CHKPT_TRUNCATED',
      details: { store: 'test:store', context: 'pic' },
    });
    await expect(stream.next()).rejects.toBe(first);
  });

  it('rejects with the error of a sink for ever after', async () => {
    const stream = await open(sound);
    const failure = new Error('sink');
    await expect(readAll(stream, { consume: () => Promise.reject(failure) })).rejects.toBe(failure);
    await expect(stream.next()).rejects.toBe(failure);
    await expect(stream.readMemory(skipMemorySink(digest))).rejects.toBe(failure);
  });

  it('refuses calls out of order with a TypeError and goes on', async () => {
    const stream = await open(sound);
    await expect(stream.readMemory(skipMemorySink(digest))).rejects.toThrow(TypeError);
    const [first, second] = await Promise.allSettled([stream.next(), stream.next()]);
    expect([first.status, second.status]).toEqual(['fulfilled', 'rejected']);
    for (let item = await stream.next(); item?.kind !== 'context-open' || item.name !== 'memory'; ) {
      item = await stream.next();
    }
    await expect(stream.next()).rejects.toThrow(TypeError);
    await stream.readMemory(skipMemorySink(digest));
    await expect(stream.readMemory(skipMemorySink(digest))).rejects.toThrow(TypeError);
    expect((await stream.next())?.kind).toBe('context-close');
  });

  it('turns what a store throws into CHKPT_STORE_FAILED with the cause', async () => {
    const cause = new Error('disk on fire');
    const stream = await open(sound, { read: () => Promise.reject(cause) });
    await expect(stream.next()).rejects.toMatchObject({
      code: 'CHKPT_STORE_FAILED',
      cause,
      details: { store: 'test:store' },
    });
  });

  it.each([-1, 1.5, Number.NaN, 1 << 30])('does not believe a store that read %d bytes', async (count) => {
    const stream = await open(sound, { read: async () => count });
    await expect(stream.next()).rejects.toMatchObject({ code: 'CHKPT_STORE_FAILED' });
  });

  it('stops when the caller cancels', async () => {
    const abort = new AbortController();
    const stream = await open(sound, {}, abort.signal);
    abort.abort(new Error('enough'));
    await expect(stream.next()).rejects.toMatchObject({ code: 'CHKPT_ABORTED' });
  });

  it.each([
    ['frames', { frameCount: 1 }],
    ['bytes', { byteCount: 56 }],
  ])('notices a sink that lost count of its %s', async (_what, change) => {
    await expect(
      readAll(
        await open(sound),
        altered(() => change),
      ),
    ).rejects.toMatchObject({ code: 'CHKPT_INTERNAL' });
  });

  it('refuses a memory context of which a sink did not see every page', async () => {
    const sink = altered(({ totals }) => ({ totals: { ...totals, pages: totals.pages - 1 } }));
    await expect(readAll(await open(sound), sink)).rejects.toMatchObject({ code: 'CHKPT_FORMAT' });
  });

  it('uses a leftover that is larger than its own buffer', async () => {
    const built = soundStream(digest);
    built.contextOpen('large').tag('bytes', 0, new Uint8Array(700_000)).contextClose();
    const bytes = built.build();
    const reader = await new TestStore({}, bytes).openReader();
    const stream = new StreamReader(reader, { digest, bufferBytes: 64 });
    const inner = skipMemorySink(digest);
    const greedy: MemoryFrameSink = {
      async consume(position, regions, input, ...rest) {
        const all = new Uint8Array(bytes.length);
        let length = await input.read(all);
        for (let count = length; count > 0; length += count) count = await input.read(all.subarray(length));
        const buffered = concat(input.buffered, all.subarray(0, length));
        return await inner.consume(position, regions, { buffered, read: async () => 0 }, ...rest);
      },
    };
    expect((await readAll(stream, greedy)).at(-1)).toBe('end');
  });
});

describe('with a sink that does not tell its groups, the index', () => {
  const code = async (change: (built: StreamBuilder) => unknown): Promise<string> => {
    const built = soundStream(digest);
    change(built);
    try {
      await readAll(await open(built.build()), withoutGroups);
      return 'sound';
    } catch (error) {
      if (error instanceof CheckpointError) return error.code;
      throw error;
    }
  };
  const withGroups =
    (...groups: Uint8Array[]) =>
    (built: StreamBuilder): unknown =>
      Object.assign(built, {
        document: (d: Uint8Array) => concat(u32(3, groups.length), d.subarray(8, -48), ...groups),
      });

  it('is accepted when it is right, or has fewer groups', async () => {
    expect(await code(() => undefined)).toBe('sound');
    expect(await code(withGroups())).toBe('sound');
  });

  it('is refused when a name or a place differs', async () => {
    expect(
      await code((b) => Object.assign(b, { document: (d: Uint8Array) => Buffer.from(d).fill('P', 32, 33) })),
    ).toBe('CHKPT_FORMAT');
  });

  it.each([
    ['lies outside the memory context', () => u64(0, 20, 128)],
    ['starts inside a group', (offset: number) => u64(16, 4, offset)],
    ['has another length', (offset: number) => u64(0, 16, offset)],
    ['lies beyond the regions', (offset: number) => u64(53, 20, offset)],
  ])('is refused when a group %s', async (_what, group) => {
    const built = soundStream(digest);
    const offset = built.buildParts().offsets[places.blockIndex] ?? 0;
    expect(frameAt(built, places.blockIndex).type).toBe(types.blockIndex);
    expect(await code(withGroups(group(offset)))).toBe('CHKPT_FORMAT');
    expect(await code(withGroups(u64(0, 20, offset)))).toBe('sound');
  });
});
