/**
 * Pages as a migration has last sent them: one that is sent again goes as its difference from that, where the difference is small.
 * Bounded; a page that was sent in this round or the last one stays.
 */
import { pageBytes } from '../limits.ts';
import { type NativeDeltaCache, nativeAddon } from '../native/index.ts';
import type { PageSet } from './page-set.ts';

export interface DeltaCounts {
  /** Pages that went as a difference. */
  readonly deltas: number;
  /** Pages that were to be sent, and had not changed. */
  readonly unchanged: number;
  /** Pages that are kept now. */
  readonly versions: number;
}

/** Of the native cache, which numbers them with 31 bits. */
const versionsMax = 2 ** 31;

export class DeltaCache {
  /** For `src/memory`. */
  readonly native: NativeDeltaCache;

  /** `byteCount`: one page or more; memory is taken as it is used. Throws `CHKPT_NO_MEMORY`, `CHKPT_NO_NATIVE`. */
  constructor(pageCount: number, byteCount: number) {
    const versions = Math.min(Math.floor(byteCount / pageBytes), pageCount, versionsMax);
    this.native = new (nativeAddon().DeltaCache)(pageCount, versions);
  }

  /** These pages may be anything at the destination. REQUIRES: no encoder uses the cache. */
  forget(pages: PageSet): void {
    this.native.forget(pages.native);
  }

  counts(): DeltaCounts {
    return this.native.counts();
  }
}
