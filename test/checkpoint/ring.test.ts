/** Rings: a machine that was rolled back is byte for byte what it was, whatever happened in between, or refuses to run. */
import fc from 'fast-check';
import { afterEach, describe, expect, it } from 'vitest';
import { SyntheticVm } from '../../src/adapters/synthetic/index.ts';
import {
  CheckpointError,
  CheckpointRing,
  type Device,
  defaultMemoryStoreSpace,
  defineState,
  GuestMemory,
  hasNativeAddon,
  loadVm,
  type MemoryTracker,
  saveVm,
  statePart,
  type TrackerKind,
  trackMemory,
  u32,
  verifyChain,
} from '../../src/index.ts';
import { ScribbledVm } from './support/scribbled-vm.ts';

/** The second one ends within a block. */
const smallRegions = [
  { base: 0, bytes: 40 * 4096 },
  { base: 0x100000, bytes: 293 * 4096 },
];

/** A scribbled machine with a device. */
class RingVm extends ScribbledVm {
  count = 0;
  override readonly devices: readonly Device[] = [
    {
      id: 'counter',
      deviceClass: 'counter',
      contexts: [
        {
          name: 'counter',
          parts: [
            statePart<{ count: number }>({
              state: defineState({ count: u32 }),
              get: () => ({ count: this.count }),
              set: ({ count }) => {
                this.count = count;
              },
            }),
          ],
        },
      ],
    },
  ];

  /** All of it. */
  get content(): { count: number; memory: Buffer } {
    const pages = this.memory.regions.map(({ base, bytes }) => this.memory.read(base, Number(bytes)));
    return { count: this.count, memory: Buffer.concat(pages) };
  }

  override async resume(): Promise<void> {
    if (this.failure !== undefined) throw new CheckpointError('CHKPT_VM_FAILED', 'must not run');
    await super.resume();
  }
}

function expectEqual(vm: RingVm, content: RingVm['content']): void {
  const actual = vm.content;
  expect(actual.count).toBe(content.count);
  expect(actual.memory.equals(content.memory)).toBe(true);
}

const rings: CheckpointRing[] = [];
async function openRing(...parameters: Parameters<typeof CheckpointRing.open>): Promise<CheckpointRing> {
  const ring = await CheckpointRing.open(...parameters);
  rings.push(ring);
  return ring;
}
afterEach(async () => {
  for (const ring of rings.splice(0)) await ring.close();
});

async function refusal(work: Promise<unknown>): Promise<CheckpointError> {
  const error = await work.catch((reason: unknown) => reason);
  expect(error).toBeInstanceOf(CheckpointError);
  return error as CheckpointError;
}

/** Puts a wrong byte into the memory frames of a checkpoint. */
function damage(url: string): void {
  const name = url.slice('mem:'.length);
  const bytes = defaultMemoryStoreSpace.bytes(name) as Uint8Array;
  const at = bytes.length >> 1;
  bytes[at] = (bytes[at] ?? 0) ^ 0x10;
  defaultMemoryStoreSpace.put(name, bytes);
}

const canProtect = ((): boolean => {
  try {
    void trackMemory(GuestMemory.allocate([{ base: 0, bytes: 4096 }]), { kind: 'write-protect' }).close();
    return true;
  } catch (error) {
    console.warn(`rings over write protection do not run: ${error}`);
    return false;
  }
})();
const kinds: (TrackerKind | false)[] = [
  'reported',
  'digest',
  ...(canProtect ? ['write-protect' as const] : []),
  false,
];

type Step =
  | { readonly kind: 'write'; readonly count: number }
  | { readonly kind: 'save' }
  | { readonly kind: 'back'; readonly steps: number };

const steps = fc.array(
  fc.oneof(
    fc.record({ kind: fc.constant('write' as const), count: fc.integer({ min: 0, max: 60 }) }),
    fc.record({ kind: fc.constant('save' as const) }),
    fc.record({ kind: fc.constant('back' as const), steps: fc.nat(4) }),
  ),
  { minLength: 4, maxLength: 20 },
);

