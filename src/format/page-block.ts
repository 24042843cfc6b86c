/**
 * Payload of a PAGE_BLOCK frame (docs/format.md section 6).
 *
 *   0       1       4             8         16       16 + pad8(E)
 *   | codec | 0 0 0 | encoded E   | classes | data … | one u64 per fill or same page
 *
 * Parsing checks every rule that needs no decoding; decoding goes into exactly the bytes that the classes
 * declare.
 */
import { CheckpointError } from '../errors/index.ts';
import { blockPagesMax, pageBytes } from '../limits.ts';
import { checkEqual, checkZero, formatError, type Place, pad8, viewOf } from './bytes.ts';

export const pageClasses = { zero: 0, fill: 1, stored: 2, same: 3, parent: 4 } as const;
export const blockCodecs = { raw: 0, lz4: 1 } as const;
export const pageBlockHeadBytes = 16;

/**
 * Decodes one raw LZ4 block into exactly `decodedBytes` bytes, or throws. The result is valid until the next
 * call.
 */
export type DecodeLz4 = (encoded: Uint8Array, decodedBytes: number) => Uint8Array;

/** A set of pages. */
export interface OwnPages {
  has(page: number): boolean;
  add(page: number): void;
}

export interface PageBlock {
  readonly firstPage: number;
  readonly pageCount: number;
  readonly codec: number;
  /** Class of each page. */
  readonly classes: readonly number[];
  /** Pages per class. */
  readonly zeroPages: number;
  readonly fillPages: number;
  readonly storedPages: number;
  readonly samePages: number;
  readonly parentPages: number;
  /** The E bytes of data. A view of the payload. */
  readonly encoded: Uint8Array;
  /** For each fill page its content, for each same page the page it equals; in page order. */
  readonly words: readonly bigint[];
}

/** Parses a payload whose digest was checked. `hasParent`: pages may be left to a parent. Throws `CHKPT_FORMAT`. */
export function parsePageBlock(
  payload: Uint8Array,
  firstPage: number,
  pageCount: number,
  hasParent: boolean,
  place: Place,
): PageBlock {
  if (payload.length < pageBlockHeadBytes) throw formatError('a page block is too short', place);
  const view = viewOf(payload);
  const codec = view.getUint8(0);
  if (codec > blockCodecs.lz4)
    throw formatError('a page block has an unknown codec', place, { actual: codec });
  checkZero(payload.subarray(1, 4), 'a reserved byte of a page block', place);
  const classes = readClasses(view, pageCount, hasParent ? pageClasses.parent : pageClasses.same, place);
  const countOf = (pageClass: number): number => classes.filter((found) => found === pageClass).length;
  const zeroPages = countOf(pageClasses.zero);
  const fillPages = countOf(pageClasses.fill);
  const storedPages = countOf(pageClasses.stored);
  const samePages = countOf(pageClasses.same);
  const parentPages = countOf(pageClasses.parent);
  // Such a block is part of a run.
  if (!hasParent && zeroPages === pageCount) throw formatError('a page block has only zero pages', place);
  if (parentPages === pageCount) throw formatError('a page block has only pages of the parent', place);

  const encodedBytes = view.getUint32(4, true);
  checkEncodedBytes(codec, encodedBytes, storedPages * pageBytes, place);
  const wordsAt = pageBlockHeadBytes + pad8(encodedBytes);
  const wordCount = fillPages + samePages;
  checkEqual(payload.length, wordsAt + 8 * wordCount, 'length of a page block', place);
  const dataEnd = pageBlockHeadBytes + encodedBytes;
  checkZero(payload.subarray(dataEnd, wordsAt), 'padding in a page block', place);
  const words = Array.from({ length: wordCount }, (_, index) => view.getBigUint64(wordsAt + 8 * index, true));
  checkReferences(classes, words, firstPage, place);
  const encoded = payload.subarray(pageBlockHeadBytes, dataEnd);
  return {
    firstPage,
    pageCount,
    codec,
    classes,
    zeroPages,
    fillPages,
    storedPages,
    samePages,
    parentPages,
    encoded,
    words,
  };
}

/** Adds the pages that are not the parent's to `own`. Throws `CHKPT_FORMAT` when one equals a page that is. */
export function noteOwnPages(block: PageBlock, own: OwnPages, place: Place): void {
  let word = 0;
  for (const [index, pageClass] of block.classes.entries()) {
    const page = block.firstPage + index;
    const value = pageClass === pageClasses.fill || pageClass === pageClasses.same ? block.words[word++] : 0n;
    if (pageClass === pageClasses.same && !own.has(Number(value))) {
      throw formatError(
        'a page equals a page that is left to the parent',
        { ...place, page },
        { actual: value },
      );
    }
    if (pageClass !== pageClasses.parent) own.add(page);
  }
}

