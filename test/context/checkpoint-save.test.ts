import { beforeAll, describe, expect, it } from 'vitest';
import { openCheckpoint } from '../../src/context/checkpoint.ts';
import type { SaveCheckpoint } from '../../src/context/save-checkpoint.ts';
import { bytes, defineState, u16, vector } from '../../src/context/state.ts';
import type { Digest64 } from '../../src/format/digest.ts';
import { createWasmDigest64 } from '../../src/format/wasm-digest.ts';
import { detached, outOfBounds } from '../support/lost-memory.ts';
import { referenceSource } from '../support/page-encoder.ts';
import { readStream } from '../support/read-stream.ts';
import { samplePage, sampleRegions, sampleUuid as uuid } from '../support/sample-checkpoint.ts';
import { TestStore, type TestStoreOptions } from '../support/test-store.ts';

let digest: Digest64;
beforeAll(async () => {
  digest = await createWasmDigest64();
});

async function open(options: TestStoreOptions = {}, signal?: AbortSignal) {
  const store = new TestStore(options);
  const checkpoint = await openCheckpoint(store, { mode: 'save', digest, uuid, createdMs: 0, signal });
  return { store, checkpoint };
}

/** A rule that was broken: its code, and where. */
function broken(code: string, details: object = {}): object {
  return { code, details: { store: 'test:store', ...details } };
}

function source() {
  return referenceSource(sampleRegions, samplePage, digest);
}

describe('a saved checkpoint', () => {
  it('holds what was saved, in order, and is visible only after commit', async () => {
    const { store, checkpoint } = await open();
    const pic = await checkpoint.openContext('pic');
    await pic.save('irr', Uint8Array.of(1, 2));
    await pic.saveAll({ isr: 3, name: '8259A' });
    await pic.save('mask', { type: 'u16', value: 0xfffe });
    await pic.close();
    await checkpoint.saveMemory('memory', source());
    expect(store.bytes).toBeUndefined();
    const summary = await checkpoint.commit();
    const read = await readStream(store.bytes ?? new Uint8Array(), digest);
    expect(read.summary).toMatchObject({
      root: summary.root,
      bytes: summary.bytes,
      header: { uuid, createdMs: 0 },
    });
    expect(read.contexts.map(({ name }) => name)).toEqual(['pic', 'memory']);
    expect(read.contexts[0]?.tags.map(({ name, type }) => [name, type])).toEqual([
      ['irr', 'bytes'],
      ['isr', 'u32'],
      ['name', 'string'],
      ['mask', 'u16'],
    ]);
  });

  it('has a random UUID and the present time when none are given', async () => {
    const store = new TestStore();
    const before = Date.now();
    const checkpoint = await openCheckpoint(store, { mode: 'save', digest });
    const { uuid: random } = await checkpoint.commit();
    expect(random).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-/);
    const { header } = (await readStream(store.bytes ?? new Uint8Array(), digest)).summary;
    expect(header.uuid).toBe(checkpoint.uuid);
    expect(header.createdMs).toBeGreaterThanOrEqual(before);
  });

  it('names its parent', async () => {
    const store = new TestStore();
    const parent = { uuid: 'B0B1B2B3-B4B5-46B7-88B9-BABBBCBDBEBF', root: '0f'.repeat(32) };
    const checkpoint = await openCheckpoint(store, { mode: 'save', digest, parent, epoch: 3n });
    const summary = await checkpoint.commit();
    expect(summary).toMatchObject({ parent: parent.uuid.toLowerCase(), epoch: 3n });
    const { header } = (await readStream(store.bytes ?? new Uint8Array(), digest)).summary;
    expect(header).toMatchObject({ epoch: 3n, parent: { ...parent, uuid: parent.uuid.toLowerCase() } });
  });

  it('is the same whether calls are awaited or not', async () => {
    const awaited = await open();
    const pic = await awaited.checkpoint.openContext('pic');
    for (let tag = 0; tag < 50; tag++) await pic.save(`tag ${tag}`, tag);
    await pic.close();
    await awaited.checkpoint.saveMemory('memory', source());
    await awaited.checkpoint.commit();

    const eager = await open();
    const opening = eager.checkpoint.openContext('pic');
    const context = await opening;
    await Promise.all([
      ...Array.from({ length: 50 }, (_, tag) => context.save(`tag ${tag}`, tag)),
      context.close(),
      eager.checkpoint.saveMemory('memory', source()),
      eager.checkpoint.commit(),
    ]);
    expect(eager.store.bytes).toEqual(awaited.store.bytes);
  });

  it('takes scalars and objects as they are when save is called', async () => {
    const { store, checkpoint } = await open();
    const context = await checkpoint.openContext('pit');
    const state = { counter: 1 };
    const saving = context.saveAll(state);
    state.counter = 2;
    await saving;
    await context.close();
    await checkpoint.commit();
    const { contexts } = await readStream(store.bytes ?? new Uint8Array(), digest);
    expect(contexts[0]?.tags[0]?.data).toEqual(Uint8Array.of(1, 0, 0, 0));
  });
});

