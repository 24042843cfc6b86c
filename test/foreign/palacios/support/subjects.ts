/** What the tests of the checklist work with. */
import { afterEach } from 'vitest';
import { SyntheticVm } from '../../../../src/adapters/synthetic/index.ts';
import { openCheckpoint, openPalaciosStore, openStore, type Store } from '../../../../src/index.ts';
import { useFolder, writeOriginal } from './folders.ts';
import type { Group } from './original.ts';

export interface Subjects {
  /** Of the tests of this file, and paths in it that are free. */
  readonly folder: ReturnType<typeof useFolder>;
  /** A machine that is closed after the test: 64 pages unless told otherwise. */
  machine(options?: Parameters<typeof SyntheticVm.create>[0]): Promise<SyntheticVm>;
  /** A checkpoint that an original has written. */
  original(groups: readonly Group[]): Promise<{ readonly path: string; readonly store: Store }>;
}

export function useSubjects(): Subjects {
  const folder = useFolder();
  const machines: SyntheticVm[] = [];
  afterEach(async () => {
    for (const vm of machines.splice(0)) await vm.close();
  });
  return {
    folder,
    machine: async (options = {}) => {
      const vm = await SyntheticVm.create({ memoryBytes: 64 * 4096, pagesPerSecond: 0, ...options });
      machines.push(vm);
      return vm;
    },
    original: async (groups) => {
      const path = folder.next();
      await writeOriginal(path, 'file', groups);
      return { path, store: openStore(`palacios+file:${path}`) };
    },
  };
}

/** The code of the error that work ends with. */
export async function codeOf(work: Promise<unknown>): Promise<string> {
  return await work.then(
    () => 'no error',
    (error: { code?: unknown }) => String(error.code ?? error),
  );
}

/** Blocks of 64 KiB. */
export const fileStore = (path: string): Store =>
  openPalaciosStore(`palacios+file:${path}`, { blockBytes: 1 << 16 });

export async function saveContexts(
  store: Store,
  contexts: Readonly<Record<string, Record<string, number>>>,
): Promise<void> {
  const checkpoint = await openCheckpoint(store, { mode: 'save' });
  for (const [name, values] of Object.entries(contexts)) {
    const context = await checkpoint.openContext(name);
    await context.saveAll(values);
    await context.close();
  }
  await checkpoint.commit();
}
