/**
 * What saves and loads that were killed have left behind, found and removed without a policy: nothing is judged by age or number, and what
 * belongs to a process that may still run is never touched. The rules are those by which the next save into the same place cleans up;
 * here they are asked for all places of a folder. An object store has no processes that could be asked: there, and only there, age counts.
 */
import { CheckpointError, fromSystemError } from '../errors/index.ts';
import { Gem5Folder } from '../foreign/gem5/folder.ts';
import { FolderPlace, removeFolder } from '../foreign/palacios/publish-folder.ts';
import { scratchPidIn } from '../foreign/scratch.ts';
import { DirectoryCollector } from '../store/directory-collector.ts';
import { hostEnvironment, isLeftBehind, type StoreEnvironment } from '../store/environment.ts';
import type { FileStatus, FileSystem } from '../store/file-system.ts';
import { FileTemporaries } from '../store/file-temporaries.ts';
import { isPool, sweepPool } from '../store/pool.ts';
import { checkAge, collectS3, isS3Url, leftoverAgeMsDefault } from '../store/s3/collector.ts';
import { stemIn } from '../store/temporary-names.ts';

/** A file or folder, or an object or unfinished upload in an object store, that nobody uses any more. */
export interface Leftover {
  /** Of an object and an upload: `s3://bucket/key`. */
  readonly path: string;
  readonly kind: 'file' | 'folder' | 'object' | 'upload';
  /** What its removal gives back: 0 for a folder, and for one of several names of a file. */
  readonly bytes: number;
}

export interface CollectOptions {
  /** Removes what is found. Default false: it is only told. */
  readonly remove?: boolean | undefined;
  /** Of `s3:`: what is younger may belong to a save that runs. Milliseconds, default a day. Files are not judged by age. */
  readonly olderThanMs?: number | undefined;
  readonly signal?: AbortSignal | undefined;
  /** Files and processes of the host; tests give others. */
  readonly environment?: StoreEnvironment | undefined;
}

export interface CollectReport {
  /** As it was given. */
  readonly folder: string;
  /** Found, and with `remove` removed, in that order. */
  readonly leftovers: readonly Leftover[];
  /** All of them, bytes. */
  readonly bytes: number;
  readonly removed: boolean;
}

/**
 * Looks into `folder`, and into the checkpoints that are folders in it, for temporaries of `file:`, `dir:`, gem5 and Palacios checkpoints
 * and of output files, for scratch folders of such loads and saves, for generations of `dir:` checkpoints that were replaced, and for packs of pools that no checkpoint uses.
 * With `s3://bucket/prefix`: at every key that begins so, for unfinished uploads, data that no manifest names, and claims on nothing.
 *
 * Throws `CHKPT_NOT_FOUND`, `CHKPT_PERMISSION` for the folder itself. What cannot be removed stays, and is not among the leftovers.
 */
export async function collectGarbage(folder: string, options: CollectOptions = {}): Promise<CollectReport> {
  const {
    remove = false,
    signal,
    environment = hostEnvironment,
    olderThanMs = leftoverAgeMsDefault,
  } = options;
  checkAge(olderThanMs);
  if (isS3Url(folder)) {
    return reportOf(folder, await collectS3(folder, { remove, olderThanMs, signal }), remove);
  }
  const fileSystem = new WatchedFileSystem(environment.fileSystem, remove);
  const watched = { ...environment, fileSystem };
  const pools: string[] = [];
  let entries: string[];
  try {
    entries = await fileSystem.readdir(folder);
  } catch (error) {
    throw fromSystemError(error, 'cannot look into the folder', { path: folder });
  }
  for (const entry of entries) {
    if (signal?.aborted) throw new CheckpointError('CHKPT_ABORTED', 'aborted', { cause: signal.reason });
    const path = `${folder}/${entry}`;
    if (stemIn(entry) === undefined && (await kindOf(fileSystem, path)) === 'directory') {
      const inside = await fileSystem.readdir(path).catch(() => []);
      if (isPool(inside)) pools.push(path);
      else await collectIn(watched, path, inside, false);
    }
  }
  await collectIn(watched, folder, entries, true);
  if (isPool(entries)) pools.push(folder);
  // Last: what was removed before may have been the last to use a pack.
  for (const pool of pools) await sweepPool(fileSystem, pool);
  return reportOf(folder, fileSystem.leftovers, remove);
}

