/** Temporary folders of tests, and what is in them. */
import { accessSync, constants, mkdtempSync, readdirSync, readlinkSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { afterEach } from 'vitest';

const made: string[] = [];

afterEach(() => {
  for (const folder of made.splice(0)) rmSync(folder, { recursive: true, force: true });
});

/** A new folder, removed after the test. In memory where possible: the tests flush thousands of times. */
export function makeFolder(): string {
  const folder = mkdtempSync(`${fastBase()}/chkpt-test-`);
  made.push(folder);
  return folder;
}

/** Where temporary folders are quick. */
export function fastBase(): string {
  try {
    accessSync('/dev/shm', constants.W_OK);
    return '/dev/shm';
  } catch {
    return tmpdir();
  }
}

/** Paths of everything below a folder, relative to it, sorted; folders end in a slash. */
export function listTree(folder: string, prefix = ''): string[] {
  const found = readdirSync(`${folder}/${prefix}`, { withFileTypes: true }).flatMap((entry) => {
    const path = `${prefix}${entry.name}`;
    return entry.isDirectory() ? [`${path}/`, ...listTree(folder, `${path}/`)] : [path];
  });
  return found.sort();
}

/** Files below a folder that this process has open. */
export function openDescriptors(folder: string): string[] {
  return readdirSync('/proc/self/fd').flatMap((descriptor) => {
    try {
      const target = readlinkSync(`/proc/self/fd/${descriptor}`);
      return target.startsWith(folder) ? [target] : [];
    } catch {
      return [];
    }
  });
}
