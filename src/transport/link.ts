/** The connection that `connect` and `listen` hand out: a socket with deadlines, and errors that say what they mean. */
import { CheckpointError, fromSystemError } from '../errors/index.ts';
import type { Connection, Peer } from './connection.ts';
import type { Purpose } from './purpose.ts';
import type { SocketChannel } from './socket-channel.ts';

/** The other end must take so much in `writeMs`: 64 KiB/s. */
const writeBytes = 640 * 1024;
const writeMs = 10_000;
export const idleMsDefault = 10_000;

export class Link implements Connection {
  readonly purpose: Purpose;
  readonly peer: Peer;
  idleMs: number;
  readonly #channel: SocketChannel;
  #failure: Error | undefined;
  #bytesWritten = 0;
  #bytesRead = 0;

  /** The handshake is over. Owns the channel. */
  constructor(channel: SocketChannel, purpose: Purpose, peer: Peer, idleMs = idleMsDefault) {
    this.#channel = channel;
    this.purpose = purpose;
    this.peer = peer;
    this.idleMs = idleMs;
    channel.widen();
  }

  get bytesWritten(): number {
    return this.#bytesWritten;
  }

  get bytesRead(): number {
    return this.#bytesRead;
  }

  get closed(): Promise<void> {
    return this.#channel.closed;
  }

  write(bytes: Uint8Array): Promise<void> {
    return this.writeAll([bytes]);
  }

  async writeAll(pieces: readonly Uint8Array[]): Promise<void> {
    // Two under way: the socket has the next one when the kernel has taken the last. Each has its time from when it is the first.
    let before: Promise<void> = Promise.resolve();
    const taken = (): Promise<void> =>
      this.#within(writeMs, 'the other side takes less than 64 KiB/s', before);
    for (const group of groupsOf(pieces)) {
      const writing = this.#channel.writeAll(group);
      // Whoever waits for `before` gets its error; this one may fail meanwhile.
      writing.catch(() => undefined);
      await this.#attempt(taken());
      before = writing;
    }
    await this.#attempt(taken());
    for (const piece of pieces) this.#bytesWritten += piece.length;
  }

  async read(target: Uint8Array): Promise<number> {
    const reading = this.#channel.read(target);
    const { idleMs } = this;
    const what = `the other side says nothing for ${idleMs} ms`;
    const byteCount = await this.#attempt(idleMs === 0 ? reading : this.#within(idleMs, what, reading));
    this.#bytesRead += byteCount;
    return byteCount;
  }

  async end(): Promise<void> {
    await this.#attempt(
      this.#within(writeMs, 'the other side does not take what was sent', this.#channel.end()),
    );
  }

  destroy(error?: Error): void {
    if (this.#failure !== undefined) return;
    this.#failure = error ?? new CheckpointError('CHKPT_CLOSED', 'the connection was given up');
    this.#channel.destroy();
  }

  /** Gives the connection up when `work` takes longer. */
  async #within<T>(ms: number, what: string, work: Promise<T>): Promise<T> {
    const timer = setTimeout(() => this.destroy(new CheckpointError('CHKPT_TIMEOUT', what)), ms);
    try {
      return await work;
    } finally {
      clearTimeout(timer);
    }
  }

  async #attempt<T>(work: Promise<T>): Promise<T> {
    try {
      const result = await work;
      if (this.#failure === undefined) return result;
    } catch (error) {
      this.#failure ??= linkError(error);
      this.#channel.destroy();
    }
    throw this.#failure;
  }
}

/** Pieces in groups of at most `writeBytes`, in order; views of what was given. */
function* groupsOf(pieces: readonly Uint8Array[]): Generator<Uint8Array[]> {
  let group: Uint8Array[] = [];
  let room = writeBytes;
  for (const piece of pieces) {
    for (let at = 0; at < piece.length; ) {
      const part = piece.subarray(at, at + room);
      group.push(part);
      at += part.length;
      room -= part.length;
      if (room > 0) continue;
      yield group;
      group = [];
      room = writeBytes;
    }
  }
  if (group.length > 0) yield group;
}

/** An error of a socket, as what it is to the caller. */
export function linkError(error: unknown): CheckpointError {
  if (error instanceof CheckpointError) return error;
  const { code } = fromSystemError(error, '');
  if (code === 'CHKPT_ABORTED' || code === 'CHKPT_PERMISSION')
    return fromSystemError(error, 'cannot connect');
  const errno =
    typeof error === 'object' && error !== null && 'code' in error ? String(error.code) : undefined;
  const reason = errno ?? (error instanceof Error ? error.message : String(error));
  return new CheckpointError('CHKPT_LINK_LOST', `the connection was lost: ${reason}`, { cause: error });
}
