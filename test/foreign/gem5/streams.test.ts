/** Memory stores without manifest, as gem5 writes them: several at the same time, and the same error whatever the order they end in. */
import { closeSync, openSync, statSync, writeFileSync } from 'node:fs';
import { gzipSync } from 'node:zlib';
import { afterEach, expect, test, vi } from 'vitest';
import { loadStoreStreams, type StoreStream } from '../../../src/foreign/gem5/store-streams.ts';
import { GuestMemory, GzipImage } from '../../../src/memory/index.ts';
import { makeFolder } from '../../store/support/folders.ts';
import { noise } from '../../store/support/sample-stream.ts';

const opened: number[] = [];
afterEach(() => {
  vi.restoreAllMocks();
  for (const descriptor of opened.splice(0)) closeSync(descriptor);
});

/** One region for each; `memories` are what the files decode to. */
function makeStores(memories: readonly Uint8Array[], change: (file: Buffer, index: number) => Buffer) {
  const folder = makeFolder();
  let first = 0;
  const regions = memories.map(({ length }, index) => ({ base: BigInt(index) << 32n, bytes: length }));
  const stores = memories.map((memory, index): StoreStream => {
    const path = `${folder}/${index}`;
    writeFileSync(path, change(gzipSync(memory, { level: 1 }), index));
    const descriptor = openSync(path, 'r');
    opened.push(descriptor);
    const pages = { first, count: memory.length / 4096 };
    first += pages.count;
    return { pages, descriptor, fileBytes: statSync(path).size, failure: (error) => ({ index, error }) };
  });
  return { stores, image: GuestMemory.allocate(regions) };
}

const memories = [5, 3, 4, 1].map((pages, index) => noise(`store ${index}`, pages * 65_536));

/** How many streams were under way at the same time. */
function countAtOnce(): { readonly now: number; readonly most: number } {
  const count = { now: 0, most: 0 };
  const { loadStream } = GzipImage.prototype;
  vi.spyOn(GzipImage.prototype, 'loadStream').mockImplementation(async function (this: GzipImage, ...given) {
    count.now += 1;
    count.most = Math.max(count.most, count.now);
    try {
      await loadStream.apply(this, given);
    } finally {
      count.now -= 1;
    }
  });
  return count;
}

test.each([1, 2, 3, 9])('are read by %i threads at most, into their places', async (threads) => {
  const { stores, image } = makeStores(memories, (file) => file);
  const count = countAtOnce();
  const onPages = vi.fn();
  await loadStoreStreams(image, stores, { signal: undefined, threads, onPages });
  expect(count.most).toBe(Math.min(threads, 4));
  for (const [index, memory] of memories.entries()) {
    expect(Buffer.compare(image.read(BigInt(index) << 32n, memory.length), memory)).toBe(0);
  }
  expect(onPages).toHaveBeenLastCalledWith(image.pageCount);
  await image.close();
});

test.each([1, 2, 4])('the first one that is damaged is told, by %i threads', async (threads) => {
  // The last ones are found at once, the second one at its end, which is far away.
  const long = Buffer.concat(Array.from({ length: 300 }, () => memories[3] ?? Buffer.alloc(0)));
  const { stores, image } = makeStores([memories[0] ?? long, long, ...memories.slice(2)], (file, index) => {
    if (index === 0) return file;
    return index === 1 ? file.subarray(0, -1) : Buffer.from('no gzip');
  });
  const attempt = loadStoreStreams(image, stores, { signal: undefined, threads });
  await expect(attempt).rejects.toMatchObject({ index: 1, error: { code: 'CHKPT_TRUNCATED' } });
  await image.close();
});

test('a load that is cancelled is CHKPT_ABORTED, and leaves none under way', async () => {
  const { stores, image } = makeStores(memories, (file) => file);
  const count = countAtOnce();
  const signal = AbortSignal.abort();
  const attempt = loadStoreStreams(image, stores, { signal, threads: 4 });
  await expect(attempt).rejects.toMatchObject({ error: { code: 'CHKPT_ABORTED' } });
  expect(count).toMatchObject({ now: 0 });
  await image.close();
});