describe.each(kinds)('a ring over a machine with tracker %s', (kind) => {
  it('is a list of states, whatever is written, saved and rolled back', { timeout: 60_000 }, async () => {
    await fc.assert(
      fc.asyncProperty(
        steps,
        fc.nat(),
        fc.integer({ min: 1, max: 4 }),
        async (script: Step[], seed, capacity) => {
          const vm = new RingVm(seed, kind, smallRegions);
          vm.scribble(200);
          const ring = await openRing(vm, { capacity, codec: seed % 2 === 0 ? 'raw' : 'lz4' });
          let model: RingVm['content'][] = [];
          for (const step of script) {
            if (step.kind === 'write') {
              vm.scribble(step.count);
              vm.count += step.count;
            } else if (step.kind === 'save') {
              const entry = await ring.save();
              expect(entry.report.parent === undefined).toBe(model.length === 0);
              model = [...model, vm.content].slice(-capacity);
            } else if (step.steps < model.length) {
              const { entry, changed, reason } = await ring.rollback(step.steps);
              expect(reason).toBeUndefined();
              expect(changed?.tracker.kind).toBe(
                kind === false ? (canProtect ? 'write-protect' : 'digest') : kind,
              );
              model = model.slice(0, model.length - step.steps);
              expectEqual(vm, model.at(-1) as RingVm['content']);
              expect(ring.entries.at(-1)).toBe(entry);
            } else {
              await expect(ring.rollback(step.steps)).rejects.toThrow(RangeError);
            }
            expect(ring.entries.length).toBe(model.length);
          }
          for (const [index, { url }] of ring.entries.entries()) {
            const other = new RingVm(0, false, smallRegions);
            await loadVm(other, url);
            expectEqual(other, model[index] as RingVm['content']);
            await other.memory.close();
          }
          await ring.close();
          await (vm.dirtyTracker as MemoryTracker | undefined)?.close();
          await vm.memory.close();
        },
      ),
      { numRuns: 6 },
    );
  });
});

it('keeps no more than twice its capacity, and its checkpoints are whole chains at any time', async () => {
  const vm = new RingVm(1, true, smallRegions);
  vm.scribble(200);
  const ring = await openRing(vm, { capacity: 3, name: 'ring-test-bounded' });
  const mine = (): string[] =>
    defaultMemoryStoreSpace.names().filter((name) => name.startsWith('ring-test-bounded/'));
  const contents: RingVm['content'][] = [];
  for (let i = 0; i < 14; i += 1) {
    vm.scribble(10);
    vm.count = i;
    const entry = await ring.save({ label: `save ${i}` });
    contents.push(vm.content);
    expect(mine().length).toBeLessThanOrEqual(6);
    expect(entry).toMatchObject({ sequence: i, label: `save ${i}`, url: `mem:ring-test-bounded/${i}` });
    const { parents } = await verifyChain(entry.url);
    expect(1 + parents.length).toBe(mine().length);
  }
  expect(ring.entries.map(({ sequence }) => sequence)).toEqual([11, 12, 13]);
  const [oldest] = ring.entries;
  await ring.rollback(oldest);
  expectEqual(vm, contents[11] as RingVm['content']);
  await expect(ring.rollback(1)).rejects.toThrow(RangeError);
  vm.scribble(5);
  const next = await ring.save();
  expect(next.report.tracker?.kind).toBe('reported');
  await ring.close();
  expect(mine()).toEqual([]);
  expect((await refusal(ring.save())).code).toBe('CHKPT_CLOSED');
});

it('looks at what was written and at nothing else, and writes only what differs', async () => {
  const vm = new RingVm(3, true);
  vm.scribble(3000);
  const ring = await openRing(vm, { capacity: 8 });
  await ring.save();
  const before = vm.content;
  for (const page of [5, 77, 3000]) vm.write(page, new Uint8Array(4096).fill(0xee));
  vm.write(600, vm.read(600));
  const { changed } = await ring.rollback();
  expect(changed).toMatchObject({ pages: 4, pagesWritten: 3 });
  expectEqual(vm, before);
  // Blocks of 16 pages that a newer member holds are looked at, too.
  vm.write(9, new Uint8Array(4096).fill(0xdd));
  await ring.save();
  vm.write(200, new Uint8Array(4096).fill(0xcc));
  const second = await ring.rollback(1);
  expect(second.changed).toMatchObject({ pages: 17, pagesWritten: 2 });
  expectEqual(vm, before);
});

