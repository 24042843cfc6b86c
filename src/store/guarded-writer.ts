/** The writer's half of the guard: see guard.ts. */
import { CheckpointError } from '../errors/index.ts';
import { isDetached } from '../util/detached.ts';
import { fromStore, storeFailure, throwIfAborted } from './failure.ts';
import type {
  CommitSummary,
  DirectOutput,
  MemoryHandOver,
  Segment,
  SegmentSummary,
  StoreWriteOptions,
  StoreWriter,
} from './store.ts';

const segmentKinds: ReadonlySet<unknown> = new Set(['start', 'values', 'memory', 'end']);

export class GuardedWriter implements StoreWriter {
  readonly #inner: StoreWriter;
  readonly #options: StoreWriteOptions;
  readonly #url: string;
  #phase: 'open' | 'failed' | 'committed' | 'aborted' = 'open';
  /** The call in progress; resolves when it has settled, never rejects. */
  #running: Promise<void> | undefined;
  #aborting: Promise<void> | undefined;
  #failure: CheckpointError | undefined;
  #streamBytes = 0;
  /** Where the open segment began. */
  #segmentStart: number | undefined;

  constructor(inner: StoreWriter, options: StoreWriteOptions, url: string) {
    this.#inner = inner;
    this.#options = options;
    this.#url = url;
  }

  async beginSegment(segment: Segment): Promise<void> {
    this.#enter('beginSegment');
    if (typeof segment?.name !== 'string' || !segmentKinds.has(segment.kind)) {
      throw new TypeError('not a segment');
    }
    if (this.#segmentStart !== undefined) throw new TypeError('the segment before has not ended');
    await this.#run('beginSegment', () => this.#inner.beginSegment?.(segment));
    this.#segmentStart = this.#streamBytes;
  }

  async endSegment(summary: SegmentSummary): Promise<void> {
    this.#enter('endSegment');
    if (this.#segmentStart === undefined) throw new TypeError('no segment has begun');
    checkByteCount(summary?.bytes, this.#streamBytes - this.#segmentStart);
    await this.#run('endSegment', () => this.#inner.endSegment?.(summary));
    this.#segmentStart = undefined;
  }

  async write(bytes: Uint8Array): Promise<void> {
    this.#enter('write');
    if (!isBytes(bytes)) throw new TypeError('write() takes a Uint8Array that has its memory');
    // An empty chunk ends the body in more than one network protocol.
    if (bytes.length === 0) return;
    const byteCount = bytes.length;
    await this.#run('write', () => this.#inner.write(bytes));
    this.#streamBytes += byteCount;
  }

  async writeAll(pieces: readonly Uint8Array[]): Promise<void> {
    this.#enter('writeAll');
    if (!Array.isArray(pieces) || !pieces.every(isBytes)) {
      throw new TypeError('writeAll() takes an array of Uint8Arrays that have their memory');
    }
    const full = pieces.filter((piece) => piece.length > 0);
    if (full.length === 0) return;
    const byteCount = full.reduce((sum, piece) => sum + piece.length, 0);
    await this.#run('writeAll', () => this.#writeInner(full));
    this.#streamBytes += byteCount;
  }

  direct(): DirectOutput | undefined {
    this.#enter('direct');
    const output = this.#ask(() => this.#inner.direct?.());
    if (output === undefined) return undefined;
    const { descriptor, position } = output;
    const isPlace = descriptor === 'discard' || (Number.isInteger(descriptor) && descriptor >= 0);
    if (!isPlace || !Number.isSafeInteger(position) || position < 0) {
      throw storeFailure(`direct() gave descriptor ${String(descriptor)}, position ${position}`, this.#url);
    }
    return {
      descriptor,
      position,
      wrote: (byteCount) => {
        this.#ask(() => output.wrote(byteCount));
        this.#streamBytes += byteCount;
      },
      failure: (error) => {
        const failure = fromStore(
          this.#ask(() => output.failure(error)),
          'direct',
          undefined,
          this.#url,
        );
        // As with a write: dropped at once, and nothing is committed after a gap.
        this.#failure = failure;
        this.#phase = 'failed';
        this.#running = this.#dropQuietly().finally(() => {
          this.#running = undefined;
        });
        return failure;
      },
    };
  }

  #ask<T>(call: () => T): T {
    try {
      return call();
    } catch (error) {
      throw fromStore(error, 'direct', this.#options.signal, this.#url);
    }
  }

  async #writeInner(pieces: readonly Uint8Array[]): Promise<void> {
    if (this.#inner.writeAll !== undefined) return await this.#inner.writeAll(pieces);
    for (const piece of pieces) await this.#inner.write(piece);
  }

  async takeMemory(context: string, memory: MemoryHandOver): Promise<boolean> {
    this.#enter('takeMemory');
    let taken: unknown = false;
    await this.#run('takeMemory', async () => {
      taken = await this.#inner.takeMemory?.(context, memory);
    });
    return taken === true;
  }

  async commit(summary: CommitSummary): Promise<void> {
    this.#enter('commit');
    if (this.#segmentStart !== undefined) throw new TypeError('the last segment has not ended');
    if (summary?.uuid !== this.#options.uuid) throw new TypeError('the UUID is not that of openWriter()');
    checkByteCount(summary.bytes, this.#streamBytes);
    await this.#run('commit', () => this.#inner.commit(summary));
    this.#phase = 'committed';
  }

  get storedBytes(): number | undefined {
    const { storedBytes } = this.#inner;
    return storedBytes !== undefined && Number.isSafeInteger(storedBytes) ? storedBytes : undefined;
  }

  get keepsStream(): boolean {
    return this.#inner.keepsStream === true;
  }

  async abort(): Promise<void> {
    this.#aborting ??= this.#abort();
    return await this.#aborting;
  }

  async #abort(): Promise<void> {
    await this.#running;
    if (this.#phase === 'committed') return;
    this.#phase = 'aborted';
    try {
      await this.#inner.abort();
    } catch (error) {
      throw fromStore(error, 'abort', undefined, this.#url);
    }
  }

  #enter(call: string): void {
    if (this.#running !== undefined) throw new TypeError(`${call}() before the call before it has resolved`);
    if (this.#phase === 'open' && this.#aborting === undefined) return;
    throw new CheckpointError('CHKPT_CLOSED', `${call}() after the end of the save`, {
      details: { store: this.#url },
      ...(this.#failure === undefined ? {} : { cause: this.#failure }),
    });
  }

  async #run(call: string, work: () => Promise<void> | undefined): Promise<void> {
    const result = this.#perform(call, work);
    this.#running = result.catch(() => undefined);
    try {
      await result;
    } finally {
      this.#running = undefined;
    }
  }

  async #perform(call: string, work: () => Promise<void> | undefined): Promise<void> {
    try {
      throwIfAborted(this.#options.signal, this.#url);
      await work();
    } catch (error) {
      this.#failure = fromStore(error, call, this.#options.signal, this.#url);
      this.#phase = 'failed';
      await this.#dropQuietly();
      throw this.#failure;
    }
  }

  /** What failed first is what the caller must hear of; `abort()` tells whether something remained. */
  async #dropQuietly(): Promise<void> {
    try {
      await this.#inner.abort();
    } catch {}
  }
}

/** An array that is detached or out of bounds reads as empty: it would be missing in the stream, in silence. */
function isBytes(value: unknown): boolean {
  return value instanceof Uint8Array && !isDetached(value);
}

function checkByteCount(claimed: unknown, written: number): void {
  if (claimed !== written) {
    throw new RangeError(`the summary says ${claimed} bytes, but ${written} were written`);
  }
}
