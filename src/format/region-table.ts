/**
 * The regions of guest-physical memory, and how page numbers run through them (docs/format.md section 6).
 *
 * Units: addresses and `bytes` are bytes; page numbers count pages through all regions in table order.
 */
import { CheckpointError, type ErrorCode } from '../errors/index.ts';
import {
  addressMax,
  blockPagesMax,
  groupBlocksMax,
  memoryBytesMax,
  pageBytes,
  regionCountMax,
} from '../limits.ts';
import { checkEqual, checkLimit, type Place, toCount, viewOf } from './bytes.ts';
import type { FrameHeader } from './frame-header.ts';

/** A region as callers give it, bytes. */
export interface RegionBytes {
  readonly base: bigint;
  readonly bytes: bigint;
}

/** A region with its page numbers. */
export interface Region extends RegionBytes {
  readonly firstPage: number;
  readonly pageCount: number;
}

/** Pages of one group: the unit of BLOCK_INDEX frames. */
export const groupPagesMax = groupBlocksMax * blockPagesMax;

const entryBytes = 16;

/** Payload of a REGION_TABLE frame. Throws RangeError for regions that the format does not allow. */
export function encodeRegionTable(regions: readonly RegionBytes[]): Uint8Array {
  const fault = faultOf(regions);
  if (fault !== undefined) throw new RangeError(fault.what);
  const bytes = new Uint8Array(entryBytes * regions.length);
  const view = viewOf(bytes);
  for (const [index, region] of regions.entries()) {
    view.setBigUint64(entryBytes * index, region.base, true);
    view.setBigUint64(entryBytes * index + 8, region.bytes, true);
  }
  return bytes;
}

/** Throws `CHKPT_FORMAT`, `CHKPT_LIMIT`. */
export function decodeRegionTable(header: FrameHeader, payload: Uint8Array, place: Place): Region[] {
  const count = toCount(header.arg0, 'the number of regions', place);
  checkLimit(count, regionCountMax, 'the number of regions', place);
  checkEqual(header.arg1, pageBytes, 'page size', place);
  checkEqual(payload.length, entryBytes * count, 'length of a REGION_TABLE frame', place);
  const view = viewOf(payload);
  const regions = Array.from({ length: count }, (_, index) => ({
    base: view.getBigUint64(entryBytes * index, true),
    bytes: view.getBigUint64(entryBytes * index + 8, true),
  }));
  const fault = faultOf(regions);
  if (fault !== undefined) throw new CheckpointError(fault.code, fault.what, { details: place });
  return numberPages(regions);
}

/** Gives each region its page numbers. REQUIRES: regions that the format allows. */
export function numberPages(regions: readonly RegionBytes[]): Region[] {
  let firstPage = 0;
  return regions.map(({ base, bytes }) => {
    const pageCount = Number(bytes / BigInt(pageBytes));
    const region = { base, bytes, firstPage, pageCount };
    firstPage += pageCount;
    return region;
  });
}

/** Pages of all regions together. */
export function countPages(regions: readonly RegionBytes[]): number {
  return numberPages(regions).reduce((count, region) => count + region.pageCount, 0);
}

interface Fault {
  readonly code: ErrorCode;
  readonly what: string;
}

function faultOf(regions: readonly RegionBytes[]): Fault | undefined {
  if (regions.length === 0) return { code: 'CHKPT_FORMAT', what: 'the region table is empty' };
  if (regions.length > regionCountMax)
    return { code: 'CHKPT_LIMIT', what: 'the region table has too many regions' };
  const page = BigInt(pageBytes);
  let end = 0n;
  let sum = 0n;
  for (const [index, { base, bytes }] of regions.entries()) {
    if (base < 0n || base % page !== 0n || bytes <= 0n || bytes % page !== 0n) {
      return { code: 'CHKPT_FORMAT', what: `region ${index} is empty or not made of whole pages` };
    }
    if (base < end) return { code: 'CHKPT_FORMAT', what: `region ${index} overlaps the one before it` };
    end = base + bytes;
    sum += bytes;
    if (end > addressMax) return { code: 'CHKPT_LIMIT', what: `region ${index} ends beyond 2^52` };
  }
  return sum > memoryBytesMax ? { code: 'CHKPT_LIMIT', what: 'the regions exceed 16 TiB' } : undefined;
}
