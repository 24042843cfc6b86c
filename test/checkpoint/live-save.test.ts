/** `live`: the checkpoint is memory at the pause, while the guest writes before, during and after; and a parent as any other. */
import { describe, expect, test, vi } from 'vitest';
import { SyntheticVm } from '../../src/adapters/synthetic/index.ts';
import {
  defineState,
  GuestMemory,
  loadVm,
  MemoryStoreSpace,
  type SaveVmOptions,
  type Store,
  saveVm,
  string,
  type TrackerKind,
  trackMemory,
  type VirtualMachine,
} from '../../src/index.ts';
import { MemorySnapshot } from '../../src/memory/index.ts';
import { readAll } from '../support/altered-store.ts';

const mebibyte = 1024 ** 2;
const space = new MemoryStoreSpace();
let names = 0;
const store = (): Store => space.store(`live${++names}`);

/** Why this machine has no live saves; undefined when it has. */
async function lack(): Promise<string | undefined> {
  const memory = GuestMemory.allocate([{ base: 0, bytes: mebibyte }]);
  try {
    await MemorySnapshot.open(memory).close();
    return undefined;
  } catch (error) {
    return (error as Error).message;
  } finally {
    await memory.close();
  }
}
const missing = await lack();
if (missing !== undefined) console.log(`live saves are not tested here: ${missing}`);
const testLive = missing === undefined ? test : test.skip;

const noise = Uint8Array.from({ length: 4096 }, (_, i) => 1 + (((i * i * 2654435761) >>> 8) % 255));
const page = (seed: number): Uint8Array => {
  const bytes = noise.slice();
  new DataView(bytes.buffer).setUint32(0, seed);
  return bytes;
};

/** Its guest is this very thread, as with v86: it writes when the machine is told to run. */
class Restless implements VirtualMachine {
  readonly id = 'restless';
  readonly cpu = { vendor: 'test', model: 'test' };
  readonly cores = [];
  readonly devices = [];
  readonly memory: GuestMemory;
  running = false;
  dirtyTracker: VirtualMachine['dirtyTracker'];

  constructor(memory = GuestMemory.allocate([{ base: 0, bytes: 8 * mebibyte }])) {
    this.memory = memory;
  }

  scribble(seed: number, every: number): void {
    for (let at = 0; at < 8 * mebibyte; at += every * 4096)
      this.memory.write(at, seed === 0 ? new Uint8Array(4096) : page(seed + at));
  }

  async pause(): Promise<void> {
    this.scribble(7, 3);
    this.running = false;
  }

  async resume(): Promise<void> {
    this.running = true;
    this.scribble(9, 2);
  }

  beginLoad(): void {}
  endLoad(): void {}
}

const fixed = { uuid: '11111111-2222-4333-8444-555555555555', createdMs: 1 } as const;

/** The bytes of an ordinary save of a machine that stands still, with what `Restless` holds at its pause. */
async function reference(): Promise<Buffer> {
  const vm = new Restless();
  vm.scribble(1, 5);
  await vm.pause();
  const plain = store();
  await saveVm(vm, plain, fixed);
  await vm.memory.close();
  return Buffer.from(await readAll(plain));
}

testLive('gives the bytes of a save of the guest as it stood still, though its thread is ours', async () => {
  const vm = new Restless();
  vm.scribble(1, 5);
  vm.running = true;
  const target = store();
  const { live, pausedMs } = await saveVm(vm, target, { ...fixed, live: true });
  expect(live).toMatchObject({ active: true });
  expect(live?.active && live.savedPages).toBeGreaterThan(300);
  expect(pausedMs).toBeGreaterThan(0);
  expect(vm.running).toBe(true);
  expect(Buffer.compare(Buffer.from(await readAll(target)), await reference())).toBe(0);
  await vm.memory.close();
});

describe('what cannot be frozen is copied or waits, and the report says why', () => {
  test('a machine that does not run', async () => {
    const vm = new Restless();
    const { live } = await saveVm(vm, store(), { live: true });
    expect(live).toEqual({ active: false, reason: 'the machine does not run' });
    await vm.memory.close();
  });

  test('memory that is not saved', async () => {
    const vm = new Restless();
    const { live } = await saveVm(vm, store(), { live: true, skip: ['memory'] });
    expect(live).toEqual({ active: false, reason: 'no memory is saved' });
    await vm.memory.close();
  });

  test('shared memory that somebody attached', async () => {
    const memory = GuestMemory.attach([{ memory: new SharedArrayBuffer(8 * mebibyte) }]);
    const other = missing === undefined ? MemorySnapshot.open(memory) : undefined;
    const vm = new Restless(memory);
    vm.scribble(1, 5);
    vm.running = true;
    const target = store();
    const { live } = await saveVm(vm, target, { ...fixed, live: true });
    expect(live).toMatchObject({ active: false, reason: expect.stringContaining('copied instead') });
    expect(Buffer.compare(Buffer.from(await readAll(target)), await reference())).toBe(0);
    await other?.close();
    await memory.close();
  });
});

test('options that are none are refused before anything is done', async () => {
  const vm = new Restless();
  for (const maxSideBytes of [0, -1, 1.5, Number.NaN]) {
    await expect(saveVm(vm, store(), { live: { maxSideBytes } })).rejects.toThrow(RangeError);
  }
  await expect(saveVm(vm, store(), { live: 1 as never })).rejects.toThrow(TypeError);
  await vm.memory.close();
});

const oracleState = defineState({ digest: string });

