/**
 * Reading for the stores on files: only regular files, never through a symbolic link, never waiting.
 */
import { constants } from 'node:fs';
import { CheckpointError, type ErrorDetails, fromSystemError } from '../errors/index.ts';
import { errnoOf, type FileSystem, type OpenFile } from './file-system.ts';

const readFlags = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK;

/** libuv repeats every interrupted call but a read; a file system on the network may interrupt one. */
const interruptedCountMax = 16;

/** A regular file opened for reading, and its length at that moment. */
export interface ReadableFile {
  readonly file: OpenFile;
  readonly bytes: number;
}

/**
 * Opens a regular file. Never waits: a FIFO is opened without blocking and then refused, as are folders and
 * devices (`CHKPT_STORE_URL`). A symbolic link as the last component is refused (`CHKPT_PERMISSION`).
 */
export async function openForReading(
  fileSystem: FileSystem,
  path: string,
  store: string,
): Promise<ReadableFile> {
  const details = { store, path };
  let file: OpenFile;
  try {
    file = await fileSystem.open(path, readFlags);
  } catch (error) {
    if (errnoOf(error) === 'ENXIO') throw notRegular(details, 'socket', error);
    if (errnoOf(error) !== 'ELOOP') throw fromSystemError(error, 'cannot open', details);
    throw new CheckpointError(
      'CHKPT_PERMISSION',
      'this is a symbolic link, which is not followed: name its target',
      {
        details,
        cause: error,
      },
    );
  }
  try {
    const status = await file.status();
    if (status.kind !== 'file') throw notRegular(details, status.kind);
    return { file, bytes: status.bytes };
  } catch (error) {
    await file.close().catch(() => undefined);
    throw fromSystemError(error, 'cannot open', details);
  }
}

function notRegular(details: ErrorDetails, kind: string, cause?: unknown): CheckpointError {
  const what =
    kind === 'directory' ? 'this is a folder, not a file; use dir: for it' : 'this is no regular file';
  return new CheckpointError('CHKPT_STORE_URL', what, { details, ...(cause === undefined ? {} : { cause }) });
}

/** Reads at `position`; 0 means the end of the file. */
export async function readAtPosition(
  file: OpenFile,
  target: Uint8Array,
  position: number,
  details: ErrorDetails,
): Promise<number> {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await file.read(target, position);
    } catch (error) {
      if (errnoOf(error) === 'EINTR' && attempt < interruptedCountMax) continue;
      throw fromSystemError(error, 'cannot read', details);
    }
  }
}

/** Reads all of a file, or as much as there is left of it. The caller has bounded its length. */
export async function readWhole(opened: ReadableFile, details: ErrorDetails): Promise<Uint8Array> {
  const bytes = new Uint8Array(opened.bytes);
  let done = 0;
  while (done < bytes.length) {
    const byteCount = await readAtPosition(opened.file, bytes.subarray(done), done, details);
    if (byteCount === 0) break;
    done += byteCount;
  }
  return bytes.subarray(0, done);
}

/** Closes a file that was only read. */
export async function closeReadable(file: OpenFile, details: ErrorDetails): Promise<void> {
  try {
    await file.close();
  } catch (error) {
    throw fromSystemError(error, 'cannot close', details);
  }
}
