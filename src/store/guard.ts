/**
 * The guard stands between chkpt and every store that a registry gives out, so that one implementation of the
 * rules of `store.ts` serves all stores:
 *
 *   - calls come one at a time, none after the end, segments do not overlap, the counts of a summary are
 *     right;
 *   - whatever a store throws becomes a `CheckpointError`, and what it returns is checked before it is
 *     believed;
 *   - a cancelled signal stops the next call, also of stores that never look at it;
 *   - when a call of a writer fails, the store drops the save at once; nothing can be written or committed
 *     after a gap.
 *
 * Bytes pass through untouched and uncopied. Rules broken by the caller are `TypeError` or `RangeError` and
 * do not harm the save; a call after the end is `CHKPT_CLOSED`.
 */
import type { StoreClaims } from './claims.ts';
import { fromStore, storeFailure, throwIfAborted } from './failure.ts';
import { GuardedRandomReader, GuardedReader } from './guarded-reader.ts';
import { GuardedWriter } from './guarded-writer.ts';
import type { Store, StoreReader, StoreReadOptions, StoreWriteOptions, StoreWriter } from './store.ts';
import { isUuid } from './temporary-names.ts';

/** Wraps a store, unless it is wrapped already. */
export function guardStore(store: Store, url: string): Store {
  if (store instanceof GuardedStore && store.url === url) return store;
  if (!hasMethods(store, ['openWriter', 'openReader'])) {
    throw storeFailure('the factory did not return a store', url);
  }
  return new GuardedStore(store, url);
}

class GuardedStore implements Store {
  readonly url: string;
  readonly remove?: () => Promise<void>;
  readonly claims?: StoreClaims;
  readonly isSealed: boolean;
  readonly readsFrames: boolean;
  readonly beside?: (url: string) => Store;
  readonly #inner: Store;

  constructor(inner: Store, url: string) {
    this.#inner = inner;
    this.url = url;
    this.isSealed = inner.isSealed === true;
    this.readsFrames = inner.readsFrames === true;
    const { remove, beside } = inner;
    if (beside !== undefined) this.beside = (other) => beside.call(inner, other);
    if (remove !== undefined) {
      this.remove = () => this.#attempt('remove', undefined, () => remove.call(inner));
    }
    if (inner.claims !== undefined) this.claims = this.#guardClaims(inner.claims);
  }

  async openWriter(options: StoreWriteOptions): Promise<StoreWriter> {
    if (!isUuid(options?.uuid)) throw new TypeError('options.uuid is not the text form of a UUID');
    const { signal } = options;
    throwIfAborted(signal, this.url);
    const inner = await this.#attempt('openWriter', signal, () => this.#inner.openWriter(options));
    if (!hasMethods(inner, ['write', 'commit', 'abort'])) {
      throw storeFailure('openWriter() did not return a writer', this.url);
    }
    return new GuardedWriter(inner, options, this.url);
  }

  async openReader(options: StoreReadOptions = {}): Promise<StoreReader> {
    const { signal } = options;
    throwIfAborted(signal, this.url);
    const inner = await this.#attempt('openReader', signal, () => this.#inner.openReader(options));
    if (!hasMethods(inner, ['read', 'close'])) {
      throw storeFailure('openReader() did not return a reader', this.url);
    }
    const { byteLength } = inner;
    if (byteLength !== undefined && !(Number.isSafeInteger(byteLength) && byteLength >= 0)) {
      await Promise.resolve(inner.close()).catch(() => undefined);
      throw storeFailure(`the reader has the byteLength ${byteLength}`, this.url);
    }
    const Guard = inner.readAt === undefined ? GuardedReader : GuardedRandomReader;
    return new Guard(inner, byteLength, signal, this.url);
  }

  #guardClaims(claims: StoreClaims): StoreClaims {
    const guarded = <T>(call: string, uuid: unknown, work: () => Promise<T>): Promise<T> => {
      if (!isUuid(uuid)) throw new TypeError('not the text form of a UUID');
      return this.#attempt(call, undefined, work);
    };
    return {
      find: async (uuid) => await guarded('claims.find', uuid, () => claims.find(uuid)),
      take: async (claim) => await guarded('claims.take', claim?.uuid, () => claims.take(claim)),
      withdraw: async (uuid) => await guarded('claims.withdraw', uuid, () => claims.withdraw(uuid)),
    };
  }

  async #attempt<T>(call: string, signal: AbortSignal | undefined, work: () => Promise<T>): Promise<T> {
    try {
      return await work();
    } catch (error) {
      throw fromStore(error, call, signal, this.url);
    }
  }
}

function hasMethods(value: unknown, names: readonly string[]): boolean {
  if (typeof value !== 'object' || value === null) return false;
  return names.every((name) => typeof (value as Record<string, unknown>)[name] === 'function');
}
