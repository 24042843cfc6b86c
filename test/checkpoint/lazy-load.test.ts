/** `loadVm(…, { lazy })`: the guest runs before its memory is there, and sees nothing but what was saved. */
import { spawnSync } from 'node:child_process';
import {
  chmodSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { SyntheticVm, type SyntheticVmOptions } from '../../src/adapters/synthetic/index.ts';
import {
  CheckpointError,
  defaultMemoryStoreSpace,
  GuestMemory,
  type LazyLoad,
  type LazyOptions,
  type LoadReport,
  loadVm,
  saveVm,
} from '../../src/index.ts';
import { buildModules } from '../cli/support/dist.ts';

const mebibyte = 1024 ** 2;
const regions = [
  { base: 0, bytes: 640 * 1024 },
  { base: mebibyte, bytes: 32 * mebibyte + 20 * 1024 },
];
const machine: SyntheticVmOptions = {
  regions,
  guestLike: true,
  seed: 5,
  pagesPerSecond: 0,
  pattern: 'random',
};
const folder = mkdtempSync(join(tmpdir(), 'chkpt-lazy-test-'));
const slow: LazyOptions = { fillDelayMs: 600_000 };

let digest = '';
let refusal: string | undefined;

const urls = {
  'file: LZ4': `file:${folder}/lz4.chkpt`,
  'file: raw': `file:${folder}/raw.chkpt`,
  'dir:': `dir:${folder}/dir`,
  'dir+pool:': `dir+pool:${folder}/pooled`,
  'mem:': 'mem:lazy-test',
};

beforeAll(async () => {
  await using vm = await SyntheticVm.create(machine);
  for (const [name, url] of Object.entries(urls))
    await saveVm(vm, url, { codec: name.endsWith('raw') ? 'raw' : 'lz4' });
  digest = await vm.digest();
  await using probe = await SyntheticVm.create(machine);
  const { lazy } = await loadVm(probe, urls['file: LZ4'], { lazy: true });
  refusal = lazy.active ? undefined : lazy.reason;
  if (refusal !== undefined) console.log(`lazy loads are skipped here: ${refusal}`);
});

afterAll(() => {
  defaultMemoryStoreSpace.delete('lazy-test');
  rmSync(folder, { recursive: true, force: true });
});

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

describe.each(Object.entries(urls))('%s', (_, url) => {
  test('memory is what an eager load gives, touched before or not, and the root digest is proved', async ({
    skip,
  }) => {
    if (refusal !== undefined) skip(refusal);
    await using vm = await SyntheticVm.create({ ...machine, seed: 77 });
    const report = await loadVm(vm, url, { lazy: { fillDelayMs: 20 } });
    const load = loadOf(report);
    // Reads everything through faults, while the fill brings it too.
    expect(await vm.digest()).toBe(digest);
    const resident = await load.resident;
    expect(resident).toMatchObject({ root: report.root, missing: 0 });
    expect(resident.faultBlocks).toBeGreaterThan(0);
    expect(await vm.digest()).toBe(digest);
  });
});

test('nothing of memory is read before the guest runs', async ({ skip }) => {
  if (refusal !== undefined) skip(refusal);
  await using vm = await SyntheticVm.create(machine);
  const load = loadOf(await loadVm(vm, urls['file: LZ4'], { lazy: slow }));
  expect(load.counts()).toMatchObject({ faultBlocks: 0, missing: load.counts().blocks });
  expect(load.counts().blocks).toBeGreaterThan(100);
});

test('a guest that writes during the load keeps what it wrote', async ({ skip }) => {
  if (refusal !== undefined) skip(refusal);
  await using vm = await SyntheticVm.create({ ...machine, threads: 2 });
  const load = loadOf(await loadVm(vm, urls['file: LZ4'], { lazy: true }));
  await vm.resume();
  await load.resident;
  await vm.pause();
  const { stamped, damaged } = await vm.checkStamps();
  expect(damaged).toBe(0);
  expect(stamped).toBeGreaterThan(0);
});

test('a save while pages are missing is the checkpoint that was loaded', async ({ skip }) => {
  if (refusal !== undefined) skip(refusal);
  await using vm = await SyntheticVm.create(machine);
  await loadVm(vm, urls['file: LZ4'], { lazy: slow });
  await saveVm(vm, 'mem:lazy-again');
  await using other = await SyntheticVm.create(machine);
  await loadVm(other, 'mem:lazy-again');
  defaultMemoryStoreSpace.delete('lazy-again');
  expect(await other.digest()).toBe(digest);
});

/** A copy of the checkpoint that a test may damage. */
function copyOf(name: string): string {
  const path = join(folder, name);
  writeFileSync(path, readFileSync(join(folder, 'lz4.chkpt')));
  return path;
}

test('a store that vanishes under a running guest stops it: typed error, process alive, no save', async ({
  skip,
}) => {
  if (refusal !== undefined) skip(refusal);
  const path = copyOf('vanishes.chkpt');
  const vm = await SyntheticVm.create({ ...machine, threads: 2 });
  const load = loadOf(await loadVm(vm, `file:${path}`, { lazy: slow }));
  truncateSync(path, 4096);
  await vm.resume();
  expect(await codeOf(load.resident)).toBe('CHKPT_TRUNCATED');
  expect(vm.running).toBe(false);
  expect(await codeOf(vm.resume())).toBe('CHKPT_VM_FAILED');
  expect(await codeOf(saveVm(vm, 'mem:lazy-never'))).toBe('CHKPT_VM_FAILED');
  // What a page looks like that could not be loaded: not like zeros, and not without an error.
  expect(() => vm.memory.read(regions[1]?.base ?? 0, 65536)).toThrow(CheckpointError);
  // A sound checkpoint makes it a machine again, lazily or not.
  loadOf(await loadVm(vm, urls['mem:'], { lazy: true }));
  expect(await vm.digest()).toBe(digest);
  await vm.close();
});

test('JavaScript that touches a page that is damaged gets an error, not its content, and does not hang', async ({
  skip,
}) => {
  if (refusal !== undefined) skip(refusal);
  const path = copyOf('touched.chkpt');
  await using vm = await SyntheticVm.create(machine);
  const load = loadOf(await loadVm(vm, `file:${path}`, { lazy: slow }));
  truncateSync(path, 4096);
  expect(() => vm.memory.read(mebibyte, 4 * mebibyte)).toThrow(CheckpointError);
  expect(await codeOf(load.resident)).toBe('CHKPT_TRUNCATED');
});

test('damage that nobody touches is found by the fill, and fails the machine', async ({ skip }) => {
  if (refusal !== undefined) skip(refusal);
  const path = copyOf('flipped.chkpt');
  const file = openSync(path, 'r+');
  const middle = Math.floor(readFileSync(path).length / 2);
  writeSync(file, Uint8Array.of((readFileSync(path)[middle] ?? 0) ^ 1), 0, 1, middle);
  await using vm = await SyntheticVm.create(machine);
  const load = loadOf(await loadVm(vm, `file:${path}`, { lazy: true }));
  expect(await codeOf(load.resident)).toBe('CHKPT_DIGEST');
  expect(vm.failure).toBeInstanceOf(CheckpointError);
});

test('an index that is cut off, or damaged, is told before the machine is touched', async ({ skip }) => {
  if (refusal !== undefined) skip(refusal);
  const bytes = readFileSync(join(folder, 'lz4.chkpt'));
  const path = join(folder, 'index.chkpt');
  const end = Buffer.from(bytes);
  end[end.length - 80] = (end[end.length - 80] ?? 0) ^ 1; // in the index document
  writeFileSync(path, end);
  await using vm = await SyntheticVm.create(machine);
  expect(await codeOf(loadVm(vm, `file:${path}`, { lazy: true }))).toBe('CHKPT_DIGEST');
  expect(vm.failure).toBeUndefined();
  expect(await vm.digest()).not.toBe('');
});

test('cancelling while the guest runs fails the machine with CHKPT_ABORTED', async ({ skip }) => {
  if (refusal !== undefined) skip(refusal);
  const stop = new AbortController();
  await using vm = await SyntheticVm.create(machine);
  const load = loadOf(await loadVm(vm, urls['dir:'], { lazy: slow, signal: stop.signal }));
  stop.abort();
  expect(await codeOf(load.resident)).toBe('CHKPT_ABORTED');
  expect(await codeOf(vm.resume())).toBe('CHKPT_VM_FAILED');
});

test('closing the machine ends the load, and resident says so', async ({ skip }) => {
  if (refusal !== undefined) skip(refusal);
  const vm = await SyntheticVm.create(machine);
  const load = loadOf(await loadVm(vm, urls['mem:'], { lazy: slow }));
  await vm.close();
  expect(await codeOf(load.resident)).toBe('CHKPT_CLOSED');
});

test('a working set is recorded, replayed, and a damaged one only costs time', async ({ skip }) => {
  if (refusal !== undefined) skip(refusal);
  const url = urls['file: LZ4'];
  const path = join(folder, 'lz4.chkpt.workingset');
  const touch = (vm: SyntheticVm): void => {
    for (let at = 0; at < 4; at += 1) vm.memory.read(mebibyte * (2 + 5 * at), 8 * 65536);
  };
  await using first = await SyntheticVm.create(machine);
  const recording = loadOf(await loadVm(first, url, { lazy: { ...slow, workingSet: 'record' } }));
  touch(first);
  await recording.saveWorkingSet();

  await using second = await SyntheticVm.create(machine);
  const replayed = loadOf(await loadVm(second, url, { lazy: { ...slow, workingSet: 'replay' } }));
  expect(replayed.replay.blocks).toBe(recording.counts().faultBlocks);
  const { blocks } = replayed.counts();
  await expect.poll(() => replayed.counts().missing).toBe(blocks - replayed.replay.blocks);
  touch(second);
  expect(replayed.counts().faultBlocks).toBe(0);

  writeFileSync(path, readFileSync(path).subarray(4));
  await using third = await SyntheticVm.create(machine);
  const plain = loadOf(await loadVm(third, url, { lazy: { workingSet: 'replay' } }));
  expect(plain.replay).toMatchObject({ blocks: 0, reason: expect.stringContaining('working set') });
  await plain.resident;
  expect(await third.digest()).toBe(digest);
});

test('memory that cannot be lazy is loaded at once, and the report says why', async () => {
  class OverFile {
    readonly id = 'synthetic';
    readonly cpu = { vendor: 'Synthetic', model: 'SVM-1' };
    readonly cores = [];
    readonly devices = [];
    readonly running = false;
    readonly memory: GuestMemory;
    constructor(memory: GuestMemory) {
      this.memory = memory;
    }
    async pause(): Promise<void> {}
    async resume(): Promise<void> {}
    beginLoad(): void {}
    endLoad(): void {}
  }
  writeFileSync(join(folder, 'ram'), '');
  const file = join(folder, 'ram');
  await using memory = await GuestMemory.openFiles(
    [
      { file, base: 0, bytes: 640 * 1024 },
      { file, base: mebibyte, bytes: 32 * mebibyte + 20 * 1024, offset: mebibyte },
    ],
    { fresh: true },
  );
  const report = await loadVm(new OverFile(memory), urls['mem:'], { lazy: true, skip: ['devices', 'cores'] });
  expect(report.lazy).toEqual({ active: false, reason: expect.stringContaining('not mapped') });
});

const script = fileURLToPath(new URL('../native/support/lazy-process.mjs', import.meta.url));

test('without the right to use userfaultfd everything is loaded at once, and the report says why', ({
  skip,
}) => {
  if (process.getuid?.() !== 0) skip('only root can give rights away');
  const dist = buildModules();
  chmodSync(folder, 0o755);
  chmodSync(join(folder, 'lz4.chkpt'), 0o644);
  const nobody = ['--reuid', '65534', '--regid', '65534', '--clear-groups', process.execPath, script, dist];
  const options = JSON.stringify({ regions });
  const run = spawnSync('setpriv', [...nobody, urls['file: LZ4'], options, 'report'], { encoding: 'utf8' });
  if (run.error !== undefined || /EACCES|MODULE_NOT_FOUND/.test(run.stderr))
    skip('nobody cannot read this checkout');
  expect(run.stderr).toBe('');
  expect(JSON.parse(run.stdout)).toEqual({
    active: false,
    reason: expect.stringContaining('userfaultfd'),
    digest,
  });
});

test('a process ends at once while its guest runs and is being loaded', ({ skip }) => {
  if (refusal !== undefined) skip(refusal);
  const dist = buildModules();
  const options = JSON.stringify({ regions, threads: 2, pagesPerSecond: 0 });
  const run = spawnSync(process.execPath, [script, dist, urls['file: LZ4'], options, 'exit'], {
    encoding: 'utf8',
    timeout: 30_000,
    killSignal: 'SIGKILL',
  });
  expect(run).toMatchObject({ status: 7, stderr: '' });
});
