/** The folders of Palacios where the file system fails. */
import { ForeignStore } from '../../../src/foreign/foreign-store.ts';
import { PalaciosFolderFormat } from '../../../src/foreign/palacios/folder-format.ts';
import { fileForm, plainForm, textForm } from '../../../src/foreign/palacios/form.ts';
import { collectGarbage } from '../../../src/index.ts';
import { FaultFileSystem } from '../../store/support/fault-file-system.ts';
import { endedPid } from '../../store/support/hosts.ts';
import { describeFolderFaults } from '../support/folder-faults.ts';
import { contentOf } from './support/folders.ts';

const processesOf = (pid: number) => ({ pid, startedMs: 0, isAlive: (other: number) => other !== endedPid });

for (const form of [fileForm, textForm, plainForm]) {
  describeFolderFaults({
    name: `${form.scheme}:`,
    errnos: form === fileForm ? ['EIO', 'ENOSPC'] : ['EIO'],
    starts: form === fileForm ? ['nothing', 'an older checkpoint'] : ['an older checkpoint'],
    makeFileSystem: (plan) => new FaultFileSystem(plan),
    storeOf: (path, fileSystem, hasEnded = false) => {
      const environment = { fileSystem, processes: processesOf(hasEnded ? endedPid : process.pid) };
      const format = new PalaciosFolderFormat(form, path, 'test:', { environment, blockBytes: 8192 });
      return new ForeignStore('test:', format);
    },
    contentOf,
    collect: async (folder) => {
      const environment = { fileSystem: new FaultFileSystem(), processes: processesOf(process.pid) };
      await collectGarbage(folder, { environment, remove: true });
    },
  });
}
