/**
 * A small increment with every bit flipped, and cut; and parents damaged under an increment: each time a typed error of kind `damaged`,
 * and never a machine that runs with memory of which a part was not verified.
 */
import { afterAll, beforeAll, expect, it } from 'vitest';
import { CheckpointError } from '../../src/errors/index.ts';
import { loadVm, openCheckpoint, verifyCheckpoint } from '../../src/index.ts';
import { GuestMemory, PageEncoder, PageSet } from '../../src/memory/index.ts';
import { defaultMemoryStoreSpace } from '../../src/store/index.ts';
import { ChainVm, chainUuid, saveChain } from '../support/sample-chain.ts';

const laneCount = 6;
/** A prime, so that flips fall into every field of frames and of their 8-byte words. */
const parentStride = 397;

const prefix = 'damaged-chain-';
const nameOf = (member: number): string => `${prefix}${member}`;
let images: Buffer[];
let vm: ChainVm;

beforeAll(async () => {
  images = (await saveChain(`mem:${prefix}`, 2)).map(({ image }) => image);
  vm = new ChainVm();
});
afterAll(async () => {
  await vm.memory.close();
  for (const name of defaultMemoryStoreSpace.names()) defaultMemoryStoreSpace.delete(name);
});

function bytesOf(member: number): Uint8Array {
  const bytes = defaultMemoryStoreSpace.bytes(nameOf(member));
  if (bytes === undefined) throw new Error(`no member ${member}`);
  return bytes.slice();
}

/** The error that reading gives. A success is the failure of the test. */
async function damageOf(read: () => PromiseLike<unknown>, what: string): Promise<CheckpointError> {
  try {
    await read();
  } catch (error) {
    if (error instanceof CheckpointError && error.kind === 'damaged') return error;
    throw new Error(`${what}: not an error of damage`, { cause: error });
  }
  throw new Error(`${what}: went unnoticed`);
}

/**
 * Less than 1 KB: pages of every class, a run of the parent's pages, a block of zeros. So small that each of its bits gets its turn.
 */
async function smallIncrement(): Promise<Uint8Array> {
  const memory = GuestMemory.allocate([
    { base: 0, bytes: 40 * 4096 },
    { base: 2 ** 32, bytes: 4 * 4096 },
  ]);
  const compressible = new Uint8Array(4096).map((_, index) => (index >> 9) + 1);
  memory.write(0, compressible);
  memory.write(4096, compressible);
  memory.write(3 * 4096, new Uint8Array(4096).fill(7));
  const changed = new PageSet(44);
  changed.markRun(0, 4);
  changed.markRun(40, 4);
  const checkpoint = await openCheckpoint('mem:damaged-small', {
    mode: 'save',
    uuid: chainUuid(9),
    createdMs: 1_700_000_000_000,
    parent: { uuid: chainUuid(8), root: '5a'.repeat(32) },
    epoch: 3n,
    index: false,
  });
  await checkpoint.saveMemory('memory', new PageEncoder(memory, { threads: 1, changed }));
  await checkpoint.commit();
  await memory.close();
  return defaultMemoryStoreSpace.bytes('damaged-small')?.slice() ?? new Uint8Array();
}

/** Verifies changed copies of a checkpoint, one for each of `count`. */
async function verifyChanged(
  whole: Uint8Array,
  count: number,
  change: (bytes: Uint8Array, index: number) => Uint8Array,
): Promise<void> {
  let next = 0;
  const lane = async (number: number): Promise<void> => {
    const name = `damaged-lane-${number}`;
    for (let index = next++; index < count; index = next++) {
      defaultMemoryStoreSpace.put(name, change(whole.slice(), index));
      await damageOf(() => verifyCheckpoint(`mem:${name}`, { threads: 1 }), `change ${index}`);
    }
  };
  await Promise.all(Array.from({ length: laneCount }, (_, number) => lane(number)));
}

it('every flipped bit of an increment of less than 1 KB is noticed, and every cut', {
  timeout: 120_000,
}, async () => {
  const whole = await smallIncrement();
  const { counts } = await verifyCheckpoint('mem:damaged-small');
  expect(Object.entries(counts).filter(([, count]) => count === 0)).toEqual([['tags', 0]]);
  expect(whole.length).toBeLessThan(1024);
  await verifyChanged(whole, 8 * whole.length, (bytes, index) => {
    const at = index >> 3;
    bytes[at] = (bytes[at] ?? 0) ^ (1 << (index & 7));
    return bytes;
  });
  // Every frame and every word of it, behind its first byte.
  await verifyChanged(whole, Math.floor(whole.length / 8), (bytes, index) =>
    bytes.subarray(0, 8 * index + 1),
  );
});

it.each([
  ['parent', 1],
  ['parent of the parent', 0],
])(
  'flips in the %s are noticed by a load of the child, name its store, and leave a machine that refuses to run',
  async (_, member) => {
    const whole = bytesOf(member);
    const store = `mem:${nameOf(member)}`;
    let touched = 0;
    for (let at = 0; at < whole.length; at += parentStride) {
      const bytes = whole.slice();
      const what = `bit ${at % 8} of byte ${at} of ${store}`;
      bytes[at] = (bytes[at] ?? 0) ^ (1 << (at % 8));
      defaultMemoryStoreSpace.put(nameOf(member), bytes);
      vm.failure = undefined;
      const error = await damageOf(() => loadVm(vm, `mem:${nameOf(2)}`), what);
      expect(error.details.store, `${what}: ${error.message}`).toBe(store);
      // What is found while the chain is looked at is found before anything is touched.
      if (vm.failure === undefined) continue;
      touched += 1;
      expect(vm.failure, what).toBe(error);
      await expect(vm.resume()).rejects.toBe(error);
    }
    defaultMemoryStoreSpace.put(nameOf(member), whole);
    expect(touched).toBeGreaterThan(whole.length / parentStride / 10);
    await loadVm(vm, `mem:${nameOf(2)}`);
    expect(vm.failure).toBeUndefined();
    expect(vm.image().equals(images[2] ?? Buffer.alloc(0))).toBe(true);
  },
);
