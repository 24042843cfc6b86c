/**
 * The temporaries of one `file:` checkpoint: removes those of processes that are gone, and those that this
 * store could not remove before. Everything here is best effort: what remains is tried again by the next
 * save.
 */
import { isLeftBehind, type StoreEnvironment } from './environment.ts';
import { errnoOf } from './file-system.ts';
import { type TemporaryName, TemporaryNames } from './temporary-names.ts';

export class FileTemporaries {
  readonly names: TemporaryNames;
  readonly #folder: string;
  readonly #environment: StoreEnvironment;
  readonly #unremoved = new Set<string>();

  constructor(environment: StoreEnvironment, folder: string, name: string) {
    this.#environment = environment;
    this.#folder = folder;
    this.names = new TemporaryNames(name);
  }

  pathOf(entry: string): string {
    return `${this.#folder}/${entry}`;
  }

  /**
   * Removes a temporary. Resolves to the error when it is still there; then the next `collect()` tries again.
   */
  async remove(entry: string): Promise<unknown> {
    try {
      await this.#environment.fileSystem.unlink(this.pathOf(entry));
    } catch (error) {
      if (errnoOf(error) !== 'ENOENT') {
        this.#unremoved.add(entry);
        return error;
      }
    }
    this.#unremoved.delete(entry);
    return undefined;
  }

  /** Leaves a temporary of our own to the next `collect()`. */
  postpone(entry: string): void {
    this.#unremoved.add(entry);
  }

  /** Those of the entries of the folder that are temporaries which nobody uses any more. */
  async leftBehind(entries: readonly string[]): Promise<TemporaryName[]> {
    const found: TemporaryName[] = [];
    for (const entry of entries) {
      const name = this.names.parse(entry);
      if (name === undefined) continue;
      const isUnused =
        this.#unremoved.has(entry) || (await isLeftBehind(this.#environment, this.pathOf(entry), name.pid));
      if (isUnused) found.push(name);
    }
    return found;
  }

  /** Removes those that nobody uses any more. Resolves to what was in the folder before. */
  async collect(): Promise<readonly string[]> {
    const entries = await this.entries();
    for (const { entry } of await this.leftBehind(entries)) await this.remove(entry);
    return entries;
  }

  /** What is in the folder; nothing when that cannot be told. */
  async entries(): Promise<string[]> {
    try {
      return await this.#environment.fileSystem.readdir(this.#folder);
    } catch {
      return [];
    }
  }
}
