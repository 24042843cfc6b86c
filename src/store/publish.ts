/**
 * Replaces a file by a new one so that every reader, at every moment, finds a whole one, and so that a
 * failure leaves the older one in place.
 *
 *     link    target → older       a second name, so that the older content can come back
 *     rename  temporary → target   the switch
 *     fsync   folder               the switch is durable; when this fails it is undone
 *
 * The caller has flushed the temporary, and removes `older` afterwards.
 */
import type { ErrorDetails } from '../errors/index.ts';
import { flushFailure, saveFailure } from './failure.ts';
import { errnoOf, type FileSystem } from './file-system.ts';

export interface Publication {
  /** The folder that holds all three. */
  readonly folder: string;
  readonly temporary: string;
  /** Inode of the temporary: another save may have replaced the target in the meantime. */
  readonly inode: bigint;
  readonly target: string;
  readonly older: string;
}

/** What became of the content that was at the target. */
export type Replaced = 'nothing' | 'kept' | 'unkept';

/** Errors that say "this file system, or this file, has no second names". */
const unlinkableErrnos: ReadonlySet<string | undefined> = new Set([
  'EPERM',
  'ENOSYS',
  'ENOTSUP',
  'EOPNOTSUPP',
  'EMLINK',
  'EXDEV',
]);

/** Publishes. After a rejection `temporary` and `older` may exist; the caller removes both. */
export async function publish(fileSystem: FileSystem, files: Publication, store: string): Promise<Replaced> {
  const details = { store, path: files.target };
  const replaced = await keepOlder(fileSystem, files, details);
  try {
    await fileSystem.rename(files.temporary, files.target);
  } catch (error) {
    throw saveFailure(error, 'cannot rename', details);
  }
  try {
    await fileSystem.fsyncDirectory(files.folder);
  } catch (error) {
    await undo(fileSystem, files, replaced).catch(() => undefined);
    throw flushFailure(error, 'cannot flush the folder', { store, path: files.folder });
  }
  return replaced;
}

async function keepOlder(
  fileSystem: FileSystem,
  files: Publication,
  details: ErrorDetails,
): Promise<Replaced> {
  try {
    await fileSystem.link(files.target, files.older);
    return 'kept';
  } catch (error) {
    const errno = errnoOf(error);
    if (errno === 'ENOENT') return 'nothing';
    if (unlinkableErrnos.has(errno)) return 'unkept';
    throw saveFailure(error, 'cannot keep the older checkpoint', details);
  }
}

/** Makes the folder what it was before the rename, unless another save has replaced ours. */
async function undo(fileSystem: FileSystem, files: Publication, replaced: Replaced): Promise<void> {
  if ((await fileSystem.status(files.target)).inode !== files.inode) return;
  if (replaced === 'nothing') return await fileSystem.rename(files.target, files.temporary);
  if (replaced === 'unkept') return;
  // Gives the new content its name back first: a temporary is how the next save finds what a crash left
  // behind.
  await fileSystem.link(files.target, files.temporary).catch(() => undefined);
  await fileSystem.rename(files.older, files.target);
}
