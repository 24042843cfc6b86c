/**
 * Bytes of a checkpoint for native threads, from a store that only JavaScript can read: threads ask and wait, `readAt` answers.
 *
 * Bounds: each thread has one request in flight, of at most 4 MiB, so several reads are under way at the same time, and never more than
 * there are threads. Bytes are copied once, out of the buffer that `readAt` fills; native code verifies them as it does those of a file.
 *
 * This thread must not wait for a thread that asks: it is the one that answers.
 */
import { callStore } from '../context/store-call.ts';
import { CheckpointError } from '../errors/index.ts';
import { callNative, type NativeBlockRequests, nativeAddon } from '../native/index.ts';
import type { StoreReader } from '../store/index.ts';

/** Buffers of one block, and of what the fill reads at once, are used again. */
const blockBufferBytes = 128 * 1024;
const largeBufferBytes = 4 * 1024 * 1024;
const idleBuffersMax = 8;

export class RequestedBytes {
  /** For `NativeLazyLayer.source`. */
  readonly native: NativeBlockRequests;
  readonly #reader: StoreReader;
  readonly #store: string;
  readonly #reads = new Set<Promise<void>>();
  readonly #idle = new Map<number, Uint8Array[]>();
  readonly #serving: Promise<void>;
  #failure: unknown;
  #closing: Promise<void> | undefined;

  /** Takes over `reader`, which has `readAt` and knows its length. */
  constructor(reader: StoreReader, store: string) {
    this.native = callNative(() => new (nativeAddon().BlockRequests)(reader.byteLength ?? 0));
    this.#reader = reader;
    this.#store = store;
    this.#serving = this.#serve();
  }

  /** The first error of the store. */
  get failure(): unknown {
    return this.#failure;
  }

  /** Nothing is asked any more. Waits for the reads under way, then closes the reader. Never rejects. */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    await this.native.close();
    await this.#serving;
    await Promise.all(this.#reads);
    await Promise.resolve(this.#reader.close()).catch(() => undefined);
  }

  async #serve(): Promise<void> {
    for (;;) {
      const requests = await this.native.next();
      if (requests === undefined) return;
      for (let at = 0; at + 2 < requests.length; at += 3) {
        const [id = 0, offset = 0, bytes = 0] = requests.subarray(at, at + 3);
        const read = this.#answer(id, offset, bytes).finally(() => this.#reads.delete(read));
        this.#reads.add(read);
      }
    }
  }

  async #answer(id: number, offset: number, bytes: number): Promise<void> {
    const bufferBytes = bytes <= blockBufferBytes ? blockBufferBytes : largeBufferBytes;
    const buffer = this.#idle.get(bufferBytes)?.pop() ?? new Uint8Array(bufferBytes);
    const target = buffer.subarray(0, bytes);
    try {
      this.native.answer(id, target.subarray(0, await this.#read(offset, target)));
    } catch (error) {
      this.#failure ??= error;
      this.native.refuse(id);
      // A store that has failed may still write into what it was given.
      return;
    }
    const idle = this.#idle.get(bufferBytes) ?? [];
    this.#idle.set(bufferBytes, idle);
    if (idle.length < idleBuffersMax) idle.push(buffer);
  }

  /** How many bytes there are, up to all that are wanted. */
  async #read(offset: number, target: Uint8Array): Promise<number> {
    let done = 0;
    while (done < target.length) {
      const rest = target.subarray(done);
      const count = await callStore(this.#store, 'readAt', async () =>
        this.#reader.readAt?.(offset + done, rest),
      );
      if (count === 0) break;
      if (!Number.isInteger(count) || (count as number) < 0 || (count as number) > rest.length) {
        const what = `readAt() of ${rest.length} bytes returned ${count}`;
        throw new CheckpointError('CHKPT_STORE_FAILED', what, { details: { store: this.#store } });
      }
      done += count as number;
    }
    return done;
  }
}
