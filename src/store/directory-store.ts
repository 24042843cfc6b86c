/**
 * `dir:path`: a folder with one file per context and a MANIFEST.json that people can read.
 *
 *     PATH/MANIFEST.json          which generation counts, and what is in it; replaced last, in one step
 *     PATH/UUID/000-start         the segments, in order: together they are the stream
 *     PATH/UUID/001-header
 *     PATH/UUID/004-memory.pages
 *     PATH/UUID/005-end
 *
 * Whoever opens it finds the older checkpoint or the newer one, whole, whatever happens in between.
 */
import { CheckpointError, fromSystemError } from '../errors/index.ts';
import { DirectoryCollector } from './directory-collector.ts';
import { openDirectoryReader } from './directory-reader.ts';
import { openDirectoryWriter } from './directory-writer.ts';
import { hostEnvironment, type StoreEnvironment } from './environment.ts';
import { FileClaims } from './file-claims.ts';
import { errnoOf } from './file-system.ts';
import { manifestName } from './manifest-file.ts';
import { Pool } from './pool.ts';
import type { Store, StoreFactory, StoreReader, StoreWriteOptions, StoreWriter } from './store.ts';
import { directoryPath, pooledDirectoryPaths } from './url.ts';

/** The factory of `dir:`, over the host's files unless told otherwise. */
export function directoryStoreFactory(environment: StoreEnvironment = hostEnvironment): StoreFactory {
  return (rest, url) => new DirectoryStore(directoryPath(rest, url), url, environment);
}

/**
 * The factory of `dir+pool:path` and `dir+pool:path?pool=FOLDER`: what is saved shares content with other checkpoints through the pool,
 * by default the folder `chkpt-pool` beside the checkpoint. What was saved is read without it, also as `dir:`.
 */
export function pooledDirectoryStoreFactory(environment: StoreEnvironment = hostEnvironment): StoreFactory {
  return (rest, url) => {
    const { path, pool } = pooledDirectoryPaths(rest, url);
    return new DirectoryStore(path, url, environment, new Pool(environment, pool, url));
  };
}

class DirectoryStore implements Store {
  readonly url: string;
  readonly claims: FileClaims;
  readonly readsFrames: boolean;
  readonly #path: string;
  readonly #environment: StoreEnvironment;
  readonly #collector: DirectoryCollector;
  readonly #pool: Pool | undefined;

  constructor(path: string, url: string, environment: StoreEnvironment, pool?: Pool) {
    this.#pool = pool;
    this.readsFrames = pool !== undefined;
    this.url = url;
    this.#path = path;
    this.#environment = environment;
    this.#collector = new DirectoryCollector(environment, path, url);
    this.claims = new FileClaims(environment.fileSystem, path, undefined, url);
  }

  openWriter(options: StoreWriteOptions): Promise<StoreWriter> {
    return openDirectoryWriter({
      environment: this.#environment,
      collector: this.#collector,
      claims: this.claims,
      path: this.#path,
      store: this.url,
      options,
      pool: this.#pool,
    });
  }

  /** The manifest first: what it named is garbage from then on, also when the rest does not come to pass. */
  async remove(): Promise<void> {
    const { fileSystem } = this.#environment;
    const details = { store: this.url, path: this.#path };
    const named = await this.#collector.published();
    if (named === 'unknown') {
      throw new CheckpointError('CHKPT_MANIFEST', 'what is here cannot be told, so it is not removed', {
        details,
      });
    }
    const claims = this.claims.among(await this.#collector.manifests.entries());
    try {
      await fileSystem.unlink(`${this.#path}/${manifestName}`);
      await fileSystem.fsyncDirectory(this.#path);
    } catch (error) {
      if (errnoOf(error) !== 'ENOENT') throw fromSystemError(error, 'cannot remove the checkpoint', details);
    }
    if (named !== 'none') await this.#collector.removeGeneration(named.generation);
    await this.claims.remove(claims);
    // Other files in it are not ours.
    await fileSystem.rmdir(this.#path).catch(() => undefined);
    await this.#pool?.sweep();
  }

  openReader(): Promise<StoreReader> {
    return openDirectoryReader({
      fileSystem: this.#environment.fileSystem,
      path: this.#path,
      store: this.url,
    });
  }
}
