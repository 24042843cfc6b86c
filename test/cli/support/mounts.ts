/** Small file systems for tests, where they may be mounted. */
import { execFileSync } from 'node:child_process';
import { makeFolder, makeSharedFolder } from './folders.ts';

/** Why nothing can be mounted here; `undefined` when it can. */
export const mountRefusal: string | undefined = whyNot();

/** Runs `body` in a tmpfs of `byteCount` bytes. */
export async function withTmpfs(byteCount: number, body: (folder: string) => Promise<void>): Promise<void> {
  const folder = makeFolder();
  mount(folder, byteCount);
  try {
    await body(folder);
  } finally {
    execFileSync('umount', [folder]);
  }
}

/** Makes the file system at `folder` read-only. */
export function makeReadOnly(folder: string): void {
  execFileSync('mount', ['-o', 'remount,ro', folder]);
}

function mount(folder: string, byteCount: number): void {
  execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${byteCount}`, 'tmpfs', folder], { stdio: 'pipe' });
}

function whyNot(): string | undefined {
  if (process.getuid?.() !== 0) return 'only root may mount';
  const folder = makeSharedFolder();
  try {
    mount(folder, 65_536);
    execFileSync('umount', [folder]);
    return undefined;
  } catch (error) {
    return String(error).split('\n')[0];
  }
}
