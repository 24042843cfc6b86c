/**
 * A set of pages of one guest memory, kept natively as one bit a page. Pages are numbered through all regions in table order
 * (docs/format.md section 6). JavaScript sees runs, never single pages.
 */
import { blockPagesMax, memoryBytesMax, pageBytes } from '../limits.ts';
import { type NativePageSet, nativeAddon } from '../native/index.ts';

const pageCountMax = Number(memoryBytesMax / BigInt(pageBytes));
const runsAtOnce = 65_536;
const runsAtOnceMax = 1_048_576;

export class PageSet {
  /** Pages that can be in it: those of the memory. */
  readonly pageCount: number;
  /** For `src/memory` and `src/checkpoint`. */
  readonly native: NativePageSet;

  /** An empty set. Throws `RangeError` above 2^32 pages (16 TiB). */
  constructor(pageCount: number, native?: NativePageSet) {
    if (!Number.isInteger(pageCount) || pageCount < 1 || pageCount > pageCountMax) {
      throw new RangeError(`1 to ${pageCountMax} pages expected, not ${pageCount}`);
    }
    this.pageCount = pageCount;
    this.native = native ?? new (nativeAddon().PageSet)(pageCount);
  }

  /** Pages that are in it. */
  count(): number {
    return this.native.count();
  }

  /** Adds pages `first` to `first + count - 1`. Throws `RangeError` for pages that the memory does not have. */
  markRun(first: number, count: number): void {
    this.#checkRun(first, count);
    this.native.markRun(first, count);
  }

  /** Takes out pages `first` to `first + count - 1`. Throws as `markRun`. */
  clearRun(first: number, count: number): void {
    this.#checkRun(first, count);
    this.native.clearRun(first, count);
  }

  /** Of the run that `page` is in, what lies in its block of 16; nothing when it is not in the set. Throws as `markRun`. */
  neighboursOf(page: number): { readonly first: number; readonly count: number } | undefined {
    this.#checkRun(page, 1);
    const first = page - (page % blockPagesMax);
    const run = this.native.runAround(page, first, Math.min(blockPagesMax, this.pageCount - first));
    return run === undefined ? undefined : { first: run[0], count: run[1] };
  }

  #checkRun(first: number, count: number): void {
    const legal = Number.isSafeInteger(first) && Number.isSafeInteger(count) && first >= 0 && count >= 0;
    if (!legal || first + count > this.pageCount) {
      throw new RangeError(`no run of ${count} pages from ${first} on in ${this.pageCount} pages`);
    }
  }

  /** Adds the pages of `other`, which keeps them. Throws `RangeError` when it belongs to a memory of another size. */
  merge(other: PageSet): void {
    this.#checkOther(other);
    this.native.merge(other.native);
  }

  /** Takes out what is in `other`. Throws as `merge`. */
  subtract(other: PageSet): void {
    this.#checkOther(other);
    this.native.subtract(other.native);
  }

  #checkOther(other: PageSet): void {
    if (other.pageCount === this.pageCount) return;
    throw new RangeError(`a set of ${other.pageCount} pages does not fit one of ${this.pageCount}`);
  }

  /** One bit a page, page 0 the lowest of the first byte, in whole groups of 8 bytes. */
  toBits(): Uint8Array {
    return this.native.bits();
  }

  /** Adds the pages of such bits; bits behind the last page are ignored. Throws `RangeError` for another length. */
  mergeBits(bits: Uint8Array): void {
    const bytes = 8 * Math.ceil(this.pageCount / 64);
    if (bits.length !== bytes) throw new RangeError(`${bits.length} bytes of bits do not fit ${bytes}`);
    this.native.mergeBits(bits);
  }

  /** Moves everything into a new set. A page that a native thread adds meanwhile is in the one or the other. */
  take(): PageSet {
    return new PageSet(this.pageCount, this.native.take());
  }

  /**
   * Moves its first `pages` pages into a new set: at least so many, when it has them, and at most 63 more. Throws `RangeError` for less than
   * one page.
   */
  takeFirst(pages: number): PageSet {
    if (!Number.isSafeInteger(pages) || pages < 1) throw new RangeError('pages must be 1 or more');
    return new PageSet(this.pageCount, this.native.takeFirst(pages));
  }

  /**
   * Its runs, ascending, as long as can be, in arrays of at most `limit` pairs (default 65,536; at most 1,048,576):
   * first page, number of pages, first page, number of pages, …
   */
  *runs(options: { readonly limit?: number } = {}): Generator<Float64Array, void, undefined> {
    const limit = options.limit ?? runsAtOnce;
    if (!Number.isInteger(limit) || limit < 1 || limit > runsAtOnceMax) {
      throw new RangeError(`limit must be 1 to ${runsAtOnceMax}`);
    }
    for (let from = 0; from < this.pageCount; ) {
      const packed = this.native.runs(from, limit);
      if (packed.length === 0) return;
      yield packed;
      from = (packed[packed.length - 2] as number) + (packed[packed.length - 1] as number);
    }
  }
}
