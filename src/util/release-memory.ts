/**
 * Gives the memory of buffers back at once, not when the collector comes: whoever makes large ones in quick succession makes it come for
 * each few of them, and pays for new pages each time.
 */
import { MessageChannel, type MessagePort } from 'node:worker_threads';

/** Smaller ones are not worth it. Bytes. */
const largeBytesMin = 16 * 1024;

export class MemoryRelease {
  /** Without another side: what is posted goes nowhere, and takes its memory with it. */
  readonly #port: MessagePort;

  constructor() {
    const { port1, port2 } = new MessageChannel();
    port2.close();
    port1.unref();
    this.#port = port1;
  }

  /** Nobody reads `buffers` any more; large ones are empty afterwards. REQUIRES: a large one shares its memory with nobody else. */
  release(buffers: readonly Uint8Array[]): void {
    const memories = buffers.map(({ buffer }) => buffer);
    const large = memories.filter((one) => one instanceof ArrayBuffer && one.byteLength >= largeBytesMin);
    try {
      if (large.length > 0) this.#port.postMessage(undefined, large as ArrayBuffer[]);
    } catch {
      // Memory that cannot be given away: the collector comes.
    }
  }
}
