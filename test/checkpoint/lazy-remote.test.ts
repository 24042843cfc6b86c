/** Lazy loads from a store that only JavaScript can read: the same promises, and nobody waits for a thread that waits for him. */
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, expect, test, vi } from 'vitest';
import { SyntheticVm, type SyntheticVmOptions } from '../../src/adapters/synthetic/index.ts';
import {
  CheckpointError,
  type LazyLoad,
  type LazyOptions,
  type LoadReport,
  loadVm,
  MemoryStoreSpace,
  openSharedImage,
  saveVm,
} from '../../src/index.ts';
import { buildModules } from '../cli/support/dist.ts';
import { readAll } from '../support/altered-store.ts';
import { RemoteStore } from '../support/remote-store.ts';
import { ScribbledVm } from './support/scribbled-vm.ts';

const mebibyte = 1024 ** 2;
const regions = [
  { base: 0, bytes: 640 * 1024 },
  { base: mebibyte, bytes: 16 * mebibyte + 20 * 1024 },
];
const machine: SyntheticVmOptions = {
  regions,
  guestLike: true,
  seed: 5,
  pagesPerSecond: 0,
  pattern: 'random',
};
const slow: LazyOptions = { fillDelayMs: 600_000 };

let bytes: Buffer;
let digest = '';
let refusal: string | undefined;
const stores: RemoteStore[] = [];

beforeAll(async () => {
  await using vm = await SyntheticVm.create(machine);
  const local = new MemoryStoreSpace().store('lazy-remote');
  await saveVm(vm, local);
  bytes = await readAll(local);
  digest = await vm.digest();
  await using probe = await SyntheticVm.create(machine);
  const { lazy } = await loadVm(probe, local, { lazy: true });
  refusal = lazy.active ? undefined : lazy.reason;
  if (refusal !== undefined) console.log(`lazy loads are skipped here: ${refusal}`);
});

afterAll(async () => {
  // Whatever became of a load, its reader was closed.
  for (const store of stores) await vi.waitFor(() => expect(store.openReaders).toBe(0));
});

function remote(content = bytes, delayMs = 2): RemoteStore {
  const store = new RemoteStore('lazy', Buffer.from(content), delayMs);
  stores.push(store);
  return store;
}

function loadOf({ lazy }: LoadReport): LazyLoad {
  if (!lazy.active) throw new Error(`not lazy: ${lazy.reason}`);
  return lazy.load;
}

const codeOf = async (work: Promise<unknown>): Promise<string> => {
  const error: unknown = await work.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  return error instanceof CheckpointError ? error.code : String(error);
};

test('memory is what an eager load gives, touched before or not, and the root digest is proved', async ({
  skip,
}) => {
  if (refusal !== undefined) skip(refusal);
  const store = remote();
  await using vm = await SyntheticVm.create({ ...machine, seed: 77 });
  const report = await loadVm(vm, store, { lazy: { fillDelayMs: 1500 } });
  const load = loadOf(report);
  expect(await vm.digest()).toBe(digest);
  const resident = await load.resident;
  expect(resident).toMatchObject({ root: report.root, missing: 0 });
  expect(resident.faultBlocks).toBeGreaterThan(0);
  expect(await vm.digest()).toBe(digest);
});

test('the fill asks for many blocks at once, has several requests under way, and no more than its threads', async ({
  skip,
}) => {
  if (refusal !== undefined) skip(refusal);
  const store = remote(bytes, 20);
  await using vm = await SyntheticVm.create(machine);
  const load = loadOf(await loadVm(vm, store, { lazy: true }));
  const { blocks } = await load.resident;
  expect(await vm.digest()).toBe(digest);
  expect(store.readsUnderWayMax).toBeGreaterThan(1);
  expect(store.readsUnderWayMax).toBeLessThanOrEqual(12);
  expect(store.readBytesMax).toBeLessThanOrEqual(4 * mebibyte);
  // Neither a read for each block, nor a second look at each header.
  expect(store.readCount).toBeLessThan(blocks);
});

test('a guest that writes during the load keeps what it wrote', async ({ skip }) => {
  if (refusal !== undefined) skip(refusal);
  await using vm = await SyntheticVm.create({ ...machine, threads: 2 });
  const load = loadOf(await loadVm(vm, remote(), { lazy: true }));
  await vm.resume();
  await load.resident;
  await vm.pause();
  const { stamped, damaged } = await vm.checkStamps();
  expect(damaged).toBe(0);
  expect(stamped).toBeGreaterThan(0);
});

