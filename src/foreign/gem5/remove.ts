/** Removes a gem5 checkpoint: its m5.cpt first, so that there is none from then on, then the files that it named. */
import { CheckpointError, fromSystemError } from '../../errors/index.ts';
import { type Gem5Folder, textName } from './folder.ts';

export async function removeGem5(folder: Gem5Folder): Promise<void> {
  const { fileSystem } = folder.environment;
  const details = folder.details(textName);
  const named = await folder.named();
  if (named === undefined) {
    throw new CheckpointError(
      'CHKPT_FORMAT',
      'which files belong to this m5.cpt cannot be told, so it is not removed',
      {
        details,
      },
    );
  }
  try {
    await folder.removeFile(textName);
    await fileSystem.fsyncDirectory(folder.path);
  } catch (error) {
    const failure = fromSystemError(error, 'cannot remove the checkpoint', details);
    if (failure.code === 'CHKPT_NOT_FOUND') return;
    throw failure;
  }
  for (const entry of named) await folder.removeFile(entry).catch(() => undefined);
  // Other files in it are not ours.
  await fileSystem.rmdir(folder.path).catch(() => undefined);
}
