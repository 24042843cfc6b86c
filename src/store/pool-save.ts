/**
 * The memory context of a save into a `dir:` checkpoint with a pool: native code cuts it, finds what packs hold already, and writes the
 * rest (native/core/pool/pool_writer.h). Here are the files:
 *
 *     WORK/004-memory.pages     what the checkpoint keeps for itself: headers of frames, and what is too small
 *     WORK/004-memory.map       how that and parts of packs make the context
 *     WORK/UUID.pack            packs of this save, about `packBytes` each, and names of packs of others
 */
import { createHash, type Hash, randomUUID } from 'node:crypto';
import { CheckpointError } from '../errors/index.ts';
import { poolMapBytesMax } from '../limits.ts';
import { fromNative, hasNativeAddon, type NativePoolWriter, nativeAddon } from '../native/index.ts';
import type { StoreEnvironment } from './environment.ts';
import { saveFailure } from './failure.ts';
import type { FileSystem } from './file-system.ts';
import type { ManifestPack, PooledSegment } from './manifest.ts';
import type { Pool } from './pool.ts';
import { packNameOf } from './pool-names.ts';
import type { DirectOutput } from './store.ts';
import { TemporaryFile } from './temporary-file.ts';

/** A pack is complete when it has so many bytes of objects. */
const packBytes = 32 * 1024 * 1024;

/** Where a save with a pool writes. */
export interface PoolPlace {
  readonly environment: StoreEnvironment;
  readonly pool: Pool;
  /** Folder of the save. */
  readonly work: string;
  readonly store: string;
}

interface Context {
  readonly file: TemporaryFile;
  readonly map: TemporaryFile;
  readonly mapName: string;
  readonly hash: Hash;
}

export class PoolSave {
  readonly #place: PoolPlace;
  readonly #writer: NativePoolWriter;
  readonly #loaded: Promise<void>;
  #context: Context | undefined;
  #pack: TemporaryFile | undefined;
  /** Packs of this save that are complete, and may still be being flushed. */
  readonly #complete: TemporaryFile[] = [];
  readonly #flushes: Promise<unknown>[] = [];
  readonly #ownPacks: string[] = [];
  #storedBytes = 0;

  private constructor(place: PoolPlace, writer: NativePoolWriter) {
    this.#place = place;
    this.#writer = writer;
    this.#loaded = writer.load();
    this.#loaded.catch(() => undefined); // told by the call that waits for it
  }

  /** Begins to look into the pool. `undefined` without the native addon: then nothing is shared. */
  static async open(place: PoolPlace): Promise<PoolSave | undefined> {
    await place.pool.prepare(place.work);
    if (!hasNativeAddon()) return undefined;
    return new PoolSave(place, new (nativeAddon().PoolWriter)(place.pool.path, place.work));
  }

  /** Names of the packs that this save has made. */
  get ownPacks(): readonly string[] {
    return this.#ownPacks;
  }

  /** Bytes of maps and packs that this save has written. */
  get storedBytes(): number {
    return this.#storedBytes;
  }

  /** A context begins, whose own bytes go to `file`. False when native threads cannot write there: it is to be written as it is. */
  async begin(file: TemporaryFile, mapName: string): Promise<boolean> {
    if (file.direct() === undefined) return false;
    await this.#native(this.#loaded);
    const map = await this.#create(mapName);
    this.#context = { file, map, mapName, hash: createHash('sha256') };
    return true;
  }

