/**
 * A store as one that is far away: random access by asynchronous calls alone, each of which takes a while. What it has is in memory, and can
 * vanish or change while it is read.
 */
import { setTimeout as delay } from 'node:timers/promises';
import type { Store, StoreReader } from '../../src/index.ts';

export class RemoteStore implements Store {
  readonly url: string;
  /** What is read. */
  bytes: Buffer;
  /** Milliseconds of each call of `readAt`. */
  delayMs: number;
  /** Thrown by every `readAt` from now on. */
  failure: Error | undefined;
  /** Called before every `readAt`. */
  onRead: ((offset: number, bytes: number) => void) | undefined;
  readsUnderWay = 0;
  readsUnderWayMax = 0;
  readCount = 0;
  readBytesMax = 0;
  openReaders = 0;

  constructor(name: string, bytes: Buffer, delayMs = 2) {
    this.url = `remote:${name}`;
    this.bytes = bytes;
    this.delayMs = delayMs;
  }

  async openWriter(): Promise<never> {
    throw new Error('read only');
  }

  async openReader(): Promise<StoreReader> {
    this.openReaders += 1;
    let position = 0;
    let isClosed = false;
    const byteLength = this.bytes.length;
    return {
      byteLength,
      read: async (target) => {
        const count = this.bytes.copy(target, 0, position);
        position += count;
        return count;
      },
      readAt: async (offset, target) => {
        if (isClosed) throw new Error('read after close');
        return await this.#readAt(offset, target);
      },
      close: async () => {
        if (isClosed) throw new Error('closed twice');
        isClosed = true;
        this.openReaders -= 1;
      },
    };
  }

  async #readAt(offset: number, target: Uint8Array): Promise<number> {
    this.onRead?.(offset, target.length);
    this.readCount += 1;
    this.readsUnderWay += 1;
    this.readsUnderWayMax = Math.max(this.readsUnderWayMax, this.readsUnderWay);
    this.readBytesMax = Math.max(this.readBytesMax, target.length);
    await delay(this.delayMs);
    this.readsUnderWay -= 1;
    if (this.failure !== undefined) throw this.failure;
    // Not always all at once.
    const some = target.length > 200_000 ? target.subarray(0, 150_001) : target;
    return this.bytes.copy(some, 0, Math.min(offset, this.bytes.length));
  }
}
