/**
 * A connection whose other end is known: a duplex channel of bytes, in order, with deadlines.
 *
 * Calls of one direction come one at a time; the two directions do not wait for each other. Errors are `CheckpointError`s:
 * `CHKPT_LINK_LOST` (reset, or ended where it may not), `CHKPT_TIMEOUT` (the other end is silent or too slow), and what `destroy`
 * was given. After one of them the connection is gone.
 */
import type { Purpose } from './purpose.ts';

/** Who is at the other end, and how that is known. */
export interface Peer {
  /**
   * `local`: loopback or a UNIX socket, nothing was asked. `psk`: it has the one-time key. `tls`: it has a certificate of the CA, and
   * was authorised. `insecure`: nothing is known.
   */
  readonly security: 'local' | 'psk' | 'tls' | 'insecure';
  /** IP address and port; `unix` for a UNIX socket. */
  readonly remote: string;
  /** Of its certificate. */
  readonly identity?: PeerIdentity | undefined;
}

/** What a certificate says. */
export interface PeerIdentity {
  /** SHA-256 of the certificate: 64 hexadecimal digits, upper case, colons between two of them. */
  readonly fingerprint256: string;
  /** Subject, as `CN=host,O=example`. */
  readonly subject: string;
}

export interface Connection {
  readonly purpose: Purpose;
  readonly peer: Peer;
  /** Bytes that the caller has written and read so far. */
  readonly bytesWritten: number;
  readonly bytesRead: number;
  /** Resolves when the connection is gone, whoever ended it; never rejects. */
  readonly closed: Promise<void>;
  /**
   * Longest wait of one `read` for the first byte, milliseconds; 0: for ever. Holds for the next `read`. The default is that of
   * `LinkOptions.idleMs`.
   */
  idleMs: number;
  /**
   * Appends. When the promise resolves the bytes are no longer read, and the system has taken all of them. They are not copied by
   * JavaScript (TLS encrypts them, which is a copy).
   *
   * Throws `CHKPT_TIMEOUT` when the other end takes less than 640 KiB in 10 seconds.
   */
  write(bytes: Uint8Array): Promise<void>;
  /** As `write` with one piece behind the other, in as few operations as the system offers. */
  writeAll(pieces: readonly Uint8Array[]): Promise<void>;
  /**
   * Reads the next bytes into the start of `target`. Resolves to how many, between 1 and `target.length`; 0: the other end has ended
   * in good order.
   */
  read(target: Uint8Array): Promise<number>;
  /** Tells the other end that nothing follows, when the system has taken everything. Reading goes on. */
  end(): Promise<void>;
  /** Gives up: calls in progress and to come reject with `error`, or with `CHKPT_CLOSED`. Does nothing when called again. */
  destroy(error?: Error): void;
}
