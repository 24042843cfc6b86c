/**
 * Bytes into and out of an open descriptor, in order and never at a position: pipes and sockets by libuv's event loop, so that
 * an end that does not answer holds no thread and can be given up; files and devices, which are always ready, by plain calls.
 */
import { fstatSync, read as readFile, write as writeFile } from 'node:fs';
import { type OnReadOpts, Socket, type SocketConstructorOpts } from 'node:net';
import { promisify } from 'node:util';
import { allocateAligned } from '../util/aligned-buffer.ts';

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

const receiveBytes = 256 * 1024;

/** What takes part in the event loop. Owns the socket. */
export class SocketChannel implements ByteChannel {
  readonly #socket: Socket;
  /** What has come and was not asked for yet. */
  #received: Uint8Array = new Uint8Array(0);
  #hasEnded = false;
  #failure: Error | undefined;
  /** The read in progress waits for something to happen. */
  #wake: (() => void) | undefined;

  /** `make` gets the receiver of what the socket reads. */
  constructor(make: (onread: OnReadOpts) => Socket) {
    const buffer = allocateAligned(receiveBytes);
    this.#socket = make({
      buffer,
      callback: (byteCount) => {
        this.#received = buffer.subarray(0, byteCount);
        this.#wake?.();
        // Nothing more until it was taken.
        return false;
      },
    });
    this.#socket.on('end', () => {
      this.#hasEnded = true;
      this.#wake?.();
    });
    this.#socket.on('error', (error) => {
      this.#failure ??= error;
      this.#wake?.();
    });
    this.#socket.on('close', () => {
      this.#hasEnded = true;
      this.#wake?.();
    });
  }

  write(bytes: Uint8Array): Promise<void> {
    return new Promise((resolve, reject) => {
      if (this.#failure !== undefined) return void reject(this.#failure);
      this.#socket.write(bytes, (error) => {
        const failure = this.#failure ?? error;
        return failure ? reject(failure) : resolve();
      });
    });
  }

  end(): Promise<void> {
    return new Promise((resolve, reject) => {
      if (this.#failure !== undefined) return void reject(this.#failure);
      this.#socket.once('error', reject);
      this.#socket.end((error?: Error | null) => {
        this.#socket.off('error', reject);
        const failure = this.#failure ?? error;
        return failure ? reject(failure) : resolve();
      });
    });
  }

  async read(target: Uint8Array): Promise<number> {
    while (this.#received.length === 0) {
      if (this.#failure !== undefined) throw this.#failure;
      if (this.#hasEnded) return 0;
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
        this.#socket.resume();
      });
      this.#wake = undefined;
    }
    const piece = this.#received.subarray(0, target.length);
    target.set(piece);
    this.#received = this.#received.subarray(piece.length);
    return piece.length;
  }

  destroy(error?: Error): void {
    this.#failure ??= error ?? new Error('given up');
    this.#socket.destroy(error);
  }
}

const writeAsync = promisify(writeFile);
const readAsync = promisify(readFile);

/** A file or a device, where it stands: behind what others have written to the same descriptor. */
export class FileChannel implements ByteChannel {
  readonly #descriptor: number;

  constructor(descriptor: number) {
    this.#descriptor = descriptor;
  }

  async write(bytes: Uint8Array): Promise<void> {
    for (let done = 0; done < bytes.length; ) {
      const { bytesWritten } = await writeAsync(this.#descriptor, bytes, done, bytes.length - done, null);
      if (bytesWritten === 0) throw new Error('nothing is taken');
      done += bytesWritten;
    }
  }

  async end(): Promise<void> {}

  async read(target: Uint8Array): Promise<number> {
    const { bytesRead } = await readAsync(this.#descriptor, target, 0, target.length, null);
    return bytesRead;
  }

  destroy(): void {}
}

/** The channel of an open descriptor. Throws errors of the system. */
export function channelOf(descriptor: number, direction: 'read' | 'write'): ByteChannel {
  const status = fstatSync(descriptor);
  if (status.isFIFO() || status.isSocket()) {
    return new SocketChannel((onread) => {
      const isRead = direction === 'read';
      // `onread` is documented for connect() only; the constructor takes it too.
      const options: SocketConstructorOpts & { readonly onread?: OnReadOpts } = {
        ...{ fd: descriptor, readable: isRead, writable: !isRead, allowHalfOpen: true },
        ...(isRead ? { onread } : {}),
      };
      return new Socket(options);
    });
  }
  return new FileChannel(descriptor);
}