/**
 * Writes the pages of `block` into the first bytes of `target`. `readPage` gives the content of an earlier
 * page, for pages that equal one; pages of this block are never asked for. Pages of the parent are zeros. Throws
 * `CHKPT_DECODE`.
 */
export function decodePageBlock(
  block: PageBlock,
  decodeLz4: DecodeLz4,
  readPage: (page: number) => Uint8Array,
  target: Uint8Array,
  place: Place,
): void {
  const stored = decodeStored(block, decodeLz4, place);
  let storedAt = 0;
  let word = 0;
  for (const [index, pageClass] of block.classes.entries()) {
    const page = target.subarray(pageBytes * index, pageBytes * (index + 1));
    if (pageClass === pageClasses.stored) {
      page.set(stored.subarray(storedAt, storedAt + pageBytes));
      storedAt += pageBytes;
    } else if (pageClass === pageClasses.zero || pageClass === pageClasses.parent) {
      page.fill(0);
    } else {
      const value = block.words[word++] ?? 0n;
      if (pageClass === pageClasses.fill) fillPage(page, value);
      else page.set(earlierPage(Number(value), block, target, readPage));
    }
  }
}

/** The stored pages of a block, decoded. Throws `CHKPT_DECODE`. */
export function decodeStored(block: PageBlock, decodeLz4: DecodeLz4, place: Place): Uint8Array {
  if (block.codec === blockCodecs.raw) return block.encoded;
  const storedBytes = block.storedPages * pageBytes;
  try {
    const stored = decodeLz4(block.encoded, storedBytes);
    if (stored.length === storedBytes) return stored;
  } catch (error) {
    const details = { ...place, page: block.firstPage };
    throw new CheckpointError('CHKPT_DECODE', 'a page block is not a valid LZ4 block', {
      details,
      cause: error,
    });
  }
  throw new CheckpointError('CHKPT_DECODE', 'a page block decodes to another size than its classes say', {
    details: { ...place, page: block.firstPage, expected: storedBytes },
  });
}

function readClasses(view: DataView, pageCount: number, greatest: number, place: Place): number[] {
  const all = Array.from(
    { length: blockPagesMax },
    (_, page) => (view.getUint8(8 + (page >> 1)) >> (4 * (page & 1))) & 0xf,
  );
  if (all.slice(pageCount).some((pageClass) => pageClass !== 0)) {
    throw formatError('a page block has classes for pages it does not have', place);
  }
  const unknown = all.find((pageClass) => pageClass > greatest);
  if (unknown !== undefined) throw formatError('a page has an unknown class', place, { actual: unknown });
  return all.slice(0, pageCount);
}

function checkEncodedBytes(codec: number, encodedBytes: number, storedBytes: number, place: Place): void {
  const fits =
    codec === blockCodecs.raw ? encodedBytes === storedBytes : encodedBytes > 0 && encodedBytes < storedBytes;
  if (fits) return;
  throw formatError('encoded bytes of a page block are impossible', place, {
    expected: storedBytes,
    actual: encodedBytes,
  });
}

function checkReferences(
  classes: readonly number[],
  words: readonly bigint[],
  firstPage: number,
  place: Place,
): void {
  let word = 0;
  for (const [index, pageClass] of classes.entries()) {
    if (pageClass !== pageClasses.fill && pageClass !== pageClasses.same) continue;
    const value = words[word++] ?? 0n;
    if (pageClass === pageClasses.same && value >= BigInt(firstPage + index)) {
      const details = { ...place, page: firstPage + index };
      throw formatError('a page equals a page that is not before it', details, { actual: value });
    }
  }
}

function fillPage(page: Uint8Array, value: bigint): void {
  viewOf(page).setBigUint64(0, value, true);
  for (let filled = 8; filled < pageBytes; filled *= 2) page.copyWithin(filled, 0, filled);
}

function earlierPage(
  page: number,
  block: PageBlock,
  target: Uint8Array,
  readPage: (page: number) => Uint8Array,
): Uint8Array {
  const index = page - block.firstPage;
  return index >= 0 ? target.subarray(pageBytes * index, pageBytes * (index + 1)) : readPage(page);
}
