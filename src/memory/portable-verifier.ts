/**
 * A sink for guest memory without native code: verifies digests, order and coverage and decodes every block.
 * It serves where the addon cannot be loaded, and tests compare the native decoder with it.
 *
 * Speed: one thread, hundreds of MiB/s. Memory: the read buffer and one block. It blocks the event loop for
 * one read's worth of frames at a time.
 */
import type { MemoryFrameResult, MemoryFrameSink } from '../context/memory-frames.ts';
import { type PageFramePlace, portableSink } from '../context/portable-sink.ts';
import { CheckpointError } from '../errors/index.ts';
import type { Digest64 } from '../format/digest.ts';
import { createLz4Decoder } from '../format/lz4.ts';
import { type DecodeLz4, decodePageBlock, type PageBlock } from '../format/page-block.ts';
import type { PageFrame } from '../format/page-sequence.ts';
import { blockPagesMax, pageBytes } from '../limits.ts';

export interface PortableVerifierOptions {
  readonly digest: Digest64;
  /** Default: lz4-napi. */
  readonly decodeLz4?: DecodeLz4 | undefined;
  /** Bytes read at once. Default 256 KiB. */
  readonly bufferBytes?: number | undefined;
  /**
   * Gets the pages of every block, in order. `bytes` is valid during the call. Without it pages are
   * discarded.
   */
  readonly onPages?: ((firstPage: number, bytes: Uint8Array) => void) | undefined;
  /** Gets every run of zero pages. Without it `onPages` only sees blocks: start from zeroed memory. */
  readonly onZeroPages?: ((firstPage: number, pageCount: number) => void) | undefined;
  /**
   * Content of a page that `onPages` or `onZeroPages` was told before, for pages that equal an earlier one.
   * Wanted with `onPages`; without it a block with such a page is `CHKPT_UNSUPPORTED`.
   */
  readonly readPage?: ((page: number) => Uint8Array) | undefined;
}

const emptyPage = new Uint8Array(pageBytes);

export class PortableVerifier implements MemoryFrameSink {
  readonly #options: PortableVerifierOptions;
  readonly #decodeLz4: DecodeLz4;
  readonly #block = new Uint8Array(blockPagesMax * pageBytes);

  constructor(options: PortableVerifierOptions) {
    this.#options = options;
    this.#decodeLz4 = options.decodeLz4 ?? createLz4Decoder();
  }

  async consume(...parameters: Parameters<MemoryFrameSink['consume']>): Promise<MemoryFrameResult> {
    const { digest, onZeroPages, bufferBytes } = this.#options;
    const visit = (frame: PageFrame, place: PageFramePlace): void => {
      if (frame.kind === 'page-block') this.#decode(frame.block, place);
      else if (frame.kind === 'zero-run') onZeroPages?.(frame.firstPage, frame.pageCount);
    };
    return await portableSink(digest, visit, bufferBytes).consume(...parameters);
  }

  #decode(block: PageBlock, place: PageFramePlace): void {
    const { onPages, readPage } = this.#options;
    const earlier = (page: number): Uint8Array => {
      // Discarded pages need no content: only that the block decodes is to be known.
      if (onPages === undefined) return emptyPage;
      if (readPage !== undefined) return readPage(page);
      throw new CheckpointError(
        'CHKPT_UNSUPPORTED',
        'a page equals an earlier one, and readPage was not given',
        {
          details: { ...place, page: block.firstPage },
        },
      );
    };
    decodePageBlock(block, this.#decodeLz4, earlier, this.#block, place);
    onPages?.(block.firstPage, this.#block.subarray(0, block.pageCount * pageBytes));
  }
}
