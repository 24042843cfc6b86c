/**
 * What a store in somebody else's format promises: all of `store.suite.ts`, with streams that are real, and that contexts, tags and memory
 * come back by every way in and out.
 */
import { describe, expect, test } from 'vitest';
import {
  GuestMemory,
  type MemoryFrameSource,
  type MemoryRegion,
  openCheckpoint,
  openStore,
  PageDecoder,
  PageEncoder,
  receiveCheckpoint,
  type Store,
  verifyCheckpoint,
} from '../../src/index.ts';
import { noise } from '../store/support/sample-stream.ts';
import { nativeStreams } from './native-streams.ts';
import { describeStore } from './store.suite.ts';

export interface ForeignSubject {
  /** Opens the store at the place, anew each time. */
  open(): Store;
  /** Whatever shows that space is taken. */
  remains?(): readonly string[];
}

export interface ForeignTraits {
  /** Types of values come back; otherwise all are bytes. */
  readonly types: boolean;
  /** What an undamaged checkpoint of ours is worth. */
  readonly integrity: 'none' | 'detect';
  /** Regions that the format can hold. */
  readonly regions: readonly MemoryRegion[];
  /** The store has `remove`. */
  readonly removes: boolean;
  /**
   * False: a connection, which keeps nothing. `open()` gives a `JoinedStream` then, and the last section of this suite says what is asked of
   * the ends by themselves. Not asked: a place without checkpoint (nobody comes, or one waits: `describeForeignStream`), what a reader
   * keeps when the checkpoint is replaced, `remove`, random access. Default true.
   */
  readonly keeps?: boolean;
}

type MakeSubject = () => ForeignSubject | Promise<ForeignSubject>;

const uuid = '0f0e0d0c-0b0a-4908-8706-050403020100';
const other = 'ffeeddcc-bbaa-4988-8776-554433221100';

/** Pages that are zero, equal, filled and random, and pages never touched. */
function fillMemory(memory: GuestMemory): void {
  let seed = 0;
  for (const { base, bytes } of memory.regions) {
    for (let page = 0n; page < bytes / 4096n; page += 1n) {
      const address = base + page * 4096n;
      const kind = Number(page % 7n);
      if (kind === 0) memory.write(address, noise(`page ${seed}`, 4096));
      if (kind === 1) memory.write(address, new Uint8Array(4096).fill(0x5a));
      if (kind === 2) memory.write(address, new Uint8Array(4096));
      if (kind === 3) memory.write(address, noise('equal', 4096));
      if (kind === 4) memory.write(address + 100n, new Uint8Array([1, 2, 3]));
      seed += 1;
    }
  }
}

const values = {
  first: {
    flag: true,
    count: 7,
    name: 'Ünï "quoted" \\ = [x] %',
    raw: noise('raw', 5000),
    none: new Uint8Array(0),
  },
  'second context': { big: 2n ** 63n, real: -0.5, long: noise('long', 100_000) },
};

interface SaveOptions {
  readonly memory?: GuestMemory;
  readonly id?: string;
  /** Frames instead of the memory itself. */
  readonly byStream?: boolean;
  readonly codec?: 'raw' | 'lz4';
}

async function save(store: Store, { memory, id = uuid, byStream, codec }: SaveOptions): Promise<void> {
  const checkpoint = await openCheckpoint(store, { mode: 'save', uuid: id, createdMs: 1_700_000_000_000 });
  const [[first, firstValues], [second, secondValues]] = Object.entries(values) as [
    [string, typeof values.first],
    [string, (typeof values)['second context']],
  ];
  const before = await checkpoint.openContext(first);
  await before.saveAll(firstValues);
  await before.close();
  if (memory !== undefined) {
    const encoder = new PageEncoder(memory, { codec });
    const frames: MemoryFrameSource = { regions: encoder.regions, open: (...at) => encoder.open(...at) };
    await checkpoint.saveMemory('memory', byStream === true ? frames : encoder);
  }
  const after = await checkpoint.openContext(second);
  await after.saveAll(secondValues);
  await after.close();
  await checkpoint.commit();
}

async function loadMemory(store: Store, regions: readonly MemoryRegion[]): Promise<GuestMemory> {
  const memory = GuestMemory.allocate(regions);
  const checkpoint = await openCheckpoint(store, { mode: 'load' });
  try {
    await checkpoint.loadMemory('memory', () => new PageDecoder(memory));
    await checkpoint.finish();
    return memory;
  } finally {
    await checkpoint.close();
  }
}

