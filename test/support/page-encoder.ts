/**
 * A reference encoder for guest memory: slow, obvious, one page at a time. `pageAt` gives the content of a
 * page, or `undefined` for one that was never touched.
 */
import { compressSync } from 'lz4-napi';
import type {
  MemoryFrameSource,
  MemoryFrameStream,
  MemoryRegion,
  MemoryTotals,
  SlabBatch,
} from '../../src/context/memory-frames.ts';
import type { Digest64 } from '../../src/format/digest.ts';
import { concat, type DraftFrame, layOut, padded, types, u32, u64 } from './stream-builder.ts';

export type PageAt = (page: number) => Uint8Array | undefined;

export interface EncodeOptions {
  /** Compress stored pages when that makes them smaller. Default true. */
  readonly lz4?: boolean;
  /** Write pages that equal an earlier one as such. Default true. */
  readonly dedup?: boolean;
  /** Write BLOCK_INDEX frames. Default true. */
  readonly index?: boolean;
  /** Longest zero run, blocks. Default: no limit. */
  readonly zeroRunBlocks?: number;
}

const pageBytes = 4096;
const blockPages = 16;
const groupPages = 8192 * blockPages;

/** One raw LZ4 block: lz4-napi's result without the size in front. */
export function encodeLz4(bytes: Uint8Array): Uint8Array {
  return Uint8Array.from(compressSync(Buffer.from(bytes)).subarray(4));
}

type PageClass = { code: 0 } | { code: 1 | 3; word: bigint } | { code: 2; bytes: Uint8Array };

/** The frames between REGION_TABLE and CONTEXT_CLOSE, and their counts. */
export class PageEncoder {
  readonly frames: DraftFrame[] = [];
  readonly totals = {
    pages: 0,
    zeroPages: 0,
    fillPages: 0,
    storedPages: 0,
    samePages: 0,
    parentPages: 0,
    encodedBytes: 0,
  };
  readonly #options: EncodeOptions;
  readonly #seen = new Map<string, number>();

  constructor(regions: readonly MemoryRegion[], pageAt: PageAt, options: EncodeOptions = {}) {
    this.#options = options;
    let firstPage = 0;
    for (const region of regions) {
      const pageCount = Number(region.bytes) / pageBytes;
      for (let at = 0; at < pageCount; at += groupPages) {
        this.#group(firstPage + at, Math.min(groupPages, pageCount - at), at === 0, pageAt);
      }
      firstPage += pageCount;
    }
  }

  #group(firstPage: number, pageCount: number, startsRegion: boolean, pageAt: PageAt): void {
    const blocks: (number | undefined)[] = [];
    for (let at = 0; at < pageCount; at += blockPages) {
      const count = Math.min(blockPages, pageCount - at);
      const pages = Array.from({ length: count }, (_, index) =>
        this.#classify(firstPage + at + index, pageAt),
      );
      this.totals.pages += count;
      if (pages.every(({ code }) => code === 0)) {
        this.#zeroRun(firstPage + at, count, startsRegion && at === 0);
        blocks.push(undefined);
      } else {
        blocks.push(this.frames.length);
        this.frames.push({
          type: types.pageBlock,
          arg0: firstPage + at,
          arg1: count,
          payload: this.#blockPayload(pages),
        });
      }
    }
    const base = blocks.find((block) => block !== undefined);
    if (base === undefined || this.#options.index === false) return;
    this.frames.push({
      type: types.blockIndex,
      arg0: firstPage,
      arg1: pageCount,
      payload: (offsets) => blockIndexPayload(blocks, base, offsets),
    });
  }

  #zeroRun(firstPage: number, pageCount: number, startsRegion: boolean): void {
    this.totals.zeroPages += pageCount;
    const last = this.frames.at(-1);
    const limit = (this.#options.zeroRunBlocks ?? Number.POSITIVE_INFINITY) * blockPages;
    const runs = last?.type === types.zeroRun && !startsRegion && Number(last.arg1) + pageCount <= limit;
    if (runs) last.arg1 = Number(last.arg1) + pageCount;
    else this.frames.push({ type: types.zeroRun, arg0: firstPage, arg1: pageCount });
  }