it('goes to another branch, forward and back, when checkpoints have an ancestor in common', async () => {
  const vm = new RingVm(4, true, smallRegions);
  const states: RingVm['content'][] = [];
  const save = async (name: string, parent?: string): Promise<void> => {
    vm.scribble(30);
    await saveVm(vm, `mem:branch-${name}`, parent === undefined ? {} : { parent: `mem:branch-${parent}` });
    states.push(vm.content);
  };
  vm.scribble(200);
  await save('0');
  await save('1', '0');
  await save('2', '1');
  await loadVm(vm, 'mem:branch-0', { onlyChanged: true });
  await save('3', '0');
  for (const index of [2, 3, 1, 0, 3, 2]) {
    vm.scribble(10);
    const { changed, uuid } = await loadVm(vm, `mem:branch-${index}`, { onlyChanged: true });
    expect(changed).toMatchObject({ active: true, tracker: { kind: 'reported' } });
    expect(uuid).toBeDefined();
    expectEqual(vm, states[index] as RingVm['content']);
  }
});

describe.each(kinds)('a guest that does the same again after a rollback, with tracker %s', (kind) => {
  it('is rolled back again, and saved as it is', async () => {
    const vm = new RingVm(5, kind, smallRegions);
    vm.scribble(100);
    const ring = await openRing(vm, { capacity: 4 });
    const ready = await ring.save();
    const before = vm.content;
    const again = new Uint8Array(4096).fill(0x77).fill(0x11, 100);
    for (let round = 0; round < 2; round += 1) {
      vm.write(7, again);
      await ring.rollback(ready);
      expectEqual(vm, before);
    }
    vm.write(7, again);
    const after = vm.content;
    const entry = await ring.save();
    const copy = new RingVm(6, false, smallRegions);
    await loadVm(copy, entry.url);
    expectEqual(copy, after);
  });
});

describe('loadVm with onlyChanged', () => {
  it('compares everything where nobody knows what has changed, and says why', async () => {
    const source = new RingVm(5, true, smallRegions);
    source.scribble(250);
    await saveVm(source, 'mem:compare-0');
    const stranger = new RingVm(6, true, smallRegions);
    stranger.scribble(250);
    const first = await loadVm(stranger, 'mem:compare-0', { onlyChanged: true });
    expect(first.changed).toMatchObject({ active: true, tracker: { kind: 'compare' } });
    expectEqual(stranger, source.content);
    // From here on it is known.
    stranger.scribble(3);
    const second = await loadVm(stranger, 'mem:compare-0', { onlyChanged: true });
    expect(second.changed).toMatchObject({ active: true, tracker: { kind: 'reported' } });
    expectEqual(stranger, source.content);
    const untracked = new RingVm(7, false, smallRegions);
    untracked.scribble(250);
    const third = await loadVm(untracked, 'mem:compare-0', { onlyChanged: true });
    expect(third.changed).toMatchObject({ tracker: { reason: 'the machine has no dirty tracker' } });
    expectEqual(untracked, source.content);
    await saveVm(stranger, 'mem:compare-1');
    defaultMemoryStoreSpace.delete('compare-1');
    stranger.scribble(20);
    const fourth = await loadVm(stranger, 'mem:compare-0', { onlyChanged: true });
    expect(fourth.changed).toMatchObject({ tracker: { kind: 'compare' } });
    expectEqual(stranger, source.content);
  });

  it('loads everything where a store has no random access, and says so', async () => {
    const vm = new RingVm(8, true, smallRegions);
    vm.scribble(100);
    const store = defaultMemoryStoreSpace.store('no-extents');
    await saveVm(vm, store);
    const before = vm.content;
    vm.scribble(50);
    const { changed } = await loadVm(
      vm,
      {
        url: store.url,
        openWriter: (options) => store.openWriter(options),
        openReader: async (options) => {
          const reader = await store.openReader(options);
          return {
            byteLength: reader.byteLength,
            read: (target) => reader.read(target),
            readAt: (offset, target) => reader.readAt?.(offset, target) ?? Promise.resolve(0),
            close: () => reader.close(),
          };
        },
      },
      { onlyChanged: true },
    );
    expect(changed).toEqual({ active: false, reason: 'native threads cannot read from this store' });
    expectEqual(vm, before);
    await expect(loadVm(vm, store, { onlyChanged: true, lazy: true })).rejects.toThrow(TypeError);
  });
});

