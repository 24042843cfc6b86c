/** What the tests of the checklist work with. */
import { readdirSync, readlinkSync } from 'node:fs';
import { afterEach } from 'vitest';
import { SyntheticVm } from '../../../../src/adapters/synthetic/index.ts';
import {
  type DirtyTracker,
  defineState,
  openCheckpoint,
  openPalaciosStore,
  openStore,
  type ReceivePalaciosOptions,
  receivePalacios,
  type Store,
  statePart,
  u8,
  type VirtualMachine,
} from '../../../../src/index.ts';
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

/** Files below `path` that this process has open. */
export function openBelow(path: string): string[] {
  return readdirSync('/proc/self/fd').flatMap((descriptor) => {
    try {
      const target = readlinkSync(`/proc/self/fd/${descriptor}`);
      return target.startsWith(path) ? [target] : [];
    } catch {
      return [];
    }
  });
}

/** Begins to receive a guest, and tells where. */
export function receiving(
  vm: VirtualMachine,
  options: ReceivePalaciosOptions = {},
): { readonly url: Promise<string>; readonly done: ReturnType<typeof receivePalacios> } {
  let told: (url: string) => void = () => undefined;
  const url = new Promise<string>((resolve) => {
    told = resolve;
  });
  const done = receivePalacios(vm, 'palacios+net:a:127.0.0.1:0', { ...options, onListening: told });
  done.catch(() => undefined);
  return { url, done };
}

/** Gives a machine one more device; `asked` is called whenever its state is taken or set. */
export function addProbe(vm: SyntheticVm, asked: () => void): void {
  const part = statePart({
    state: defineState({ value: u8 }),
    get: () => {
      asked();
      return { value: 1 };
    },
    set: asked,
  });
  const probe = { id: 'probe', deviceClass: 'probe', contexts: [{ name: 'probe', parts: [part] }] };
  Object.defineProperty(vm, 'devices', { value: [...vm.devices, probe] });
}

export function setTracker(vm: SyntheticVm, tracker: Partial<DirtyTracker> | undefined): void {
  const nothing = async (): Promise<void> => undefined;
  const value = tracker && {
    kind: 'reported',
    reason: 'of this test',
    arm: nothing,
    close: nothing,
    ...tracker,
  };
  Object.defineProperty(vm, 'dirtyTracker', { value, configurable: true });
}
