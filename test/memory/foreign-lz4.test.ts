/** LZ4 blocks of another encoder (lz4-napi, liblz4 underneath), through the native decoder into real memory. */
import { expect, it } from 'vitest';
import { openCheckpoint } from '../../src/checkpoint/open.ts';
import { checkpointDigest } from '../../src/memory/digest.ts';
import { GuestMemory, PageDecoder } from '../../src/memory/index.ts';
import { referenceSource } from '../support/page-encoder.ts';

const regions = [
  { base: 0n, bytes: 40n * 4096n },
  { base: 0x10_0000n, bytes: 333n * 4096n },
];
const pageCount = 373;

/** A page for each shape that a sequence of LZ4 can take. */
function pageAt(page: number): Uint8Array | undefined {
  let state = Math.imul(page + 1, 2_654_435_761);
  const random = (below: number): number => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
  const bytes = new Uint8Array(4096);
  const kind = page % 9;
  if (kind === 0) return page % 2 === 0 ? undefined : bytes;
  if (kind === 1) return bytes.map((_, index) => (index % 8) + (page % 200));
  // One byte that repeats: matches that overlap themselves, and lengths of many bytes.
  if (kind === 2) return bytes.fill(page % 256 || 1, page);
  // Few letters: short matches at every distance.
  if (kind === 3) return bytes.map(() => random(3));
  if (kind === 4) return bytes.map((_, index) => (index % 64 < 13 ? random(256) : index));
  // Noise at the start, so that literals run on for long before the first match.
  if (kind === 5) return bytes.map((_, index) => (index < 3000 ? random(256) : 7));
  // Matches that reach back over pages, up to the 64 KiB of a block.
  if (kind === 6) return pageAt(page > 9 ? page - 3 : 3)?.with(page % 4096, 1);
  if (kind === 7) return bytes.map((_, index) => (index % (page + 2) === 0 ? random(256) : index >> 6));
  return page < 20 ? bytes.map(() => random(256)) : pageAt(page - 9 * random(2) - 1);
}

it('what lz4-napi compressed is loaded natively, every page as it was', async () => {
  const digest = await checkpointDigest();
  const source = referenceSource(regions, pageAt, digest);
  const saving = await openCheckpoint('mem:foreign-lz4', { mode: 'save' });
  await saving.saveMemory('memory', source);
  await saving.commit();
  for (const threads of [1, 3]) {
    const memory = GuestMemory.allocate(regions);
    // What was there before must be gone, in pages that are zero too.
    for (const { base, bytes } of regions) memory.write(base, new Uint8Array(Number(bytes)).fill(0xaa));
    const loading = await openCheckpoint('mem:foreign-lz4', { mode: 'load' });
    await loading.loadMemory('memory', new PageDecoder(memory, { threads }));
    const { counts } = await loading.finish();
    await loading.close();
    expect(counts.pages).toBe(pageCount);
    expect(counts.encodedBytes).toBeLessThan((counts.storedPages * 4096) / 2);
    expect(counts.samePages).toBeGreaterThan(0);
    let page = 0;
    for (const { base, bytes } of memory.regions) {
      for (let at = 0n; at < bytes; at += 4096n) {
        const expected = pageAt(page) ?? new Uint8Array(4096);
        expect(Buffer.compare(memory.read(base + at, 4096), expected), `page ${page}`).toBe(0);
        page += 1;
      }
    }
    expect(page).toBe(pageCount);
    await memory.close();
  }
});
