/**
 * A load of an `s3:` checkpoint. `readAt` asks for what is wanted; `read` has the ranges that come next under way before they are asked
 * for, more and larger ones the longer it goes on, since who looks at a header only would pay for them.
 *
 * Bounds: `concurrency` ranges of `partBytes`. Bytes are copied once, out of the chunks of the socket.
 */
import { setMaxListeners } from 'node:events';
import { CheckpointError, type ErrorDetails } from '../../errors/index.ts';
import { MemoryRelease } from '../../util/release-memory.ts';
import { copyPieces } from '../memory-chunks.ts';
import type { StoreReader } from '../store.ts';
import { type RangeSource, readRange } from './range-read.ts';
import type { S3Service } from './service.ts';

const firstRangeBytes = 256 * 1024;

export interface S3ReadOptions {
  readonly partBytes: number;
  readonly concurrency: number;
  readonly signal?: AbortSignal | undefined;
  readonly details: ErrorDetails;
  /** What was held for this load is not needed any more. */
  readonly release: () => Promise<void>;
}

/** Data objects, and where in the stream each begins. */
interface PlacedSource extends RangeSource {
  readonly start: number;
}

export class S3Reader implements StoreReader {
  readonly byteLength: number;
  readonly #service: S3Service;
  readonly #sources: readonly PlacedSource[];
  readonly #options: S3ReadOptions;
  readonly #cancel = new AbortController();
  readonly #ahead: Ahead[] = [];
  readonly #memory = new MemoryRelease();
  #position = 0;
  #aheadEnd = 0;
  #rangeBytes = firstRangeBytes;
  #rangeCount = 1;

  constructor(service: S3Service, sources: readonly RangeSource[], options: S3ReadOptions) {
    this.#service = service;
    this.#options = options;
    let start = 0;
    this.#sources = sources.map((source) => {
      const placed = { ...source, start };
      start += source.bytes;
      return placed;
    });
    this.byteLength = start;
    // One for each request under way.
    setMaxListeners(0, this.#cancel.signal);
    const { signal } = options;
    signal?.addEventListener('abort', this.#onAbort, { once: true });
    if (signal?.aborted) this.#onAbort();
  }

  readonly #onAbort = (): void => this.#cancel.abort(this.#options.signal?.reason);

  async read(target: Uint8Array): Promise<number> {
    this.#fillAhead();
    const next = this.#ahead[0];
    if (next === undefined) return 0;
    await next.done;
    const pieces: Uint8Array[] = [];
    const spent: Uint8Array[] = [];
    let room = target.length;
    while (room > 0) {
      const chunk = next.chunks[next.index];
      if (chunk === undefined) break;
      const piece = chunk.subarray(next.start, next.start + room);
      pieces.push(piece);
      room -= piece.length;
      next.start += piece.length;
      if (next.start < chunk.length) continue;
      next.chunks[next.index] = undefined;
      if (hasMemoryAlone(chunk)) spent.push(chunk);
      next.index += 1;
      next.start = 0;
    }
    const byteCount = await copyPieces(target, pieces);
    this.#memory.release(spent);
    this.#position += byteCount;
    if (next.index === next.chunks.length) {
      this.#ahead.shift();
      this.#fillAhead();
    }
    return byteCount;
  }

  async readAt(offset: number, target: Uint8Array): Promise<number> {
    const found = this.#at(offset);
    if (found === undefined) return 0;
    const bytes = Math.min(target.length, found.source.bytes - found.offset);
    let done = 0;
    await this.#readRange(found.source, found.offset, bytes, (chunk) => {
      target.set(chunk, done);
      done += chunk.length;
      if (hasMemoryAlone(chunk)) this.#memory.release([chunk]);
    });
    return done;
  }

  async close(): Promise<void> {
    this.#options.signal?.removeEventListener('abort', this.#onAbort);
    this.#cancel.abort();
    await Promise.allSettled(this.#ahead.map(({ done }) => done));
    this.#ahead.length = 0;
    await this.#options.release();
  }

  #fillAhead(): void {
    if (this.#ahead.length === 0) this.#aheadEnd = this.#position;
    while (this.#ahead.length < this.#rangeCount) {
      const found = this.#at(this.#aheadEnd);
      if (found === undefined) return;
      const bytes = Math.min(this.#rangeBytes, found.source.bytes - found.offset);
      const chunks: Uint8Array[] = [];
      const done = this.#readRange(found.source, found.offset, bytes, (chunk) => chunks.push(chunk));
      // Who reads hears of it; who closes before does not want to.
      done.catch(() => undefined);
      this.#ahead.push({ done, chunks, index: 0, start: 0 });
      this.#aheadEnd += bytes;
      this.#rangeBytes = Math.min(2 * this.#rangeBytes, this.#options.partBytes);
      if (this.#ahead.length === this.#rangeCount) break;
    }
    this.#rangeCount = Math.min(this.#rangeCount + 1, this.#options.concurrency);
  }

  async #readRange(
    source: RangeSource,
    offset: number,
    bytes: number,
    take: (chunk: Uint8Array) => void,
  ): Promise<void> {
    const { details } = this.#options;
    await readRange(this.#service, source, { offset, bytes }, take, details, this.#cancel.signal);
  }

  /** The object with the byte at `position`; `undefined` behind the end. */
  #at(position: number): { source: PlacedSource; offset: number } | undefined {
    if (position >= this.byteLength) return undefined;
    const source = this.#sources.findLast(({ start }) => start <= position);
    if (source === undefined) throw new CheckpointError('CHKPT_INTERNAL', `no object has byte ${position}`);
    return { source, offset: position - source.start };
  }
}

/** Chunks cut out of one read of a socket could share theirs. */
function hasMemoryAlone({ byteLength, buffer }: Uint8Array): boolean {
  return byteLength === buffer.byteLength;
}

/** A range under way, or read but not taken yet. */
interface Ahead {
  readonly done: Promise<void>;
  /** Chunks that were taken are `undefined`. */
  readonly chunks: (Uint8Array | undefined)[];
  index: number;
  start: number;
}
