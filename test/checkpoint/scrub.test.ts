/** Memory that a checkpoint does not hold: zeros or nothing in its place, in chains too, and everybody is told. */
import { expect, test } from 'vitest';
import {
  CheckpointError,
  defineState,
  flattenCheckpoint,
  inspectCheckpoint,
  type LoadVmOptions,
  loadVm,
  MemoryStoreSpace,
  openCheckpoint,
  openStore,
  PageEncoder,
  type SaveVmOptions,
  type ScrubOptions,
  type Store,
  saveVm,
  string,
  u8,
  u32,
  u64,
  vector,
  verifyChain,
} from '../../src/index.ts';
import { makeFolder } from '../store/support/folders.ts';
import { readAll } from '../support/altered-store.ts';
import { randomNumbers, ScribbledVm } from './support/scribbled-vm.ts';

const pageBytes = 4096;
const secondBase = 4 * 1024 ** 3;
const firstPages = 3072;
const pageCount = 4096;
const zeros = new Uint8Array(pageBytes);

/** Pages by their number through both regions, as a range of addresses. */
function range(first: number, count: number): { base: number; bytes: number } {
  const base = first < firstPages ? first * pageBytes : secondBase + (first - firstPages) * pageBytes;
  return { base, bytes: count * pageBytes };
}

const noise = (seed: number): Uint8Array => {
  const random = randomNumbers(seed + 1);
  return Uint8Array.from({ length: pageBytes }, () => random(256));
};

/** What every page is, in one array. */
function contentOf(vm: ScribbledVm): Buffer {
  return Buffer.concat(Array.from({ length: pageCount }, (_, page) => vm.read(page)));
}

function pageOf(content: Buffer, page: number): Buffer {
  return content.subarray(page * pageBytes, (page + 1) * pageBytes);
}

async function loaded(source: string | Store, options: LoadVmOptions = {}): Promise<[ScribbledVm, Buffer]> {
  const vm = new ScribbledVm(9, false);
  vm.scribble(500);
  for (let page = 0; page < pageCount; page += 37) vm.write(page, noise(page));
  const before = contentOf(vm);
  await loadVm(vm, source, options);
  return [vm, before];
}

test('a scrubbed page is in no byte of the checkpoint, a load gives zeros, and the record says which', async () => {
  const vm = new ScribbledVm(1, false);
  vm.scribble(400);
  for (const page of [10, 11, 12, 3071, 3072, 4000]) vm.write(page, noise(page));
  vm.write(2000, noise(11));
  const store = new MemoryStoreSpace().store('scrubbed');
  const scrub = [range(3071, 1), range(10, 3), range(4000, 96)];
  await saveVm(vm, store, { codec: 'raw', scrub });
  const bytes = await readAll(store);
  for (const page of [10, 12, 3071, 4000]) expect(bytes.indexOf(noise(page).subarray(0, 64))).toBe(-1);
  // The same content elsewhere is no secret, and does not stand in for one that is.
  for (const page of [11, 3072]) expect(bytes.indexOf(noise(page).subarray(0, 64))).toBeGreaterThan(0);
  const [target] = await loaded(store);
  const expected = contentOf(vm);
  for (const [first, count] of [
    [10, 3],
    [3071, 1],
    [4000, 96],
  ] as const) {
    expected.fill(0, first * pageBytes, (first + count) * pageBytes);
  }
  expect(contentOf(target).equals(expected)).toBe(true);
  const { scrubbed } = await loadVm(new ScribbledVm(0, false), store);
  expect(scrubbed).toEqual([
    { base: 10n * 4096n, bytes: 3n * 4096n, how: 'zero' },
    { base: 3071n * 4096n, bytes: 4096n, how: 'zero' },
    { base: BigInt(range(4000, 1).base), bytes: 96n * 4096n, how: 'zero' },
  ]);
});

test('what was left out stays what the machine has, alone and in a chain', async () => {
  const folder = makeFolder();
  const vm = new ScribbledVm(2, true);
  vm.scribble(400);
  const leaveOut = [range(100, 50), range(3072, 1024)];
  await saveVm(vm, `file:${folder}/0`, { leaveOut });
  vm.scribble(300);
  await saveVm(vm, `file:${folder}/1`, { leaveOut, parent: `file:${folder}/0` });
  for (const name of ['0', '1']) {
    const [target, before] = await loaded(`file:${folder}/${name}`);
    const [found, saved] = [contentOf(target), contentOf(vm)];
    for (let page = 0; page < pageCount; page += 1) {
      const isOut = (page >= 100 && page < 150) || page >= 3072;
      if (isOut) expect(pageOf(found, page).equals(pageOf(before, page)), `page ${page}`).toBe(true);
      else if (name === '1')
        expect(pageOf(found, page).equals(pageOf(saved, page)), `page ${page}`).toBe(true);
    }
  }
});