async function loadValues(store: Store): Promise<Record<string, Record<string, Uint8Array>>> {
  const found: Record<string, Record<string, Uint8Array>> = {};
  const checkpoint = await openCheckpoint(store, { mode: 'load', skipMemory: true });
  try {
    for (const name of Object.keys(values)) {
      const context = await checkpoint.openContext(name);
      const loaded: Record<string, Uint8Array> = {};
      for (const tag of context.tags) loaded[tag.name] = await context.loadBytes(tag.name);
      found[name] = loaded;
      await context.close();
    }
    await checkpoint.finish();
  } finally {
    await checkpoint.close();
  }
  return found;
}

/** Registers the tests for one format: those of every store, and those of one that looks inside. */
export async function describeForeignStore(
  name: string,
  traits: ForeignTraits,
  makeSubject: MakeSubject,
): Promise<void> {
  const { regions, removes, keeps = true } = traits;
  const streams = await nativeStreams(regions);
  describeStore(
    `${name} in somebody else's format`,
    { randomAccess: false, claims: false, removes, keeps, streams },
    makeSubject,
  );
  describe(`foreign store ${name}`, () => {
    describeContent(traits, makeSubject);
    describeVisibility(traits, makeSubject);
    describeRules(makeSubject);
    describeWays(traits, makeSubject);
  });
}

function describeContent({ regions, types, integrity }: ForeignTraits, makeSubject: MakeSubject): void {
  test('values come back as they were saved', async () => {
    const subject = await makeSubject();
    await save(subject.open(), {});
    const native = `mem:foreign-${name()}`;
    await save(openStore(native), {});
    expect(await loadValues(subject.open())).toEqual(await loadValues(openStore(native)));
    await openStore(native).remove?.();
    if (!types) return;
    const checkpoint = await openCheckpoint(subject.open(), { mode: 'load' });
    for (const [context, expected] of Object.entries(values)) {
      const opened = await checkpoint.openContext(context);
      expect(await opened.loadAll()).toEqual(expected);
      await opened.close();
    }
    await checkpoint.finish();
    await checkpoint.close();
  });

  test.each([
    ['handed over', {}],
    ['as frames, raw', { byStream: true, codec: 'raw' }],
    ['as frames, compressed, equal pages once', { byStream: true, codec: 'lz4' }],
  ] as const)('memory comes back byte for byte: %s', async (_what, options) => {
    const subject = await makeSubject();
    const memory = GuestMemory.allocate(regions);
    fillMemory(memory);
    await save(subject.open(), { memory, ...options });
    const back = await loadMemory(subject.open(), regions);
    expect(await back.digest()).toBe(await memory.digest());
    expect(await loadValues(subject.open())).toEqual(await loadValues(subject.open()));
    await back.close();
    await memory.close();
  });

  test(`verify reads all of it and says what that is worth: ${integrity}`, async () => {
    const subject = await makeSubject();
    const memory = GuestMemory.allocate(regions);
    fillMemory(memory);
    await save(subject.open(), { memory });
    const report = await verifyCheckpoint(subject.open());
    expect(report.integrity).toBe(integrity);
    expect(report.counts.pages).toBe(memory.pageCount);
    await memory.close();
  });

  test('two loads read the same stream', async () => {
    const subject = await makeSubject();
    await save(subject.open(), {});
    const first = await verifyCheckpoint(subject.open());
    const second = await verifyCheckpoint(subject.open());
    expect(second.root).toBe(first.root);
    expect(second.header).toEqual(first.header);
  });
}

