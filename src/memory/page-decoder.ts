/**
 * Guest memory as a sink of frames: the stream is read into page-aligned native buffers, verified and decoded by the native
 * load pipeline straight into memory. JavaScript sees whole buffers, never frames.
 */
import type {
  DirectInput,
  MemoryFrameInput,
  MemoryFrameResult,
  MemoryFrameSink,
  MemoryRegion,
  StreamPosition,
} from '../context/memory-frames.ts';
import { checkAborted } from '../context/store-call.ts';
import { CheckpointError } from '../errors/index.ts';
import {
  awaitNative,
  callNative,
  fromNative,
  type NativeFed,
  type NativeLoadPipeline,
  nativeAddon,
} from '../native/index.ts';
import type { ArrivingPages } from './arriving-pages.ts';
import type { ChainLoad } from './chain-load.ts';
import { checkThreads, GuestMemory } from './guest-memory.ts';
import type { PageDigests } from './page-digests.ts';

/** How pages are decoded. */
export interface DecodeOptions {
  /** Worker threads, 1 to 64; default: number of processors. */
  readonly threads?: number | undefined;
  /** The chain that the stream is a member of; newest first. */
  readonly chain?: ChainLoad | undefined;
  /** A second read of a member: only the pages that `chain` has put off. */
  readonly resolve?: boolean | undefined;
  /** The memory has what a migration sent before; pages that come as differences are made of it (docs/format.md section 14). */
  readonly deltas?: boolean | undefined;
  /** Where digests of pages go, when there is no memory for the pages. */
  readonly pageDigests?: PageDigests | undefined;
  /** Pages of the memory are still missing while its guest runs: where they go. */
  readonly arriving?: ArrivingPages | undefined;
  /** Told how many pages of the memory were read, about once per 1 or 2 MiB of the stream. */
  readonly onPages?: ((pageCount: number) => void) | undefined;
}

/** Of streams that bring what one thread waits for, and its neighbours. */
const arrivingReadBytes = 1024 * 1024;

/**
 * Loads pages into `memory`, or, when there is none, verifies and decodes them into nothing.
 *
 * Throws `CHKPT_VM_REGIONS` before anything is touched when the region tables differ.
 */
export class PageDecoder implements MemoryFrameSink {
  readonly #memory: GuestMemory | undefined;
  readonly #threads: number;
  readonly #onPages: ((pageCount: number) => void) | undefined;
  readonly #options: DecodeOptions;

  constructor(memory: GuestMemory | undefined, options: DecodeOptions = {}) {
    this.#memory = memory;
    this.#threads = checkThreads(options.threads);
    this.#onPages = options.onPages;
    this.#options = options;
  }

