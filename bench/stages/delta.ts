/** What pages cost that a migration sends again after a guest has changed a few words of each: their differences beside the pages themselves. */
import { pageBytes } from '../../src/limits.ts';
import { DeltaCache, PageEncoder, PageSet } from '../../src/memory/index.ts';
import { type Bench, timed } from '../bench.ts';
import type { Guest } from '../guest.ts';
import type { Cost } from '../interleave.ts';

const pagesWanted = 16_384;
const wordsMax = 16;
const wordsOfPage = pageBytes / 8;

export async function measureDelta(bench: Bench, guest: Guest): Promise<void> {
  if (!bench.wants('migrate.delta', 'migrate.delta.size')) return;
  const { facts, memory } = guest;
  const pages = pagesWithContent(guest);
  const changed = new PageSet(memory.pageCount);
  for (const page of pages) changed.markRun(page, 1);
  const cache = new DeltaCache(memory.pageCount, pages.length * pageBytes);
  const threads = Math.max(...bench.options.threads);
  let round = 1n;
  const encode = async (deltas: DeltaCache | undefined): Promise<Cost> => {
    round += 1n;
    let bytes = 0;
    const cost = await timed(async () => {
      const encoder = new PageEncoder(memory, { threads, changed, deltas, dedup: false });
      const position = { uuid: new Uint8Array(16).fill(7), epoch: round, sequence: 1, offset: 256 };
      const stream = encoder.open(position, undefined);
      for (let batch = await stream.next(); batch !== undefined; batch = await stream.next()) {
        for (const piece of batch.pieces) bytes += piece.length;
        batch.release();
      }
      await stream.close();
    });
    return { ...cost, bytes };
  };
  await encode(cache);
  await bench.contest({
    parameters: { memory: facts.memory, bytes: pages.length * pageBytes, content: facts.content, threads },
    memoryBytes: pages.length * pageBytes,
    runs: bench.options.runs,
    baselines: { 'whole pages': () => encode(undefined) },
    subjects: {
      'migrate.delta': () => {
        for (const page of pages) changeWords(guest, page);
        return encode(cache);
      },
    },
  });
}

/** Up to as many as are wanted, from all of the memory. */
function pagesWithContent({ memory }: Guest): readonly number[] {
  const pages: number[] = [];
  const step = Math.max(1, Math.floor(memory.pageCount / (2 * pagesWanted)));
  const bytes = new Uint8Array(pageBytes);
  for (let page = 0; page < memory.pageCount && pages.length < pagesWanted; page += step) {
    memory.read(page * pageBytes, bytes);
    // Pages of one repeated word are no more than that word anyway.
    const words = new BigUint64Array(bytes.buffer);
    if (words.some((word) => word !== words[0])) pages.push(page);
  }
  return pages;
}

function changeWords({ memory }: Guest, page: number): void {
  const word = new Uint8Array(8);
  for (let count = 1 + Math.floor(Math.random() * wordsMax); count > 0; count -= 1) {
    new DataView(word.buffer).setUint32(0, Math.random() * 2 ** 32, true);
    memory.write(page * pageBytes + 8 * Math.floor(Math.random() * wordsOfPage), word);
  }
}
