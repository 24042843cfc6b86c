/**
 * `tcp:`, `tls:`, `unix:`: the native stream to another process, which says whether it has taken it. A save connects; a load listens, and
 * takes the first sender that is allowed to send.
 *
 * `commit` resolves when the receiver has verified the whole stream and, where it keeps it (`receiveCheckpoint`), has kept it.
 * `docs/transport.md` has addresses, security and bytes.
 */
import { CheckpointError, withDetails } from '../errors/index.ts';
import { connect, type Listener, type ListenOptions, listen, parseAddress } from '../transport/index.ts';
import { guardStore } from './guard.ts';
import type {
  Store,
  StoreFactory,
  StoreReader,
  StoreReadOptions,
  StoreWriteOptions,
  StoreWriter,
} from './store.ts';
import { StreamReceiver } from './stream-receiver.ts';
import { StreamSender } from './stream-sender.ts';
import { urlError } from './url.ts';

const purpose = { kind: 'checkpoint' } as const;

export interface StreamStoreOptions
  extends Pick<ListenOptions, 'tls' | 'psk' | 'insecure' | 'handshakeMs' | 'onRefusal'> {
  /** Told where the store listens, with the real port, as soon as it does. */
  readonly onListening?: ((address: string) => void) | undefined;
  /** How many senders are taken, one after the other; default 1, `Infinity` until `close()`. Until then the store goes on listening. */
  readonly count?: number | undefined;
}

/** What a process at the other end of a connection is, as a store. */
export interface StreamStore extends Store {
  /** Listens no more. Loads in progress go on. */
  close(): Promise<void>;
}

/**
 * A stream store with security material: `tcp://host:port`, `tls://host:port`, `unix:/path`. Throws `CHKPT_STORE_URL`. What the address
 * needs is checked when it is used: `CHKPT_INSECURE`.
 */
export function openStreamStore(url: string, options: StreamStoreOptions = {}): StreamStore {
  const store = new SocketStore(url, options);
  const guarded = guardStore(store, url);
  return {
    url,
    openWriter: (options) => guarded.openWriter(options),
    openReader: (options) => guarded.openReader(options),
    close: () => store.close(),
  };
}

/** For the registry: without security material, so for this machine only. */
export const streamStoreFactory: StoreFactory = (_rest, url) => new SocketStore(url, {});

class SocketStore implements Store {
  readonly url: string;
  readonly #options: StreamStoreOptions;
  #listening: Promise<Listener> | undefined;
  /** Senders still to come. */
  #left: number;

  constructor(url: string, options: StreamStoreOptions) {
    try {
      parseAddress(url);
    } catch (error) {
      throw urlError(error instanceof Error ? error.message : String(error), url, error);
    }
    this.url = url;
    this.#options = options;
    this.#left = options.count ?? 1;
  }

  async openWriter({ signal }: StoreWriteOptions): Promise<StoreWriter> {
    const { tls, psk, insecure, handshakeMs } = this.#options;
    const connection = await connect(this.url, purpose, { tls, psk, insecure, handshakeMs, signal });
    return new StreamSender(connection, this.url, signal);
  }

  async openReader({ signal }: StoreReadOptions = {}): Promise<StoreReader> {
    if (this.#left === 0) {
      throw new CheckpointError('CHKPT_UNSUPPORTED', 'a stream goes by once; keep it with chkpt receive', {
        details: { store: this.url },
      });
    }
    this.#listening ??= this.#listen();
    const listener = await this.#listening;
    const onAbort = (): void => void listener.close();
    signal?.addEventListener('abort', onAbort, { once: true });
    if (signal?.aborted === true) onAbort();
    try {
      const connection = await listener.accept();
      this.#left -= 1;
      if (this.#left === 0) await listener.close();
      return new StreamReceiver(connection, this.url, signal);
    } catch (error) {
      if (signal?.aborted !== true) throw withDetails(error, { store: this.url });
      throw new CheckpointError('CHKPT_ABORTED', 'aborted', { details: { store: this.url }, cause: error });
    } finally {
      signal?.removeEventListener('abort', onAbort);
    }
  }

  async close(): Promise<void> {
    this.#left = 0;
    const listener = await this.#listening?.catch(() => undefined);
    await listener?.close();
  }

  async #listen(): Promise<Listener> {
    const { onListening, count = 1, ...options } = this.#options;
    // Whoever comes while another one is served hears that at once.
    const listener = await listen(this.url, {
      ...options,
      accepts: count === Number.POSITIVE_INFINITY ? undefined : count,
      backlog: 0,
    });
    onListening?.(listener.address);
    return listener;
  }
}
