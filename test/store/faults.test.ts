/**
 * Every call that a save or a load makes to the file system fails, with every error, once and for good. A
 * save that needed the call rejects with the right code and the cause, as if it had never begun; a save that
 * did not need it succeeds. Afterwards the same store works.
 */
import { cpSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { CheckpointError } from '../../src/errors/index.ts';
import { type Fault, FaultFileSystem, type Operation } from './support/fault-file-system.ts';
import { listTree, makeFolder, openDescriptors } from './support/folders.ts';
import { endedPid, type FileScheme, openIn } from './support/hosts.ts';
import { isSame, load, sampleStream, save } from './support/sample-stream.ts';

const errnos = ['EIO', 'ENOSPC', 'EDQUOT', 'EFBIG', 'EACCES', 'EROFS', 'EMFILE', 'EINTR'] as const;
type Errno = (typeof errnos)[number];
/** Those that also fail for good, and in the less interesting cases. */
const shortErrnos: readonly Errno[] = ['EIO', 'ENOSPC'];
const timeoutMs = 60_000;

const older = sampleStream('older');
const newer = sampleStream('newer');
const newest = sampleStream('newest');

/** Where a save begins. */
type Start = 'nothing' | 'an older checkpoint' | 'the remains of a killed save';

describe.each<FileScheme>(['file', 'dir'])('%s:', (scheme) => {
  const starts: Start[] = ['nothing', 'an older checkpoint', 'the remains of a killed save'];
  test.each(starts)(
    'every call of a save that finds %s fails, with every error, once and for good',
    async (start) => {
      const before = await prepare(scheme, start);
      const trace = await traceOfSave(scheme, before);
      let rejectedCount = 0;
      for (const operation of trace) {
        const repeats = trace.filter(
          ({ name, index }) => name === operation.name && index >= operation.index,
        );
        for (const errno of start === 'an older checkpoint' ? errnos : shortErrnos) {
          for (const hits of shortErrnos.includes(errno) ? [[operation], repeats] : [[operation]]) {
            const isRejected = await runSaveCell({ scheme, start, before, hits, errno });
            if (isRejected) rejectedCount += 1;
          }
        }
      }
      expect(rejectedCount).toBeGreaterThan(trace.length / 2);
    },
    timeoutMs,
  );

  test('every call of a load fails, with every error, once and for good', async () => {
    const before = await prepare(scheme, 'an older checkpoint');
    const world = new FaultFileSystem();
    await load(openIn(scheme, before, { fileSystem: world }));
    expect(world.trace.length).toBeGreaterThan(4);
    for (const operation of world.trace) {
      for (const errno of errnos) {
        for (const isForGood of [false, true]) await runLoadCell(scheme, before, operation, errno, isForGood);
      }
    }
  });

  test('short writes and short reads change nothing', async () => {
    const folder = makeFolder();
    const world = new FaultFileSystem(({ name }) =>
      name === 'write' || name === 'read' ? 'short' : undefined,
    );
    const store = openIn(scheme, folder, { fileSystem: world });
    await save(store, newer);
    expect(isSame(await load(store), newer.bytes)).toBe(true);
    expect(isSame(await load(openIn(scheme, folder)), newer.bytes)).toBe(true);
  });

  test('a write that claims more than it did is noticed before the checkpoint is visible', async () => {
    const before = await prepare(scheme, 'an older checkpoint');
    const writes = (await traceOfSave(scheme, before)).filter(({ name }) => name === 'write');
    // A hole in the middle of a file is for the digests of the frames to find; its length tells of the last
    // write only.
    const lastOfFile = writes.filter(
      ({ path, index }) => writes.findLast((other) => other.path === path)?.index === index,
    );
    expect(lastOfFile.length).toBeGreaterThan(0);
    for (const write of lastOfFile) {
      const folder = copyOf(before);
      const world = new FaultFileSystem(({ index }) => (index === write.index ? 'lie' : undefined));
      const store = openIn(scheme, folder, { fileSystem: world });
      await expect(save(store, newer)).rejects.toMatchObject({ code: 'CHKPT_IO' });
      expect(listTree(folder)).toEqual(listTree(before));
      expect(isSame(await load(store), older.bytes)).toBe(true);
    }
  });

  test('a failed flush is never tried again, and the next save uses new files', async () => {
    const before = await prepare(scheme, 'an older checkpoint');
    const flushes = (await traceOfSave(scheme, before)).filter(({ name }) => name === 'fsync');
    for (const flush of flushes) {
      const folder = copyOf(before);
      const world = new FaultFileSystem(failing(flush, 'EIO', false));
      const store = openIn(scheme, folder, { fileSystem: world });
      await expect(save(store, newer)).rejects.toMatchObject({ code: 'CHKPT_DURABILITY' });
      const flushed = world.trace.filter(({ name }) => name === 'fsync');
      expect(flushed.map(({ index }) => index)).toEqual(
        flushes.slice(0, flushed.length).map(({ index }) => index),
      );
      expect(flushed.at(-1)?.index).toBe(flush.index);
      await save(store, newer);
      expect(isSame(await load(store), newer.bytes)).toBe(true);
    }
  });

  test('on a file system without hard links a save still replaces the older checkpoint', async () => {
    for (const errno of ['EPERM', 'ENOSYS', 'ENOTSUP', 'EMLINK']) {
      const folder = copyOf(await prepare(scheme, 'an older checkpoint'));
      const world = new FaultFileSystem(({ name }) => (name === 'link' ? { errno } : undefined));
      const store = openIn(scheme, folder, { fileSystem: world });
      await save(store, newer);
      await expectOnly(scheme, folder, newer.bytes);
    }
  });
});

interface SaveCell {
  readonly scheme: FileScheme;
  readonly start: Start;
  readonly before: string;
  /** The call that fails, and, when it fails for good, all later ones of its kind. */
  readonly hits: readonly Operation[];
  readonly errno: Errno;
}

/** True when the save was rejected. */
async function runSaveCell({ scheme, start, before, hits, errno }: SaveCell): Promise<boolean> {
  const folder = copyOf(before);
  const [first] = hits;
  if (first === undefined) throw new Error('nothing to fail');
  const label = `${first.name} ${first.path} ${errno}${hits.length > 1 ? ' for good' : ''}`;
  const world = new FaultFileSystem(failing(first, errno, hits.length > 1));
  const store = openIn(scheme, folder, { fileSystem: world });
  const failure = await failureOf(save(store, newer));

  expect(failure === undefined, label).toBe(hits.every(isOptional));
  if (failure !== undefined) expectFailure(failure, first, errno, label);
  expect(openDescriptors(folder), label).toEqual([]);
  const expected = failure === undefined ? newer.bytes : start === 'nothing' ? undefined : older.bytes;
  await expectContent(scheme, folder, expected, label);
  const mustBeClean = failure !== undefined && start !== 'the remains of a killed save';
  if (mustBeClean) expect(listTree(folder), label).toEqual(listTree(before));

  if (shortErrnos.includes(errno)) {
    world.plan = () => undefined;
    await save(store, newest);
    await expectOnly(scheme, folder, newest.bytes, label);
  }
  return failure !== undefined;
}

async function runLoadCell(
  scheme: FileScheme,
  folder: string,
  operation: Operation,
  errno: Errno,
  isForGood: boolean,
): Promise<void> {
  const label = `${operation.name} ${operation.path} ${errno}${isForGood ? ' for good' : ''}`;
  const world = new FaultFileSystem(failing(operation, errno, isForGood));
  const store = openIn(scheme, folder, { fileSystem: world });
  const failure = await failureOf(load(store));
  // Closing a manifest that was read matters to nobody; an interrupted read is repeated.
  const isRepeated = operation.name === 'read' && errno === 'EINTR' && !isForGood;
  const isHarmless = operation.name === 'close' && operation.path.endsWith('MANIFEST.json') && !isForGood;
  expect(failure === undefined, label).toBe(isRepeated || isHarmless);
  if (failure !== undefined) expectFailure(failure, operation, errno, label);
  expect(openDescriptors(folder), label).toEqual([]);
  world.plan = () => undefined;
  expect(isSame(await load(store), older.bytes), label).toBe(true);
}

function expectFailure(failure: unknown, { name }: Operation, errno: Errno, label: string): void {
  expect(failure, label).toBeInstanceOf(CheckpointError);
  expect(failure, label).toMatchObject({ code: codeOf(name, errno), cause: { code: errno } });
  expect((failure as CheckpointError).message, label).toContain('store ');
}

function codeOf(name: Operation['name'], errno: Errno): string {
  if (errno === 'ENOSPC' || errno === 'EDQUOT' || errno === 'EFBIG') return 'CHKPT_NO_SPACE';
  if (name === 'fsync' || name === 'fsync-directory') return 'CHKPT_DURABILITY';
  return errno === 'EACCES' || errno === 'EROFS' ? 'CHKPT_PERMISSION' : 'CHKPT_IO';
}

/** Calls that clear up, or look for what to clear up: a save does not depend on them. */
function isOptional({ name, path }: Operation): boolean {
  if (name === 'readdir' || name === 'unlink' || name === 'rmdir') return true;
  const isMadeHere = path.endsWith('.tmp') && path.includes(newer.summary.uuid);
  return path.includes('MANIFEST.json') && !isMadeHere && name !== 'link' && name !== 'rename';
}

function failing(operation: Operation, errno: string, isForGood: boolean): (next: Operation) => Fault {
  return ({ index, name }) => {
    const isHit =
      index === operation.index || (isForGood && index > operation.index && name === operation.name);
    return isHit ? { errno } : undefined;
  };
}

async function prepare(scheme: FileScheme, start: Start): Promise<string> {
  const folder = makeFolder();
  if (start === 'nothing') return folder;
  await save(openIn(scheme, folder), older);
  if (start === 'an older checkpoint') return folder;
  const world = new FaultFileSystem(({ name }) => (name === 'link' ? 'kill' : undefined));
  await failureOf(save(openIn(scheme, folder, { fileSystem: world, pid: endedPid }), sampleStream('killed')));
  await world.release();
  return folder;
}

async function traceOfSave(scheme: FileScheme, before: string): Promise<Operation[]> {
  const world = new FaultFileSystem();
  await save(openIn(scheme, copyOf(before), { fileSystem: world }), newer);
  return world.trace;
}

async function failureOf(work: Promise<unknown>): Promise<unknown> {
  try {
    await work;
    return undefined;
  } catch (error) {
    return error;
  }
}

async function expectContent(
  scheme: FileScheme,
  folder: string,
  expected: Uint8Array | undefined,
  label?: string,
): Promise<void> {
  const loading = load(openIn(scheme, folder));
  if (expected === undefined) await expect(loading, label).rejects.toMatchObject({ code: 'CHKPT_NOT_FOUND' });
  else expect(isSame(await loading, expected), label).toBe(true);
}

/** The checkpoint is there, and nothing else: one file, or a manifest and one generation. */
async function expectOnly(
  scheme: FileScheme,
  folder: string,
  bytes: Uint8Array,
  label?: string,
): Promise<void> {
  await expectContent(scheme, folder, bytes, label);
  const shape = listTree(folder).map((path) => path.replace(/[0-9a-f-]{36}/, 'UUID'));
  const segments = ['000-start', '001-header', '002-pic0', '003-memory.pages', '004-end'];
  const directory = ['vm/', 'vm/MANIFEST.json', 'vm/UUID/', ...segments.map((name) => `vm/UUID/${name}`)];
  expect(shape.sort(), label).toEqual(scheme === 'file' ? ['vm'] : directory.sort());
}

function copyOf(folder: string): string {
  const copy = makeFolder();
  cpSync(folder, copy, { recursive: true });
  return copy;
}