/** A synthetic machine that carries a digest of its memory, taken while it stands still. */
function withOracle(vm: SyntheticVm): VirtualMachine & { readonly seen: string[] } {
  const seen: string[] = [];
  const get = async () => {
    const digest = String(await vm.memory.digest());
    seen.push(digest);
    return { digest };
  };
  const part = { state: oracleState, get, set: () => {} };
  return {
    seen,
    id: vm.id,
    cpu: vm.cpu,
    memory: vm.memory,
    cores: vm.cores,
    devices: [
      ...vm.devices,
      { id: 'oracle', deviceClass: 'oracle', contexts: [{ name: 'oracle', parts: [part as never] }] },
    ],
    get running() {
      return vm.running;
    },
    pause: () => vm.pause(),
    resume: () => vm.resume(),
    beginLoad: () => vm.beginLoad(),
    endLoad: (failure) => vm.endLoad(failure),
  };
}

async function memoryOf(source: Store, parents: Store[]): Promise<string> {
  const vm = await SyntheticVm.create({ memoryBytes: 16 * mebibyte, pagesPerSecond: 0 });
  try {
    await loadVm(withOracle(vm), source, { parents });
    return String(await vm.memory.digest());
  } finally {
    await vm.close();
  }
}

const trackers: (TrackerKind | undefined)[] = [undefined, 'write-protect', 'digest', 'reported'];
describe.each(trackers)('with the tracker %s', (kind) => {
  testLive('live saves are what memory was, and parents of live and of ordinary increments', async () => {
    const vm = await SyntheticVm.create({
      memoryBytes: 16 * mebibyte,
      guestLike: true,
      threads: 2,
      pagesPerSecond: 20_000,
    });
    const tracker = kind === undefined ? undefined : trackMemory(vm.memory, { kind });
    // What the writers do is not reported to it: nothing may be left out.
    if (kind === 'reported') tracker?.mark(0, vm.memory.pageCount);
    const machine = Object.defineProperty(withOracle(vm), 'dirtyTracker', { value: tracker });
    await vm.resume();
    const chain: Store[] = [];
    const plan: SaveVmOptions[] = [{ live: true }, { live: true }, {}, { live: true }];
    for (const options of plan) {
      if (kind === 'reported') tracker?.mark(0, vm.memory.pageCount);
      const target = store();
      const report = await saveVm(machine, target, { ...options, parent: chain.at(-1), parents: chain });
      if (options.live) expect(report.live).toMatchObject({ active: true });
      chain.push(target);
      if (kind === 'write-protect' && chain.length > 1) {
        expect(report.tracker?.kind).toBe('write-protect');
        expect(report.totals?.parentPages).toBeGreaterThan(0);
      }
      await new Promise((resolve) => setTimeout(resolve, 30));
    }
    await vm.pause();
    for (const [index, target] of chain.entries()) {
      expect(await memoryOf(target, chain), `checkpoint ${index}`).toBe(machine.seen[index]);
    }
    expect(new Set(machine.seen).size).toBe(plan.length);
    await tracker?.close();
    await vm.close();
  });
});

testLive(
  'past the limit nothing is published, the guest runs on, and the tracker has lost nothing',
  async () => {
    const vm = new Restless();
    const tracker = trackMemory(vm.memory, { kind: 'write-protect' });
    vm.dirtyTracker = tracker;
    vm.scribble(1, 1);
    const parent = store();
    await saveVm(vm, parent, {});
    vm.scribble(5, 1);
    vm.running = true;
    const target = store();
    await expect(saveVm(vm, target, { parent, live: { maxSideBytes: 2 * mebibyte } })).rejects.toMatchObject({
      code: 'CHKPT_SNAPSHOT_LOST',
    });
    expect(vm.running).toBe(true);
    await expect(readAll(target)).rejects.toMatchObject({ code: 'CHKPT_NOT_FOUND' });
    await vm.pause();
    const expected = await vm.memory.digest();
    await saveVm(vm, target, { parent });
    const copy = new Restless();
    await loadVm(copy, target, { parents: [parent] });
    expect(await copy.memory.digest()).toBe(expected);
    await tracker.close();
    await Promise.all([vm.memory.close(), copy.memory.close()]);
  },
);

testLive('an abort leaves nothing and the guest alone', async () => {
  for (const phase of ['state', 'memory'] as const) {
    const vm = new Restless();
    vm.scribble(1, 1);
    vm.running = true;
    const target = store();
    const abort = new AbortController();
    const saving = saveVm(vm, target, {
      live: true,
      signal: abort.signal,
      onProgress: (progress) => {
        if (progress.phase === phase) abort.abort();
      },
    });
    await expect(saving).rejects.toMatchObject({ code: 'CHKPT_ABORTED' });
    expect(vm.running).toBe(true);
    vm.scribble(3, 1);
    expect(Buffer.compare(vm.memory.read(0, 4096), page(3))).toBe(0);
    await vm.memory.close();
  }
});

testLive('a load waits until a live save has what the memory held', async () => {
  const vm = new Restless();
  vm.scribble(1, 5);
  const other = store();
  await saveVm(vm, other, {});
  vm.running = true;
  const target = store();
  let loading: Promise<unknown> | undefined;
  await saveVm(vm, target, {
    ...fixed,
    live: true,
    onProgress: ({ phase }) => {
      if (phase !== 'memory' || loading !== undefined) return;
      vm.running = false;
      loading = loadVm(vm, other);
    },
  });
  await vi.waitFor(() => expect(loading).toBeDefined());
  await loading;
  expect(Buffer.compare(Buffer.from(await readAll(target)), await reference())).toBe(0);
  await vm.memory.close();
});
