/**
 * The file system as the stores on files see it: every call the stores make, and no other, behind one
 * interface, so that a test can make each of them fail, or stop the world between any two.
 *
 * Errors have errno codes in `code`, as those of `node:fs`. Paths are absolute. Sizes and positions are
 * bytes.
 */
import { type BigIntStats, constants } from 'node:fs';
import { type FileHandle, link, lstat, mkdir, open, readdir, rename, rmdir, unlink } from 'node:fs/promises';

/** What a path or an open file is. Links are not followed. */
export interface FileStatus {
  readonly kind: 'file' | 'directory' | 'link' | 'other';
  readonly bytes: number;
  /**
   * Time of the last change of content, name count or mode, milliseconds since 1970. Nobody can set it back.
   */
  readonly changedMs: number;
  readonly inode: bigint;
  /** Names that the file has: hard links. */
  readonly names: number;
}

/** One open file. The owner closes it, also after a failure. */
export interface OpenFile {
  /** The descriptor, where there is one. */
  readonly descriptor?: number | undefined;
  /** Reads at `position`; may return less than asked for; 0 means the end of the file. */
  read(target: Uint8Array, position: number): Promise<number>;
  /** Writes one piece behind the other from `position` on, without copying them; may write less than asked for. */
  write(pieces: readonly Uint8Array[], position: number): Promise<number>;
  status(): Promise<FileStatus>;
  fsync(): Promise<void>;
  /** Gives the descriptor back, also when it rejects. */
  close(): Promise<void>;
}

export interface FileSystem {
  /** `flags` are those of `node:fs` `constants`; `mode` counts when the file is created. */
  open(path: string, flags: number, mode?: number): Promise<OpenFile>;
  rename(from: string, to: string): Promise<void>;
  /** Gives the file at `existing` a second name. Does not follow a symbolic link at `existing`. */
  link(existing: string, added: string): Promise<void>;
  unlink(path: string): Promise<void>;
  mkdir(path: string, mode: number): Promise<void>;
  rmdir(path: string): Promise<void>;
  readdir(path: string): Promise<string[]>;
  status(path: string): Promise<FileStatus>;
  /**
   * Makes the names in a folder durable. Resolves on file systems that have no such operation: there a rename
   * is as durable as it can be.
   */
  fsyncDirectory(path: string): Promise<void>;
}

/** The errno code of an error of `node:fs`, if it has one. */
export function errnoOf(error: unknown): string | undefined {
  if (typeof error !== 'object' || error === null || !('code' in error)) return undefined;
  return typeof error.code === 'string' ? error.code : undefined;
}

/** Most bytes of one system call: Linux moves at most 2 GiB less a page, and Node refuses more. */
const transferBytesMax = 1024 * 1024 * 1024;
/** Most pieces of one system call, so that all of them together stay below `transferBytesMax`. */
const pieceCountMax = 32;

class NodeOpenFile implements OpenFile {
  readonly #handle: FileHandle;

  constructor(handle: FileHandle) {
    this.#handle = handle;
  }

  get descriptor(): number {
    return this.#handle.fd;
  }

  async read(target: Uint8Array, position: number): Promise<number> {
    const byteCount = Math.min(target.length, transferBytesMax);
    return (await this.#handle.read(target, 0, byteCount, position)).bytesRead;
  }

  async write(pieces: readonly Uint8Array[], position: number): Promise<number> {
    const [first = new Uint8Array(0)] = pieces;
    if (pieces.length > 1 && pieces.every(({ length }) => length <= transferBytesMax / pieceCountMax)) {
      return (await this.#handle.writev(pieces.slice(0, pieceCountMax), position)).bytesWritten;
    }
    const byteCount = Math.min(first.length, transferBytesMax);
    return (await this.#handle.write(first, 0, byteCount, position)).bytesWritten;
  }

  async status(): Promise<FileStatus> {
    return toStatus(await this.#handle.stat({ bigint: true }));
  }

  fsync(): Promise<void> {
    return this.#handle.sync();
  }

  close(): Promise<void> {
    return this.#handle.close();
  }
}

function toStatus(stats: BigIntStats): FileStatus {
  return {
    kind: kindOf(stats),
    bytes: Number(stats.size),
    changedMs: Number(stats.ctimeMs),
    inode: stats.ino,
    names: Number(stats.nlink),
  };
}

function kindOf(stats: BigIntStats): FileStatus['kind'] {
  if (stats.isFile()) return 'file';
  if (stats.isDirectory()) return 'directory';
  return stats.isSymbolicLink() ? 'link' : 'other';
}

async function fsyncDirectory(path: string): Promise<void> {
  const handle = await open(path, constants.O_RDONLY | constants.O_DIRECTORY);
  try {
    await handle.sync();
  } catch (error) {
    const errno = errnoOf(error);
    if (errno !== 'EINVAL' && errno !== 'ENOTSUP' && errno !== 'EOPNOTSUPP') throw error;
  } finally {
    await handle.close();
  }
}

/** The file system of the host. */
export const hostFileSystem: FileSystem = {
  open: async (path, flags, mode) => new NodeOpenFile(await open(path, flags, mode)),
  rename,
  link,
  unlink,
  mkdir: async (path, mode) => {
    await mkdir(path, mode);
  },
  rmdir,
  readdir: (path) => readdir(path),
  status: async (path) => toStatus(await lstat(path, { bigint: true })),
  fsyncDirectory,
};