test('a save while pages are missing is the checkpoint that was loaded', async ({ skip }) => {
  if (refusal !== undefined) skip(refusal);
  const again = new MemoryStoreSpace().store('again');
  await using vm = await SyntheticVm.create(machine);
  await loadVm(vm, remote(), { lazy: slow });
  await saveVm(vm, again);
  await using other = await SyntheticVm.create(machine);
  await loadVm(other, again);
  expect(await other.digest()).toBe(digest);
});

test('a chain is loaded lazily, each member from its own store', async ({ skip }) => {
  if (refusal !== undefined) skip(refusal);
  const space = new MemoryStoreSpace();
  const source = new ScribbledVm(1, true);
  source.scribble(2500);
  await saveVm(source, space.store('parent'));
  source.scribble(100);
  await saveVm(source, space.store('child'), { parent: space.store('parent') });
  const parent = remote(await readAll(space.store('parent')));
  const child = remote(await readAll(space.store('child')));
  const vm = new ScribbledVm(0, false);
  const load = loadOf(await loadVm(vm, child, { lazy: true, parents: [parent] }));
  expect(await vm.memory.digest()).toBe(await source.memory.digest());
  await load.resident;
  await vm.memory.close();
});

test('a page that JavaScript would have to fetch itself is refused, and read when it was brought', async ({
  skip,
}) => {
  if (refusal !== undefined) skip(refusal);
  await using vm = await SyntheticVm.create(machine);
  const load = loadOf(await loadVm(vm, remote(), { lazy: slow }));
  const place = 3 * mebibyte;
  const refused = expect.objectContaining({ code: 'CHKPT_UNSUPPORTED' });
  expect(() => vm.memory.read(place, 4096)).toThrow(refused);
  expect(() => vm.memory.write(place, Uint8Array.of(1))).toThrow(refused);
  // Nothing has failed by that.
  await vm.memory.bring(place, 300_000);
  const content = vm.memory.read(place, 300_000);
  expect(load.counts().faultBlocks).toBeGreaterThan(3);
  expect(await vm.digest()).toBe(digest);
  expect(vm.memory.read(place, 300_000)).toEqual(content);
});

test('what was brought may be read at once, block after block', async ({ skip }) => {
  if (refusal !== undefined) skip(refusal);
  await using vm = await SyntheticVm.create(machine);
  await loadVm(vm, remote(), { lazy: slow });
  // The thread that touches a page goes on before the block of the page counts as here.
  for (let place = mebibyte; place < 17 * mebibyte; place += 65_536) {
    await vm.memory.bring(place, 65_536);
    vm.memory.read(place + 61_440, 4096);
  }
  expect(await vm.digest()).toBe(digest);
});

test('when this thread touches a missing page all the same it goes on, and the load has failed', async ({
  skip,
}) => {
  if (refusal !== undefined) skip(refusal);
  await using vm = await SyntheticVm.create(machine);
  const load = loadOf(await loadVm(vm, remote(), { lazy: slow }));
  // As a system call of an adapter would, which asks nobody.
  const bytesRead = new Uint8Array(4096);
  vm.memory.native.read(BigInt(3 * mebibyte), bytesRead);
  expect(new Set(bytesRead)).toEqual(new Set([0xbd]));
  expect(() => vm.memory.read(3 * mebibyte, 16)).toThrow(CheckpointError);
  expect(await codeOf(load.resident)).toBe('CHKPT_UNSUPPORTED');
  expect(await codeOf(vm.resume())).toBe('CHKPT_VM_FAILED');
});

test('a store that vanishes midway stops the guest with the error of the store, and is no content', async ({
  skip,
}) => {
  if (refusal !== undefined) skip(refusal);
  const store = remote();
  await using vm = await SyntheticVm.create({ ...machine, threads: 2 });
  const load = loadOf(await loadVm(vm, store, { lazy: { fillBytesPerSecond: 4 * mebibyte } }));
  await expect.poll(() => load.counts().missing).toBeLessThan(load.counts().blocks);
  store.failure = new CheckpointError('CHKPT_NOT_FOUND', 'the bucket was removed');
  await vm.resume();
  expect(await codeOf(load.resident)).toBe('CHKPT_NOT_FOUND');
  expect(vm.running).toBe(false);
  expect(await codeOf(vm.resume())).toBe('CHKPT_VM_FAILED');
  expect(await codeOf(saveVm(vm, new MemoryStoreSpace().store('never')))).toBe('CHKPT_VM_FAILED');
  expect(() => vm.memory.read(mebibyte, 65536)).toThrow(CheckpointError);
  // A sound store makes it a machine again.
  await loadOf(await loadVm(vm, remote(), { lazy: true })).resident;
  expect(await vm.digest()).toBe(digest);
});

