/**
 * A file while it is being written.
 *
 * It is created new, readable by its owner only, never through a symbolic link. Calls come one at a time.
 */
import { constants } from 'node:fs';
import { CheckpointError, type ErrorDetails, fromSystemError } from '../errors/index.ts';
import { flushFailure, saveFailure } from './failure.ts';
import { errnoOf, type FileStatus, type FileSystem, type OpenFile } from './file-system.ts';
import type { DirectOutput } from './store.ts';

const createFlags = constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW;
const fileMode = 0o600;

export class TemporaryFile {
  readonly path: string;
  readonly #details: ErrorDetails;
  #file: OpenFile | undefined;
  #byteCount = 0;
  #inode = 0n;

  private constructor(path: string, details: ErrorDetails, file: OpenFile) {
    this.path = path;
    this.#details = details;
    this.#file = file;
  }

  /** Creates the file. `store` is the URL that errors name. */
  static async create(fileSystem: FileSystem, path: string, store: string): Promise<TemporaryFile> {
    const details = { store, path };
    try {
      return new TemporaryFile(path, details, await fileSystem.open(path, createFlags, fileMode));
    } catch (error) {
      if (errnoOf(error) === 'EEXIST') {
        throw new CheckpointError('CHKPT_IO', 'another save with this UUID is running', {
          details,
          cause: error,
        });
      }
      throw fromSystemError(error, 'cannot create a file', details);
    }
  }

  get byteCount(): number {
    return this.#byteCount;
  }

  /** Identity of the file, known when `finish()` has resolved. */
  get inode(): bigint {
    return this.#inode;
  }

  /** Appends all of the pieces, one behind the other. They are not copied. */
  async append(pieces: readonly Uint8Array[]): Promise<void> {
    const file = this.#opened();
    let rest = withoutFirst(pieces, 0);
    while (rest.length > 0) {
      const written = await this.#write(file, rest);
      if (written === 0) {
        throw new CheckpointError('CHKPT_IO', 'the system writes nothing', { details: this.#details });
      }
      this.#byteCount += written;
      rest = withoutFirst(rest, written);
    }
  }

  /** The file from its end on, for native threads; `undefined` where there is no descriptor. */
  direct(): DirectOutput | undefined {
    const { descriptor } = this.#opened();
    if (descriptor === undefined) return undefined;
    return {
      descriptor,
      position: this.#byteCount,
      wrote: (byteCount) => {
        this.#byteCount += byteCount;
      },
      failure: (error) => saveFailure(error, 'cannot write', this.#details),
    };
  }

  /**
   * Makes the content durable and closes the file. A flush is tried once: after a failed one the kernel may
   * have marked the pages clean, so a second success would prove nothing.
   */
  async finish(): Promise<void> {
    const file = this.#opened();
    const status = await this.#status(file);
    if (status.bytes !== this.#byteCount) {
      throw new CheckpointError('CHKPT_IO', 'the file has not the length that was written', {
        details: { ...this.#details, expected: this.#byteCount, actual: status.bytes },
      });
    }
    this.#inode = status.inode;
    try {
      await file.fsync();
    } catch (error) {
      throw flushFailure(error, 'cannot flush', this.#details);
    }
    this.#file = undefined;
    try {
      await file.close();
    } catch (error) {
      throw saveFailure(error, 'cannot close', this.#details);
    }
  }

  /**
   * Gives the descriptor back when that has not happened yet; the content no longer matters. Never rejects.
   */
  async abandon(): Promise<void> {
    const file = this.#file;
    this.#file = undefined;
    await file?.close().catch(() => undefined);
  }

  #opened(): OpenFile {
    if (this.#file !== undefined) return this.#file;
    throw new CheckpointError('CHKPT_CLOSED', 'the file is closed', { details: this.#details });
  }

  async #write(file: OpenFile, pieces: readonly Uint8Array[]): Promise<number> {
    try {
      return await file.write(pieces, this.#byteCount);
    } catch (error) {
      throw saveFailure(error, 'cannot write', this.#details);
    }
  }

  async #status(file: OpenFile): Promise<FileStatus> {
    try {
      return await file.status();
    } catch (error) {
      throw saveFailure(error, 'cannot read the length', this.#details);
    }
  }
}

/** What is left behind the first `byteCount` bytes, without empty pieces. */
function withoutFirst(pieces: readonly Uint8Array[], byteCount: number): readonly Uint8Array[] {
  let skip = byteCount;
  const rest: Uint8Array[] = [];
  for (const piece of pieces) {
    if (piece.length > skip) rest.push(skip === 0 ? piece : piece.subarray(skip));
    skip = Math.max(skip - piece.length, 0);
  }
  return rest;
}
