/**
 * Removes a gem5 checkpoint: its m5.cpt gets another name first, so that there is none from then on and it still says which files are left;
 * then those go, and it goes last. Of a removal that is killed the next save, removal or `chkpt gc` does the rest.
 */
import { randomUUID } from 'node:crypto';
import { CheckpointError, fromSystemError } from '../../errors/index.ts';
import { errnoOf } from '../../store/file-system.ts';
import type { Gem5Folder } from './folder.ts';
import { textName } from './names.ts';

export async function removeGem5(folder: Gem5Folder): Promise<void> {
  const { fileSystem, processes } = folder.environment;
  const details = folder.details(textName);
  if ((await folder.named()) === undefined) {
    const what = 'which files belong to this m5.cpt cannot be told, so it is not removed';
    throw new CheckpointError('CHKPT_FORMAT', what, { details });
  }
  // While there is an m5.cpt: without one, what replaced ones have left is not to be told from what somebody may want back.
  await folder.collect();
  const removed = folder.temporaries.names.make(randomUUID(), processes.pid, 'tmp');
  try {
    if (await setAside(folder, removed)) {
      await fileSystem.fsyncDirectory(folder.path).catch(async (error: unknown) => {
        // Whether it is gone is not certain: then it is not, unless a save has published meanwhile.
        const [from, to] = [folder.pathOf(removed), folder.pathOf(textName)];
        folder.temporaries.postpone(removed);
        const undo = async (): Promise<void> =>
          await fileSystem.link(from, to).then(() => fileSystem.unlink(from));
        await undo().catch(() => undefined);
        throw error;
      });
    }
  } catch (error) {
    throw fromSystemError(error, 'cannot remove the checkpoint', details);
  }
  folder.temporaries.postpone(removed);
  await folder.collect();
  // Other files in it are not ours.
  await fileSystem.rmdir(folder.path).catch(() => undefined);
}

/** False: there is no checkpoint. */
async function setAside(folder: Gem5Folder, removed: string): Promise<boolean> {
  try {
    await folder.environment.fileSystem.rename(folder.pathOf(textName), folder.pathOf(removed));
    return true;
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return false;
    throw error;
  }
}
