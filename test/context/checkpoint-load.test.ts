import fc from 'fast-check';
import { beforeAll, describe, expect, it } from 'vitest';
import type { AutoValue } from '../../src/context/auto-value.ts';
import { openCheckpoint } from '../../src/context/checkpoint.ts';
import type { LoadCheckpoint } from '../../src/context/load-checkpoint.ts';
import type { MemoryFrameSink } from '../../src/context/memory-frames.ts';
import type { Digest64 } from '../../src/format/digest.ts';
import { createWasmDigest64 } from '../../src/format/wasm-digest.ts';
import { PortableVerifier } from '../../src/memory/portable-verifier.ts';
import { collectPages } from '../support/read-stream.ts';
import { sampleCheckpoint, samplePage } from '../support/sample-checkpoint.ts';
import { TestStore } from '../support/test-store.ts';

let digest: Digest64;
let sample: Uint8Array;
beforeAll(async () => {
  digest = await createWasmDigest64();
  sample = await sampleCheckpoint(digest);
});

async function open(options: { skipMemory?: MemoryFrameSink | true; bytes?: Uint8Array } = {}) {
  const store = new TestStore({}, options.bytes ?? sample);
  return await openCheckpoint(store, { mode: 'load', digest, skipMemory: options.skipMemory });
}

function broken(code: string, details: object = {}): object {
  return { code, details: { store: 'test:store', ...details } };
}

function verifier(): MemoryFrameSink {
  return new PortableVerifier({ digest });
}

describe('loading', () => {
  it('gives back values, memory and summary in the order of the stream', async () => {
    await using checkpoint = await open();
    const pic = await checkpoint.openContext('pic');
    expect(pic.tags).toEqual([
      { name: 'irr', type: 'u8', byteLength: 1 },
      { name: 'name', type: 'string', byteLength: 5 },
      { name: 'ram', type: 'bytes', byteLength: 1003 },
    ]);
    expect(await pic.load('irr', { type: 'u8' })).toBe(7);
    expect(await pic.load('name')).toBe('8259A');
    expect(await pic.loadTyped('irr')).toEqual({ type: 'u8', value: 7 });
    expect(await pic.loadBytes('name')).toEqual(Uint8Array.from(Buffer.from('8259A')));
    expect(Object.keys(await pic.loadAll())).toEqual(['irr', 'name', 'ram']);
    await pic.close();
    const { pages, onPages, readPage } = collectPages();
    const { regions, totals } = await checkpoint.loadMemory(
      'memory',
      new PortableVerifier({ digest, onPages, readPage }),
    );
    expect(regions.map(({ pageCount }) => pageCount)).toEqual([20, 33]);
    expect(totals.pages).toBe(53);
    expect([...pages]).toEqual([0, 1, 2, 17, 19, 40].map((page) => [page, samplePage(page)]));
    const pit = await checkpoint.openContext('pit');
    expect(await pit.loadAll()).toEqual({ counter: 0x1234_5678_9abcn, modes: Uint16Array.of(1, 2, 3) });
    await pit.close();
    const summary = await checkpoint.finish();
    expect(summary).toMatchObject({ bytes: sample.length, indexed: true });
    expect(await checkpoint.finish()).toBe(summary);
  });

  it('opens contexts in any order, also after finish(), when memory is skipped', async () => {
    for (const skipMemory of [true, verifier()] as const) {
      await using checkpoint = await open({ skipMemory });
      await using pit = await checkpoint.openContext('pit');
      expect(await pit.load('counter')).toBe(0x1234_5678_9abcn);
      await pit.close();
      await checkpoint.finish();
      await using pic = await checkpoint.openContext('pic');
      expect(await pic.load('irr')).toBe(7);
    }
  });

  it('makes the sink when the regions are known', async () => {
    await using checkpoint = await open();
    const seen: bigint[] = [];
    await checkpoint.loadMemory('memory', async (regions) => {
      seen.push(...regions.map(({ base }) => base));
      return verifier();
    });
    expect(seen).toEqual([0n, 0x10_0000n]);
    expect(await (await checkpoint.openContext('pic')).load('irr')).toBe(7);
  });

  it('serves calls that are not awaited in order', async () => {
    const checkpoint = await open();
    const [pic, refused, memory] = await Promise.allSettled([
      checkpoint.openContext('pic'),
      checkpoint.openContext('pit'),
      checkpoint.loadMemory('memory', verifier()),
    ]);
    expect([pic.status, refused.status, memory.status]).toEqual(['fulfilled', 'rejected', 'rejected']);
  });

  it('hands out copies: what the caller changes does not change the context', async () => {
    const context = await (await open()).openContext('pic');
    const first = await context.load('ram', { type: 'bytes' });
    first.fill(0xff);
    expect((await context.load('ram', { type: 'bytes' }))[1]).toBe(7);
  });

  it('gives every plain value back as it was saved', async () => {
    const value: fc.Arbitrary<AutoValue> = fc.oneof(
      fc.boolean(),
      fc.string(),
      fc.integer(),
      fc.double(),
      fc.maxSafeInteger(),
      fc.constantFrom(0, -0, 2 ** 32 - 1, 2 ** 32, -(2 ** 31), -(2 ** 31) - 1, Number.NaN, 2 ** 53),
      fc.bigInt(-(2n ** 63n), 2n ** 64n - 1n),
      fc.uint8Array(),
      fc.int8Array(),
      fc.uint16Array(),
      fc.int16Array(),
      fc.uint32Array(),
      fc.int32Array(),
      fc.bigUint64Array(),
      fc.bigInt64Array(),
      fc.float32Array(),
      fc.float64Array(),
    );
    await fc.assert(
      fc.asyncProperty(fc.array(value), async (values) => {
        const saved = Object.fromEntries(
          [...values.entries()].map(([index, item]) => [`tag ${index}`, item]),
        );
        const store = new TestStore();
        await using saving = await openCheckpoint(store, { mode: 'save', digest });
        const context = await saving.openContext('values');
        await context.saveAll(saved);
        await context.close();
        await saving.commit();
        await using checkpoint = await openCheckpoint(store, { mode: 'load', digest });
        expect(await (await checkpoint.openContext('values')).loadAll()).toEqual(saved);
      }),
    );
  });

  it('a tag named __proto__ is a tag like any other', async () => {
    const store = new TestStore();
    await using saving = await openCheckpoint(store, { mode: 'save', digest });
    const context = await saving.openContext('__proto__');
    await context.save('__proto__', 5);
    await context.close();
    await saving.commit();
    await using checkpoint = await openCheckpoint(store, { mode: 'load', digest });
    const values = await (await checkpoint.openContext('__proto__')).loadAll();
    expect(Object.entries(values)).toEqual([['__proto__', 5]]);
    expect(Object.getPrototypeOf(values)).toBe(Object.prototype);
  });
});

