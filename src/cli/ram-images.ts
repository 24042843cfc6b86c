/**
 * RAM images on disk that are about to be saved. They are read with pread, never mapped, so that a file that somebody cuts is
 * an error and not the end of the process.
 */
import { constants, fstatSync } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import { CheckpointError, fromSystemError } from '../errors/index.ts';
import { GuestMemory } from '../index.ts';
import { pageBytes } from '../limits.ts';
import { type MemoryArgument, type RegionBytes, sortRegions } from './memory-argument.ts';

interface RamImage extends RegionBytes {
  readonly path: string;
  readonly file: FileHandle;
}

/** Open images, ascending by address. Close them. */
export class RamImages {
  readonly regions: readonly RegionBytes[];
  readonly #images: readonly RamImage[];

  private constructor(images: readonly RamImage[]) {
    this.#images = images;
    this.regions = images.map(({ base, bytes }) => ({ base, bytes }));
  }

  /** Throws `CHKPT_USAGE` when regions overlap, `CHKPT_MEMORY_SHORT`, `CHKPT_NOT_FOUND`, `CHKPT_PERMISSION`, `CHKPT_UNSUPPORTED`. */
  static async open(memory: readonly MemoryArgument[]): Promise<RamImages> {
    const files: FileHandle[] = [];
    try {
      const images: RamImage[] = [];
      for (const { path, base = 0n } of memory) {
        const file = await openImage(path);
        files.push(file);
        images.push({ path, base, bytes: await bytesOf(file, path), file });
      }
      return new RamImages(sortRegions(images));
    } catch (error) {
      await closeAll(files);
      throw error;
    }
  }

  /** Guest memory over the images; it keeps working when they are closed. Throws `CHKPT_NO_NATIVE`. */
  async openMemory(): Promise<GuestMemory> {
    return GuestMemory.openFiles(
      this.#images.map(({ file, base, bytes }) => ({ file: file.fd, base, bytes })),
    );
  }

  /** Differs when an image was written or cut meanwhile; writes through a mapping may not show. */
  describeChanges(): string {
    return this.#images
      .map(({ file }) => fstatSync(file.fd, { bigint: true }))
      .map(({ size, mtimeNs, ctimeNs }) => `${size} ${mtimeNs} ${ctimeNs}`)
      .join();
  }

  async close(): Promise<void> {
    await closeAll(this.#images.map(({ file }) => file));
  }
}

async function closeAll(files: readonly FileHandle[]): Promise<void> {
  for (const file of files) await file.close().catch(() => undefined);
}

/** Without O_NONBLOCK a FIFO would be waited for. */
async function openImage(path: string): Promise<FileHandle> {
  try {
    return await open(path, constants.O_RDONLY | constants.O_NONBLOCK);
  } catch (error) {
    throw fromSystemError(error, 'cannot open the RAM image', { path });
  }
}

async function bytesOf(file: FileHandle, path: string): Promise<bigint> {
  const status = await file.stat({ bigint: true }).catch((error: unknown) => {
    throw fromSystemError(error, 'cannot look at the RAM image', { path });
  });
  if (!status.isFile()) {
    throw new CheckpointError('CHKPT_UNSUPPORTED', 'the RAM image is no regular file', { details: { path } });
  }
  if (status.size === 0n || status.size % BigInt(pageBytes) !== 0n) {
    const what = `the RAM image has ${status.size} bytes, which is not a whole number of ${pageBytes}-byte pages`;
    throw new CheckpointError('CHKPT_MEMORY_SHORT', what, { details: { path } });
  }
  return status.size;
}