function describeVisibility({ regions }: ForeignTraits, makeSubject: MakeSubject): void {
  test('a save that is dropped leaves the older checkpoint and nothing else, at any point', async () => {
    const subject = await makeSubject();
    const memory = GuestMemory.allocate(regions);
    fillMemory(memory);
    await save(subject.open(), { memory });
    const before = subject.remains?.();
    const root = (await verifyCheckpoint(subject.open())).root;
    for (const point of [0, 1, 2, 3]) {
      const checkpoint = await openCheckpoint(subject.open(), { mode: 'save', uuid: other });
      const context = await checkpoint.openContext('c');
      if (point > 0) await context.save('t', noise('dropped', 300_000));
      if (point > 1) await context.close();
      if (point > 2) await checkpoint.saveMemory('memory', new PageEncoder(memory));
      await checkpoint.abort();
      expect(subject.remains?.()).toEqual(before);
      expect((await verifyCheckpoint(subject.open())).root).toBe(root);
    }
    await memory.close();
  });

  test('the newer checkpoint replaces the older one as a whole', async () => {
    const subject = await makeSubject();
    const memory = GuestMemory.allocate(regions);
    fillMemory(memory);
    await save(subject.open(), { memory });
    await save(subject.open(), { id: other });
    const report = await verifyCheckpoint(subject.open());
    expect(report.counts.pages).toBe(0);
    await memory.close();
  });

  test('an increment is refused, and the older checkpoint stays', async () => {
    const subject = await makeSubject();
    await save(subject.open(), {});
    const { root } = await verifyCheckpoint(subject.open());
    const parent = { uuid: other, root: '11'.repeat(32) };
    const attempt = (async () => {
      const checkpoint = await openCheckpoint(subject.open(), { mode: 'save', parent, epoch: 1n });
      const context = await checkpoint.openContext('c');
      await context.close();
      await checkpoint.commit();
    })();
    await expect(attempt).rejects.toMatchObject({ code: 'CHKPT_UNSUPPORTED' });
    expect((await verifyCheckpoint(subject.open())).root).toBe(root);
  });
}

function describeRules(makeSubject: MakeSubject): void {
  const begin = async (store: Store, id: string, signal?: AbortSignal) =>
    await openCheckpoint(store, { mode: 'save', uuid: id, signal });

  test('a checkpoint without contexts is one', async () => {
    const subject = await makeSubject();
    await (await begin(subject.open(), other)).commit();
    const report = await verifyCheckpoint(subject.open());
    expect([report.header.uuid, report.counts.pages, report.counts.tags]).toEqual([other, 0, 0]);
  });

  test.each(['before it begins', 'between its contexts', 'at its commit'])(
    'a save that is cancelled is CHKPT_ABORTED and leaves the older checkpoint: %s',
    async (when) => {
      const subject = await makeSubject();
      await save(subject.open(), {});
      const before = subject.remains?.();
      const stop = new AbortController();
      const attempt = (async () => {
        if (when === 'before it begins') stop.abort();
        const checkpoint = await begin(subject.open(), other, stop.signal);
        try {
          const context = await checkpoint.openContext('c');
          await context.save('t', noise('cancelled', 300_000));
          if (when === 'between its contexts') stop.abort();
          await context.close();
          stop.abort();
          await checkpoint.commit();
        } finally {
          await checkpoint.abort();
        }
      })();
      await expect(attempt).rejects.toMatchObject({ code: 'CHKPT_ABORTED' });
      expect(subject.remains?.()).toEqual(before);
      expect((await verifyCheckpoint(subject.open())).header.uuid).toBe(uuid);
    },
  );
}

function describeWays({ regions }: ForeignTraits, makeSubject: MakeSubject): void {
  test('out of it into a native store and back: the same memory, compressed on the way', async () => {
    const subject = await makeSubject();
    const memory = GuestMemory.allocate(regions);
    fillMemory(memory);
    await save(subject.open(), { memory });
    const native = openStore(`mem:foreign-${name()}`);
    const kept = await receiveCheckpoint(subject.open(), native);
    expect(kept.bytes).toBeLessThan(Number(memory.byteLength) / 2 + 300_000);
    const inside = await loadMemory(native, regions);
    expect(await inside.digest()).toBe(await memory.digest());
    const second = await makeSubject();
    await receiveCheckpoint(native, second.open());
    const back = await loadMemory(second.open(), regions);
    expect(await back.digest()).toBe(await memory.digest());
    expect(await loadValues(second.open())).toEqual(await loadValues(subject.open()));
    await native.remove?.();
    for (const one of [memory, inside, back]) await one.close();
  });

  test('an abort in the middle of a load ends it with CHKPT_ABORTED', async () => {
    const subject = await makeSubject();
    const memory = GuestMemory.allocate(regions);
    fillMemory(memory);
    await save(subject.open(), { memory });
    const stop = new AbortController();
    const checkpoint = await openCheckpoint(subject.open(), { mode: 'load', signal: stop.signal });
    stop.abort();
    await expect(checkpoint.loadMemory('memory', () => new PageDecoder(undefined))).rejects.toMatchObject({
      code: 'CHKPT_ABORTED',
    });
    await checkpoint.close();
    await memory.close();
  });
}

let counter = 0;
function name(): string {
  counter += 1;
  return `${process.pid}-${counter}`;
}
