/**
 * The 128-bit digest of every page of a memory, as somebody last saw it: tells whether a page has changed without keeping it.
 * 16 bytes for each page that is known. Keyed with random bytes, so that a guest cannot prepare collisions; two different
 * contents are taken for equal with probability 2^-128.
 */
import { type NativePageDigests, nativeAddon } from '../native/index.ts';
import { PageSet } from './page-set.ts';

export class PageDigests {
  readonly pageCount: number;
  /** For `src/memory`. */
  readonly native: NativePageDigests;

  /** All pages unknown. `key`: digests to compare these with. Throws `CHKPT_NO_MEMORY`, `CHKPT_NO_NATIVE`. */
  constructor(pageCount: number, key?: PageDigests) {
    this.pageCount = pageCount;
    this.native = new (nativeAddon().PageDigests)(pageCount, key?.native);
  }

  /** These pages become unknown. */
  forget(pages: PageSet): void {
    this.native.forget(pages.native);
  }

  /** The pages that are not the same in both. An unknown page counts as zero. REQUIRES: one is the key of the other. */
  async differing(other: PageDigests): Promise<PageSet> {
    const pages = new PageSet(this.pageCount);
    await this.native.differing(other.native, pages.native);
    return pages;
  }
}
