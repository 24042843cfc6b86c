/**
 * Guest memory as a source of frames: slabs of the native save pipeline in stream order, seen without a copy.
 */
import type {
  MemoryFrameSource,
  MemoryFrameStream,
  MemoryRegion,
  MemoryTotals,
  SlabBatch,
  StreamPosition,
} from '../context/memory-frames.ts';
import { CheckpointError } from '../errors/index.ts';
import {
  callNative,
  fromNative,
  type NativeSavePipeline,
  nativeAddon,
  outputErrorOf,
} from '../native/index.ts';
import type { DirectOutput, MemoryHandOver } from '../store/store.ts';
import { deferred } from '../util/deferred.ts';
import type { DeltaCache } from './delta-cache.ts';
import { checkThreads, type GuestMemory } from './guest-memory.ts';
import type { MemorySnapshot } from './memory-snapshot.ts';
import type { PageDigests } from './page-digests.ts';
import type { PageSet } from './page-set.ts';

/** How pages are encoded. */
export interface EncodeOptions {
  /** `lz4` (default): blocks of 64 KiB, raw where LZ4 does not pay. `raw`: no compression. */
  readonly codec?: 'lz4' | 'raw' | undefined;
  /** LZ4 acceleration, 1 (default, smallest) to 65,537. */
  readonly acceleration?: number | undefined;
  /**
   * Store equal pages once. Default: true with `lz4`, false with `raw`, where hashing would cost more than copying. The page
   * table takes at most 10 MiB whatever the guest's size.
   */
  readonly dedup?: boolean | undefined;
  /** Worker threads, 1 to 64; default: number of processors. The output does not depend on it. */
  readonly threads?: number | undefined;
  /** Slabs of about 2.2 MiB, 2 to 256; default threads + 2 with an output, else threads + 4 (+ 12 with `raw` and no `dedup`). */
  readonly slabCount?: number | undefined;
  /**
   * Of a checkpoint with a parent: the pages that may differ from the parent; default: any page may. Read when the stream is
   * opened.
   */
  readonly changed?: PageSet | undefined;
  /** Pages that are stored as zeros, in an increment too, whatever they hold; they are not read. */
  readonly scrubbed?: PageSet | undefined;
  /**
   * What pages were last known to be, with a parent its content: a page that is found equal is left to the parent. Kept up to
   * date; after a failed save its pages are to be forgotten.
   */
  readonly pageDigests?: PageDigests | undefined;
  /**
   * Of a stream of a migration: pages that were sent in an earlier round go as their difference from what was sent, where that is
   * small. Only a `PageDecoder` with `deltas`, and memory that has what was sent, reads the stream. Kept up to date; after a stream
   * that may not have arrived its pages are to be forgotten.
   */
  readonly deltas?: DeltaCache | undefined;
  /** Of the same memory, frozen: its pages are encoded as they were then, while a guest writes. */
  readonly snapshot?: MemorySnapshot | undefined;
  /** Told how many pages of the memory are done, about once per 6 MiB of them. */
  readonly onPages?: ((pageCount: number) => void) | undefined;
}

type EncoderOptions = {
  readonly [K in Exclude<
    keyof EncodeOptions,
    'onPages' | 'changed' | 'scrubbed' | 'pageDigests' | 'deltas' | 'snapshot'
  >]-?: NonNullable<EncodeOptions[K]>;
};

export class PageEncoder implements MemoryFrameSource {
  readonly #memory: GuestMemory;
  readonly #options: EncoderOptions;
  readonly #onPages: ((pageCount: number) => void) | undefined;
  readonly #changed: PageSet | undefined;
  readonly #scrubbed: PageSet | undefined;
  readonly #pageDigests: PageDigests | undefined;
  readonly #deltas: DeltaCache | undefined;
  readonly #snapshot: MemorySnapshot | undefined;

