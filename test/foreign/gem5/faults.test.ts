/** The folder of a gem5 checkpoint where the file system fails, and what `chkpt gc` finds of those that are dead. */
import { readdirSync } from 'node:fs';
import { expect } from 'vitest';
import { ForeignStore } from '../../../src/foreign/foreign-store.ts';
import { Gem5Format } from '../../../src/foreign/gem5/gem5-store.ts';
import { collectGarbage, verifyCheckpoint } from '../../../src/index.ts';
import { FaultFileSystem } from '../../store/support/fault-file-system.ts';
import { endedPid } from '../../store/support/hosts.ts';
import { contentOf } from '../palacios/support/folders.ts';
import { describeFolderFaults } from '../support/folder-faults.ts';

const processesOf = (pid: number) => ({ pid, startedMs: 0, isAlive: (other: number) => other !== endedPid });
const makeFileSystem = (plan?: FaultFileSystem['plan']): FaultFileSystem => new FaultFileSystem(plan, true);
const storeOf = (path: string, fileSystem: FaultFileSystem, hasEnded = false): ForeignStore => {
  const environment = { fileSystem, processes: processesOf(hasEnded ? endedPid : process.pid) };
  return new ForeignStore('test:', new Gem5Format({ environment }, path, 'test:'));
};

describeFolderFaults({
  ...{ name: 'gem5:', errnos: ['EIO', 'ENOSPC'], starts: ['nothing', 'an older checkpoint'] },
  ...{ makeFileSystem, storeOf, contentOf },
  collect: async (folder) => {
    const environment = { fileSystem: makeFileSystem(), processes: processesOf(process.pid) };
    await collectGarbage(folder, { environment, remove: true });
  },
  expectClean: async (path, folder) => {
    const environment = { fileSystem: makeFileSystem(), processes: processesOf(process.pid) };
    const { uuid } = (await verifyCheckpoint(storeOf(path, makeFileSystem()))).header;
    const before = readdirSync(path);
    const told = await collectGarbage(folder, { environment });
    expect(readdirSync(path)).toEqual(before);
    const removed = await collectGarbage(folder, { environment, remove: true });
    expect(removed.leftovers).toEqual(told.leftovers);
    // The text, the memory, the manifest: nothing else.
    expect(readdirSync(path).length, readdirSync(path).join()).toBe(3);
    expect(readdirSync(folder)).toEqual(['c']);
    expect((await verifyCheckpoint(storeOf(path, makeFileSystem()))).header.uuid).toBe(uuid);
    expect((await collectGarbage(folder, { environment })).leftovers).toEqual([]);
  },
});
