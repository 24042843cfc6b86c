/**
 * The rules of a memory context from frame to frame: pages ascend, each is covered once, runs and blocks keep
 * to blocks and regions, a block index says where its blocks lie (docs/format.md section 6). Every reader
 * without native code passes its frames through one of these.
 *
 * Memory: the offsets of one group, whatever the size of the guest; with a parent also a bit for each page that is stored.
 */
import { blockPagesMax } from '../limits.ts';
import { countBlocks, decodeBlockIndex } from './block-index.ts';
import { checkEqual, formatError, type Place, toCount } from './bytes.ts';
import { frameTypes, isUnknownOptionalType } from './constants.ts';
import { checkNoPayload, type FrameHeader } from './frame-header.ts';
import type { Frame } from './frame-queue.ts';
import { PageBits } from './page-bits.ts';
import { noteOwnPages, type PageBlock, parsePageBlock } from './page-block.ts';
import { groupPagesMax, numberPages, type Region, type RegionBytes } from './region-table.ts';

/** Counts of a memory context, as END states them. */
export interface PageTotals {
  readonly pages: number;
  readonly zeroPages: number;
  readonly fillPages: number;
  readonly storedPages: number;
  readonly samePages: number;
  /** Left to the parent. */
  readonly parentPages: number;
  readonly encodedBytes: number;
}

/** A BLOCK_INDEX frame. */
export interface PageGroup {
  readonly firstPage: number;
  readonly pageCount: number;
  readonly offset: number;
}

/** What a frame of a memory context says. */
export type PageFrame =
  | { readonly kind: 'zero-run' | 'parent-run'; readonly firstPage: number; readonly pageCount: number }
  | { readonly kind: 'page-block'; readonly block: PageBlock }
  | { readonly kind: 'passed' };

export const noPages: PageTotals = {
  pages: 0,
  zeroPages: 0,
  fillPages: 0,
  storedPages: 0,
  samePages: 0,
  parentPages: 0,
  encodedBytes: 0,
};

/**
 * True for the frames between REGION_TABLE and CONTEXT_CLOSE: page frames, and optional ones nobody knows
 * yet.
 */
export function isPageFrameType(type: number): boolean {
  return (
    type === frameTypes.zeroRun ||
    type === frameTypes.parentRun ||
    type === frameTypes.pageBlock ||
    type === frameTypes.blockIndex ||
    isUnknownOptionalType(type)
  );
}

export class PageSequence {
  readonly #regions: readonly Region[];
  readonly #groups: PageGroup[] = [];
  readonly #pageCount: number;
  /** Pages that this checkpoint has, where some are left to a parent. */
  readonly #own: PageBits | undefined;
  #totals: { -readonly [K in keyof PageTotals]: PageTotals[K] } = { ...noPages };
  #regionIndex = 0;
  /** The group of the last PAGE_BLOCK: offsets of its blocks. */
  #group:
    | { firstPage: number; pageCount: number; offsets: (number | undefined)[]; indexed: boolean }
    | undefined;

  constructor(regions: readonly RegionBytes[], hasParent: boolean) {
    this.#own = hasParent ? new PageBits() : undefined;
    this.#regions = numberPages(regions);
    this.#pageCount = this.#regions.reduce((count, region) => count + region.pageCount, 0);
  }