describe('rules of loading, each a typed error', () => {
  it('one context open at a time, none opened again, none used after it was closed', async () => {
    await using checkpoint = await open({ skipMemory: true });
    const pic = await checkpoint.openContext('pic');
    await expect(checkpoint.openContext('pit')).rejects.toMatchObject(
      broken('CHKPT_CONTEXT_OPEN', { context: 'pit' }),
    );
    await expect(checkpoint.loadMemory('memory', verifier())).rejects.toMatchObject(
      broken('CHKPT_CONTEXT_OPEN'),
    );
    await expect(checkpoint.finish()).rejects.toMatchObject(broken('CHKPT_CONTEXT_OPEN'));
    await pic.close();
    await pic.close();
    const closed = broken('CHKPT_CONTEXT_CLOSED', { context: 'pic' });
    await expect(pic.load('irr')).rejects.toMatchObject(closed);
    await expect(pic.loadAll()).rejects.toMatchObject(closed);
    expect(() => pic.tags).toThrow(expect.objectContaining(closed));
    await expect(checkpoint.openContext('pic')).rejects.toMatchObject(
      broken('CHKPT_CONTEXT_REOPENED', { context: 'pic' }),
    );
    await (await checkpoint.openContext('pit')).close();
  });

  it('guest memory in the way must be loaded or skipped, and the load can go on after the error', async () => {
    await using checkpoint = await open();
    const inTheWay = broken('CHKPT_CONTEXT_OPEN', { context: 'memory' });
    await expect(checkpoint.openContext('pit')).rejects.toMatchObject(inTheWay);
    await expect(checkpoint.finish()).rejects.toMatchObject(inTheWay);
    await (await checkpoint.openContext('pic')).close();
    await checkpoint.loadMemory('memory', verifier());
    await (await checkpoint.openContext('pit')).close();
    await checkpoint.finish();
  });

  it('memory is loaded once, also when it was skipped', async () => {
    const again = broken('CHKPT_CONTEXT_REOPENED', { context: 'memory' });
    await using loaded = await open();
    await loaded.loadMemory('memory', verifier());
    await expect(loaded.loadMemory('memory', verifier())).rejects.toMatchObject(again);
    await using skipped = await open({ skipMemory: true });
    await skipped.finish();
    await expect(skipped.loadMemory('memory', verifier())).rejects.toMatchObject(again);
  });

  it('what is missing, or of the other kind, is CHKPT_NO_CONTEXT', async () => {
    await using checkpoint = await open({ skipMemory: true });
    for (const name of ['nothing', 'memory']) {
      await expect(checkpoint.openContext(name)).rejects.toMatchObject(
        broken('CHKPT_NO_CONTEXT', { context: name }),
      );
    }
    for (const name of ['nothing', 'pic']) {
      await expect(checkpoint.loadMemory(name, verifier())).rejects.toMatchObject(
        broken('CHKPT_NO_CONTEXT', { context: name }),
      );
    }
    await using unread = await open();
    await expect(unread.loadMemory('pic', verifier())).rejects.toMatchObject({ code: 'CHKPT_NO_CONTEXT' });
    await unread.loadMemory('memory', verifier());
  });

  it('tags that are missing, or of another type or length', async () => {
    await using context = await (await open()).openContext('pic');
    await expect(context.load('imr')).rejects.toMatchObject(
      broken('CHKPT_NO_TAG', { context: 'pic', tag: 'imr' }),
    );
    await expect(context.load('irr', { type: 'u16' })).rejects.toMatchObject(
      broken('CHKPT_TAG_TYPE', { context: 'pic', tag: 'irr', expected: 'u16', actual: 'u8' }),
    );
    await expect(context.load({ leaves: [] } as never)).rejects.toThrow(TypeError);
    await expect(context.load('ram', { byteLength: 1004 })).rejects.toMatchObject(
      broken('CHKPT_TAG_LENGTH', { context: 'pic', tag: 'ram', expected: 1004, actual: 1003 }),
    );
  });

  it('what only a save can do is CHKPT_MODE', async () => {
    await using checkpoint = await open();
    await using context = await checkpoint.openContext('pic');
    // biome-ignore lint/suspicious/noExplicitAny: what a caller in JavaScript can do
    const [untyped, untypedContext] = [checkpoint as any, context as any];
    for (const call of [() => untyped.commit(), () => untyped.abort(), () => untyped.saveMemory('m', {})]) {
      await expect(call()).rejects.toMatchObject(broken('CHKPT_MODE'));
    }
    for (const call of [() => untypedContext.save('t', 1), () => untypedContext.saveAll({})]) {
      await expect(call()).rejects.toMatchObject(broken('CHKPT_MODE', { context: 'pic' }));
    }
  });

  it('after close() everything is CHKPT_CLOSED, and the store was closed once', async () => {
    const store = new TestStore({}, sample);
    const checkpoint = await openCheckpoint(store, { mode: 'load', digest });
    const context = await checkpoint.openContext('pic');
    await checkpoint.close();
    await checkpoint.close();
    await context[Symbol.asyncDispose]();
    await checkpoint[Symbol.asyncDispose]();
    const calls = [
      () => checkpoint.openContext('pit'),
      () => checkpoint.loadMemory('memory', verifier()),
      () => checkpoint.finish(),
      () => context.load('irr'),
    ];
    for (const call of calls) await expect(call()).rejects.toMatchObject(broken('CHKPT_CLOSED'));
    expect(store.closed).toBe(1);
  });
});

