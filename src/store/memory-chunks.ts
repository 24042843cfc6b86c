/**
 * Copies of what is written to a checkpoint in memory, in order.
 *
 * Large writes go into arenas of huge pages and are copied off the main thread: copying a gigabyte there would keep the event
 * loop for a tenth of a second, and the first touch of 4 KiB pages twice that. Where the addon is missing, and for small
 * writes, each write is an ArrayBuffer of its own.
 */
import { hasNativeAddon, nativeAddon } from '../native/index.ts';

/** A committed checkpoint: chunks as they were written, and where each begins. */
export interface MemoryObject {
  readonly chunks: readonly Uint8Array[];
  readonly offsets: readonly number[];
  readonly byteCount: number;
}

/** Below it a hop to another thread costs more than the copy. */
const asyncBytes = 256 * 1024;
// Few of them, since V8 collects garbage for each; what is not written to is not memory.
const arenaBytesFirst = 16 * 1024 * 1024;
const arenaBytesMax = 1024 * 1024 * 1024;
const arenaGrowth = 8;

export class MemoryChunks {
  readonly #chunks: Uint8Array[] = [];
  readonly #offsets: number[] = [];
  #byteCount = 0;
  /** What is left of the newest arena. */
  #free: Uint8Array = new Uint8Array(0);
  #arenaBytes = arenaBytesFirst;

  /** Copies `bytes` at once. */
  append(bytes: Uint8Array): void {
    if (bytes.length === 0) return;
    this.#add(new Uint8Array(bytes));
  }

  /** Copies pieces, which must stay as they are until it resolves, into one chunk. One call at a time. */
  async appendLarge(pieces: readonly Uint8Array[]): Promise<void> {
    const byteCount = pieces.reduce((sum, piece) => sum + piece.length, 0);
    if (byteCount === 0) return;
    const chunk = isLarge(byteCount) ? this.#take(byteCount) : new Uint8Array(byteCount);
    await copyPieces(chunk, pieces);
    this.#add(chunk);
  }

  seal(): MemoryObject {
    return { chunks: this.#chunks, offsets: this.#offsets, byteCount: this.#byteCount };
  }

  #take(byteCount: number): Uint8Array {
    if (byteCount > arenaBytesMax) return new Uint8Array(byteCount);
    if (this.#free.length < byteCount) {
      this.#free = nativeAddon().allocateBuffer(Math.max(byteCount, this.#arenaBytes));
      this.#arenaBytes = Math.min(arenaGrowth * this.#arenaBytes, arenaBytesMax);
    }
    const chunk = this.#free.subarray(0, byteCount);
    this.#free = this.#free.subarray(byteCount);
    return chunk;
  }

  #add(chunk: Uint8Array): void {
    this.#chunks.push(chunk);
    this.#offsets.push(this.#byteCount);
    this.#byteCount += chunk.length;
  }
}

/** Fills the start of `target` with the pieces, one behind the other; large ones off the main thread. */
export async function copyPieces(target: Uint8Array, pieces: readonly Uint8Array[]): Promise<number> {
  const byteCount = pieces.reduce((sum, piece) => sum + piece.length, 0);
  if (isLarge(byteCount)) {
    await nativeAddon().copyBytes(target.subarray(0, byteCount), pieces);
    return byteCount;
  }
  let done = 0;
  for (const piece of pieces) {
    target.set(piece, done);
    done += piece.length;
  }
  return done;
}

function isLarge(byteCount: number): boolean {
  return byteCount >= asyncBytes && hasNativeAddon();
}
