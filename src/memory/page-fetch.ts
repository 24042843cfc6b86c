/**
 * Chosen pages of a memory made what they are in a checkpoint, by native threads: what a load of only what has changed is made of.
 */
import {
  awaitNative,
  callNative,
  type NativeBlockLayer,
  type NativeLazyLayer,
  nativeAddon,
} from '../native/index.ts';
import { checkThreads, type GuestMemory } from './guest-memory.ts';
import type { PageSet } from './page-set.ts';

/** A checkpoint that native threads can read at any place. Needs no closing; what it reads from stays as long as it does. */
export class BlockLayer {
  /** For `src/memory`. */
  readonly native: NativeBlockLayer;

  private constructor(native: NativeBlockLayer) {
    this.native = native;
  }

  /** Reads and verifies the block indexes. `memory` has the regions of the checkpoint. Rejects with errors of kind `damaged` and `io`. */
  static async open(memory: GuestMemory, layer: NativeLazyLayer): Promise<BlockLayer> {
    const native = callNative(() => new (nativeAddon().BlockLayer)(memory.native, layer));
    await awaitNative(native.open());
    return new BlockLayer(native);
  }

  /** Adds every page that it may have otherwise than its parent. */
  markHeld(pages: PageSet): void {
    this.native.markHeld(pages.native);
  }
}

/** Counts of pages. */
export interface FetchCounts {
  /** Looked at. */
  readonly pages: number;
  /** Of them, written: they were not what they had to be. */
  readonly written: number;
}

export interface FetchOptions {
  /** 1 to 64; default: number of processors. */
  readonly threads?: number | undefined;
  readonly signal?: AbortSignal | undefined;
  readonly onPages?: ((pageCount: number) => void) | undefined;
}

/** How often progress is told, milliseconds. */
const tellMs = 50;

/**
 * Makes `pages` what they are in the checkpoint that `layers` begin with; its parents follow. Undefined: all pages. Each block is
 * verified before it is decoded; a page that is so already is not written. The guest stands still.
 *
 * Rejects with errors of kind `damaged` and `io`, `CHKPT_PERMISSION`, `CHKPT_ABORTED`: then memory is a mixture.
 */
export async function fetchPages(
  memory: GuestMemory,
  layers: readonly BlockLayer[],
  pages: PageSet | undefined,
  options: FetchOptions,
): Promise<FetchCounts> {
  const { signal, onPages } = options;
  const threads = checkThreads(options.threads);
  await memory.replaceable();
  signal?.throwIfAborted();
  const natives = layers.map(({ native }) => native);
  const fetch = callNative(() => new (nativeAddon().PageFetch)(memory.native, natives));
  const cancel = (): void => fetch.cancel();
  signal?.addEventListener('abort', cancel, { once: true });
  const timer = setInterval(() => onPages?.(fetch.pagesDone()), tellMs);
  try {
    return await memory.hold(awaitNative(callNative(() => fetch.run(pages?.native, threads))));
  } finally {
    clearInterval(timer);
    signal?.removeEventListener('abort', cancel);
  }
}
