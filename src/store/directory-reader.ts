/**
 * A load from a `dir:` checkpoint: the files of the manifest, one after the other, as one stream.
 *
 * All files are opened before the first byte is read. From then on a save may replace the checkpoint and
 * remove these files: what is open stays readable.
 */
import { createHash } from 'node:crypto';
import { CheckpointError, type ErrorDetails, fromSystemError } from '../errors/index.ts';
import { poolMapBytesMax } from '../limits.ts';
import { errnoOf, type FileSystem, type OpenFile } from './file-system.ts';
import { type Manifest, type ManifestSegment, type PooledSegment, serializeManifest } from './manifest.ts';
import { manifestName, readManifest } from './manifest-file.ts';
import { manifestError } from './manifest-rules.ts';
import { type PartFile, PooledPart } from './pooled-part.ts';
import {
  closeReadable,
  openForReading,
  type ReadableFile,
  readAtPosition,
  readWhole,
} from './readable-file.ts';
import type { StoredShares, StoreExtent, StoreReader } from './store.ts';

/** Where a load reads. */
export interface DirectoryPlace {
  readonly fileSystem: FileSystem;
  readonly path: string;
  readonly store: string;
}

/** One segment and its place in the stream. */
interface Part {
  readonly file: OpenFile;
  readonly start: number;
  readonly end: number;
  readonly details: ErrorDetails;
  /** Of a segment of which packs hold a part; `file` has the rest. */
  readonly pooled?: PooledPart | undefined;
}

/** Everything that is open. */
interface Opened {
  readonly parts: Part[];
  readonly packs: PartFile[];
  /** Bytes of files that are no packs. */
  ownBytes: number;
}

/** How often a checkpoint may be replaced while it is being opened. */
const replacementCountMax = 16;

/** Opens the checkpoint. Throws `CHKPT_NOT_FOUND`, `CHKPT_MANIFEST`, … */
export async function openDirectoryReader(place: DirectoryPlace): Promise<StoreReader> {
  const path = `${place.path}/${manifestName}`;
  let manifest = await readManifest(place.fileSystem, path, place.store);
  for (let count = 0; ; count += 1) {
    try {
      return new DirectoryReader(await openAll(place, manifest), manifest.bytes);
    } catch (error) {
      // A file that is gone is damage, unless a save has replaced the checkpoint since the manifest was read.
      if (!(error instanceof CheckpointError) || error.code !== 'CHKPT_MANIFEST') throw error;
      const newer = await readManifest(place.fileSystem, path, place.store);
      if (count === replacementCountMax || serializeManifest(newer) === serializeManifest(manifest)) {
        throw error;
      }
      manifest = newer;
    }
  }
}

async function openAll(place: DirectoryPlace, manifest: Manifest): Promise<Opened> {
  const folder = `${place.path}/${manifest.generation}`;
  await checkFolder(place, folder);
  const opened: Opened = { parts: [], packs: [], ownBytes: 0 };
  try {
    for (const { file: name, bytes } of manifest.packs ?? []) {
      const details = { store: place.store, path: `${folder}/${name}` };
      opened.packs.push({ file: await openPart(place.fileSystem, bytes, details), bytes, details });
    }
    let start = 0;
    for (const segment of manifest.segments) {
      const part = await openSegment(place, folder, segment, opened);
      opened.parts.push({ ...part, start, end: start + segment.bytes });
      start += segment.bytes;
    }
    return opened;
  } catch (error) {
    for (const { file } of [...opened.parts, ...opened.packs]) await file.close().catch(() => undefined);
    throw error;
  }
}

async function openSegment(
  { fileSystem, store }: DirectoryPlace,
  folder: string,
  { file: name, bytes, pooled }: ManifestSegment,
  opened: Opened,
): Promise<Omit<Part, 'start' | 'end'>> {
  const details = { store, path: `${folder}/${name}` };
  const file = await openPart(fileSystem, pooled?.own ?? bytes, details);
  opened.ownBytes += pooled?.own ?? bytes;
  if (pooled === undefined) return { file, details };
  try {
    const mapDetails = { store, path: `${folder}/${pooled.map}` };
    const map = await readMap(fileSystem, pooled, mapDetails);
    opened.ownBytes += map.length;
    const own = { file, bytes: pooled.own, details };
    return {
      file,
      details,
      pooled: new PooledPart({ own, packs: opened.packs, map, details: mapDetails }, bytes),
    };
  } catch (error) {
    await file.close().catch(() => undefined);
    throw error;
  }
}

async function readMap(
  fileSystem: FileSystem,
  { digest }: PooledSegment,
  details: { store: string; path: string },
): Promise<Uint8Array> {
  const { file, bytes } = await openRegular(fileSystem, details);
  try {
    if (bytes > poolMapBytesMax) throw manifestError('the map of a context is too long', details);
    const map = await readWhole({ file, bytes }, details);
    if (createHash('sha256').update(map).digest('hex') === digest) return map;
    throw manifestError('the map of a context is damaged', details);
  } finally {
    await file.close().catch(() => undefined);
  }
}

