/**
 * A folder for checkpoints and image files, and the promise that nothing of it is left behind: not after an error, not after
 * Ctrl-C.
 */
import { closeSync, mkdtempSync, openSync, rmSync, statfsSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { UsageError } from './options.ts';

/** `f_type` of tmpfs. */
const tmpfsMagic = 0x01021994;
const pieceBytes = 2 * 1024 ** 2;

export class Scratch {
  readonly folder: string;
  readonly isTmpfs: boolean;
  readonly #remove = (): void => rmSync(this.folder, { recursive: true, force: true });
  readonly #onSignal = (signal: NodeJS.Signals): void => {
    this.close();
    process.kill(process.pid, signal);
  };

  constructor(parent: string) {
    try {
      this.folder = mkdtempSync(join(parent, 'chkpt-bench-'));
      this.isTmpfs = statfsSync(this.folder).type === tmpfsMagic;
    } catch (error) {
      throw new UsageError(`--scratch ${parent}: ${(error as Error).message}`);
    }
    process.once('exit', this.#remove);
    process.once('SIGINT', this.#onSignal);
    process.once('SIGTERM', this.#onSignal);
  }

  path(name: string): string {
    return join(this.folder, name);
  }

  /** Removes one file, so that the next writer makes a new one. Missing is fine. */
  remove(name: string): void {
    rmSync(this.path(name), { force: true });
  }

  /**
   * On tmpfs: writes and removes a file of that size, so that the next one finds memory that a host has backed (see
   * `Bench.settle`). Anonymous memory does not do: the kernel takes pages of files from other free lists.
   */
  warm(byteCount: number): void {
    if (!this.isTmpfs) return;
    const path = this.path('warm');
    const descriptor = openSync(path, 'wx', 0o600);
    try {
      const piece = Buffer.alloc(pieceBytes);
      for (let done = 0; done < byteCount; done += pieceBytes) writeSync(descriptor, piece);
    } finally {
      closeSync(descriptor);
      rmSync(path, { force: true });
    }
  }

  /** Bytes that still fit. */
  freeBytes(): number {
    const { bavail, bsize } = statfsSync(this.folder);
    return bavail * bsize;
  }

  close(): void {
    process.off('exit', this.#remove);
    process.off('SIGINT', this.#onSignal);
    process.off('SIGTERM', this.#onSignal);
    this.#remove();
  }
}
