/** Stores whose checkpoint arrives damaged: what a reader sees differs, what is stored stays as it is. */
import type { Store, StoreReader } from '../../src/index.ts';

/** How the stream is altered. */
export interface Alteration {
  /** Invert the byte at this offset. */
  readonly invertedOffset?: number;
  /** End the stream here. */
  readonly byteLength?: number;
}

/** `store`, read through an alteration. Without random access: whatever is loaded comes through `read`. */
export function alteredStore(store: Store, alteration: Alteration): Store {
  return {
    url: store.url,
    openWriter: (options) => store.openWriter(options),
    openReader: async (options) => new AlteredReader(await store.openReader(options), alteration),
  };
}

class AlteredReader implements StoreReader {
  readonly byteLength = undefined;
  readonly #reader: StoreReader;
  readonly #alteration: Alteration;
  #position = 0;

  constructor(reader: StoreReader, alteration: Alteration) {
    this.#reader = reader;
    this.#alteration = alteration;
  }

  async read(target: Uint8Array): Promise<number> {
    const { invertedOffset = -1, byteLength = Number.POSITIVE_INFINITY } = this.#alteration;
    const wanted = Math.min(target.length, byteLength - this.#position);
    if (wanted <= 0) return 0;
    const byteCount = await this.#reader.read(target.subarray(0, wanted));
    const place = invertedOffset - this.#position;
    if (place >= 0 && place < byteCount) target[place] = (target[place] ?? 0) ^ 0xff;
    this.#position += byteCount;
    return byteCount;
  }

  close(): Promise<void> {
    return this.#reader.close();
  }
}

/** All bytes of a checkpoint. */
export async function readAll(store: Store): Promise<Buffer> {
  const reader = await store.openReader();
  const pieces: Uint8Array[] = [];
  try {
    for (;;) {
      const target = new Uint8Array(1024 * 1024);
      const byteCount = await reader.read(target);
      if (byteCount === 0) return Buffer.concat(pieces);
      pieces.push(target.subarray(0, byteCount));
    }
  } finally {
    await reader.close();
  }
}

/** A frame as docs/format.md section 4 lays it out, found without the code under test. */
export interface FoundFrame {
  readonly type: number;
  readonly offset: number;
  /** Header, payload and padding, bytes. */
  readonly byteLength: number;
}

/** The frames of a whole stream. */
export function framesOf(stream: Buffer): FoundFrame[] {
  const frames: FoundFrame[] = [];
  const footerOffset = stream.length - 64;
  for (let offset = 128; offset < footerOffset; ) {
    const payloadBytes = Number(stream.readBigUInt64LE(offset + 8));
    const byteLength = 56 + payloadBytes + ((8 - (payloadBytes % 8)) % 8);
    frames.push({ type: stream.readUInt32LE(offset), offset, byteLength });
    offset += byteLength;
  }
  return frames;
}
