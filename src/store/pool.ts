/**
 * A pool: a folder beside `dir:` checkpoints, with packs that several of them use.
 *
 *     POOL/CHKPT-POOL            says that the folder is a pool
 *     POOL/UUID.pack             a pack; each checkpoint that uses it has a name of its own for the same file
 *
 * A pack is a file with several names (hard links), and the file system counts them: it is there as long as anybody uses it, whatever is
 * removed or moved in which order. Its name in the pool is how later saves find it. One that has no other name is used by nobody.
 */
import { constants } from 'node:fs';
import { CheckpointError, fromSystemError } from '../errors/index.ts';
import type { StoreEnvironment } from './environment.ts';
import { errnoOf, type FileSystem } from './file-system.ts';
import { isPackName, poolMarker } from './pool-names.ts';

const folderMode = 0o700;
const fileMode = 0o600;
/** What file systems without hard links, or two of them, say to one. */
const noLinks: ReadonlySet<string> = new Set(['EXDEV', 'EPERM', 'ENOTSUP', 'EOPNOTSUPP', 'ENOSYS']);
const createFlags = constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW;

export class Pool {
  /** Absolute path of the folder. */
  readonly path: string;
  readonly #environment: StoreEnvironment;
  readonly #store: string;

  constructor(environment: StoreEnvironment, path: string, store: string) {
    this.#environment = environment;
    this.path = path;
    this.#store = store;
  }

  /**
   * Makes the pool when there is none, and tries whether its files can have names in the folder `work`. Throws `CHKPT_UNSUPPORTED` when
   * they cannot: then nothing could be shared.
   */
  async prepare(work: string): Promise<void> {
    const { fileSystem } = this.#environment;
    const details = { store: this.#store, path: this.path };
    const marker = `${this.path}/${poolMarker}`;
    try {
      await fileSystem.mkdir(this.path, folderMode).catch(unlessExisting);
      await this.#mark(marker);
    } catch (error) {
      throw fromSystemError(error, 'cannot make the pool', details);
    }
    const probe = `${work}/${poolMarker}`;
    try {
      await fileSystem.link(marker, probe);
    } catch (error) {
      // The marker has as many names as a file can have: so the file system has them.
      if (errnoOf(error) === 'EMLINK') return;
      if (!noLinks.has(errnoOf(error) ?? '')) {
        throw fromSystemError(error, 'cannot give a file of the pool a second name', details);
      }
      const what = 'a pool and its checkpoints must be on one file system, which has hard links';
      throw new CheckpointError('CHKPT_UNSUPPORTED', what, { details, cause: error });
    }
    try {
      await fileSystem.unlink(probe);
    } catch (error) {
      throw fromSystemError(error, 'cannot remove a file', { store: this.#store, path: probe });
    }
  }

  async #mark(marker: string): Promise<void> {
    const { fileSystem } = this.#environment;
    try {
      await (await fileSystem.open(marker, createFlags, fileMode)).close();
    } catch (error) {
      unlessExisting(error);
    }
  }

  /**
   * Gives packs of a checkpoint that is there their names in the pool. Best effort: one that gets none stays with its checkpoint, and
   * what it holds is stored once more by the next save.
   */
  async publish(folder: string, names: readonly string[]): Promise<void> {
    for (const name of names) {
      await this.#environment.fileSystem
        .link(`${folder}/${name}`, `${this.path}/${name}`)
        .catch(() => undefined);
    }
  }

  /** Removes packs that nobody uses. Best effort. */
  async sweep(): Promise<void> {
    await sweepPool(this.#environment.fileSystem, this.path);
  }
}

/** True when a folder with these entries is a pool. */
export function isPool(entries: readonly string[]): boolean {
  return entries.includes(poolMarker);
}

/**
 * Removes the packs in the folder of a pool that have no other name. A save that has just found such a pack has a name for it by then,
 * or does not use it; a reader that has it open goes on. Best effort.
 */
export async function sweepPool(fileSystem: FileSystem, path: string): Promise<void> {
  const entries = await fileSystem.readdir(path).catch(() => []);
  if (!isPool(entries)) return;
  for (const entry of entries.filter(isPackName)) {
    try {
      const { kind, names } = await fileSystem.status(`${path}/${entry}`);
      if (kind === 'file' && names === 1) await fileSystem.unlink(`${path}/${entry}`);
    } catch {
      // Gone, or it stays until the next time.
    }
  }
}

function unlessExisting(error: unknown): void {
  if (errnoOf(error) !== 'EEXIST') throw error;
}
