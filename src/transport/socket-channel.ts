/**
 * A socket as a channel of bytes, by libuv's event loop: an end that does not answer holds no thread and can be given up. Owns the
 * socket.
 */
import { type OnReadOpts, Socket, type SocketConstructorOpts } from 'node:net';
import type { ByteChannel } from './byte-channel.ts';
import { Received } from './received.ts';

export class SocketChannel implements ByteChannel {
  readonly socket: Socket;
  /** Resolves when the socket is closed. */
  readonly closed: Promise<void>;
  /** Several pieces go out in one call of the system. TLS copies them together first. */
  readonly isVectored: boolean;
  readonly #received: Received;
  #hasEnded = false;
  #failure: Error | undefined;
  /** The read in progress waits for something to happen. */
  #wake: (() => void) | undefined;

  private constructor(make: (received: Received) => Socket, isVectored: boolean, isNarrow: boolean) {
    this.#received = new Received(isNarrow, () => this.#wake?.());
    this.socket = make(this.#received);
    this.isVectored = isVectored;
    const ended = (): void => {
      this.#hasEnded = true;
      this.#wake?.();
    };
    this.socket.on('end', ended);
    this.socket.on('error', (error) => {
      this.#failure ??= error;
      this.#wake?.();
    });
    this.closed = new Promise((resolve) => {
      this.socket.on('close', () => {
        ended();
        resolve();
      });
    });
  }

  /** `make` gets the receiver of what the socket reads. `isNarrow`: it holds little before `widen()`. */
  static ofNew(make: (onread: OnReadOpts) => Socket, isNarrow = false): SocketChannel {
    return new SocketChannel((received) => make(received.onread), true, isNarrow);
  }

  /** A socket that a server with `pauseOnConnect` has accepted. The channel has another one in its place. */
  static ofAccepted(accepted: Socket): SocketChannel {
    // Only constructors take `onread`: the handle moves into a new socket. A Node without this field has events.
    const owner = accepted as unknown as { _handle?: object | null };
    const handle = owner._handle;
    if (handle === undefined || handle === null) return SocketChannel.ofEvents(accepted, true);
    owner._handle = null;
    return SocketChannel.ofNew((onread) => {
      const options: SocketConstructorOpts & { readonly handle: object; readonly onread: OnReadOpts } = {
        ...{ handle, onread, allowHalfOpen: true, readable: true, writable: true },
      };
      return new Socket(options);
    }, true);
  }

  /** A socket that gives `data` events: every TLS socket. */
  static ofEvents(socket: Socket, isVectored = false): SocketChannel {
    const make = (received: Received): Socket => {
      received.listenTo(socket);
      return socket;
    };
    return new SocketChannel(make, isVectored, true);
  }

  /** Spends memory on speed: for an end that is known. */
  widen(): void {
    this.#received.widen();
  }

  write(bytes: Uint8Array): Promise<void> {
    return this.writeAll([bytes]);
  }

  /** One piece behind the other. */
  writeAll(pieces: readonly Uint8Array[]): Promise<void> {
    return new Promise((resolve, reject) => {
      if (this.#failure !== undefined) return void reject(this.#failure);
      const { socket } = this;
      const last = pieces.length - 1;
      const isOneCall = this.isVectored && last > 0;
      if (isOneCall) socket.cork();
      for (const [index, piece] of pieces.entries()) {
        if (index < last) {
          socket.write(piece);
          continue;
        }
        socket.write(piece, (error) => {
          const failure = this.#failure ?? error;
          return failure ? reject(failure) : resolve();
        });
      }
      if (isOneCall) socket.uncork();
      if (last < 0) resolve();
    });
  }

  end(): Promise<void> {
    return new Promise((resolve, reject) => {
      if (this.#failure !== undefined) return void reject(this.#failure);
      this.socket.once('error', reject);
      this.socket.end((error?: Error | null) => {
        this.socket.off('error', reject);
        const failure = this.#failure ?? error;
        return failure ? reject(failure) : resolve();
      });
    });
  }

  async read(target: Uint8Array): Promise<number> {
    while (this.#received.isEmpty) {
      if (this.#failure !== undefined) throw this.#failure;
      if (this.#hasEnded) return 0;
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
        this.socket.resume();
      });
      this.#wake = undefined;
    }
    return this.#received.take(target);
  }

  destroy(error?: Error): void {
    this.#failure ??= error ?? new Error('given up');
    this.socket.destroy(error);
  }
}
