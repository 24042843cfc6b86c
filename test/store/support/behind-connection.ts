/** A store at the other end of a connection: what is saved goes through a socket, and is loaded from where the receiver has kept it. */
import type { Store, StoreReader, StoreWriter } from '../../../src/store/index.ts';
import { openStreamStore } from '../../../src/store/stream-store.ts';

/** `path`: of a new UNIX socket, with a number behind it for each save. */
export class StoreBehindConnection implements Store {
  readonly url: string;
  readonly #inner: Store;
  readonly #path: () => string;
  /** Streams of these tests are noise: nobody could find their root digests in them. */
  readonly #roots = new Map<string, string>();

  constructor(inner: Store, path: () => string) {
    this.#inner = inner;
    this.url = inner.url;
    this.#path = path;
  }

  async openWriter(options: Parameters<Store['openWriter']>[0]): Promise<StoreWriter> {
    const { uuid } = options;
    const path = this.#path();
    const listening = new Promise<string>((resolve) => {
      const source = openStreamStore(`unix:${path}`, { onListening: resolve });
      void this.#receive(source, uuid).catch(() => undefined);
    });
    const writer = await openStreamStore(await listening).openWriter(options);
    return {
      write: (bytes) => writer.write(bytes),
      writeAll: async (pieces) => await writer.writeAll?.(pieces),
      commit: async (summary) => {
        this.#roots.set(uuid, summary.root);
        await writer.commit(summary);
      },
      abort: () => writer.abort(),
    };
  }

  openReader(options?: Parameters<Store['openReader']>[0]): Promise<StoreReader> {
    return this.#inner.openReader(options);
  }

  /** Keeps whatever comes, as it is. */
  async #receive(source: Store, uuid: string): Promise<void> {
    const reader = await source.openReader();
    const writer = await this.#inner.openWriter({ uuid });
    try {
      let bytes = 0;
      const target = new Uint8Array(3000);
      for (;;) {
        const byteCount = await reader.read(target);
        if (byteCount === 0) break;
        await writer.write(target.subarray(0, byteCount));
        bytes += byteCount;
      }
      const root = this.#roots.get(uuid) ?? '0'.repeat(64);
      await writer.commit({ uuid, parent: undefined, epoch: 0n, root, bytes });
      await reader.acknowledge?.({ uuid, root, bytes });
    } catch (error) {
      await writer.abort().catch(() => undefined);
      await reader.refuse?.(error);
    } finally {
      await reader.close();
    }
  }
}