/** The folder must not be a link: it would lead out of the checkpoint. */
async function checkFolder({ fileSystem, store }: DirectoryPlace, folder: string): Promise<void> {
  const details = { store, path: folder };
  try {
    if ((await fileSystem.status(folder)).kind === 'directory') return;
  } catch (error) {
    if (errnoOf(error) !== 'ENOENT') throw fromSystemError(error, 'cannot open', details);
    throw manifestError('it names a folder that does not exist', details, error);
  }
  throw manifestError('it names a folder that is none', details);
}

/** A file of exactly that length. */
async function openPart(
  fileSystem: FileSystem,
  byteCount: number,
  details: { store: string; path: string },
): Promise<OpenFile> {
  const opened = await openRegular(fileSystem, details);
  if (opened.bytes === byteCount) return opened.file;
  await opened.file.close().catch(() => undefined);
  throw manifestError('a file has another length', {
    ...details,
    expected: byteCount,
    actual: opened.bytes,
  });
}

async function openRegular(
  fileSystem: FileSystem,
  details: { store: string; path: string },
): Promise<ReadableFile> {
  return await openForReading(fileSystem, details.path, details.store).catch((error: CheckpointError) => {
    const cause = error.cause;
    if (error.code === 'CHKPT_NOT_FOUND') {
      throw manifestError('it names a file that does not exist', details, cause);
    }
    if (error.code === 'CHKPT_STORE_URL' || errnoOf(cause) === 'ELOOP') {
      throw manifestError('it names something that is no regular file', details, cause);
    }
    throw error;
  });
}

class DirectoryReader implements StoreReader {
  readonly byteLength: number;
  readonly #parts: readonly Part[];
  readonly #packs: readonly PartFile[];
  readonly #ownBytes: number;
  #position = 0;

  constructor({ parts, packs, ownBytes }: Opened, byteLength: number) {
    this.#parts = parts;
    this.#packs = packs;
    this.#ownBytes = ownBytes;
    this.byteLength = byteLength;
  }

  /** A pack that this checkpoint alone uses has two names: here, and in its pool. */
  async shares(): Promise<StoredShares | undefined> {
    if (this.#packs.length === 0) return undefined;
    let own = this.#ownBytes;
    let shared = 0;
    for (const { file, bytes, details } of this.#packs) {
      const { names } = await file.status().catch((error: unknown) => {
        throw fromSystemError(error, 'cannot look at a file', details);
      });
      if (names > 2) shared += bytes;
      else own += bytes;
    }
    return { own, shared };
  }

  async read(target: Uint8Array): Promise<number> {
    const byteCount = await this.readAt(this.#position, target);
    this.#position += byteCount;
    return byteCount;
  }

  async readAt(offset: number, target: Uint8Array): Promise<number> {
    let done = 0;
    for (let index = this.#partAt(offset); index < this.#parts.length && done < target.length; ) {
      const part = this.#parts[index];
      if (part === undefined) break;
      const position = offset + done;
      const byteCount = Math.min(target.length - done, part.end - position);
      if (byteCount <= 0) {
        index += 1;
        continue;
      }
      done += await readPart(part, target.subarray(done, done + byteCount), position);
    }
    return done;
  }

  extents(): readonly StoreExtent[] | undefined {
    const extents: StoreExtent[] = [];
    for (const { file, start, end, pooled } of this.#parts) {
      if (pooled !== undefined) {
        const source = pooled.source();
        if (source === undefined) return undefined;
        extents.push({ bytes: end - start, source });
        continue;
      }
      if (file.descriptor === undefined) return undefined;
      extents.push({ bytes: end - start, descriptor: file.descriptor, position: 0 });
    }
    return extents;
  }

  skip(byteCount: number): void {
    this.#position += byteCount;
  }

  async close(): Promise<void> {
    let failure: unknown;
    for (const { pooled } of this.#parts) pooled?.close();
    for (const { file, details } of [...this.#parts, ...this.#packs]) {
      await closeReadable(file, details).catch((error: unknown) => {
        failure ??= error;
      });
    }
    if (failure !== undefined) throw failure;
  }

  /** Index of the last part that begins at or before `offset`. */
  #partAt(offset: number): number {
    let low = 0;
    let high = this.#parts.length - 1;
    while (low < high) {
      const middle = Math.ceil((low + high) / 2);
      if ((this.#parts[middle]?.start ?? 0) <= offset) low = middle;
      else high = middle - 1;
    }
    return low;
  }
}

async function readPart(part: Part, target: Uint8Array, position: number): Promise<number> {
  if (part.pooled !== undefined) return await part.pooled.read(position - part.start, target);
  const byteCount = await readAtPosition(part.file, target, position - part.start, part.details);
  if (byteCount > 0) return byteCount;
  throw manifestError('a file became shorter while it was read', part.details);
}
