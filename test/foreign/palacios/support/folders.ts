/** Folders of an original's checkpoints on disk, and what stands in them. */
import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll } from 'vitest';
import { fileOf, type Group, plainOf, textOf } from './original.ts';

export type Form = 'file' | 'textfile' | 'dir';

export const encoders: Readonly<Record<Form, (group: Group) => Uint8Array>> = {
  file: ([, blobs]) => fileOf(blobs),
  textfile: textOf,
  dir: ([, blobs]) => plainOf(blobs),
};

/** A folder of its own for the tests of a file; removed at the end. */
export function useFolder(): { readonly path: string; next(): string } {
  let path = '';
  let count = 0;
  beforeAll(async () => {
    // Where flushing costs nothing, if there is such a place: hundreds of small files are flushed here.
    const home = existsSync('/dev/shm') ? '/dev/shm' : tmpdir();
    path = await mkdtemp(join(home, 'chkpt-palacios-'));
  });
  afterAll(async () => await rm(path, { recursive: true }));
  return {
    get path() {
      return path;
    },
    next: () => {
      count += 1;
      return join(path, `c${count}`);
    },
  };
}

/** Writes a checkpoint as an original does. */
export async function writeOriginal(folder: string, form: Form, groups: readonly Group[]): Promise<void> {
  await mkdir(folder);
  for (const group of groups) await writeFile(join(folder, group[0]), encoders[form](group));
}

/** What identifies content, for comparing: test runners compare long arrays byte by byte. */
export function fingerprint(bytes: Uint8Array): string {
  return `${bytes.length} bytes, ${createHash('sha256').update(bytes).digest('hex')}`;
}

/** Fingerprints of everything in a folder, by name. */
export async function contentOf(folder: string): Promise<ReadonlyMap<string, string>> {
  const names = (await readdir(folder)).sort();
  const files = await Promise.all(
    names.map(async (name) => [name, fingerprint(await readFile(join(folder, name)))] as const),
  );
  return new Map(files);
}
