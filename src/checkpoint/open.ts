import '../foreign/register.ts';
import {
  type OpenForLoadOptions as ContextLoadOptions,
  type OpenForSaveOptions as ContextSaveOptions,
  openCheckpoint as openInStore,
} from '../context/checkpoint.ts';
import type { LoadCheckpoint } from '../context/load-checkpoint.ts';
import type { SaveCheckpoint } from '../context/save-checkpoint.ts';
import { checkpointDigest } from '../memory/digest.ts';
import { encrypted, type KeySource, openStore, type Store, TeeStore } from '../store/index.ts';

/** For everything that opens a checkpoint. */
export interface KeyOptions {
  /** Key of the checkpoint and its parents, which are encrypted then. See docs/encryption.md. */
  readonly key?: KeySource | undefined;
}

/** Of what makes a checkpoint out of another one. */
export interface TwoKeyOptions extends KeyOptions {
  /** Of the new one; default: that of the old one. `none`: the new one is not encrypted. */
  readonly toKey?: KeySource | 'none' | undefined;
}

export type OpenForSaveOptions = Omit<ContextSaveOptions, 'digest'> & KeyOptions;
export type OpenForLoadOptions = Omit<ContextLoadOptions, 'digest' | 'allocator'> & KeyOptions;

/** The store of a URL, encrypted with a key; a store without key stays what it is. Throws `TypeError` for a store that has one already. */
export function toStore(target: string | Store, key?: KeySource): Store {
  const store = typeof target === 'string' ? openStore(target) : target;
  return key === undefined ? store : encrypted(store, { key });
}

/** Where a new checkpoint goes that is made of another one: with a key of its own, or else that one's. */
export function toTarget(target: string | Store, { key, toKey }: TwoKeyOptions): Store {
  if (toKey === 'none') return toStore(target);
  const store = toStore(target, toKey);
  return store.isSealed === true ? store : toStore(store, key);
}

/** The store of a URL, opened as `store` was; a store stays what it is. */
export function toStoreBeside(store: Store, target: string | Store): Store {
  if (typeof target !== 'string') return target;
  return store.beside?.(target) ?? openStore(target);
}

/** One store, or several as one that saves into all of them. */
export function toStores(target: string | Store | readonly (string | Store)[], key?: KeySource): Store {
  if (typeof target === 'string' || !Array.isArray(target)) return toStore(target as string | Store, key);
  const stores = (target as readonly (string | Store)[]).map((one) => toStore(one, key));
  return stores.length === 1 && stores[0] !== undefined ? stores[0] : new TeeStore(stores);
}

/**
 * Opens a checkpoint at a URL or in a store, to save or to load contexts and tags. Throws `CHKPT_STORE_UNKNOWN`,
 * `CHKPT_STORE_URL` and what the store throws.
 */
export function openCheckpoint(target: string | Store, options: OpenForSaveOptions): Promise<SaveCheckpoint>;
export function openCheckpoint(target: string | Store, options: OpenForLoadOptions): Promise<LoadCheckpoint>;
export async function openCheckpoint(
  target: string | Store,
  options: OpenForSaveOptions | OpenForLoadOptions,
): Promise<SaveCheckpoint | LoadCheckpoint> {
  const store = toStore(target, options.key);
  const digest = await checkpointDigest();
  return options.mode === 'save'
    ? openInStore(store, { ...options, digest })
    : openInStore(store, { ...options, digest });
}
