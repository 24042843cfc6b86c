/**
 * Fields of the stream: little-endian numbers, padding, and the errors that say where a wrong one stands.
 *
 * Offsets, lengths and counts are JavaScript numbers once they are known to be at most 2^53 - 1; what a
 * forged stream says above that is a typed error and never rounded.
 */
import { CheckpointError, type ErrorDetails } from '../errors/index.ts';

/**
 * Where in the stream a structure stands: sequence number of its frame and offset of the frame's first byte.
 */
export type Place = Pick<ErrorDetails, 'frame' | 'offset' | 'page' | 'context' | 'tag'>;

/** `byteCount` rounded up to a multiple of 8. Exact up to 2^53. */
export function pad8(byteCount: number): number {
  return Math.ceil(byteCount / 8) * 8;
}

/** A view of the same bytes. */
export function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/** A count, length or offset of the stream as a number. Throws `CHKPT_LIMIT` above 2^53 - 1. */
export function toCount(value: bigint, what: string, place: Place): number {
  if (value > BigInt(Number.MAX_SAFE_INTEGER)) {
    throw new CheckpointError('CHKPT_LIMIT', `${what} is beyond every limit`, {
      details: { ...place, actual: value },
    });
  }
  return Number(value);
}

/** The count of 8 bytes at `offset`. Throws `CHKPT_LIMIT`. */
export function readCount(view: DataView, offset: number, what: string, place: Place): number {
  return toCount(view.getBigUint64(offset, true), what, place);
}

/** `CHKPT_FORMAT` with what was expected and found. */
export function formatError(
  what: string,
  place: Place,
  values: Pick<ErrorDetails, 'expected' | 'actual'> = {},
): CheckpointError {
  return new CheckpointError('CHKPT_FORMAT', what, { details: { ...place, ...values } });
}

/** Throws `CHKPT_LIMIT` when `actual` exceeds `limit`. */
export function checkLimit(
  actual: number | bigint,
  limit: number | bigint,
  what: string,
  place: Place,
): void {
  if (actual > limit) {
    throw new CheckpointError('CHKPT_LIMIT', `${what} exceeds its limit`, {
      details: { ...place, expected: limit, actual },
    });
  }
}

/** Throws `CHKPT_FORMAT` when `actual` is not `expected`. */
export function checkEqual(
  actual: number | bigint,
  expected: number | bigint,
  what: string,
  place: Place,
): void {
  if (BigInt(actual) !== BigInt(expected)) throw formatError(`${what} is wrong`, place, { expected, actual });
}

/** True when all bytes are zero. */
export function isZero(bytes: Uint8Array): boolean {
  return bytes.every((byte) => byte === 0);
}

/** Throws `CHKPT_FORMAT` when a byte that must be zero is not. */
export function checkZero(bytes: Uint8Array, what: string, place: Place): void {
  if (!isZero(bytes)) throw formatError(`${what} is not zero`, place);
}

/** True when both have the same bytes. */
export function equalBytes(left: Readonly<Uint8Array>, right: Readonly<Uint8Array>): boolean {
  return left.length === right.length && left.every((byte, index) => byte === right[index]);
}
