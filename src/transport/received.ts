/**
 * What a socket has received and nobody has asked for yet.
 *
 * With `onread` the kernel copies into one aligned buffer that is used again and again, and one more copy takes the bytes to the caller
 * while they are in the cache. `data` events allocate each piece anew, which is slower. TLS has
 * no choice: its bytes come in pieces of 16 KiB, also after it was told to stop, when a buffer would be in use still.
 */
import type { OnReadOpts, Socket } from 'node:net';
import { allocateAligned } from '../util/aligned-buffer.ts';

const bufferBytes = 256 * 1024;
/** What a stranger may make this process hold. */
const narrowBytes = 4096;
/** Events are stopped above this. */
const queuedBytesMax = 256 * 1024;

export class Received {
  readonly #pieces: Uint8Array[] = [];
  #byteCount = 0;
  #buffer: Uint8Array;
  readonly #onArrival: () => void;

  constructor(isNarrow: boolean, onArrival: () => void) {
    this.#buffer = isNarrow ? new Uint8Array(narrowBytes) : allocateAligned(bufferBytes);
    this.#onArrival = onArrival;
  }

  get isEmpty(): boolean {
    return this.#byteCount === 0;
  }

  /** The other end is known now: a larger buffer pays. */
  widen(): void {
    if (this.#buffer.length < bufferBytes) this.#buffer = allocateAligned(bufferBytes);
  }

  /** For the constructor of a socket. */
  get onread(): OnReadOpts {
    return {
      // Asked for after each piece; the one that is being emptied is not filled, because the socket stands still.
      buffer: () => this.#buffer,
      callback: (byteCount, buffer) => {
        this.#add(buffer.subarray(0, byteCount));
        return false;
      },
    };
  }

  /** For a socket that has no `onread`. */
  listenTo(socket: Socket): void {
    socket.on('data', (piece: Buffer) => {
      this.#add(piece);
      if (this.#byteCount >= queuedBytesMax) socket.pause();
    });
    socket.pause();
  }

  /** Moves what is here into the start of `target`. */
  take(target: Uint8Array): number {
    let done = 0;
    for (let first = this.#pieces[0]; first !== undefined && done < target.length; first = this.#pieces[0]) {
      const part = first.subarray(0, target.length - done);
      target.set(part, done);
      done += part.length;
      if (part.length === first.length) this.#pieces.shift();
      else this.#pieces[0] = first.subarray(part.length);
    }
    this.#byteCount -= done;
    return done;
  }

  #add(piece: Uint8Array): void {
    this.#pieces.push(piece);
    this.#byteCount += piece.length;
    this.#onArrival();
  }
}
