/**
 * Memory that is no part of a checkpoint: pages that are stored as zeros whatever they hold (scrubbed), or not at all (left out). Which, says
 * the `header` context (docs/format.md section 11), so that nobody takes the zeros for what the guest had.
 */
import type { MemoryRegion } from '../context/memory-frames.ts';
import { defineState, type StateOf, u8, u64, vector } from '../context/state.ts';
import { CheckpointError } from '../errors/index.ts';
import { pageBytes, scrubCountMax } from '../limits.ts';
import { PageSet } from '../memory/index.ts';

/** Guest-physical memory, in whole pages. Bytes. */
export interface MemoryRange {
  readonly base: number | bigint;
  readonly bytes: number | bigint;
}

export interface ScrubOptions {
  /** Secrets: stored as zeros, whatever they hold, and recorded as such. A load gives zeros. See docs/encryption.md. */
  readonly scrub?: readonly MemoryRange[] | undefined;
  /** Not stored, and recorded as such. A load leaves there what the machine has. */
  readonly leaveOut?: readonly MemoryRange[] | undefined;
}

const hows = ['zero', 'left-out'] as const;

/** A range as a checkpoint records it. */
export interface ScrubbedRange {
  readonly base: bigint;
  readonly bytes: bigint;
  readonly how: (typeof hows)[number];
}

/** Tags of the `header` context; absent where nothing was scrubbed. */
export const scrubState = defineState(
  { scrub: { base: vector(u64), bytes: vector(u64), how: vector(u8) } },
  { strict: false },
);
type ScrubRecord = StateOf<typeof scrubState>;

/**
 * What the options say, by address. Throws `TypeError` where no memory is saved, `RangeError` for what is no whole number of pages, lies
 * outside of memory or in two regions, and for ranges that overlap.
 */
export function scrubbedRanges(
  { scrub = [], leaveOut = [] }: ScrubOptions,
  regions: readonly MemoryRegion[] | undefined,
): ScrubbedRange[] {
  const of = (how: ScrubbedRange['how']) => (range: MemoryRange) => toRange(range, how);
  const ranges = [...scrub.map(of('zero')), ...leaveOut.map(of('left-out'))].sort(byBase);
  if (ranges.length === 0) return ranges;
  if (regions === undefined) throw new TypeError('no memory is saved: there is nothing to scrub');
  const fault = faultOf(ranges, regions);
  if (fault !== undefined) throw new RangeError(fault);
  return ranges;
}

/** The pages of such ranges; undefined when there are none. */
export function pagesIn(
  ranges: readonly ScrubbedRange[],
  regions: readonly MemoryRegion[],
): PageSet | undefined {
  if (ranges.length === 0) return undefined;
  const pageCount = Number(regions.reduce((sum, { bytes }) => sum + bytes, 0n)) / pageBytes;
  const pages = new PageSet(pageCount);
  let firstPage = 0;
  for (const region of regions) {
    for (const { base, bytes } of ranges.filter((range) => isIn(range, region))) {
      pages.markRun(firstPage + Number(base - region.base) / pageBytes, Number(bytes) / pageBytes);
    }
    firstPage += Number(region.bytes) / pageBytes;
  }
  return pages;
}

/** For the `header` context. */
export function encodeScrub(ranges: readonly ScrubbedRange[]): ScrubRecord {
  return {
    scrub: {
      base: BigUint64Array.from(ranges, ({ base }) => base),
      bytes: BigUint64Array.from(ranges, ({ bytes }) => bytes),
      how: Uint8Array.from(ranges, ({ how }) => hows.indexOf(how)),
    },
  };
}

/** Throws `CHKPT_FORMAT` for a record that no save makes. */
export function decodeScrub(
  { scrub: { base, bytes, how } }: ScrubRecord,
  regions: readonly MemoryRegion[],
  store?: string,
): ScrubbedRange[] {
  const invalid = (what: string): CheckpointError =>
    new CheckpointError('CHKPT_FORMAT', `the record of scrubbed memory is not valid: ${what}`, {
      details: { store, context: 'header' },
    });
  if (base.length > scrubCountMax) throw invalid('too many ranges');
  if (bytes.length !== base.length || how.length !== base.length) throw invalid('lengths');
  const ranges = Array.from(base, (start, index): ScrubbedRange => {
    const known = hows[how[index] ?? hows.length];
    if (known === undefined) throw invalid('an unknown kind');
    return { base: start, bytes: bytes[index] ?? 0n, how: known };
  });
  const fault = faultOf(ranges, regions);
  if (fault !== undefined) throw invalid(fault);
  return ranges;
}

function toRange({ base, bytes }: MemoryRange, how: ScrubbedRange['how']): ScrubbedRange {
  return { base: BigInt(base), bytes: BigInt(bytes), how };
}

function byBase(one: ScrubbedRange, other: ScrubbedRange): number {
  return one.base < other.base ? -1 : one.base > other.base ? 1 : 0;
}

/** What is wrong with ranges that should ascend. */
function faultOf(ranges: readonly ScrubbedRange[], regions: readonly MemoryRegion[]): string | undefined {
  if (ranges.length > scrubCountMax) return `more than ${scrubCountMax} ranges`;
  const page = BigInt(pageBytes);
  let end = 0n;
  for (const range of ranges) {
    const { base, bytes } = range;
    const text = `0x${base.toString(16)}+${bytes}`;
    if (base < 0n || bytes <= 0n || base % page !== 0n || bytes % page !== 0n) {
      return `${text} is no range of whole pages of ${pageBytes} bytes`;
    }
    if (base < end) return `${text} overlaps another range`;
    if (!regions.some((region) => isIn(range, region))) return `${text} does not lie in one region of memory`;
    end = base + bytes;
  }
  return undefined;
}

function isIn({ base, bytes }: ScrubbedRange, region: MemoryRegion): boolean {
  return base >= region.base && base + bytes <= region.base + region.bytes;
}