describe('rules of saving, each a typed error that leaves the checkpoint usable', () => {
  const cases: [string, object, (checkpoint: SaveCheckpoint) => Promise<unknown>][] = [
    ['one context open at a time', broken('CHKPT_CONTEXT_OPEN', { context: 'b' }), (c) => c.openContext('b')],
    [
      'no memory while a context is open',
      broken('CHKPT_CONTEXT_OPEN', { context: 'm' }),
      (c) => c.saveMemory('m', source()),
    ],
    ['no commit while a context is open', broken('CHKPT_CONTEXT_OPEN', { context: 'a' }), (c) => c.commit()],
  ];

  it.each(cases)('%s', async (_what, expected, action) => {
    const { store, checkpoint } = await open();
    const context = await checkpoint.openContext('a');
    await expect(action(checkpoint)).rejects.toMatchObject(expected);
    await context.save('after', true);
    await context.close();
    await checkpoint.commit();
    expect((await readStream(store.bytes ?? new Uint8Array(), digest)).contexts).toHaveLength(1);
  });

  it('no context is opened again, as values or as memory, and there is one memory', async () => {
    const { store, checkpoint } = await open();
    await (await checkpoint.openContext('a')).close();
    await checkpoint.saveMemory('memory', source());
    const again = broken('CHKPT_CONTEXT_REOPENED', { context: 'a' });
    await expect(checkpoint.openContext('a')).rejects.toMatchObject(again);
    await expect(checkpoint.saveMemory('a', source())).rejects.toMatchObject(again);
    await expect(checkpoint.openContext('memory')).rejects.toMatchObject({ code: 'CHKPT_CONTEXT_REOPENED' });
    await expect(checkpoint.saveMemory('other', source())).rejects.toMatchObject({
      code: 'CHKPT_CONTEXT_REOPENED',
    });
    await checkpoint.commit();
    await readStream(store.bytes ?? new Uint8Array(), digest);
  });

  it('a context is not used after it was closed, also when another one is open', async () => {
    const { checkpoint } = await open();
    const first = await checkpoint.openContext('first');
    await first.close();
    await first.close();
    const closed = broken('CHKPT_CONTEXT_CLOSED', { context: 'first', tag: 'late' });
    await expect(first.save('late', 1)).rejects.toMatchObject(closed);
    await using second = await checkpoint.openContext('second');
    await expect(first.save('late', 1)).rejects.toMatchObject(closed);
    await expect(first.saveAll({ late: 1 })).rejects.toMatchObject(closed);
    await first.close();
    await second.save('late', 1);
  });

  it('a tag is saved once, and a call that saves several saves none of them when one is refused', async () => {
    const { store, checkpoint } = await open();
    const context = await checkpoint.openContext('pic');
    await context.save('irr', 1);
    const twice = broken('CHKPT_TAG_DUPLICATE', { context: 'pic', tag: 'irr' });
    await expect(context.save('irr', 2)).rejects.toMatchObject(twice);
    await expect(context.saveAll({ isr: 1, irr: 2 })).rejects.toMatchObject(twice);
    const [first, second] = await Promise.allSettled([context.save('imr', 1), context.save('imr', 2)]);
    expect([first.status, second.status]).toEqual(['fulfilled', 'rejected']);
    await context.close();
    await checkpoint.commit();
    const { contexts } = await readStream(store.bytes ?? new Uint8Array(), digest);
    expect(contexts[0]?.tags.map(({ name, data }) => [name, data[0]])).toEqual([
      ['irr', 1],
      ['imr', 1],
    ]);
  });

  it('an array that lost its memory is a TypeError, and nothing of it or of its call is saved', async () => {
    const { store, checkpoint } = await open();
    const pic = await checkpoint.openContext('pic');
    const fifo = defineState({ fifo: bytes(), levels: vector(u16) });
    for (const make of [detached, outOfBounds]) {
      await expect(pic.save('irr', make(Uint8Array))).rejects.toThrow(TypeError);
      await expect(pic.save('irr', make(Float64Array))).rejects.toThrow(TypeError);
      await expect(pic.saveAll({ isr: 3, irr: make(Uint16Array) })).rejects.toThrow(TypeError);
      const state = { fifo: new Uint8Array(1), levels: make(Uint16Array) };
      await expect(pic.save(fifo, state)).rejects.toThrow(TypeError);
    }
    await pic.save('empty', new Uint8Array());
    await pic.close();
    await checkpoint.commit();
    const { contexts } = await readStream(store.bytes ?? new Uint8Array(), digest);
    expect(contexts[0]?.tags.map(({ name }) => name)).toEqual(['empty']);
  });

  it('names and values that the format cannot hold are refused', async () => {
    const { checkpoint } = await open();
    await expect(checkpoint.openContext('a/b')).rejects.toMatchObject(
      broken('CHKPT_NAME', { context: 'a/b' }),
    );
    const context = await checkpoint.openContext('pic');
    await expect(context.save('', 1)).rejects.toMatchObject(
      broken('CHKPT_NAME', { context: 'pic', tag: '' }),
    );
    const range = broken('CHKPT_VALUE_RANGE', { context: 'pic', tag: 'x' });
    await expect(context.save('x', 2n ** 64n)).rejects.toMatchObject(range);
    await expect(context.save('x', { type: 'u8', value: 256 })).rejects.toMatchObject(range);
    await expect(context.save('x', 'a\ud800')).rejects.toMatchObject(range);
    for (const value of [
      undefined,
      null,
      {},
      [1],
      () => 1,
      Symbol('s'),
      new Date(),
      new DataView(new ArrayBuffer(1)),
    ]) {
      await expect(context.save('x', value as never)).rejects.toThrow(TypeError);
    }
    await expect(context.save('x', { type: 'u7', value: 1 } as never)).rejects.toThrow(TypeError);
    await expect(context.save(5 as never, 1)).rejects.toThrow(TypeError);
    await expect(context.save({ leaves: [] } as never, {})).rejects.toThrow(TypeError);
    await expect(checkpoint.openContext(undefined as never)).rejects.toMatchObject({
      code: 'CHKPT_CONTEXT_OPEN',
    });
    await context.save('x', 1);
  });

  it('values are at most 256 MiB together', async () => {
    const { checkpoint } = await open();
    const context = await checkpoint.openContext('large');
    const piece = new Uint8Array(128 << 20);
    const many = { a: piece, b: piece, c: Uint8Array.of(1) };
    await expect(context.saveAll(many)).rejects.toMatchObject(
      broken('CHKPT_VALUE_RANGE', { context: 'large', tag: 'c' }),
    );
  });

  it('what only a load can do is CHKPT_MODE', async () => {
    const { checkpoint } = await open();
    const context = await checkpoint.openContext('a');
    // biome-ignore lint/suspicious/noExplicitAny: what a caller in JavaScript can do
    const [untyped, untypedContext] = [checkpoint as any, context as any];
    for (const call of [() => untyped.finish(), () => untyped.loadMemory('m', {})]) {
      await expect(call()).rejects.toMatchObject(broken('CHKPT_MODE'));
    }
    for (const call of [() => untypedContext.load('t'), () => untypedContext.loadAll()]) {
      await expect(call()).rejects.toMatchObject(broken('CHKPT_MODE', { context: 'a' }));
    }
    await expect(openCheckpoint(new TestStore(), { mode: 'append', digest } as never)).rejects.toThrow(
      TypeError,
    );
  });
});

