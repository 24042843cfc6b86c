/** The folders of Palacios where the file system fails. */
import { ForeignStore } from '../../../src/foreign/foreign-store.ts';
import { PalaciosFolderFormat } from '../../../src/foreign/palacios/folder-format.ts';
import { fileForm, plainForm, textForm } from '../../../src/foreign/palacios/form.ts';
import { hostProcesses } from '../../../src/store/environment.ts';
import { FaultFileSystem } from '../../store/support/fault-file-system.ts';
import { describeFolderFaults } from '../support/folder-faults.ts';
import { contentOf } from './support/folders.ts';

for (const form of [fileForm, textForm, plainForm]) {
  describeFolderFaults({
    name: `${form.scheme}:`,
    errnos: form === fileForm ? ['EIO', 'ENOSPC'] : ['EIO'],
    starts: form === fileForm ? ['nothing', 'an older checkpoint'] : ['an older checkpoint'],
    makeFileSystem: (plan) => new FaultFileSystem(plan),
    storeOf: (path, fileSystem) => {
      const environment = { fileSystem, processes: hostProcesses };
      const format = new PalaciosFolderFormat(form, path, 'test:', { environment, blockBytes: 8192 });
      return new ForeignStore('test:', format);
    },
    contentOf,
  });
}
