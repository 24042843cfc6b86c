/** The stores on files in a chosen world: with faults, and as a process of a chosen number. */
import {
  directoryStoreFactory,
  type FileSystem,
  fileStoreFactory,
  hostFileSystem,
  type ProcessTable,
  pooledDirectoryStoreFactory,
  type Store,
  StoreRegistry,
} from '../../../src/store/index.ts';

export type FileScheme = 'file' | 'dir' | 'dir+pool';

/** Number of a process that has ended: above any that Linux gives out. */
export const endedPid = 4_999_999;

export interface World {
  readonly fileSystem?: FileSystem;
  readonly pid?: number;
  /** When the process started, milliseconds since 1970. */
  readonly startedMs?: number;
}

/** Opens the store `vm` in `folder`, as a process of that world. */
export function openIn(scheme: FileScheme, folder: string, world: World = {}): Store {
  const environment = {
    fileSystem: world.fileSystem ?? hostFileSystem,
    processes: processTable(world.pid ?? process.pid, world.startedMs ?? 0),
  };
  const registry = new StoreRegistry();
  registry.register('file', fileStoreFactory(environment));
  registry.register('dir', directoryStoreFactory(environment));
  registry.register('dir+pool', pooledDirectoryStoreFactory(environment));
  return registry.open(`${scheme}:${folder}/vm`);
}

function processTable(pid: number, startedMs: number): ProcessTable {
  return { pid, startedMs, isAlive: (other) => other !== endedPid };
}
