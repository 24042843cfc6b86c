/** Bytes into and out of something that is open already. */

/** One direction each; a socket has both. Calls of one direction come one at a time. Errors are those of the system. */
export interface ByteChannel {
  /** When the promise resolves the bytes are no longer read. */
  write(bytes: Uint8Array): Promise<void>;
  /** Tells the other end that nothing follows, after everything was taken by the system. */
  end(): Promise<void>;
  /** Resolves to how many bytes came, at least one; 0: the other end has ended. */
  read(target: Uint8Array): Promise<number>;
  /** Gives up: a call in progress rejects. */
  destroy(error?: Error): void;
}