  constructor(memory: GuestMemory, options: EncodeOptions = {}) {
    const codec = options.codec ?? 'lz4';
    if (codec !== 'lz4' && codec !== 'raw') throw new TypeError(`unknown codec ${String(codec)}`);
    this.#memory = memory;
    this.#onPages = options.onPages;
    this.#changed = options.changed;
    this.#scrubbed = options.scrubbed;
    this.#pageDigests = options.pageDigests;
    this.#deltas = options.deltas;
    this.#snapshot = options.snapshot;
    this.#options = {
      codec,
      acceleration: checkRange(options.acceleration ?? 1, 1, 65_537, 'acceleration'),
      dedup: options.dedup ?? codec === 'lz4',
      threads: checkThreads(options.threads),
      slabCount: options.slabCount === undefined ? 0 : checkRange(options.slabCount, 2, 256, 'slabCount'),
    };
  }

  get regions(): readonly MemoryRegion[] {
    return this.#memory.regions;
  }

  get handOver(): MemoryHandOver | undefined {
    const parts = [this.#changed, this.#scrubbed, this.#pageDigests, this.#deltas, this.#snapshot];
    if (parts.some((part) => part !== undefined)) return undefined;
    return { image: this.#memory, threads: this.#options.threads, onPages: this.#onPages };
  }

  open(
    position: StreamPosition,
    signal: AbortSignal | undefined,
    output?: DirectOutput | undefined,
  ): MemoryFrameStream {
    signal?.throwIfAborted();
    const { codec, ...options } = this.#options;
    const pipeline = callNative(
      () =>
        new (nativeAddon().SavePipeline)(this.#memory.native, {
          ...position,
          ...options,
          codec: codec === 'lz4' ? 1 : 0,
          changed: this.#changed?.native,
          scrubbed: this.#scrubbed?.native,
          pageDigests: this.#pageDigests?.native,
          deltas: this.#deltas?.native,
          snapshot: this.#snapshot?.native,
          output: output && {
            descriptor: output.descriptor === 'discard' ? undefined : output.descriptor,
            position: output.position,
          },
        }),
    );
    return new EncoderStream(pipeline, this.#memory, { signal, onPages: this.#onPages, output });
  }
}

class EncoderStream implements MemoryFrameStream {
  readonly #pipeline: NativeSavePipeline;
  readonly #signal: AbortSignal | undefined;
  readonly #onAbort = (): void => void this.close();
  readonly #onPages: ((pageCount: number) => void) | undefined;
  readonly #output: DirectOutput | undefined;
  readonly #done = deferred();
  #closed: Promise<void> | undefined;
  #totals: MemoryTotals | undefined;

  constructor(
    pipeline: NativeSavePipeline,
    memory: GuestMemory,
    {
      signal,
      onPages,
      output,
    }: Pick<EncodeOptions, 'onPages'> & {
      readonly signal: AbortSignal | undefined;
      readonly output: DirectOutput | undefined;
    },
  ) {
    this.#onPages = onPages;
    this.#output = output;
    this.#pipeline = pipeline;
    this.#signal = signal;
    signal?.addEventListener('abort', this.#onAbort, { once: true });
    // Closing the memory waits until no thread of ours touches it.
    void memory.hold(this.#done.promise);
  }

  async next(): Promise<SlabBatch | undefined> {
    if (this.#closed !== undefined) throw this.#closedError();
    try {
      const slabs = await this.#pipeline.next();
      if (slabs === undefined) {
        this.#totals = this.#pipeline.totals();
        return undefined;
      }
      const { pieces, digests, groups, pages, written } = slabs;
      this.#onPages?.(pages);
      return {
        pieces,
        frameCount: digests.length / 8,
        digests,
        groups,
        written,
        release: () => {
          if (written === undefined) this.#pipeline.release();
        },
      };
    } catch (error) {
      if (this.#signal?.aborted) throw this.#closedError();
      const ofOutput = outputErrorOf(error);
      throw (ofOutput && this.#output?.failure(ofOutput)) ?? fromNative(error);
    }
  }

  totals(): MemoryTotals {
    if (this.#totals === undefined)
      throw new CheckpointError('CHKPT_INTERNAL', 'totals before the last slab');
    return this.#totals;
  }

  close(): Promise<void> {
    this.#signal?.removeEventListener('abort', this.#onAbort);
    this.#closed ??= this.#pipeline.close().finally(this.#done.resolve);
    return this.#closed;
  }

  #closedError(): CheckpointError {
    return this.#signal?.aborted
      ? new CheckpointError('CHKPT_ABORTED', 'save aborted', { cause: this.#signal.reason })
      : new CheckpointError('CHKPT_CLOSED', 'the encoder is closed');
  }
}

function checkRange(value: number, least: number, most: number, name: string): number {
  if (!Number.isInteger(value) || value < least || value > most) {
    throw new RangeError(`${name} must be ${least} to ${most}`);
  }
  return value;
}