const ways: Readonly<Record<string, readonly [tracked: boolean, SaveVmOptions]>> = {
  'with a tracker': [true, {}],
  'with a tracker, equal pages left out': [true, { skipEqual: true }],
  'with digests of the parent': [false, {}],
  'with a tracker, raw': [true, { codec: 'raw' }],
  'with a tracker, live': [true, { live: true }],
  'with a tracker, memory copied': [true, { copyMemory: true, skipEqual: true }],
};

test.each(Object.keys(ways))(
  'chains in which what is secret changes load what each member says, %s',
  async (way) => {
    const [tracked, options] = ways[way] ?? [false, {}];
    for (let seed = 1; seed <= 2; seed += 1) {
      const random = randomNumbers(seed * 7919);
      const url = (n: number): string => `mem:scrub/${way}/${seed}/${n}`;
      const vm = new ScribbledVm(seed, tracked);
      vm.scribble(600);
      for (let n = 0; n < 4; n += 1) {
        const kinds = Array.from({ length: 64 }, () => random(5));
        const ranges = (wanted: number): { base: number; bytes: number }[] =>
          kinds.flatMap((kind, at) => (kind === wanted ? [range(at * 64 + random(20), 1 + random(40))] : []));
        const scrub: ScrubOptions = random(4) === 0 ? {} : { scrub: ranges(0), leaveOut: ranges(1) };
        const parent = n === 0 ? undefined : url(n - 1);
        await vm.resume();
        await saveVm(vm, url(n), { ...options, ...scrub, parent });
        const [target, before] = await loaded(url(n));
        const [found, saved] = [contentOf(target), contentOf(vm)];
        const expected = Buffer.from(saved);
        const fill = (list: ScrubOptions['scrub'], from: Buffer | undefined): void => {
          for (const { base, bytes } of list ?? []) {
            const at =
              Number(base) < secondBase ? Number(base) : Number(base) - secondBase + firstPages * pageBytes;
            if (from === undefined) expected.fill(0, at, at + Number(bytes));
            else from.copy(expected, at, at, at + Number(bytes));
          }
        };
        fill(scrub.scrub, undefined);
        fill(scrub.leaveOut, before);
        const wrong = Array.from({ length: pageCount }, (_, page) => page).filter(
          (page) => !pageOf(found, page).equals(pageOf(expected, page)),
        );
        expect(wrong, `seed ${seed}, member ${n}`).toEqual([]);
        vm.scribble(40);
      }
      await verifyChain(url(3));
    }
  },
);

test('a page that only the child scrubs is a zero of its own, not a page of the parent', async () => {
  const vm = new ScribbledVm(3, true);
  vm.write(5, noise(5));
  await saveVm(vm, 'mem:scrub/parent');
  await saveVm(vm, 'mem:scrub/child', { parent: 'mem:scrub/parent', scrub: [range(5, 1), range(7, 1)] });
  await using child = await inspectCheckpoint('mem:scrub/child');
  expect(child.counts).toMatchObject({ parentPages: pageCount - 2, zeroPages: 2, storedPages: 0 });
  const [target] = await loaded('mem:scrub/child');
  expect(Buffer.from(target.read(5)).equals(zeros)).toBe(true);
});

test('after a save that failed nothing counts as scrubbed', async () => {
  const vm = new ScribbledVm(4, true);
  vm.write(5, noise(5));
  vm.write(6, noise(6));
  await saveVm(vm, 'mem:scrub/before', { skipEqual: true });
  const failing: Store = {
    url: 'mem:scrub/failing',
    openReader: () => openStore('mem:none').openReader(),
    openWriter: async () => ({
      write: async () => undefined,
      commit: async () => {
        throw new CheckpointError('CHKPT_NO_SPACE', 'full');
      },
      abort: async () => undefined,
    }),
  };
  const parent = 'mem:scrub/before';
  const save = saveVm(vm, failing, { skipEqual: true, parent, scrub: [range(5, 2)] });
  await expect(save).rejects.toMatchObject({ code: 'CHKPT_NO_SPACE' });
  vm.write(5, zeros);
  await saveVm(vm, 'mem:scrub/after', { skipEqual: true, parent });
  const [target] = await loaded('mem:scrub/after');
  expect(Buffer.from(target.read(5)).equals(zeros)).toBe(true);
  expect(Buffer.from(target.read(6)).equals(noise(6))).toBe(true);
});

