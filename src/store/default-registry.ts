/** The registry that chkpt uses, with the stores that come with it. */
import { descriptorStoreFactory } from './descriptor-store.ts';
import { directoryStoreFactory, pooledDirectoryStoreFactory } from './directory-store.ts';
import { fileStoreFactory } from './file-store.ts';
import { memoryStoreFactory } from './memory-store.ts';
import { nullStoreFactory } from './null-store.ts';
import { StoreRegistry } from './registry.ts';
import { s3StoreFactory } from './s3/open-s3.ts';
import type { Store, StoreFactory } from './store.ts';
import { streamStoreFactory } from './stream-store.ts';

export const defaultStoreRegistry = new StoreRegistry();

defaultStoreRegistry.register('mem', memoryStoreFactory());
defaultStoreRegistry.register('null', nullStoreFactory);
defaultStoreRegistry.register('file', fileStoreFactory());
defaultStoreRegistry.register('dir', directoryStoreFactory());
defaultStoreRegistry.register('dir+pool', pooledDirectoryStoreFactory());
defaultStoreRegistry.register('s3', s3StoreFactory());
defaultStoreRegistry.register('fd', descriptorStoreFactory);
for (const scheme of ['tcp', 'tls', 'unix']) defaultStoreRegistry.register(scheme, streamStoreFactory);

/**
 * Makes a store of your own known to every function and command that takes a URL. See
 * `StoreRegistry.register`.
 */
export function registerStore(scheme: string, factory: StoreFactory): void {
  defaultStoreRegistry.register(scheme, factory);
}

/** The store of a URL. See `StoreRegistry.open`. */
export function openStore(url: string): Store {
  return defaultStoreRegistry.open(url);
}

/** The schemes that a URL can have, sorted. */
export function registeredSchemes(): string[] {
  return defaultStoreRegistry.schemes();
}
