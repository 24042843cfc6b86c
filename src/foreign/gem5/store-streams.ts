/**
 * Memory stores without manifest: what such a file decodes to is known only by decoding it from its start, one thread each; several files
 * go at the same time. Memory is that of so many decoders, whatever the size of the files.
 */
import { checkThreads, type GuestMemory, GzipImage, type PageRange } from '../../memory/index.ts';
import type { ForeignMemoryOptions } from '../foreign-format.ts';

/** A store, and where its bytes go. */
export interface StoreStream {
  readonly pages: PageRange;
  readonly descriptor: number;
  readonly fileBytes: number;
  /** Says of which file an error is. */
  readonly failure: (error: unknown) => unknown;
}

/** Fills `image`. Rejects as `GzipImage.loadStream`, with the error of the first store that has one, however fast the others are. */
export async function loadStoreStreams(
  image: GuestMemory,
  stores: readonly StoreStream[],
  { signal, threads, onPages }: ForeignMemoryOptions,
): Promise<void> {
  const stops = stores.map(() => new AbortController());
  const pagesDone = stores.map(() => 0);
  const failures = new Map<number, unknown>();
  let next = 0;
  const loadOne = async (index: number, { pages, descriptor, fileBytes }: StoreStream): Promise<void> => {
    const stop = (stops[index] as AbortController).signal;
    const gzip = new GzipImage(image, {
      signal: signal === undefined ? stop : AbortSignal.any([signal, stop]),
      onPages: (count) => {
        pagesDone[index] = count;
        onPages?.(pagesDone.reduce((sum, one) => sum + one, 0));
      },
    });
    await gzip.loadStream(pages, descriptor, fileBytes);
  };
  const loadSome = async (): Promise<void> => {
    while (failures.size === 0) {
      const index = next;
      const store = stores[index];
      if (store === undefined) return;
      next += 1;
      try {
        await loadOne(index, store);
      } catch (error) {
        failures.set(index, store.failure(error));
        // Those before it may have an error of their own.
        for (const stop of stops.slice(index + 1)) stop.abort();
      }
    }
  };
  const lanes = Math.min(checkThreads(threads), stores.length);
  await Promise.all(Array.from({ length: lanes }, loadSome));
  if (failures.size > 0) throw failures.get(Math.min(...failures.keys()));
}
