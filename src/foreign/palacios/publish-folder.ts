/**
 * Puts a folder of files in the place of another one. Where the file system can exchange two names, whoever looks finds the older or the
 * newer one, whole, at every moment; where it cannot, there is a moment without either, and a crash in it leaves the older one beside.
 *
 * Temporaries stand beside the folder, with the names of `temporary-names.ts`.
 */
import { basename, dirname } from 'node:path';
import { CheckpointError, type ErrorDetails, fromSystemError } from '../../errors/index.ts';
import { callNative, hasNativeAddon, nativeAddon } from '../../native/index.ts';
import { isLeftBehind, type StoreEnvironment } from '../../store/environment.ts';
import { flushFailure, saveFailure } from '../../store/failure.ts';
import { errnoOf, type FileSystem } from '../../store/file-system.ts';
import { TemporaryNames, type TemporaryRole } from '../../store/temporary-names.ts';

export class FolderPlace {
  readonly path: string;
  readonly #environment: StoreEnvironment;
  readonly #parent: string;
  readonly #names: TemporaryNames;
  readonly #store: string;
  /** Temporaries of this process that could not be removed. */
  readonly #unremoved = new Set<string>();

  constructor(environment: StoreEnvironment, path: string, store: string) {
    this.path = path;
    this.#environment = environment;
    this.#parent = dirname(path);
    this.#names = new TemporaryNames(basename(path));
    this.#store = store;
  }

  /** Where the temporary of this process and that checkpoint is. */
  temporary(uuid: string, role: TemporaryRole): string {
    return `${this.#parent}/${this.#names.make(uuid, this.#environment.processes.pid, role)}`;
  }

  /** Removes what saves that are over have left behind. An older folder without a newer one is all there is: it stays. Best effort. */
  async collect(): Promise<void> {
    const { fileSystem } = this.#environment;
    const isThere = await fileSystem.status(this.path).then(
      () => true,
      () => false,
    );
    const entries = await fileSystem.readdir(this.#parent).catch((): string[] => []);
    for (const entry of entries) {
      const name = this.#names.parse(entry);
      if (name === undefined || (name.role === 'old' && !isThere)) continue;
      const path = `${this.#parent}/${entry}`;
      if (this.#unremoved.has(path) || (await isLeftBehind(this.#environment, path, name.pid))) {
        await removeFolder(fileSystem, path).catch(() => undefined);
      }
    }
  }

  /** What is there now; `undefined`: nothing. Throws `CHKPT_STORE_URL` for what is no folder. */
  async entries(): Promise<string[] | undefined> {
    const { fileSystem } = this.#environment;
    try {
      return await fileSystem.readdir(this.path);
    } catch (error) {
      if (errnoOf(error) === 'ENOENT') return undefined;
      if (errnoOf(error) === 'ENOTDIR') {
        throw new CheckpointError('CHKPT_STORE_URL', 'this is no folder', {
          details: this.#details(this.path),
          cause: error,
        });
      }
      throw fromSystemError(error, 'cannot look into the folder', this.#details(this.path));
    }
  }

  /** Puts `temporary`, whose files are durable, at the path, and removes what was there. `aside`: a free name. */
  async publish(temporary: string, aside: string): Promise<void> {
    const { fileSystem } = this.#environment;
    await this.#flush(temporary);
    const older = await this.#switch(temporary, aside);
    try {
      await this.#flush(this.#parent);
    } catch (error) {
      await this.#undo(temporary, older).catch(() => undefined);
      throw error;
    }
    if (older !== undefined) await removeFolder(fileSystem, older).catch(() => undefined);
  }

  /** Removes what is at the path, durably. */
  async remove(aside: string): Promise<void> {
    const { fileSystem } = this.#environment;
    try {
      await fileSystem.rename(this.path, aside);
    } catch (error) {
      if (errnoOf(error) === 'ENOENT') return;
      throw fromSystemError(error, 'cannot remove the checkpoint', this.#details(this.path));
    }
    this.#unremoved.add(aside);
    try {
      await this.#flush(this.#parent);
    } catch (error) {
      // Whether it is gone is not certain: then it is not.
      await fileSystem.rename(aside, this.path).catch(() => undefined);
      throw error;
    }
    await removeFolder(fileSystem, aside).catch((error: unknown) => {
      throw fromSystemError(error, 'cannot remove the checkpoint', this.#details(aside));
    });
  }

  /** Resolves to where the older one is now. */
  async #switch(temporary: string, aside: string): Promise<string | undefined> {
    const { fileSystem } = this.#environment;
    try {
      if ((await this.entries()) === undefined) {
        await fileSystem.rename(temporary, this.path);
        return undefined;
      }
      if (exchange(temporary, this.path)) return temporary;
      await fileSystem.rename(this.path, aside);
      try {
        await fileSystem.rename(temporary, this.path);
      } catch (error) {
        await fileSystem.rename(aside, this.path).catch(() => undefined);
        throw error;
      }
      return aside;
    } catch (error) {
      throw saveFailure(error, 'cannot rename', this.#details(this.path));
    }
  }

  async #undo(temporary: string, older: string | undefined): Promise<void> {
    const { fileSystem } = this.#environment;
    if (older === temporary && exchange(temporary, this.path)) return;
    await fileSystem.rename(this.path, temporary);
    if (older !== undefined && older !== temporary) await fileSystem.rename(older, this.path);
  }

  async #flush(path: string): Promise<void> {
    try {
      await this.#environment.fileSystem.fsyncDirectory(path);
    } catch (error) {
      throw flushFailure(error, 'cannot flush the folder', this.#details(path));
    }
  }

  #details(path: string): ErrorDetails {
    return { store: this.#store, path };
  }
}

/** False where the system cannot. */
function exchange(left: string, right: string): boolean {
  if (!hasNativeAddon()) return false;
  try {
    callNative(() => nativeAddon().exchangePaths(left, right));
    return true;
  } catch (error) {
    if (error instanceof CheckpointError && error.code === 'CHKPT_UNSUPPORTED') return false;
    throw error;
  }
}

/** Removes a folder of files; does nothing when there is none. */
export async function removeFolder(fileSystem: FileSystem, path: string): Promise<void> {
  const unlessMissing = (error: unknown): void => {
    if (errnoOf(error) !== 'ENOENT') throw error;
  };
  const entries = await fileSystem.readdir(path).catch((error: unknown): string[] => {
    unlessMissing(error);
    return [];
  });
  for (const entry of entries) await fileSystem.unlink(`${path}/${entry}`).catch(unlessMissing);
  await fileSystem.rmdir(path).catch(unlessMissing);
}