  /** The next bytes of the context. When it resolves they are no longer read. */
  async write(pieces: readonly Uint8Array[]): Promise<void> {
    const { file } = this.#opened();
    const pack = await this.#packInUse();
    const own = directOf(file);
    const packed = directOf(pack);
    const written = await this.#native(
      this.#writer.write(pieces, own.descriptor, own.position, packed.descriptor, packed.position),
    );
    own.wrote(written.own);
    packed.wrote(written.pack);
    this.#storedBytes += written.pack;
    await this.#appendMap(written.map);
    if (pack.byteCount >= packBytes) await this.#completePack(pack);
  }

  /** The context is complete; its file is still open. */
  async end(): Promise<PooledSegment> {
    const { file, map, mapName, hash } = this.#opened();
    const own = directOf(file);
    const written = await this.#native(this.#writer.endContext(own.descriptor, own.position));
    own.wrote(written.own);
    await this.#appendMap(written.map);
    await map.finish();
    this.#storedBytes += map.byteCount;
    this.#context = undefined;
    return { map: mapName, own: file.byteCount, digest: hash.digest('hex') };
  }

  /** Completes everything; all of it is flushed when it resolves. Resolves to the packs of the checkpoint, by number. */
  async finish(): Promise<readonly ManifestPack[]> {
    if (this.#pack !== undefined) await this.#endLast(this.#pack);
    for (const result of await Promise.allSettled(this.#flushes)) {
      if (result.status === 'rejected') throw result.reason;
    }
    // A checkpoint without memory has waited for nothing yet. What cannot be read of the pool is only stored once more.
    await this.#loaded.catch(() => undefined);
    const packs = this.#writer.takePacks().map(({ name, bytes }) => ({ file: name, bytes }));
    this.#writer.close();
    return packs;
  }

  /** Gives all descriptors back. Never rejects. */
  async abandon(): Promise<void> {
    await this.#loaded.catch(() => undefined);
    await Promise.allSettled(this.#flushes);
    await this.#context?.map.abandon();
    await this.#pack?.abandon();
    for (const file of this.#complete) await file.abandon();
    this.#writer.close();
  }

  #opened(): Context {
    if (this.#context !== undefined) return this.#context;
    throw new TypeError('no context has begun');
  }

  async #packInUse(): Promise<TemporaryFile> {
    if (this.#pack !== undefined) return this.#pack;
    const name = packNameOf(randomUUID());
    const pack = await this.#create(name);
    this.#pack = pack;
    await this.#native(async () => this.#writer.beginPack(name));
    this.#ownPacks.push(name);
    return pack;
  }

  /** Nothing new may have come since the pack before, or at all. */
  async #endLast(pack: TemporaryFile): Promise<void> {
    if (pack.byteCount > 0) return await this.#completePack(pack);
    await pack.abandon();
    this.#pack = undefined;
    this.#ownPacks.pop();
    await removeFile(this.#place.environment.fileSystem, pack.path, this.#place.store);
  }

  /** Flushed while the next ones are written. */
  async #completePack(pack: TemporaryFile): Promise<void> {
    const output = directOf(pack);
    const byteCount = await this.#native(this.#writer.endPack(output.descriptor, output.position));
    output.wrote(byteCount);
    this.#storedBytes += byteCount;
    this.#pack = undefined;
    this.#complete.push(pack);
    const flush = pack.finish();
    flush.catch(() => undefined); // told by `finish()`
    this.#flushes.push(flush);
  }

  async #appendMap(bytes: Uint8Array): Promise<void> {
    if (bytes.length === 0) return;
    const { map, hash } = this.#opened();
    if (map.byteCount + bytes.length > poolMapBytesMax) {
      throw new CheckpointError('CHKPT_VALUE_RANGE', 'the map of a context gets too long', {
        details: { store: this.#place.store, expected: poolMapBytesMax },
      });
    }
    hash.update(bytes);
    await map.append([bytes]);
  }

  async #create(name: string): Promise<TemporaryFile> {
    const { environment, work, store } = this.#place;
    return await TemporaryFile.create(environment.fileSystem, `${work}/${name}`, store);
  }

  async #native<T>(work: Promise<T> | (() => Promise<T>)): Promise<T> {
    try {
      return await (typeof work === 'function' ? work() : work);
    } catch (error) {
      throw fromNative(error, { store: this.#place.store });
    }
  }
}

async function removeFile(fileSystem: FileSystem, path: string, store: string): Promise<void> {
  try {
    await fileSystem.unlink(path);
  } catch (error) {
    throw saveFailure(error, 'cannot remove a file', { store, path });
  }
}

function directOf(file: TemporaryFile): DirectOutput & { readonly descriptor: number } {
  const output = file.direct();
  if (output === undefined || output.descriptor === 'discard')
    throw new TypeError('a file without descriptor');
  return { ...output, descriptor: output.descriptor };
}
