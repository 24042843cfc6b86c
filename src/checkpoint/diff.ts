/** Which pages of two checkpoints differ. Neither is loaded: 16 bytes are kept for each page of both. */
import { CheckpointError } from '../errors/index.ts';
import { pageBytes } from '../limits.ts';
import { describeRegions, type PageSet } from '../memory/index.ts';
import type { Store } from '../store/index.ts';
import { digestsOfChain } from './load-chain.ts';
import { type KeyOptions, toStore } from './open.ts';
import { type ChainMember, type ChainOptions, describeMember, findAncestors } from './parent.ts';
import { abortedOr } from './save-vm.ts';

export interface DiffOptions extends ChainOptions, KeyOptions {
  /** Worker threads, 1 to 64; default: number of processors. */
  readonly threads?: number | undefined;
}

export interface DiffReport {
  /** UUIDs. */
  readonly a: string;
  readonly b: string;
  /** Pages of guest memory, and those of them that differ. */
  readonly pages: number;
  readonly differing: number;
  readonly regions: readonly RegionDiff[];
  /** The pages that differ. */
  readonly set: PageSet;
}

export interface RegionDiff {
  readonly base: bigint;
  readonly bytes: bigint;
  readonly pages: number;
  readonly differing: number;
  /** Share of pages that differ, 0 to 1, in each of up to 64 equal parts of the region, in order. */
  readonly heat: readonly number[];
}

const heatParts = 64;

/**
 * Compares the memory of two checkpoints, with their parents. Every member is verified as a whole. Two different pages are taken for
 * equal with probability 2^-128.
 *
 * Rejects with `CHKPT_VM_REGIONS`, `CHKPT_PARENT_*`, errors of kind `damaged` and of the stores.
 */
export async function diffCheckpoints(
  a: string | Store,
  b: string | Store,
  options: DiffOptions = {},
): Promise<DiffReport> {
  try {
    const { key, ...others } = options;
    const [first, second] = [
      await describeMember(toStore(a, key), options),
      await describeMember(toStore(b, key), options),
    ];
    checkRegions(first, second);
    const before = await digestsOfChain([first, ...(await findAncestors(first, options))], others);
    const after = await digestsOfChain([second, ...(await findAncestors(second, options))], {
      ...others,
      key: before,
    });
    const set = await after.differing(before);
    const regions = regionsOf(first, set);
    const differing = regions.reduce((sum, region) => sum + region.differing, 0);
    return { a: first.uuid, b: second.uuid, pages: set.pageCount, differing, regions, set };
  } catch (error) {
    throw abortedOr(error, options.signal);
  }
}

function checkRegions(a: ChainMember, b: ChainMember): void {
  const [expected, actual] = [describeRegions(a.regions), describeRegions(b.regions)];
  if (a.regions.length > 0 && expected === actual) return;
  const what =
    a.regions.length === 0 ? 'the checkpoint has no memory' : 'the checkpoints have other memory regions';
  throw new CheckpointError('CHKPT_VM_REGIONS', what, { details: { store: b.store.url, expected, actual } });
}

function regionsOf({ regions }: ChainMember, set: PageSet): RegionDiff[] {
  let firstPage = 0;
  return regions.map(({ base, bytes }) => {
    const pages = Number(bytes) / pageBytes;
    const counts = countParts(set, firstPage, pages);
    firstPage += pages;
    const partPages = Math.ceil(pages / heatParts);
    const heat = counts.map((count, part) => count / Math.min(partPages, pages - part * partPages));
    return { base, bytes, pages, differing: counts.reduce((sum, count) => sum + count, 0), heat };
  });
}

/** Pages of the set in each part of a region. Work for each run, cut at the borders of parts. */
function countParts(set: PageSet, firstPage: number, pages: number): number[] {
  const partPages = Math.ceil(pages / heatParts);
  const counts = new Array<number>(Math.ceil(pages / partPages)).fill(0);
  for (const packed of set.runs()) {
    for (let i = 0; i < packed.length; i += 2) {
      const end = Math.min((packed[i] ?? 0) + (packed[i + 1] ?? 0), firstPage + pages) - firstPage;
      for (let at = Math.max((packed[i] ?? 0) - firstPage, 0); at < end; ) {
        const part = Math.floor(at / partPages);
        const next = Math.min((part + 1) * partPages, end);
        counts[part] = (counts[part] ?? 0) + next - at;
        at = next;
      }
    }
  }
  return counts;
}
