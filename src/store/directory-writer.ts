/**
 * A save into a `dir:` checkpoint. The files are written into a work folder; then, in this order:
 *
 *     fsync each file (when its segment ends) → fsync the work folder
 *     manifest: write → fsync, under a temporary name
 *     work folder → GENERATION → fsync PATH
 *     manifest → MANIFEST.json → fsync PATH        from here on the checkpoint is the new one
 *     remove the generation that was replaced
 */
import { dirname } from 'node:path';
import { CheckpointError, type ErrorDetails, fromSystemError } from '../errors/index.ts';
import { encodeName } from '../format/names.ts';
import { type DirectoryCollector, workName } from './directory-collector.ts';
import type { StoreEnvironment } from './environment.ts';
import { flushFailure, saveFailure, throwIfAborted } from './failure.ts';
import type { FileClaims } from './file-claims.ts';
import { errnoOf } from './file-system.ts';
import { type Manifest, type ManifestSegment, segmentCountMax, serializeManifest } from './manifest.ts';
import { manifestName } from './manifest-file.ts';
import type { Pool } from './pool.ts';
import { PoolSave } from './pool-save.ts';
import { publish } from './publish.ts';
import { mapFileName, segmentFileName } from './segment-file.ts';
import type {
  CommitSummary,
  DirectOutput,
  Segment,
  SegmentSummary,
  StoreWriteOptions,
  StoreWriter,
} from './store.ts';
import { TemporaryFile } from './temporary-file.ts';
import { isUuid } from './temporary-names.ts';
import { urlError } from './url.ts';

const folderMode = 0o700;
const generationCountMax = 1000;

/** What a save into a directory works with. */
export interface DirectorySave {
  readonly environment: StoreEnvironment;
  readonly collector: DirectoryCollector;
  readonly claims: FileClaims;
  /** Folder of the checkpoint. */
  readonly path: string;
  readonly store: string;
  readonly options: StoreWriteOptions;
  /** Where content goes that other checkpoints may have, too. */
  readonly pool?: Pool | undefined;
}

/**
 * Makes the folder of the checkpoint when there is none, clears what crashes left, and makes the work folder.
 */
export async function openDirectoryWriter(save: DirectorySave): Promise<StoreWriter> {
  const { environment, collector, path, store, options } = save;
  const { fileSystem, processes } = environment;
  if (!isUuid(options.uuid)) throw new TypeError(`not a UUID: ${options.uuid}`);
  const isNew = await makeFolder(save);
  const work = workName(options.uuid, processes.pid);
  const details = { store, path: `${path}/${work}` };
  let entries: readonly string[] = [];
  try {
    if (!isNew) entries = await collector.collect();
    await fileSystem.mkdir(details.path, folderMode);
  } catch (error) {
    if (isNew) await fileSystem.rmdir(path).catch(() => undefined);
    throw openFailure(error, details);
  }
  // Claims as of now, not after the commit: then there may be some on what somebody else has saved here since.
  const writer = new DirectoryWriter(save, work, isNew, save.claims.among(entries, options.uuid));
  try {
    await writer.openPool();
    return writer;
  } catch (error) {
    await writer.abort().catch(() => undefined);
    throw error;
  }
}

function openFailure(error: unknown, details: { store: string; path: string }): CheckpointError {
  const errno = errnoOf(error);
  if (errno === 'ENOTDIR')
    return urlError('this is a file, not a folder; use file: for it', details.store, error);
  if (errno !== 'EEXIST') return fromSystemError(error, 'cannot create a folder', details);
  return new CheckpointError('CHKPT_IO', 'another save with this UUID is running', { details, cause: error });
}

async function makeFolder({ environment, path, store }: DirectorySave): Promise<boolean> {
  try {
    await environment.fileSystem.mkdir(path, folderMode);
    return true;
  } catch (error) {
    if (errnoOf(error) === 'EEXIST') return false;
    throw fromSystemError(error, 'cannot create the folder', { store, path });
  }
}

class DirectoryWriter implements StoreWriter {
  readonly #save: DirectorySave;
  /** Base name of the work folder. */
  readonly #work: string;
  /** This save made the folder of the checkpoint. */
  readonly #isNew: boolean;
  /** Claims on what was here when the save began. */
  readonly #oldClaims: readonly string[];
  readonly #segments: ManifestSegment[] = [];
  #segment: Segment | undefined;
  #file: TemporaryFile | undefined;
  #pool: PoolSave | undefined;
  /** The segment goes through the pool. */
  #isPooled = false;
  #ownBytes = 0;
  #manifest: TemporaryFile | undefined;
  /** Set when the work folder has got its final name. */
  #generation: string | undefined;
  #isPublished = false;