test('flatten keeps the record; lazy and onlyChanged say why they load everything', async () => {
  const vm = new ScribbledVm(5, true);
  vm.scribble(300);
  await saveVm(vm, 'mem:scrub/a');
  vm.scribble(30);
  await saveVm(vm, 'mem:scrub/b', { parent: 'mem:scrub/a', scrub: [range(0, 8)], leaveOut: [range(8, 8)] });
  await flattenCheckpoint('mem:scrub/b', 'mem:scrub/flat');
  for (const url of ['mem:scrub/b', 'mem:scrub/flat']) {
    const target = new ScribbledVm(0, true);
    target.write(8, noise(1));
    const { lazy, scrubbed } = await loadVm(target, url, { lazy: true });
    expect(lazy).toMatchObject({ active: false, reason: expect.stringContaining('left out') });
    expect(scrubbed.map(({ how }) => how)).toEqual(['zero', 'left-out']);
    expect(Buffer.from(target.read(8)).equals(noise(1))).toBe(true);
  }
  vm.write(0, noise(0));
  await saveVm(vm, 'mem:scrub/c', { parent: 'mem:scrub/a', scrub: [range(0, 8)] });
  const { changed } = await loadVm(vm, 'mem:scrub/c', { onlyChanged: true });
  expect(changed).toMatchObject({ active: false, reason: expect.stringContaining('scrubbed') });
  expect(Buffer.from(vm.read(0)).equals(zeros)).toBe(true);
});

test('ranges that are none are refused before anything is touched', async () => {
  const vm = new ScribbledVm(6, false);
  const wrong: readonly ScrubOptions[] = [
    { scrub: [{ base: 1, bytes: 4096 }] },
    { scrub: [{ base: 0, bytes: 100 }] },
    { scrub: [{ base: 0, bytes: 0 }] },
    { scrub: [{ base: -4096, bytes: 4096 }] },
    { scrub: [range(3071, 2)] },
    { scrub: [range(4095, 2)] },
    { scrub: [range(5, 2), range(6, 1)] },
    { scrub: [range(5, 2)], leaveOut: [range(6, 1)] },
  ];
  for (const options of wrong)
    await expect(saveVm(vm, 'mem:scrub/none', options)).rejects.toThrow(RangeError);
  const skip = ['memory'] as const;
  await expect(saveVm(vm, 'mem:scrub/none', { skip, scrub: [range(1, 1)] })).rejects.toThrow(TypeError);
  await expect(openStore('mem:scrub/none').openReader()).rejects.toMatchObject({ code: 'CHKPT_NOT_FOUND' });
});

test('a record that no save makes is damage', async () => {
  const vm = new ScribbledVm(7, false);
  const header = defineState({
    producer: string,
    vm: { id: string },
    options: { skip: u32 },
    page: { bytes: u32 },
    region: { base: vector(u64), bytes: vector(u64) },
    core: { count: u32 },
    cpu: { vendor: string, model: string },
    scrub: { base: vector(u64), bytes: vector(u64), how: vector(u8) },
  });
  const records = [
    [[0n], [4096n], [2]],
    [[0n], [4096n, 4096n], [0]],
    [[0n], [4096n], []],
    [[1n], [4096n], [0]],
    [
      [4096n, 0n],
      [4096n, 4096n],
      [0, 0],
    ],
    [[1n << 40n], [4096n], [1]],
  ] as const;
  for (const [base, bytes, how] of records) {
    const checkpoint = await openCheckpoint('mem:scrub/forged', { mode: 'save' });
    await using context = await checkpoint.openContext('header');
    const { regions } = vm.memory;
    await context.save(header, {
      producer: 'test',
      vm: { id: vm.id },
      options: { skip: 2 },
      page: { bytes: 4096 },
      region: {
        base: BigUint64Array.from(regions, (region) => region.base),
        bytes: BigUint64Array.from(regions, (region) => region.bytes),
      },
      core: { count: 0 },
      cpu: vm.cpu,
      scrub: {
        base: BigUint64Array.from(base),
        bytes: BigUint64Array.from(bytes),
        how: Uint8Array.from(how),
      },
    });
    await context.close();
    await checkpoint.saveMemory('memory', new PageEncoder(vm.memory));
    await checkpoint.commit();
    const load = loadVm(vm, 'mem:scrub/forged', { skip: ['devices'] });
    await expect(load).rejects.toMatchObject({ code: 'CHKPT_FORMAT', kind: 'damaged' });
    expect(vm.failure).toBeUndefined();
  }
});
