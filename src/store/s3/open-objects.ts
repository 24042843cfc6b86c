/**
 * Which data objects loads of this process read. An object store has no open files: what is removed is gone for everybody. So what a
 * save replaces is removed when the last load in this process has closed it.
 */

export class OpenObjects {
  readonly #counts = new Map<string, number>();
  readonly #removals = new Map<string, () => Promise<void>>();

  /** Names are of bucket and key. */
  hold(names: readonly string[]): void {
    for (const name of names) this.#counts.set(name, (this.#counts.get(name) ?? 0) + 1);
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
      await remove?.().catch(() => undefined);
    }
  }

  /** Removes now, or when it is not read any more. Never rejects. */
  async remove(name: string, remove: () => Promise<void>): Promise<void> {
    if (this.#counts.has(name)) this.#removals.set(name, remove);
    else await remove().catch(() => undefined);
  }
}
