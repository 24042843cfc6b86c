/** A store of every kind that keeps checkpoints, by kind and name: for tests of what goes into several, or from each into each. */
import { encrypted, MemoryStoreSpace, openStore, type Store } from '../../src/index.ts';
import { committingUserStore, ReferenceHandler } from '../foreign/palacios/support/reference-handler.ts';
import type { S3TestServer } from './s3/server.ts';

/** They keep the stream as it is. */
export const nativeKinds = ['dir+pool', 'file', 'dir', 'mem', 'encrypted file', 's3'] as const;
/** They translate it. */
export const foreignKinds = ['gem5', 'palacios+file', 'palacios+dir', 'user'] as const;
export const everyKind = [...nativeKinds, ...foreignKinds] as const;
export type StoreKind = (typeof everyKind)[number];

export const everyStoreKey = new Uint8Array(32).fill(0x5a);

export function isForeign(kind: StoreKind): boolean {
  return foreignKinds.some((one) => one === kind);
}

export class EveryStore {
  readonly #folder: string;
  readonly #server: S3TestServer;
  readonly #space = new MemoryStoreSpace();
  readonly #handlers = new Map<string, ReferenceHandler>();

  constructor(folder: string, server: S3TestServer) {
    this.#folder = folder;
    this.#server = server;
  }

  /** Opened anew each time. */
  open(kind: StoreKind, name = 'vm'): Store {
    const path = `${this.#folder}/${kind}-${name}`;
    switch (kind) {
      case 'mem':
        return this.#space.store(name);
      case 's3':
        return openStore(this.#server.url(encodeURI(name)));
      case 'encrypted file':
        return encrypted(openStore(`file:${path}`), { key: everyStoreKey });
      case 'user': {
        const handler = this.#handlers.get(name) ?? new ReferenceHandler();
        this.#handlers.set(name, handler);
        return committingUserStore(handler, { blockBytes: 1 << 20, url: `user:${name}` });
      }
      default:
        return openStore(`${kind}:${path}`);
    }
  }
}
