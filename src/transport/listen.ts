import type { Connection } from './connection.ts';
import type { ListenOptions } from './options.ts';

/** Takes connections at one address. */
export interface Listener extends AsyncDisposable {
  /** The address, with the real port. */
  readonly address: string;
  /**
   * The next authenticated connection. Rejects with `CHKPT_CLOSED` after `close()`, with `CHKPT_ABORTED`. May be called several times
   * without waiting.
   */
  accept(): Promise<Connection>;
  /** Takes no more; connections that were handed out stay. A UNIX socket's file is removed. Does nothing when called again. */
  close(): Promise<void>;
}

/** stub */
export function listen(_address: string, _options: ListenOptions = {}): Promise<Listener> {
  throw new Error('not yet');
}