describe('a rollback that fails', () => {
  it('half way leaves a machine that refuses to run and to be saved, until one succeeds', async () => {
    const vm = new RingVm(9, true);
    vm.scribble(3000);
    const ring = await openRing(vm, { capacity: 4 });
    await ring.save();
    const sound = vm.content;
    vm.scribble(2000);
    const { url } = await ring.save();
    damage(url);
    for (let page = 0; page < vm.pageCount; page += 1) vm.write(page, new Uint8Array(4096).fill(page % 255));
    await vm.resume();
    const error = await refusal(ring.rollback());
    expect(error.code).toBe('CHKPT_DIGEST');
    expect(vm.failure).toBe(error);
    expect(vm.running).toBe(false);
    expect((await refusal(vm.resume())).code).toBe('CHKPT_VM_FAILED');
    expect((await refusal(ring.save())).code).toBe('CHKPT_VM_FAILED');
    expect(ring.entries.length).toBe(2);
    const { changed } = await ring.rollback(1);
    expect(changed?.tracker.kind).toBe('compare');
    expectEqual(vm, sound);
    expect(vm.running).toBe(false);
    await vm.resume();
  });

  it('before anything was touched lets the machine run on as it is', async () => {
    const vm = new RingVm(10, true, smallRegions);
    const ring = await openRing(vm, { capacity: 4 });
    const { url } = await ring.save();
    vm.scribble(50);
    const before = vm.content;
    await vm.resume();
    defaultMemoryStoreSpace.delete(url.slice('mem:'.length));
    expect((await refusal(ring.rollback())).code).toBe('CHKPT_NOT_FOUND');
    expect([vm.running, vm.failure]).toEqual([true, undefined]);
    expectEqual(vm, before);
  });

  it('is cancelled before anything was touched: the machine is what it was', async () => {
    const vm = new RingVm(11, true, smallRegions);
    const ring = await openRing(vm, { capacity: 4 });
    await ring.save();
    const error = await ring.rollback(0, { signal: AbortSignal.abort() }).catch((reason: unknown) => reason);
    expect(error).toBeInstanceOf(Error);
    expect(vm.failure).toBeUndefined();
    await ring.rollback();
  });
});

describe.skipIf(!hasNativeAddon())('a synthetic machine', () => {
  it('runs before and after, and knows nothing of the time that was taken back', async () => {
    await using vm = await SyntheticVm.create({ memoryBytes: 16 << 20, pagesPerSecond: 0, threads: 2 });
    const ring = await openRing(vm, { capacity: 4 });
    const run = async (pages: number): Promise<void> => {
      const end = vm.pagesWritten + pages;
      await vm.resume();
      while (vm.pagesWritten < end) await new Promise((resolve) => setTimeout(resolve, 1));
    };
    await run(3000);
    await vm.pause();
    const digest = await vm.digest();
    const { url } = await ring.save();
    const { ticks } = vm;
    await run(200_000);
    const late = vm.ticks;
    const { changed } = await ring.rollback();
    expect(vm.running).toBe(true);
    await vm.pause();
    expect(changed?.pagesWritten).toBeGreaterThan(1000);
    expect(vm.ticks).toBeGreaterThanOrEqual(ticks);
    expect(vm.ticks).toBeLessThan(late);
    const { damaged, highestCounter } = await vm.checkStamps();
    expect(damaged).toBe(0);
    expect(highestCounter).toBeLessThanOrEqual(Number(vm.ticks));
    await ring.rollback();
    expect(await vm.digest()).toBe(digest);
    await using other = await SyntheticVm.create({ memoryBytes: 16 << 20, threads: 2 });
    await loadVm(other, url);
    expect(await other.digest()).toBe(digest);
  });
});