  async consume(
    position: StreamPosition,
    regions: readonly MemoryRegion[],
    input: MemoryFrameInput,
    onDigests: (digests: Uint8Array, frameCount: number) => void,
    signal: AbortSignal | undefined,
  ): Promise<MemoryFrameResult> {
    const memory = this.#memory ?? GuestMemory.describe(regions);
    if (this.#memory !== undefined) checkRegions(this.#memory.regions, regions);
    await this.#memory?.replaceable();
    checkAborted(signal, undefined);
    const pipeline = callNative(
      () =>
        new (nativeAddon().LoadPipeline)(memory.native, {
          ...position,
          threads: this.#threads,
          ...this.#buffersFor(input),
          chain: this.#options.chain?.native,
          resolve: this.#options.resolve,
          deltas: this.#options.deltas,
          pageDigests: this.#options.pageDigests?.native,
          placer: this.#options.arriving?.native,
        }),
    );
    const pump = new Pump(pipeline, input, onDigests, signal, this.#onPages);
    const close = (): void => void pipeline.close();
    signal?.addEventListener('abort', close, { once: true });
    const work = pump.run().finally(async () => {
      signal?.removeEventListener('abort', close);
      await pipeline.close();
    });
    try {
      return await memory.hold(work);
    } catch (error) {
      if (signal?.aborted)
        throw new CheckpointError('CHKPT_ABORTED', 'load aborted', { cause: signal.reason });
      throw error;
    } finally {
      if (this.#memory === undefined) await memory.close();
    }
  }

  #buffersFor({ direct }: MemoryFrameInput): { bufferCount: number; readBytes: number } {
    if (this.#options.arriving !== undefined) return { bufferCount: 0, readBytes: arrivingReadBytes };
    // Each holds work for two threads; one that reads by itself is never late with the next.
    if (direct !== undefined) return { bufferCount: 3 + Math.floor(this.#threads / 4), readBytes };
    return { bufferCount: 2 + Math.ceil(this.#threads / 2), readBytes: readBytes / 2 };
  }
}

/** Out of files; half of it where JavaScript reads. Larger ones load no faster, and a conversion has two sets of them. */
const readBytes = 2 * 1024 * 1024;

type Finished = Awaited<ReturnType<NativeLoadPipeline['finish']>>;

/** Moves the bytes of one memory context into a pipeline. */
class Pump {
  readonly #pipeline: NativeLoadPipeline;
  readonly #input: MemoryFrameInput;
  readonly #onDigests: (digests: Uint8Array, frameCount: number) => void;
  readonly #signal: AbortSignal | undefined;
  readonly #onPages: ((pageCount: number) => void) | undefined;
  #frameCount = 0;
  #pushedBytes = 0;
  #leftover: Uint8Array | undefined;

  constructor(
    pipeline: NativeLoadPipeline,
    input: MemoryFrameInput,
    onDigests: (digests: Uint8Array, frameCount: number) => void,
    signal: AbortSignal | undefined,
    onPages: ((pageCount: number) => void) | undefined,
  ) {
    this.#onPages = onPages;
    this.#pipeline = pipeline;
    this.#input = input;
    this.#onDigests = onDigests;
    this.#signal = signal;
  }

  async run(): Promise<MemoryFrameResult> {
    await this.#pushBuffered();
    if (this.#leftover === undefined && this.#input.direct !== undefined)
      await this.#feed(this.#input.direct);
    while (this.#leftover === undefined) {
      const { buffer, view } = await awaitNative(this.#pipeline.acquire());
      const bytes = await this.#input.read(view);
      this.#signal?.throwIfAborted();
      if (bytes === 0) {
        this.#pipeline.giveBack(buffer);
        await this.#failFirst(new CheckpointError('CHKPT_TRUNCATED', 'the stream ends inside guest memory'));
      }
      await this.#push(buffer, bytes);
    }
    const { groups, ...totals } = await this.#finish();
    return {
      frameCount: this.#frameCount,
      byteCount: this.#pushedBytes - this.#leftover.length,
      totals,
      groups,
      leftover: this.#leftover,
    };
  }

  /** What the stream reader had read ahead: the one place where memory frames are copied. */
  async #pushBuffered(): Promise<void> {
    let rest = this.#input.buffered;
    while (rest.length > 0 && this.#leftover === undefined) {
      const { buffer, view } = await awaitNative(this.#pipeline.acquire());
      const piece = rest.subarray(0, view.length);
      view.set(piece);
      rest = rest.subarray(piece.length);
      await this.#push(buffer, piece.length);
    }
    if (rest.length > 0 && this.#leftover !== undefined) {
      const leftover: Uint8Array = this.#leftover;
      this.#leftover = new Uint8Array(leftover.length + rest.length);
      this.#leftover.set(leftover);
      this.#leftover.set(rest, leftover.length);
      this.#pushedBytes += rest.length;
    }
  }

  /** As far as a thread can read by itself: where it stopped, `read` goes on, and says why it cannot. */
  async #feed({ from, position, bytes, took }: DirectInput): Promise<void> {
    try {
      this.#pipeline.feed(from, position, bytes);
    } catch {
      // No descriptor to spare: `read` goes on here.
      return;
    }
    for (let isOver = false; !isOver; ) {
      const fed = await awaitNative(this.#pipeline.fed());
      this.#signal?.throwIfAborted();
      isOver = fed.over;
      took(fed.bytes);
      this.#pushedBytes += fed.bytes;
      this.#note(fed);
      if (fed.error !== undefined) await this.#failFirst(fromNative(fed.error));
    }
  }

  #note({
    digests,
    pages,
    ended,
    leftover,
  }: Pick<NativeFed, 'digests' | 'pages' | 'ended' | 'leftover'>): void {
    const frameCount = digests.length / 8;
    this.#frameCount += frameCount;
    this.#onDigests(digests, frameCount);
    this.#onPages?.(pages);
    if (ended) this.#leftover = leftover ?? new Uint8Array(0);
  }

  async #push(buffer: number, bytes: number): Promise<void> {
    this.#pushedBytes += bytes;
    try {
      this.#note(callNative(() => this.#pipeline.push(buffer, bytes)));
    } catch (error) {
      await this.#failFirst(error);
    }
  }

  async #finish(): Promise<Finished> {
    let finished: Promise<Finished>;
    try {
      finished = callNative(() => this.#pipeline.finish());
    } catch (error) {
      return this.#failFirst(error);
    }
    return awaitNative(finished);
  }

  /** Reports the damage that comes first in the stream: a worker may have found an earlier one than `error`. */
  async #failFirst(error: unknown): Promise<never> {
    await awaitNative(this.#pipeline.settle());
    throw error;
  }
}

function checkRegions(expected: readonly MemoryRegion[], actual: readonly MemoryRegion[]): void {
  const same =
    expected.length === actual.length &&
    expected.every((region, i) => region.base === actual[i]?.base && region.bytes === actual[i]?.bytes);
  if (!same) {
    throw new CheckpointError('CHKPT_VM_REGIONS', 'the checkpoint has other memory regions', {
      details: { expected: describeRegions(expected), actual: describeRegions(actual) },
    });
  }
}

/** A region table as people read it. */
export function describeRegions(regions: readonly MemoryRegion[]): string {
  return regions.map(({ base, bytes }) => `0x${base.toString(16)}+${bytes}`).join(' ') || 'none';
}
