/** The load of a chain of checkpoints, newest first, into one memory: each page is filled by the newest member that has it. */
import { type NativeChainLoad, nativeAddon } from '../native/index.ts';
import type { PageSet } from './page-set.ts';

export class ChainLoad {
  /** For `src/memory`. */
  readonly native: NativeChainLoad;

  /** `pageCount`: of the memory. Throws `CHKPT_NO_NATIVE`. */
  constructor(pageCount: number) {
    this.native = new (nativeAddon().ChainLoad)(pageCount);
  }

  /** These pages stay what they are in memory, whatever the members have. Before the first one is loaded. */
  leaveAlone(pages: PageSet): void {
    this.native.leaveAlone(pages.native);
  }

  /** The member is complete; the next one is its parent. */
  advance(): void {
    this.native.advance();
  }

  /**
   * True when pages of the member equal pages that newer members have replaced: it is to be read once more, with
   * `resolve`, before `advance()`.
   */
  deferred(): boolean {
    return this.native.deferred();
  }
}
