/**
 * Bytes into and out of an open descriptor, in order and never at a position: pipes and sockets by libuv's event loop; files and devices,
 * which are always ready, by plain calls.
 */
import { fstatSync, read as readFile, write as writeFile } from 'node:fs';
import { type OnReadOpts, Socket, type SocketConstructorOpts } from 'node:net';
import { promisify } from 'node:util';
import type { ByteChannel } from '../transport/byte-channel.ts';
import { SocketChannel } from '../transport/socket-channel.ts';

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
    return SocketChannel.ofNew((onread) => {
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
