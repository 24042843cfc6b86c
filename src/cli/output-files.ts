/**
 * Files that a load writes. Each is a temporary beside its target, readable by its owner only; all of them get their names when
 * the whole checkpoint was verified, or none does.
 *
 *     .NAME.UUID.PID.tmp → flush → NAME → flush of the folder
 *
 * An older file at a target comes back when one of the renames fails. A symbolic link is followed: the file that it names is
 * replaced. Calls come one at a time.
 */
import { constants, type Stats } from 'node:fs';
import { type FileHandle, lstat, open, realpath, stat } from 'node:fs/promises';
import { basename, dirname, isAbsolute } from 'node:path';
import { CheckpointError, type ErrorDetails, fromSystemError } from '../errors/index.ts';
import { flushFailure, saveFailure, throwIfAborted } from '../store/failure.ts';
import { errnoOf } from '../store/file-system.ts';
import { FileTemporaries } from '../store/file-temporaries.ts';
import { hostEnvironment } from '../store/index.ts';
import { publish, type Replaced } from '../store/publish.ts';

const createFlags = constants.O_RDWR | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW;
const fileMode = 0o600;
const { fileSystem, processes } = hostEnvironment;

/** One file that is being written. `handle` is open until the files are published or dropped. */
export interface OutputFile {
  readonly handle: FileHandle;
  /** As the caller gave it. */
  readonly path: string;
}

interface PendingFile extends OutputFile {
  /** Absolute path that it will have. */
  readonly target: string;
  readonly temporaries: FileTemporaries;
  /** Names in the folder of the target. */
  readonly entry: string;
  readonly olderEntry: string;
}

export class OutputFiles {
  readonly #uuid: string;
  readonly #store: string;
  readonly #files: PendingFile[] = [];

  /** `uuid` and `store` are those of the checkpoint. */
  constructor(uuid: string, store: string) {
    this.#uuid = uuid;
    this.#store = store;
  }

  /** Makes the temporary of a file. Throws `CHKPT_PERMISSION`, `CHKPT_NOT_FOUND` (no such folder), `CHKPT_UNSUPPORTED`, … */
  async create(path: string): Promise<OutputFile> {
    const details: ErrorDetails = { store: this.#store, path };
    const target = await targetOf(path, details);
    const temporaries = new FileTemporaries(hostEnvironment, dirname(target), basename(target));
    await temporaries.collect();
    const entry = temporaries.names.make(this.#uuid, processes.pid, 'tmp');
    const olderEntry = temporaries.names.make(this.#uuid, processes.pid, 'old');
    try {
      const handle = await open(temporaries.pathOf(entry), createFlags, fileMode);
      const file = { handle, path, target, temporaries, entry, olderEntry };
      this.#files.push(file);
      return file;
    } catch (error) {
      throw fromSystemError(error, 'cannot create a file beside the output', details);
    }
  }

  /** Writes the content of a file. */
  async write({ handle, path }: OutputFile, data: Uint8Array): Promise<void> {
    try {
      await handle.writeFile(data);
    } catch (error) {
      throw saveFailure(error, 'cannot write', { store: this.#store, path });
    }
  }

  /** Gives all files their names, durably. Throws; then no target was changed, and `discard()` removes the rest. */
  async publish(signal: AbortSignal): Promise<void> {
    const inodes: bigint[] = [];
    for (const file of this.#files) inodes.push(await this.#flush(file));
    throwIfAborted(signal, this.#store);
    const published: [file: PendingFile, replaced: Replaced][] = [];
    try {
      for (const [index, file] of this.#files.entries()) {
        published.push([file, await this.#rename(file, inodes[index] ?? 0n)]);
      }
    } catch (error) {
      for (const [file, replaced] of published.reverse())
        await takeBack(file, replaced).catch(() => undefined);
      throw error;
    }
    for (const { temporaries, olderEntry } of this.#files.splice(0)) await temporaries.remove(olderEntry);
  }

  /** Removes what was not published. Never rejects. */
  async discard(): Promise<void> {
    for (const { handle, temporaries, entry, olderEntry } of this.#files.splice(0)) {
      await handle.close().catch(() => undefined);
      await temporaries.remove(olderEntry);
      await temporaries.remove(entry);
    }
  }

  async #flush({ handle, path }: PendingFile): Promise<bigint> {
    const details: ErrorDetails = { store: this.#store, path };
    try {
      await handle.sync();
    } catch (error) {
      throw flushFailure(error, 'cannot flush', details);
    }
    try {
      const { ino } = await handle.stat({ bigint: true });
      await handle.close();
      return ino;
    } catch (error) {
      throw saveFailure(error, 'cannot close', details);
    }
  }

  async #rename({ temporaries, target, entry, olderEntry }: PendingFile, inode: bigint): Promise<Replaced> {
    const temporary = temporaries.pathOf(entry);
    const older = temporaries.pathOf(olderEntry);
    return publish(fileSystem, { folder: dirname(target), temporary, inode, target, older }, this.#store);
  }
}

/** Makes the folder what it was before a file got its name. */
async function takeBack({ temporaries, target, olderEntry }: PendingFile, replaced: Replaced): Promise<void> {
  if (replaced === 'nothing') await fileSystem.unlink(target);
  else if (replaced === 'kept') await fileSystem.rename(temporaries.pathOf(olderEntry), target);
  await fileSystem.fsyncDirectory(dirname(target));
}

/** Names of open descriptors: replacing the file behind one would cut it off from whoever holds it open. */
const descriptorPath = /^\/dev\/(std(in|out|err)$|fd\/)|^\/proc\/[^/]+\/fd\//;

/** The path of the file to be made or replaced. Anything that is no regular file is refused: a rename would destroy it. */
async function targetOf(path: string, details: ErrorDetails): Promise<string> {
  if (descriptorPath.test(path)) {
    throw new CheckpointError('CHKPT_UNSUPPORTED', 'the output is a descriptor; - is standard output', {
      details,
    });
  }
  try {
    const status = await statusOf(path);
    if (status === undefined) return isAbsolute(path) ? path : `${process.cwd()}/${path}`;
    if (status.isFile()) return await realpath(path);
  } catch (error) {
    throw fromSystemError(error, 'cannot look at the output', details);
  }
  throw new CheckpointError('CHKPT_UNSUPPORTED', 'the output is no regular file', { details });
}

/** What is at `path`, links followed; `undefined` when nothing is. */
async function statusOf(path: string): Promise<Stats | undefined> {
  try {
    return await stat(path);
  } catch (error) {
    if (errnoOf(error) !== 'ENOENT') throw error;
  }
  // A link that leads nowhere exists: it is not replaced, and what it names cannot be told.
  return await lstat(path).catch((error: unknown) => {
    if (errnoOf(error) === 'ENOENT') return undefined;
    throw error;
  });
}
