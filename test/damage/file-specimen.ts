/** Checkpoints as files on a memory file system, where a million small changes cost nothing. */
import {
  closeSync,
  cpSync,
  existsSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Specimen, SpecimenFactory } from './damage.suite.ts';

/** `filesOf` lists the files of a checkpoint at a path, relative to it; '' for a single file. */
export function fileFactory(scheme: string, filesOf: (path: string) => string[]): SpecimenFactory {
  const folder = mkdtempSync(join(existsSync('/dev/shm') ? '/dev/shm' : tmpdir(), 'chkpt-damage-'));
  const sample = join(folder, 'sample');
  const copy = async (lane: number): Promise<Specimen> => {
    const path = join(folder, `lane${lane}`);
    cpSync(sample, path, { recursive: statSync(sample).isDirectory() });
    const place = (name: string): string => (name === '' ? path : join(path, name));
    const parts = filesOf(path).map((name) => ({ name, bytes: new Uint8Array(readFileSync(place(name))) }));
    const descriptors = new Map<string, number>();
    const replace = (name: string, bytes: Uint8Array): void => {
      const open = descriptors.get(name);
      if (open !== undefined) closeSync(open);
      descriptors.delete(name);
      writeFileSync(place(name), bytes);
    };
    const poke = (name: string, offset: number, value: number): void => {
      const descriptor = descriptors.get(name) ?? openSync(place(name), 'r+');
      descriptors.set(name, descriptor);
      writeSync(descriptor, Uint8Array.of(value), 0, 1, offset);
    };
    return { url: `${scheme}:${path}`, parts, replace, poke };
  };
  return {
    url: `${scheme}:${sample}`,
    copy,
    dispose: async () => rmSync(folder, { recursive: true, force: true }),
  };
}