test('what a store throws that is no CheckpointError, and what it returns that cannot be, is CHKPT_STORE_FAILED', async ({
  skip,
}) => {
  if (refusal !== undefined) skip(refusal);
  const throwing = remote();
  await using vm = await SyntheticVm.create(machine);
  const load = loadOf(await loadVm(vm, throwing, { lazy: slow }));
  throwing.failure = new Error('connection reset');
  const bringing = codeOf(vm.memory.bring(3 * mebibyte, 4096));
  expect(await codeOf(load.resident)).toBe('CHKPT_STORE_FAILED');
  expect(await bringing).toBe('CHKPT_STORE_FAILED');
});

test('a store that became shorter, or is damaged, is told as a file is', async ({ skip }) => {
  if (refusal !== undefined) skip(refusal);
  const cut = remote();
  await using vm = await SyntheticVm.create(machine);
  const load = loadOf(await loadVm(vm, cut, { lazy: slow }));
  cut.bytes = cut.bytes.subarray(0, 4096);
  await codeOf(vm.memory.bring(3 * mebibyte, 4096));
  expect(await codeOf(load.resident)).toBe('CHKPT_TRUNCATED');

  const flipped = remote();
  const middle = Math.floor(bytes.length / 2);
  flipped.bytes[middle] = (flipped.bytes[middle] ?? 0) ^ 1;
  await using other = await SyntheticVm.create(machine);
  expect(await codeOf(loadOf(await loadVm(other, flipped, { lazy: true })).resident)).toBe('CHKPT_DIGEST');
  expect(other.failure).toBeInstanceOf(CheckpointError);
});

test('an index that cannot be read is told before the machine is touched', async ({ skip }) => {
  if (refusal !== undefined) skip(refusal);
  const store = remote();
  await using vm = await SyntheticVm.create(machine);
  const before = await vm.digest();
  // The block index is read by native threads, behind what JavaScript reads.
  let reads = 0;
  store.onRead = (_offset, count) => {
    if (count > 4096 && ++reads === 1) store.failure = new CheckpointError('CHKPT_IO', 'gone');
  };
  expect(await codeOf(loadVm(vm, store, { lazy: true }))).toBe('CHKPT_IO');
  expect(vm.failure).toBeUndefined();
  expect(await vm.digest()).toBe(before);
});

test('cancelling and closing end a load while requests are under way', async ({ skip }) => {
  if (refusal !== undefined) skip(refusal);
  const stop = new AbortController();
  await using vm = await SyntheticVm.create(machine);
  const load = loadOf(await loadVm(vm, remote(bytes, 50), { lazy: true, signal: stop.signal }));
  stop.abort();
  expect(await codeOf(load.resident)).toBe('CHKPT_ABORTED');
  expect(await codeOf(vm.resume())).toBe('CHKPT_VM_FAILED');
  const closed = await SyntheticVm.create({ ...machine, threads: 2 });
  const closing = loadOf(await loadVm(closed, remote(bytes, 50), { lazy: true }));
  await closed.resume();
  await closed.close();
  expect(await codeOf(closing.resident)).toBe('CHKPT_CLOSED');
});

test('an image that clones share, and a load of what has changed, want a store that native threads read', async ({
  skip,
}) => {
  if (refusal !== undefined) skip(refusal);
  expect(await codeOf(openSharedImage(remote()))).toBe('CHKPT_UNSUPPORTED');
  await using vm = await SyntheticVm.create(machine);
  const { changed } = await loadVm(vm, remote(), { onlyChanged: true });
  expect(changed).toEqual({ active: false, reason: 'native threads cannot read from this store' });
});

test.each([
  ['its guest waits for a store that does not answer', 'silent'],
  ['native threads read what such a store and a migration have not brought', 'tasks'],
])('a thread of JavaScript ends at once while %s', (_, mode) => {
  if (refusal !== undefined) return void console.log(`skipped: ${refusal}`);
  const script = fileURLToPath(new URL('../native/support/lazy-process.mjs', import.meta.url));
  const dist = buildModules();
  const options = JSON.stringify({ regions, threads: 2, pagesPerSecond: 0 });
  const run = spawnSync(process.execPath, [script, dist, 'mem:silent', options, mode], {
    encoding: 'utf8',
    timeout: 30_000,
    killSignal: 'SIGKILL',
  });
  expect(run).toMatchObject({ status: 7, stderr: '' });
});