function reportOf(folder: string, leftovers: readonly Leftover[], removed: boolean): CollectReport {
  const bytes = leftovers.reduce((sum, leftover) => sum + leftover.bytes, 0);
  return { folder, leftovers, bytes, removed };
}

const isGem5 = (entry: string): boolean =>
  entry === 'm5.cpt' || stemIn(entry) === 'm5.cpt' || entry.endsWith('.pmem');
const isDirectoryStore = (entry: string): boolean =>
  entry === 'MANIFEST.json' || stemIn(entry) === 'MANIFEST.json' || entry.startsWith('.tmp-');

/** `isPlain`: checkpoints that are files, or folders with temporaries beside them, may lie here too. */
async function collectIn(
  environment: StoreEnvironment,
  folder: string,
  entries: readonly string[],
  isPlain: boolean,
): Promise<void> {
  if (entries.some(isGem5)) await new Gem5Folder(environment, folder, folder).collect();
  else if (entries.some(isDirectoryStore))
    await new DirectoryCollector(environment, folder, folder).collect();
  if (!isPlain) return;
  for (const entry of entries) {
    const pid = scratchPidIn(entry);
    const path = `${folder}/${entry}`;
    if (pid === undefined || !(await isLeftBehind(environment, path, pid))) continue;
    await removeFolder(environment.fileSystem, path).catch(() => undefined);
  }
  const stems = new Set(entries.flatMap((entry) => stemIn(entry) ?? []));
  for (const stem of ['MANIFEST.json', 'm5.cpt']) stems.delete(stem);
  for (const stem of stems) {
    const temporaries = new FileTemporaries(environment, folder, stem);
    for (const { entry } of await temporaries.leftBehind(entries)) {
      if ((await kindOf(environment.fileSystem, `${folder}/${entry}`)) === 'file')
        await temporaries.remove(entry);
    }
    await new FolderPlace(environment, `${folder}/${stem}`, folder).collect();
  }
}

async function kindOf(fileSystem: FileSystem, path: string): Promise<FileStatus['kind'] | undefined> {
  return await fileSystem.status(path).then(
    ({ kind }) => kind,
    () => undefined,
  );
}

/** Sees what is removed, and removes it only when it is told to; what it only pretends to remove, it does not count any more. */
class WatchedFileSystem implements FileSystem {
  readonly leftovers: Leftover[] = [];
  /** Names that files would have lost. */
  readonly #lost = new Map<bigint, number>();
  /** What would be gone. */
  readonly #gone = new Set<string>();
  readonly #inner: FileSystem;
  readonly #remove: boolean;

  constructor(inner: FileSystem, remove: boolean) {
    this.#inner = inner;
    this.#remove = remove;
  }

  async unlink(path: string): Promise<void> {
    const { bytes, inode, names } = await this.status(path);
    if (this.#remove) await this.#inner.unlink(path);
    else {
      this.#lost.set(inode, (this.#lost.get(inode) ?? 0) + 1);
      this.#gone.add(path);
    }
    this.leftovers.push({ path, kind: 'file', bytes: names > 1 ? 0 : bytes });
  }

  async rmdir(path: string): Promise<void> {
    if (this.#remove) await this.#inner.rmdir(path);
    else this.#gone.add(path);
    this.leftovers.push({ path, kind: 'folder', bytes: 0 });
  }

  open: FileSystem['open'] = (...parameters) => this.#inner.open(...parameters);

  async readdir(path: string): Promise<string[]> {
    return (await this.#inner.readdir(path)).filter((entry) => !this.#gone.has(`${path}/${entry}`));
  }

  async status(path: string): Promise<FileStatus> {
    if (this.#gone.has(path)) throw Object.assign(new Error('it would be gone'), { code: 'ENOENT' });
    const status = await this.#inner.status(path);
    return { ...status, names: status.names - (this.#lost.get(status.inode) ?? 0) };
  }

  /** Who cleans up makes nothing. */
  rename = refuse;
  link = refuse;
  mkdir = refuse;
  fsyncDirectory = refuse;
}

async function refuse(): Promise<never> {
  throw new CheckpointError('CHKPT_INTERNAL', 'a clean-up removes, and does nothing else');
}