describe('after its end', () => {
  it.each(['commit', 'abort'] as const)(
    'by %s every call is CHKPT_CLOSED, and disposing does nothing',
    async (end) => {
      const { store, checkpoint } = await open();
      const context = await checkpoint.openContext('a');
      if (end === 'commit') await context.close();
      await checkpoint[end]();
      const closed = broken('CHKPT_CLOSED');
      await expect(checkpoint.openContext('b')).rejects.toMatchObject(closed);
      await expect(checkpoint.saveMemory('m', source())).rejects.toMatchObject(closed);
      await expect(checkpoint.commit()).rejects.toMatchObject(closed);
      await expect(context.save('t', 1)).rejects.toMatchObject(closed);
      await context[Symbol.asyncDispose]();
      await checkpoint[Symbol.asyncDispose]();
      await checkpoint.abort();
      expect(store.aborted).toBe(end === 'abort' ? 1 : 0);
      expect(store.summary === undefined).toBe(end === 'abort');
    },
  );

  it('leaving its block without commit aborts it, and the error of the block arrives as it is', async () => {
    const store = new TestStore();
    const body = async (): Promise<void> => {
      await using checkpoint = await openCheckpoint(store, { mode: 'save', digest });
      await using context = await checkpoint.openContext('a');
      await context.save('t', 1);
      throw new RangeError('mine');
    };
    await expect(body()).rejects.toThrow(new RangeError('mine'));
    expect([store.aborted, store.summary]).toEqual([1, undefined]);
  });

  it('a store that fails in the block gives its own error, not one of disposing', async () => {
    let calls = 0;
    const store = new TestStore({
      onCall: (name) => {
        if (name === 'write' && ++calls === 2) throw new Error('no');
      },
    });
    const body = async (): Promise<void> => {
      await using checkpoint = await openCheckpoint(store, { mode: 'save', digest });
      await using context = await checkpoint.openContext('a');
      await context.save('t', new Uint8Array(2 << 20));
      await checkpoint.commit();
    };
    await expect(body()).rejects.toMatchObject({ code: 'CHKPT_STORE_FAILED', name: 'CheckpointError' });
    expect(store.aborted).toBe(1);
  });

  it('a commit that fails leaves nothing behind', async () => {
    const { store, checkpoint } = await open({
      onCall: (name) => {
        if (name === 'commit') throw new Error('no');
      },
    });
    await expect(checkpoint.commit()).rejects.toMatchObject({ code: 'CHKPT_STORE_FAILED' });
    expect(store.aborted).toBe(1);
    await expect(checkpoint.commit()).rejects.toMatchObject({ code: 'CHKPT_CLOSED' });
  });

  it('abort stops a memory context that is under way', async () => {
    const { store, checkpoint } = await open();
    let slabs = 0;
    const saving = checkpoint.saveMemory('memory', source(), {
      onProgress: () => {
        slabs += 1;
        void checkpoint.abort();
      },
    });
    await expect(saving).rejects.toMatchObject({ code: 'CHKPT_ABORTED' });
    await checkpoint.abort();
    expect([slabs, store.aborted]).toEqual([1, 1]);
  });

  it('a cancelled signal stops every later call', async () => {
    const abort = new AbortController();
    const { checkpoint } = await open({}, abort.signal);
    const context = await checkpoint.openContext('a');
    abort.abort();
    await expect(context.save('t', 1)).rejects.toMatchObject(broken('CHKPT_ABORTED'));
    await expect(checkpoint.commit()).rejects.toMatchObject(broken('CHKPT_ABORTED'));
    await checkpoint.abort();
    const late = openCheckpoint(new TestStore(), { mode: 'save', digest, signal: abort.signal });
    await expect(late).rejects.toMatchObject(broken('CHKPT_ABORTED'));
  });
});
