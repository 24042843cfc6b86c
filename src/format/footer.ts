/** The last 64 bytes of a stream with an index (docs/format.md section 9). */
import { CheckpointError } from '../errors/index.ts';
import { checkEqual, equalBytes, formatError, type Place, readCount, viewOf } from './bytes.ts';
import { footerBytes, footerMagic, uuidBytes } from './constants.ts';
import type { Digest64 } from './digest.ts';

export interface Footer {
  /** Offset of the END frame. */
  readonly endOffset: number;
  /** Offset of the first INDEX frame. */
  readonly indexOffset: number;
  /** Bytes of all INDEX frames with headers and padding. */
  readonly indexBytes: number;
  /** 16 bytes. */
  readonly uuid: Uint8Array;
  /** Bytes of the whole stream, the footer included. */
  readonly streamBytes: number;
}

const digestAt = 56;

export function encodeFooter(footer: Footer, digest: Digest64): Uint8Array {
  const bytes = new Uint8Array(footerBytes);
  const view = viewOf(bytes);
  bytes.set(footerMagic);
  view.setBigUint64(8, BigInt(footer.endOffset), true);
  view.setBigUint64(16, BigInt(footer.indexOffset), true);
  view.setBigUint64(24, BigInt(footer.indexBytes), true);
  bytes.set(footer.uuid, 32);
  view.setBigUint64(48, BigInt(footer.streamBytes), true);
  view.setBigUint64(digestAt, digest(bytes.subarray(0, digestAt)), true);
  return bytes;
}

/** True when the bytes start as a footer does. */
export function hasFooterMagic(bytes: Uint8Array): boolean {
  return equalBytes(bytes.subarray(0, footerMagic.length), footerMagic);
}

/** REQUIRES: 64 bytes, which start at `offset`. Throws `CHKPT_DIGEST`, `CHKPT_FORMAT`, `CHKPT_LIMIT`. */
export function decodeFooter(bytes: Uint8Array, offset: number, digest: Digest64): Footer {
  const place: Place = { offset };
  const view = viewOf(bytes);
  if (view.getBigUint64(digestAt, true) !== digest(bytes.subarray(0, digestAt))) {
    throw new CheckpointError('CHKPT_DIGEST', 'the footer does not match its digest', { details: place });
  }
  if (!hasFooterMagic(bytes)) throw formatError('the footer has a wrong magic', place);
  const footer: Footer = {
    endOffset: readCount(view, 8, 'offset of END', place),
    indexOffset: readCount(view, 16, 'offset of the index', place),
    indexBytes: readCount(view, 24, 'length of the index', place),
    uuid: bytes.slice(32, 32 + uuidBytes),
    streamBytes: readCount(view, 48, 'length of the stream', place),
  };
  checkEqual(footer.streamBytes, offset + footerBytes, 'length of the stream', place);
  return footer;
}

/** Throws `CHKPT_FORMAT` when a footer does not say what was read. */
export function checkFooter(footer: Footer, expected: Footer): void {
  const place: Place = { offset: expected.streamBytes - footerBytes };
  checkEqual(footer.endOffset, expected.endOffset, 'offset of END in the footer', place);
  checkEqual(footer.indexOffset, expected.indexOffset, 'offset of the index in the footer', place);
  checkEqual(footer.indexBytes, expected.indexBytes, 'length of the index in the footer', place);
  checkEqual(footer.streamBytes, expected.streamBytes, 'length of the stream in the footer', place);
  if (!equalBytes(footer.uuid, expected.uuid)) throw formatError('the footer has another UUID', place);
}
