/**
 * Disks that are really full or really read-only. Needs the right to mount; says why when it has not.
 */
import { execFileSync } from 'node:child_process';
import { chmodSync, mkdirSync, rmSync, statfsSync, truncateSync, writeFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { listTree, makeFolder, openDescriptors } from './support/folders.ts';
import { type FileScheme, openIn } from './support/hosts.ts';
import { isSame, load, sampleStream, save } from './support/sample-stream.ts';

const older = sampleStream('older');
const newer = sampleStream('newer', [
  ['start', 'start', 128],
  ['values', 'header', 3000],
  ['memory', 'memory', 150_000],
  ['end', 'end', 168],
]);
const timeoutMs = 60_000;

const mountRefusal = await whyNot(() =>
  withMount(['-t', 'tmpfs', '-o', 'size=64k', 'tmpfs'], () => undefined),
);
const loopRefusal = mountRefusal ?? (await whyNot(() => withLoopDisk(() => undefined)));
for (const refusal of new Set([mountRefusal, loopRefusal])) {
  if (refusal !== undefined) console.warn(`some tests of real faults are skipped: ${refusal}`);
}

describe.each<FileScheme>(['file', 'dir'])('%s:', (scheme) => {
  test.skipIf(mountRefusal !== undefined)(
    'a save to a full tmpfs rejects with CHKPT_NO_SPACE at any degree of fullness and leaves the older checkpoint',
    () =>
      withMount(['-t', 'tmpfs', '-o', 'size=512k', 'tmpfs'], (folder) =>
        fillInSteps(scheme, folder, 4096, 48),
      ),
    timeoutMs,
  );

  test.skipIf(loopRefusal !== undefined)(
    'a save to a full ext4 rejects with CHKPT_NO_SPACE at any degree of fullness and leaves the older checkpoint',
    () => withLoopDisk((folder) => fillInSteps(scheme, folder, 16_384, 12)),
    timeoutMs,
  );

  test.skipIf(mountRefusal !== undefined)(
    'a save to a read-only disk rejects with CHKPT_PERMISSION',
    async () => {
      await withMount(['-t', 'tmpfs', '-o', 'size=1m', 'tmpfs'], async (folder) => {
        await save(openIn(scheme, folder), older);
        const before = listTree(folder);
        execFileSync('mount', ['-o', 'remount,ro', folder]);
        const failure = { code: 'CHKPT_PERMISSION', cause: { code: 'EROFS' } };
        await expect(save(openIn(scheme, folder), newer)).rejects.toMatchObject(failure);
        expect(isSame(await load(openIn(scheme, folder)), older.bytes)).toBe(true);
        expect(listTree(folder)).toEqual(before);
      });
    },
  );

  test.skipIf(process.getuid?.() === 0)(
    'a folder without the right to write is CHKPT_PERMISSION',
    async () => {
      const folder = makeFolder();
      mkdirSync(`${folder}/closed`, 0o500);
      const failure = { code: 'CHKPT_PERMISSION', cause: { code: 'EACCES' } };
      await expect(save(openIn(scheme, `${folder}/closed`), newer)).rejects.toMatchObject(failure);
      chmodSync(`${folder}/closed`, 0o700);
    },
  );
});

/**
 * Leaves less and less room on a disk, and saves each time, until nothing is left. With much room the save
 * succeeds, with little it fails; both must occur.
 */
async function fillInSteps(
  scheme: FileScheme,
  folder: string,
  stepBytes: number,
  stepCount: number,
): Promise<void> {
  await save(openIn(scheme, folder), older);
  const freeBefore = freeBytes(folder);
  let failedCount = 0;
  for (let step = 0; step <= stepCount; step += 1) {
    const before = listTree(folder);
    fill(`${folder}/filler`, freeBytes(folder) - step * stepBytes);
    const left = freeBytes(folder);
    const label = `with ${left} bytes left`;
    const failure = await save(openIn(scheme, folder), newer).catch((error: unknown) => error);
    if (failure !== undefined) {
      failedCount += 1;
      expect(failure, label).toMatchObject({ code: 'CHKPT_NO_SPACE', cause: { code: 'ENOSPC' } });
      expect(isSame(await load(openIn(scheme, folder)), older.bytes), label).toBe(true);
      expect(listTree(folder), label).toEqual([...before, 'filler'].sort());
      expect(freeBytes(folder), label).toBe(left);
    } else {
      expect(isSame(await load(openIn(scheme, folder)), newer.bytes), label).toBe(true);
      await save(openIn(scheme, folder), older);
    }
    expect(openDescriptors(folder), label).toEqual([]);
    rmSync(`${folder}/filler`);
  }
  expect(failedCount).toBeGreaterThan(0);
  expect(failedCount).toBeLessThan(stepCount + 1);
  expect(freeBytes(folder)).toBe(freeBefore);
}

/** Writes a file as large as told, or as large as the disk lets it become. */
function fill(path: string, byteCount: number): void {
  try {
    writeFileSync(path, Buffer.alloc(Math.max(byteCount, 0), 1), { flush: true });
  } catch (error) {
    expect(error).toHaveProperty('code', 'ENOSPC');
  }
}

function freeBytes(folder: string): number {
  execFileSync('sync', ['-f', folder]);
  const { bavail, bsize } = statfsSync(folder);
  return bavail * bsize;
}

function withMount<T>(args: readonly string[], body: (folder: string) => T | Promise<T>): Promise<T> {
  const folder = makeFolder();
  execFileSync('mount', [...args, folder], { stdio: 'pipe' });
  const run = async (): Promise<T> => {
    try {
      return await body(folder);
    } finally {
      execFileSync('umount', [folder]);
    }
  };
  return run();
}

function withLoopDisk<T>(body: (folder: string) => T | Promise<T>): Promise<T> {
  const image = `${makeFolder()}/disk`;
  writeFileSync(image, '');
  truncateSync(image, 2 * 1024 * 1024);
  execFileSync('mkfs.ext4', ['-q', '-O', '^has_journal', '-m', '0', image], { stdio: 'pipe' });
  return withMount(['-o', 'loop', image], (folder) => {
    rmSync(`${folder}/lost+found`, { recursive: true });
    return body(folder);
  });
}

/** The reason why something cannot be done here. */
async function whyNot(work: () => Promise<unknown>): Promise<string | undefined> {
  if (process.getuid?.() !== 0) return 'only root may mount';
  try {
    await work();
    return undefined;
  } catch (error) {
    return String(error).split('\n')[0];
  }
}