  #classify(page: number, pageAt: PageAt): PageClass {
    const bytes = pageAt(page);
    if (bytes === undefined || bytes.every((byte) => byte === 0)) return { code: 0 };
    if (bytes.every((byte, index) => byte === bytes[index % 8])) {
      return { code: 1, word: Buffer.from(bytes).readBigUInt64LE(0) };
    }
    const key = Buffer.from(bytes).toString('latin1');
    const earlier = this.#seen.get(key);
    if (earlier !== undefined && this.#options.dedup !== false) return { code: 3, word: BigInt(earlier) };
    this.#seen.set(key, page);
    return { code: 2, bytes };
  }

  #blockPayload(pages: readonly PageClass[]): Uint8Array {
    const stored = concat(...pages.map((page) => (page.code === 2 ? page.bytes : new Uint8Array())));
    const words = pages.flatMap((page) => (page.code === 1 || page.code === 3 ? [page.word] : []));
    const classes = pages.reduce((bits, { code }, index) => bits | (BigInt(code) << BigInt(4 * index)), 0n);
    const compressed = this.#options.lz4 === false || stored.length === 0 ? stored : encodeLz4(stored);
    const isSmaller = compressed.length < stored.length;
    const data = isSmaller ? compressed : stored;
    this.totals.encodedBytes += data.length;
    this.totals.storedPages += stored.length / pageBytes;
    for (const { code } of pages) {
      if (code === 0) this.totals.zeroPages += 1;
      if (code === 1) this.totals.fillPages += 1;
      if (code === 3) this.totals.samePages += 1;
    }
    return concat(u32(isSmaller ? 1 : 0, data.length), u64(classes), padded(data), u64(...words));
  }
}

function blockIndexPayload(
  blocks: readonly (number | undefined)[],
  base: number,
  offsets: readonly number[],
): Uint8Array {
  const start = offsets[base] ?? 0;
  const entries = blocks.map((block) =>
    block === undefined ? 0xffff_ffff : ((offsets[block] ?? 0) - start) / 8,
  );
  return concat(u64(start), u32(...entries));
}

/**
 * The reference encoder as a source; slabs of `slabFrames` frames that are overwritten when they are
 * released.
 */
export function referenceSource(
  regions: readonly MemoryRegion[],
  pageAt: PageAt,
  digest: Digest64,
  options: EncodeOptions & { readonly slabFrames?: number } = {},
): MemoryFrameSource {
  return {
    regions,
    open(position): MemoryFrameStream {
      const encoder = new PageEncoder(regions, pageAt, options);
      const layout = layOut(encoder.frames, position, digest);
      const slabFrames = options.slabFrames ?? 3;
      let at = 0;
      return {
        async next(): Promise<SlabBatch | undefined> {
          if (at >= encoder.frames.length) return undefined;
          const first = at;
          at = Math.min(at + slabFrames, encoder.frames.length);
          const start = layout.offsets[first] ?? 0;
          const end = layout.offsets[at] ?? position.offset + layout.bytes.length;
          const bytes = layout.bytes.slice(start - position.offset, end - position.offset);
          const groups = encoder.frames.slice(first, at).flatMap(({ type, arg0, arg1 }, index) => {
            const offset = layout.offsets[first + index] ?? 0;
            return type === types.blockIndex
              ? [{ firstPage: Number(arg0), pageCount: Number(arg1), offset }]
              : [];
          });
          const digests = layout.digests.slice(8 * first, 8 * at);
          const release = (): void => void bytes.fill(0xee);
          return { pieces: [bytes], frameCount: at - first, digests, groups, release };
        },
        totals: (): MemoryTotals => encoder.totals,
        close: async (): Promise<void> => undefined,
      };
    },
  };
}
