/**
 * A load from a `dir:` checkpoint: the files of the manifest, one after the other, as one stream.
 *
 * All files are opened before the first byte is read. From then on a save may replace the checkpoint and
 * remove these files: what is open stays readable.
 */
import { CheckpointError, type ErrorDetails, fromSystemError } from '../errors/index.ts';
import { errnoOf, type FileSystem, type OpenFile } from './file-system.ts';
import { type Manifest, type ManifestSegment, manifestError, serializeManifest } from './manifest.ts';
import { manifestName, readManifest } from './manifest-file.ts';
import { closeReadable, openForReading, readAtPosition } from './readable-file.ts';
import type { StoreExtent, StoreReader } from './store.ts';

/** Where a load reads. */
export interface DirectoryPlace {
  readonly fileSystem: FileSystem;
  readonly path: string;
  readonly store: string;
}

/** One file and its place in the stream. */
interface Part {
  readonly file: OpenFile;
  readonly start: number;
  readonly end: number;
  readonly details: ErrorDetails;
}

/** How often a checkpoint may be replaced while it is being opened. */
const replacementCountMax = 16;

/** Opens the checkpoint. Throws `CHKPT_NOT_FOUND`, `CHKPT_MANIFEST`, … */
export async function openDirectoryReader(place: DirectoryPlace): Promise<StoreReader> {
  const path = `${place.path}/${manifestName}`;
  let manifest = await readManifest(place.fileSystem, path, place.store);
  for (let count = 0; ; count += 1) {
    try {
      return new DirectoryReader(await openParts(place, manifest), manifest.bytes);
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

async function openParts(place: DirectoryPlace, manifest: Manifest): Promise<Part[]> {
  const folder = `${place.path}/${manifest.generation}`;
  await checkFolder(place, folder);
  const parts: Part[] = [];
  try {
    let start = 0;
    for (const segment of manifest.segments) {
      const details = { store: place.store, path: `${folder}/${segment.file}` };
      const file = await openPart(place.fileSystem, segment, details);
      parts.push({ file, start, end: start + segment.bytes, details });
      start += segment.bytes;
    }
    return parts;
  } catch (error) {
    for (const { file } of parts) await file.close().catch(() => undefined);
    throw error;
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

async function openPart(
  fileSystem: FileSystem,
  segment: ManifestSegment,
  details: { store: string; path: string },
): Promise<OpenFile> {
  const opened = await openForReading(fileSystem, details.path, details.store).catch(
    (error: CheckpointError) => {
      const cause = error.cause;
      if (error.code === 'CHKPT_NOT_FOUND') {
        throw manifestError('it names a file that does not exist', details, cause);
      }
      if (error.code === 'CHKPT_STORE_URL' || errnoOf(cause) === 'ELOOP') {
        throw manifestError('it names something that is no regular file', details, cause);
      }
      throw error;
    },
  );
  if (opened.bytes === segment.bytes) return opened.file;
  await opened.file.close().catch(() => undefined);
  throw manifestError('a file has another length', {
    ...details,
    expected: segment.bytes,
    actual: opened.bytes,
  });
}

class DirectoryReader implements StoreReader {
  readonly byteLength: number;
  readonly #parts: readonly Part[];
  #position = 0;

  constructor(parts: readonly Part[], byteLength: number) {
    this.#parts = parts;
    this.byteLength = byteLength;
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
    for (const { file, start, end } of this.#parts) {
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
    for (const { file, details } of this.#parts) {
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
  const byteCount = await readAtPosition(part.file, target, position - part.start, part.details);
  if (byteCount > 0) return byteCount;
  throw manifestError('a file became shorter while it was read', part.details);
}
