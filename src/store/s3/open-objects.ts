/**
 * Which data objects loads of this process read. An object store has no open files: what is removed is gone for everybody. So what a
 * save replaces is removed when the last load in this process has closed it.
 */

export class OpenObjects {
  readonly #counts = new Map<string, number>();
  readonly #removals = new Map<string, () => Promise<void>>();
  /** Their removals are under way: they may look as if they were there. */
  readonly #going = new Set<string>();

  /** Names are of bucket and key. False: one of them is being removed, and none is held. */
  hold(names: readonly string[]): boolean {
    if (names.some((name) => this.#going.has(name))) return false;
    for (const name of names) this.#counts.set(name, (this.#counts.get(name) ?? 0) + 1);
    return true;
  }

  /** Resolves when what was waiting for it is removed. Never rejects: what stays is found by `chkpt gc`. */
  async release(names: readonly string[]): Promise<void> {
    for (const name of names) {
      const count = (this.#counts.get(name) ?? 1) - 1;
      if (count > 0) {
        this.#counts.set(name, count);
        continue;
      }
      this.#counts.delete(name);
      const remove = this.#removals.get(name);
      this.#removals.delete(name);
      if (remove !== undefined) await this.#remove(name, remove);
    }
  }

  /** Removes now, or when it is not read any more. Never rejects. */
  async remove(name: string, remove: () => Promise<void>): Promise<void> {
    if (this.#counts.has(name)) this.#removals.set(name, remove);
    else await this.#remove(name, remove);
  }

  async #remove(name: string, remove: () => Promise<void>): Promise<void> {
    this.#going.add(name);
    await remove().catch(() => undefined);
    this.#going.delete(name);
  }
}