  constructor(save: DirectorySave, work: string, isNew: boolean, oldClaims: readonly string[]) {
    this.#oldClaims = oldClaims;
    this.#save = save;
    this.#work = work;
    this.#isNew = isNew;
  }

  /** Once, before anything else. */
  async openPool(): Promise<void> {
    const { environment, path, store, pool } = this.#save;
    if (pool === undefined) return;
    this.#pool = await PoolSave.open({ environment, pool, work: `${path}/${this.#work}`, store });
  }

  async beginSegment(segment: Segment): Promise<void> {
    const { environment, path, store } = this.#save;
    encodeName(segment.name, { store });
    if (this.#segments.length >= segmentCountMax) {
      throw new CheckpointError('CHKPT_VALUE_RANGE', 'too many contexts', {
        details: { store, expected: segmentCountMax },
      });
    }
    const name = segmentFileName(this.#segments.length, segment);
    this.#file = await TemporaryFile.create(environment.fileSystem, `${path}/${this.#work}/${name}`, store);
    this.#segment = segment;
    if (segment.kind !== 'memory' || this.#pool === undefined) return;
    this.#isPooled = await this.#pool.begin(this.#file, mapFileName(this.#segments.length, segment));
  }

  write(bytes: Uint8Array): Promise<void> {
    return this.writeAll([bytes]);
  }

  async writeAll(pieces: readonly Uint8Array[]): Promise<void> {
    if (this.#file === undefined) {
      throw new CheckpointError('CHKPT_UNSUPPORTED', 'a directory takes bytes only inside a segment', {
        details: { store: this.#save.store },
      });
    }
    if (this.#isPooled) await this.#pool?.write(pieces);
    else await this.#file.append(pieces);
  }

  /** What goes through a pool is looked at first. */
  direct(): DirectOutput | undefined {
    return this.#isPooled ? undefined : this.#file?.direct();
  }

  get storedBytes(): number | undefined {
    return this.#pool === undefined ? undefined : this.#ownBytes + this.#pool.storedBytes;
  }

  async endSegment(summary: SegmentSummary): Promise<void> {
    const file = this.#file;
    const segment = this.#segment;
    if (file === undefined || segment === undefined) throw new TypeError('no segment has begun');
    const pooled = this.#isPooled ? await this.#pool?.end() : undefined;
    await file.finish();
    this.#ownBytes += file.byteCount;
    this.#segments.push({
      name: segment.name,
      kind: segment.kind,
      file: segmentFileName(this.#segments.length, segment),
      bytes: pooled === undefined ? file.byteCount : summary.bytes,
      frames: summary.frames,
      digest: summary.digest,
      pooled,
    });
    this.#isPooled = false;
    this.#file = undefined;
    this.#segment = undefined;
  }

  async commit(summary: CommitSummary): Promise<void> {
    const { environment, collector, path, store, options } = this.#save;
    const packs = await this.#pool?.finish();
    await this.#flushFolder(`${path}/${this.#work}`);
    const generation = await this.#freeGeneration();
    const manifest = await this.#writeManifest({
      uuid: summary.uuid,
      parent: summary.parent ?? null,
      epoch: String(summary.epoch),
      root: summary.root,
      bytes: summary.bytes,
      generation,
      packs: this.#segments.some(({ pooled }) => pooled !== undefined) ? packs : undefined,
      segments: this.#segments,
    });
    throwIfAborted(options.signal, store);
    await this.#renameWork(generation);
    await this.#flushFolder(path);
    const replaced = await collector.published();
    if (typeof replaced !== 'object') await this.#flushParent();
    const older = this.#temporaryName('old');
    const files = {
      folder: path,
      temporary: manifest.path,
      inode: manifest.inode,
      target: `${path}/${manifestName}`,
      older: collector.manifests.pathOf(older),
    };
    const outcome = await publish(environment.fileSystem, files, store);
    this.#isPublished = true;
    if (outcome === 'unkept' && typeof replaced === 'object') {
      await collector.removeGeneration(replaced.generation);
    }
    await collector.collect([older]);
    await this.#save.claims.remove(this.#oldClaims);
    if (this.#pool === undefined) return;
    await this.#save.pool?.publish(`${path}/${generation}`, this.#pool.ownPacks);
    if (typeof replaced === 'object') await this.#save.pool?.sweep();
  }

  async abort(): Promise<void> {
    if (this.#isPublished) return;
    const { environment, collector, path, store } = this.#save;
    await this.#file?.abandon();
    await this.#pool?.abandon();
    const failure = await collector.removeWork(this.#work);
    if (this.#manifest !== undefined) await this.#withdraw(this.#manifest);
    if (this.#isNew) await environment.fileSystem.rmdir(path).catch(() => undefined);
    if (failure !== undefined) throw saveFailure(failure, 'cannot remove a temporary', { store, path });
  }

  /** Takes back what a failed commit made. */
  async #withdraw(manifest: TemporaryFile): Promise<void> {
    const { manifests } = this.#save.collector;
    await manifest.abandon();
    const own = this.#temporaryName('tmp');
    if (this.#generation !== undefined) {
      // The switch could not be undone. Both generations stay until a save succeeds: a power cut may bring
      // either back.
      if (await this.#isNamed(manifest)) return;
      if (!(await this.#save.collector.removeGeneration(this.#generation))) return manifests.postpone(own);
    }
    await manifests.remove(this.#temporaryName('old'));
    await manifests.remove(own);
  }

  /** True unless MANIFEST.json is certainly another file than the one this save wrote. */
  async #isNamed(manifest: TemporaryFile): Promise<boolean> {
    const { environment, path } = this.#save;
    try {
      return (await environment.fileSystem.status(`${path}/${manifestName}`)).inode === manifest.inode;
    } catch (error) {
      return errnoOf(error) !== 'ENOENT';
    }
  }

  #temporaryName(role: 'tmp' | 'old'): string {
    const { environment, collector, options } = this.#save;
    return collector.manifests.names.make(options.uuid, environment.processes.pid, role);
  }

  async #writeManifest(manifest: Manifest): Promise<TemporaryFile> {
    const { environment, collector, store } = this.#save;
    const path = collector.manifests.pathOf(this.#temporaryName('tmp'));
    const file = await TemporaryFile.create(environment.fileSystem, path, store);
    this.#manifest = file;
    await file.append([Buffer.from(serializeManifest(manifest))]);
    await file.finish();
    return file;
  }

  /** A generation is called after the checkpoint, unless a checkpoint of the same UUID is there already. */
  async #freeGeneration(): Promise<string> {
    const { path, store, options } = this.#save;
    for (let count = 1; count <= generationCountMax; count += 1) {
      const name = count === 1 ? options.uuid : `${options.uuid}.${count}`;
      if (!(await this.#exists(`${path}/${name}`))) return name;
    }
    throw new CheckpointError('CHKPT_IO', 'too many generations of this UUID', { details: { store, path } });
  }

  async #renameWork(generation: string): Promise<void> {
    const { environment, path } = this.#save;
    const target = `${path}/${generation}`;
    try {
      await environment.fileSystem.rename(`${path}/${this.#work}`, target);
    } catch (error) {
      throw saveFailure(error, 'cannot rename', this.#details(target));
    }
    this.#generation = generation;
  }

  async #exists(path: string): Promise<boolean> {
    try {
      await this.#save.environment.fileSystem.status(path);
      return true;
    } catch (error) {
      if (errnoOf(error) === 'ENOENT') return false;
      throw saveFailure(error, 'cannot look at a file', this.#details(path));
    }
  }

  async #flushFolder(path: string): Promise<void> {
    try {
      await this.#save.environment.fileSystem.fsyncDirectory(path);
    } catch (error) {
      throw flushFailure(error, 'cannot flush the folder', this.#details(path));
    }
  }

  /**
   * Makes the folder of the checkpoint itself durable: a first save may have made it, or one that crashed.
   */
  async #flushParent(): Promise<void> {
    const parent = dirname(this.#save.path);
    try {
      await this.#save.environment.fileSystem.fsyncDirectory(parent);
    } catch (error) {
      if (!this.#isNew && errnoOf(error) === 'EACCES') return;
      throw flushFailure(error, 'cannot flush the folder', this.#details(parent));
    }
  }

  #details(path: string): ErrorDetails {
    return { store: this.#save.store, path };
  }
}