describe('damage', () => {
  const lost = (checkpoint: LoadCheckpoint): (() => Promise<unknown>)[] => [
    () => checkpoint.finish(),
    () => checkpoint.openContext('pic'),
    () => checkpoint.loadMemory('memory', verifier()),
  ];

  it('behind what was loaded is found by finish(), and then nothing more is handed out', async () => {
    const bytes = sample.slice();
    bytes[bytes.length - 100] = (bytes[bytes.length - 100] ?? 0) ^ 1;
    await using checkpoint = await open({ bytes, skipMemory: true });
    const pit = await checkpoint.openContext('pit');
    expect(await pit.load('counter')).toBe(0x1234_5678_9abcn);
    await pit.close();
    const failure = await checkpoint.finish().catch((error: unknown) => error);
    expect(failure).toMatchObject(broken('CHKPT_DIGEST'));
    for (const call of lost(checkpoint)) await expect(call()).rejects.toBe(failure);
  });

  it('in the header rejects the opening and closes the store', async () => {
    const store = new TestStore({}, sample.subarray(0, 100));
    await expect(openCheckpoint(store, { mode: 'load', digest })).rejects.toMatchObject(
      broken('CHKPT_TRUNCATED'),
    );
    expect(store.closed).toBe(1);
  });

  it('in guest memory rejects loadMemory and everything after it', async () => {
    const bytes = sample.slice();
    const middle = sample.length >> 1;
    bytes[middle] = (bytes[middle] ?? 0) ^ 1;
    await using checkpoint = await open({ bytes });
    const failure = await checkpoint.loadMemory('memory', verifier()).catch((error: unknown) => error);
    expect(failure).toMatchObject(broken('CHKPT_DIGEST', { context: 'memory' }));
    for (const call of lost(checkpoint)) await expect(call()).rejects.toBe(failure);
  });

  it('a sink that fails ends the load with its error', async () => {
    await using checkpoint = await open();
    const failure = new Error('no memory');
    const failing: MemoryFrameSink = { consume: () => Promise.reject(failure) };
    await expect(checkpoint.loadMemory('memory', failing)).rejects.toBe(failure);
    for (const call of lost(checkpoint)) await expect(call()).rejects.toBe(failure);
  });
});
