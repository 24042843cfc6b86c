import '../foreign/register.ts';
import {
  type OpenForLoadOptions as ContextLoadOptions,
  type OpenForSaveOptions as ContextSaveOptions,
  openCheckpoint as openInStore,
} from '../context/checkpoint.ts';
import type { LoadCheckpoint } from '../context/load-checkpoint.ts';
import type { SaveCheckpoint } from '../context/save-checkpoint.ts';
import { checkpointDigest } from '../memory/digest.ts';
import { openStore, type Store } from '../store/index.ts';

export type OpenForSaveOptions = Omit<ContextSaveOptions, 'digest'>;
export type OpenForLoadOptions = Omit<ContextLoadOptions, 'digest' | 'allocator'>;

/** The store of a URL; a store stays what it is. */
export function toStore(target: string | Store): Store {
  return typeof target === 'string' ? openStore(target) : target;
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
  const store = toStore(target);
  const digest = await checkpointDigest();
  return options.mode === 'save'
    ? openInStore(store, { ...options, digest })
    : openInStore(store, { ...options, digest });
}
