/**
 * Which store a URL means. A registry owns its schemes; `default-registry.ts` has the one that chkpt uses.
 *
 * Every store it gives out is guarded: see guard.ts.
 */
import { CheckpointError } from '../errors/index.ts';
import { fromStore } from './failure.ts';
import { guardStore } from './guard.ts';
import type { Store, StoreFactory } from './store.ts';
import { isScheme, parseStoreUrl } from './url.ts';

export class StoreRegistry {
  readonly #factories = new Map<string, StoreFactory>();

  /**
   * Adds a scheme: a letter, then letters, digits, `+`, `.` or `-`; upper and lower case are the same. Throws
   * `TypeError` when the scheme is not one or is taken.
   */
  register(scheme: string, factory: StoreFactory): void {
    if (!isScheme(scheme)) throw new TypeError(`not a scheme: ${String(scheme)}`);
    if (typeof factory !== 'function') throw new TypeError(`the factory of ${scheme}: is not a function`);
    const name = scheme.toLowerCase();
    if (this.#factories.has(name)) throw new TypeError(`${name}: is already registered`);
    this.#factories.set(name, factory);
  }

  /** The schemes, sorted. */
  schemes(): string[] {
    return [...this.#factories.keys()].sort();
  }

  /**
   * Opens nothing yet: that is for `openWriter` and `openReader`. Throws `CHKPT_STORE_UNKNOWN`,
   * `CHKPT_STORE_URL`.
   */
  open(url: string): Store {
    const { scheme, rest } = parseStoreUrl(url);
    const factory = this.#factories.get(scheme);
    if (factory === undefined) throw this.#unknown(scheme, url);
    let store: Store;
    try {
      store = factory(rest, url);
    } catch (error) {
      throw fromStore(error, `${scheme} factory`, undefined, url);
    }
    return guardStore(store, url);
  }

  #unknown(scheme: string, url: string): CheckpointError {
    const known = this.schemes().map((name) => `${name}:`);
    const what = `no store is registered for ${scheme}:, only ${known.join(' ')}; write file:${url} for a file`;
    return new CheckpointError('CHKPT_STORE_UNKNOWN', what, { details: { store: url } });
  }
}
