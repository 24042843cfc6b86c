/**
 * Payload of a TAG frame: the tag, the length of the whole value, and its first bytes (docs/format.md section
 * 5).
 *
 *   0            8       8 + pad8(T)      16 + pad8(T)
 *   | T          | tag…  | D              | first min(D, 1 MiB) bytes of the value
 */
import { nameBytesMax, tagPieceBytesMax, valueBytesMax } from '../limits.ts';
import {
  checkEqual,
  checkLimit,
  checkZero,
  formatError,
  type Place,
  pad8,
  readCount,
  toCount,
  viewOf,
} from './bytes.ts';
import { frameTypes } from './constants.ts';
import { checkNoPayload, type FrameHeader } from './frame-header.ts';
import type { Frame } from './frame-queue.ts';
import { decodeName } from './names.ts';
import { isValueLength, type ValueType, valueTypeOf } from './value.ts';

export interface TagFrame {
  readonly tag: string;
  /** Bytes of the tag. A view of the payload. */
  readonly tagBytes: Uint8Array;
  readonly type: ValueType;
  /** Bytes of the whole value. */
  readonly dataBytes: number;
  /** The first bytes of the value. A view of the payload. */
  readonly piece: Uint8Array;
}

/** Bytes of the piece of a value that starts at `at`. */
export function pieceBytes(dataBytes: number, at: number): number {
  return Math.min(dataBytes - at, tagPieceBytesMax);
}

/** Bytes of a TAG payload before the data. */
export function tagPrefixBytes(tagByteCount: number): number {
  return 16 + pad8(tagByteCount);
}

/** Writes what stands before the data; `target` has exactly those bytes. */
export function encodeTagPrefix(target: Uint8Array, tagBytes: Uint8Array, dataBytes: number): void {
  const view = viewOf(target);
  target.fill(0);
  view.setBigUint64(0, BigInt(tagBytes.length), true);
  target.set(tagBytes, 8);
  view.setBigUint64(target.length - 8, BigInt(dataBytes), true);
}

/** Throws `CHKPT_FORMAT`, `CHKPT_LIMIT`. The value's content is checked when all its pieces are there. */
export function parseTagFrame(frame: Frame): TagFrame {
  const { header, payload } = frame;
  const place: Place = { frame: header.sequence, offset: frame.offset };
  const type = valueTypeOf(toCount(header.arg0, 'the value type', place));
  if (type === undefined) throw formatError('an unknown value type', place, { actual: header.arg0 });
  checkEqual(header.arg1, 0, 'arg1 of a TAG frame', place);
  if (payload.length < 8) throw formatError('a TAG frame is too short', place);
  const view = viewOf(payload);
  const tagByteCount = readCount(view, 0, 'a tag', place);
  checkLimit(tagByteCount, nameBytesMax, 'a tag', place);
  const prefix = tagPrefixBytes(tagByteCount);
  if (payload.length < prefix) throw formatError('a TAG frame is too short', place);

  const tagBytes = payload.subarray(8, 8 + tagByteCount);
  const tag = decodeName(tagBytes, place);
  checkZero(payload.subarray(8 + tagByteCount, prefix - 8), 'padding behind a tag', place);
  const dataBytes = readCount(view, prefix - 8, 'a value', place);
  checkLimit(dataBytes, valueBytesMax, 'a value', { ...place, tag });
  if (!isValueLength(type, dataBytes)) {
    throw formatError(`a value of type ${type} has a wrong length`, { ...place, tag }, { actual: dataBytes });
  }
  const piece = payload.subarray(prefix);
  checkEqual(piece.length, pieceBytes(dataBytes, 0), 'length of the data of a TAG frame', { ...place, tag });
  return { tag, tagBytes, type, dataBytes, piece };
}

/**
 * The piece of a value that `frame` carries; `at` is where in the value it must belong. Throws
 * `CHKPT_FORMAT`.
 */
export function parseTagMoreFrame(frame: Frame, dataBytes: number, at: number): Uint8Array {
  const { header, payload } = frame;
  const place: Place = { frame: header.sequence, offset: frame.offset };
  if (header.type !== frameTypes.tagMore) throw formatError('a value ends before its last byte', place);
  checkEqual(header.arg0, at, 'place of a piece in its value', place);
  checkEqual(header.arg1, 0, 'arg1 of a TAG_MORE frame', place);
  checkEqual(payload.length, pieceBytes(dataBytes, at), 'length of a piece of a value', place);
  return payload;
}

/** Ordinal and count of a CONTEXT_CLOSE frame must be these. Throws `CHKPT_FORMAT`. */
export function checkContextClose(header: FrameHeader, ordinal: number, count: number, place: Place): void {
  checkNoPayload(header, place);
  checkEqual(header.arg0, ordinal, 'ordinal of a CONTEXT_CLOSE frame', place);
  checkEqual(header.arg1, count, 'count of a CONTEXT_CLOSE frame', place);
}
