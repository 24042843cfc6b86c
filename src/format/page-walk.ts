/**
 * Walks through the page frames of a memory context without native code: checks digests, order, coverage and
 * structure, and hands out one parsed frame at a time. The synchronous half of every portable
 * `MemoryFrameSink`.
 */
import { isUnknownOptionalType } from './constants.ts';
import type { Digest64 } from './digest.ts';
import { FrameBinding } from './frame-header.ts';
import { checkKnown } from './frame-order.ts';
import { FrameQueue, readBytesDefault } from './frame-queue.ts';
import {
  isPageFrameType,
  type PageFrame,
  type PageGroup,
  PageSequence,
  type PageTotals,
} from './page-sequence.ts';
import type { RegionBytes } from './region-table.ts';

/** Where the first page frame stands. */
export interface WalkStart {
  readonly uuid: Uint8Array;
  readonly epoch: bigint;
  readonly sequence: number;
  readonly offset: number;
}

/** `more`: read on; at the end of input stop. `end`: the next frame is none of this context's pages. */
export type WalkStep = PageFrame | { readonly kind: 'more' } | { readonly kind: 'end' };

export interface WalkResult {
  readonly frameCount: number;
  readonly byteCount: number;
  readonly totals: PageTotals;
  readonly groups: readonly PageGroup[];
  /** Bytes read too much. */
  readonly leftover: Uint8Array;
}

const digestBatchFrames = 512;

export class PageWalk {
  readonly #start: WalkStart;
  readonly #queue: FrameQueue;
  readonly #pages: PageSequence;
  readonly #onDigests: (digests: Uint8Array, frameCount: number) => void;
  readonly #digests = new Uint8Array(8 * digestBatchFrames);
  #digestCount = 0;
  #lastOffset = 0;

  /**
   * `buffered`: bytes already read; copied. `onDigests` gets header digests in batches, valid during the
   * call.
   */
  constructor(
    start: WalkStart,
    regions: readonly RegionBytes[],
    buffered: Uint8Array,
    digest: Digest64,
    onDigests: (digests: Uint8Array, frameCount: number) => void,
    bufferBytes: number = readBytesDefault,
  ) {
    this.#start = start;
    this.#pages = new PageSequence(regions, start.epoch !== 0n);
    this.#onDigests = onDigests;
    this.#queue = new FrameQueue(digest, bufferBytes);
    this.#queue.continueAt(new FrameBinding(start.uuid, start.epoch, digest), start.sequence, start.offset);
    this.#queue.resume(0, 0, buffered.slice());
  }

  /** Where to read the next bytes. Invalidates the frame of the last step. */
  space(): Uint8Array {
    return this.#queue.space();
  }

  /** `byteCount` bytes were read into the start of `space()`. */
  filled(byteCount: number): void {
    this.#queue.filled(byteCount);
  }

  /** Place of the frame that the last step handed out, for errors. */
  get place(): { readonly frame: number; readonly offset: number } {
    return { frame: this.#queue.sequence - 1, offset: this.#lastOffset };
  }

  /** Goes on by one frame. Throws errors of kind `damaged`, and `CHKPT_VERSION`. */
  step(): WalkStep {
    const header = this.#queue.peek();
    if (header === undefined) return { kind: 'more' };
    if (!isPageFrameType(header.type)) {
      const { sequence, offset } = this.#queue;
      checkKnown({ header, offset });
      this.#pages.finish({ frame: sequence, offset });
      return { kind: 'end' };
    }
    const frame = this.#queue.take();
    if (frame === undefined) return { kind: 'more' };
    this.#lastOffset = frame.offset;
    this.#noteDigest(frame.digest);
    if (isUnknownOptionalType(header.type)) return { kind: 'passed' };
    return this.#pages.accept(frame);
  }

  /** What was walked through. Call it once, at the end. */
  finish(): WalkResult {
    this.#flushDigests();
    const { sequence, offset, buffered } = this.#queue;
    return {
      frameCount: sequence - this.#start.sequence,
      byteCount: offset - this.#start.offset,
      totals: this.#pages.totals,
      groups: this.#pages.groups,
      leftover: buffered.slice(),
    };
  }

  #noteDigest(digest: Uint8Array): void {
    this.#digests.set(digest, 8 * this.#digestCount);
    this.#digestCount += 1;
    if (this.#digestCount === digestBatchFrames) this.#flushDigests();
  }

  #flushDigests(): void {
    if (this.#digestCount > 0)
      this.#onDigests(this.#digests.subarray(0, 8 * this.#digestCount), this.#digestCount);
    this.#digestCount = 0;
  }
}
