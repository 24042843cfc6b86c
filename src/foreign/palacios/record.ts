/**
 * The record of a Palacios keyed stream, as `file:`, `net:` and `mem:` of the original write it:
 *
 *     u32 boundary 0xabcd0123 · s64 tag length T · T bytes of tag · s64 data length D · D bytes of data
 *
 * Little-endian, nothing is padded. Pure: a parser says how many bytes it wants next and is given exactly those, so that one
 * grammar serves buffers, files and sockets. Lengths are bounded before anything is taken for them.
 */
import { CheckpointError } from '../../errors/index.ts';
import { formatError, type Place } from '../../format/bytes.ts';
import { decodeName, encodeName } from '../../format/names.ts';
import { nameBytesMax, tagCountMax, valueBytesMax } from '../../limits.ts';

export interface PalaciosRecord {
  readonly tag: string;
  readonly data: Uint8Array;
}

/** A named group of records, in the order in which an original reads them. */
export interface PalaciosContext {
  readonly name: string;
  readonly records: readonly PalaciosRecord[];
}

/** What stands before the data of a record. */
export interface RecordHead {
  readonly tag: string;
  readonly dataBytes: number;
}

/** Says how many bytes it wants next, and is given so many. */
export type Parser<T> = Generator<number, T, Uint8Array>;

/** First bytes of every record. A key frame never begins with them: the top bit of its second byte is set. */
export const boundaryBytes: Readonly<Uint8Array> = Uint8Array.of(0x23, 0x01, 0xcd, 0xab);

/** Bytes of a record without tag and data. */
export const recordFrameBytes = 20;

/** The bytes of a record before its data. Throws `CHKPT_NAME` for a tag that cannot be written. */
export function encodeRecordHead(tag: string, dataBytes: number, context?: string): Uint8Array {
  const name = encodeName(tag, { context, tag });
  const head = new Uint8Array(recordFrameBytes + name.length);
  const view = new DataView(head.buffer);
  head.set(boundaryBytes);
  view.setBigInt64(4, BigInt(name.length), true);
  head.set(name, 12);
  view.setBigInt64(12 + name.length, BigInt(dataBytes), true);
  return head;
}

/** A context as the pieces of its file: the data of records is not copied. */
export function encodeRecords({ name, records }: PalaciosContext): Uint8Array[] {
  return records.flatMap(({ tag, data }) => [encodeRecordHead(tag, data.length, name), data]);
}

/**
 * Parses what stands before the data of a record; `begun` are bytes of it that were read already. Throws `CHKPT_FORMAT` for a wrong
 * boundary, a negative length, an empty tag or one that is no name; `CHKPT_LIMIT` above 255 bytes of tag or `dataBytesMax`.
 */
export function* recordHead(
  place: Place,
  dataBytesMax: number,
  begun = new Uint8Array(),
): Parser<RecordHead> {
  const first = joined(begun, yield 12 - begun.length);
  if (!boundaryBytes.every((byte, index) => byte === first[index])) {
    throw formatError('a record does not begin with the boundary', place);
  }
  const tagBytes = lengthAt(first, 4, nameBytesMax, 'the length of a tag', place);
  const rest = yield tagBytes + 8;
  const tag = decodeName(rest.subarray(0, tagBytes), place);
  const dataBytes = lengthAt(rest, tagBytes, dataBytesMax, 'the length of a value', { ...place, tag });
  return { tag, dataBytes };
}

/** How many records a checkpoint may still have: one of them takes far more than its bytes. */
export class RecordBudget {
  #left = tagCountMax;

  /** Throws `CHKPT_LIMIT`. */
  take(place: Place): void {
    this.#left -= 1;
    if (this.#left >= 0) return;
    throw new CheckpointError('CHKPT_LIMIT', 'more tags than a checkpoint may have', {
      details: { ...place, expected: tagCountMax },
    });
  }
}

/**
 * All records in `bytes`: one file of `file:`. The data are views. Throws as `recordHead`, `CHKPT_LIMIT`, and `CHKPT_TRUNCATED` when the
 * bytes end inside a record.
 */
export function decodeRecords(
  bytes: Uint8Array,
  place: Place,
  budget = new RecordBudget(),
): PalaciosRecord[] {
  const records: PalaciosRecord[] = [];
  let at = 0;
  const take = (byteCount: number): Uint8Array => {
    if (byteCount > bytes.length - at) throw truncated(bytes.length - at, byteCount, place);
    at += byteCount;
    return bytes.subarray(at - byteCount, at);
  };
  while (at < bytes.length) {
    budget.take(place);
    const { tag, dataBytes } = parseWith(recordHead({ ...place, offset: at }, valueBytesMax), take);
    records.push({ tag, data: take(dataBytes) });
  }
  return records;
}

/** Runs a parser over a source that can be read at once. */
export function parseWith<T>(parser: Parser<T>, take: (byteCount: number) => Uint8Array): T {
  let step = parser.next();
  while (step.done !== true) step = parser.next(take(step.value));
  return step.value;
}

/** Runs a parser over a source that has to be waited for. */
export async function parseFrom<T>(
  parser: Parser<T>,
  take: (byteCount: number) => Promise<Uint8Array>,
): Promise<T> {
  let step = parser.next();
  while (step.done !== true) step = parser.next(await take(step.value));
  return step.value;
}

export function truncated(actual: number, expected: number, place: Place): CheckpointError {
  return new CheckpointError('CHKPT_TRUNCATED', 'it ends inside a record', {
    details: { ...place, expected, actual },
  });
}

function joined(begun: Uint8Array, rest: Uint8Array): Uint8Array {
  if (begun.length === 0) return rest;
  const all = new Uint8Array(begun.length + rest.length);
  all.set(begun);
  all.set(rest, begun.length);
  return all;
}

/** A signed 64-bit length. Never rounded, never allocated for before it was bounded. */
function lengthAt(bytes: Uint8Array, offset: number, max: number, what: string, place: Place): number {
  const value = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength).getBigInt64(offset, true);
  if (value < 0n) throw formatError(`${what} is negative`, place, { actual: value });
  if (value > BigInt(max)) {
    throw new CheckpointError('CHKPT_LIMIT', `${what} exceeds its limit`, {
      details: { ...place, expected: max, actual: value },
    });
  }
  return Number(value);
}
