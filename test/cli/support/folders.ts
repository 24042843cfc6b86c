/** Temporary folders, in memory where possible. */
import { mkdtempSync, rmSync, statfsSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { afterAll, afterEach } from 'vitest';

export { listTree } from '../../store/support/folders.ts';

const tmpfsType = 0x0102_1994;
const ofTest: string[] = [];
const ofFile: string[] = [];

afterEach(() => remove(ofTest));
afterAll(() => remove(ofFile));

/** A new folder, removed after the test. */
export function makeFolder(): string {
  return make(ofTest);
}

/** A new folder, removed after the last test of the file. */
export function makeSharedFolder(): string {
  return make(ofFile);
}

function make(list: string[]): string {
  const folder = mkdtempSync(`${base()}/chkpt-cli-`);
  list.push(folder);
  return folder;
}

function remove(list: string[]): void {
  for (const folder of list.splice(0)) rmSync(folder, { recursive: true, force: true });
}

function base(): string {
  try {
    const { type, bavail, bsize } = statfsSync('/dev/shm');
    if (type === tmpfsType && bavail * bsize > 2 ** 30) return '/dev/shm';
  } catch {}
  return tmpdir();
}
