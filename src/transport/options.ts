import type { CheckpointError } from '../errors/index.ts';
import type { ProbePurpose } from './purpose.ts';
import type { SecurityOptions } from './security.ts';

export const handshakeMsDefault = 5000;
/** When the kernel begins to ask whether the other end is still there. */
export const keepAliveMs = 5000;

/** What both ends may set for each connection. */
export interface LinkOptions extends SecurityOptions {
  /** Longest time from the first packet to an authenticated connection, milliseconds; default 5000. */
  readonly handshakeMs?: number | undefined;
  /** Longest wait of one `read` for its first byte, milliseconds; default 10 000; 0: for ever. */
  readonly idleMs?: number | undefined;
  /** Cancels what is under way: `CHKPT_ABORTED`. Ends with `connect`, and for a listener with its `close`. */
  readonly signal?: AbortSignal | undefined;
}

export interface ListenOptions extends LinkOptions {
  /**
   * How many connections are taken in all; whoever comes later is refused. Default: any number. The first that authenticate are
   * taken, not the first that connect.
   */
  readonly accepts?: number | undefined;
  /** How many connections may wait for an `accept`; whoever comes then is refused. Default 64; 0: only who is waited for. */
  readonly backlog?: number | undefined;
  /** Asked about each probe that authenticated: why it is not taken, or undefined. Default: none is. */
  readonly probe?: ((purpose: ProbePurpose) => string | undefined) | undefined;
  /** Told of every connection that came to nothing, and why: for logs. It must not throw. */
  readonly onRefusal?: ((error: CheckpointError, remote: string) => void) | undefined;
}