  get totals(): PageTotals {
    return { ...this.#totals };
  }

  /** The BLOCK_INDEX frames so far. */
  get groups(): readonly PageGroup[] {
    return this.#groups;
  }

  /** Takes a frame for which `isPageFrameType` holds. Throws `CHKPT_FORMAT`, `CHKPT_LIMIT`. */
  accept(frame: Frame): PageFrame {
    const { header } = frame;
    const place: Place = { frame: header.sequence, offset: frame.offset };
    switch (header.type) {
      case frameTypes.zeroRun:
      case frameTypes.parentRun:
        return this.#acceptRun(header, place);
      case frameTypes.pageBlock:
        return this.#acceptPageBlock(frame, place);
      case frameTypes.blockIndex:
        this.#acceptBlockIndex(frame, place);
        return { kind: 'passed' };
      default:
        return { kind: 'passed' };
    }
  }

  /** Throws `CHKPT_FORMAT` when pages are missing. `place` is the frame after the last one accepted. */
  finish(place: Place): void {
    checkEqual(this.#totals.pages, this.#pageCount, 'number of pages covered', place);
  }

  #acceptRun(header: FrameHeader, place: Place): PageFrame {
    const isParentRun = header.type === frameTypes.parentRun;
    if (isParentRun !== (this.#own !== undefined)) {
      throw formatError(isParentRun ? 'a parent run without a parent' : 'a zero run beside a parent', place);
    }
    checkNoPayload(header, place);
    const { firstPage, pageCount, region } = this.#span(header, place);
    const end = firstPage + pageCount - region.firstPage;
    if (
      pageCount === 0 ||
      end > region.pageCount ||
      (end % blockPagesMax !== 0 && end !== region.pageCount)
    ) {
      throw formatError('a run does not end with a block of its region', place, { actual: pageCount });
    }
    this.#advance(pageCount);
    this.#totals[isParentRun ? 'parentPages' : 'zeroPages'] += pageCount;
    return { kind: isParentRun ? 'parent-run' : 'zero-run', firstPage, pageCount };
  }

  #acceptPageBlock(frame: Frame, place: Place): PageFrame {
    const { firstPage, pageCount, region } = this.#span(frame.header, place);
    const expected = Math.min(blockPagesMax, region.firstPage + region.pageCount - firstPage);
    checkEqual(pageCount, expected, 'number of pages of a block', place);
    const block = parsePageBlock(frame.payload, firstPage, pageCount, this.#own !== undefined, place);
    if (this.#own !== undefined) noteOwnPages(block, this.#own, place);
    this.#note(region, firstPage, frame.offset, place);
    this.#advance(pageCount);
    this.#totals.zeroPages += block.zeroPages;
    this.#totals.fillPages += block.fillPages;
    this.#totals.storedPages += block.storedPages;
    this.#totals.samePages += block.samePages;
    this.#totals.parentPages += block.parentPages;
    this.#totals.encodedBytes += block.encoded.length;
    return { kind: 'page-block', block };
  }

  #acceptBlockIndex(frame: Frame, place: Place): void {
    const group = this.#group;
    if (group === undefined || group.indexed)
      throw formatError('a block index without a block before it', place);
    checkEqual(frame.header.arg0, group.firstPage, 'first page of a block index', place);
    checkEqual(frame.header.arg1, group.pageCount, 'page count of a block index', place);
    const offsets = decodeBlockIndex(frame.payload, group.offsets.length, place);
    for (const [index, offset] of offsets.entries()) {
      if (offset === group.offsets[index]) continue;
      throw formatError('a block index does not say where its blocks are', place, {
        expected: group.offsets[index],
        actual: offset,
      });
    }
    group.indexed = true;
    this.#groups.push({ firstPage: group.firstPage, pageCount: group.pageCount, offset: frame.offset });
  }

  /** First page and page count of a frame; the first page must be the next one. */
  #span(header: FrameHeader, place: Place): { firstPage: number; pageCount: number; region: Region } {
    const region = this.#regions[this.#regionIndex];
    if (region === undefined) throw formatError('more pages than the regions have', place);
    checkEqual(header.arg0, this.#totals.pages, 'first page', place);
    return { firstPage: this.#totals.pages, pageCount: toCount(header.arg1, 'a page count', place), region };
  }

  #advance(pageCount: number): void {
    this.#totals.pages += pageCount;
    const region = this.#regions[this.#regionIndex];
    if (region !== undefined && this.#totals.pages === region.firstPage + region.pageCount)
      this.#regionIndex += 1;
  }

  #note(region: Region, page: number, offset: number, place: Place): void {
    const inRegion = page - region.firstPage;
    const firstPage = page - (inRegion % groupPagesMax);
    if (this.#group?.firstPage !== firstPage) {
      const pageCount = Math.min(groupPagesMax, region.firstPage + region.pageCount - firstPage);
      const offsets = new Array<number | undefined>(countBlocks(pageCount)).fill(undefined);
      this.#group = { firstPage, pageCount, offsets, indexed: false };
    }
    if (this.#group.indexed) throw formatError('a block behind the block index of its group', place);
    this.#group.offsets[(page - firstPage) / blockPagesMax] = offset;
  }
}
