/** The END frame: what the whole stream amounts to (docs/format.md section 7). */
import { CheckpointError } from '../errors/index.ts';
import { indexBytesMax, tagPieceBytesMax } from '../limits.ts';
import {
  checkEqual,
  checkLimit,
  equalBytes,
  formatError,
  type Place,
  readCount,
  toCount,
  viewOf,
} from './bytes.ts';
import { endPayloadBytes, footerBytes, rootDigestBytes } from './constants.ts';
import { frameBytes } from './frame-header.ts';
import type { Frame } from './frame-queue.ts';
import { hexOf } from './uuid.ts';

/** Counts in the order of the payload. */
export interface EndCounts {
  readonly contexts: number;
  readonly tags: number;
  readonly pages: number;
  readonly zeroPages: number;
  readonly fillPages: number;
  readonly storedPages: number;
  readonly samePages: number;
  readonly parentPages: number;
  readonly encodedBytes: number;
}

export interface EndRecord {
  /** Root digest, 32 bytes. */
  readonly root: Uint8Array;
  readonly counts: EndCounts;
  /** Bytes that follow END: index frames and footer, or 0. */
  readonly tailBytes: number;
}

const countNames = [
  'contexts',
  'tags',
  'pages',
  'zeroPages',
  'fillPages',
  'storedPages',
  'samePages',
  'parentPages',
  'encodedBytes',
] as const satisfies readonly (keyof EndCounts)[];

/** Writes the payload into the first 104 bytes of `target`. */
export function encodeEnd(target: Uint8Array, root: Uint8Array, counts: EndCounts): void {
  const view = viewOf(target);
  target.set(root);
  for (const [index, name] of countNames.entries()) {
    view.setBigUint64(rootDigestBytes + 8 * index, BigInt(counts[name]), true);
  }
}

/** Throws `CHKPT_FORMAT`, `CHKPT_LIMIT`. */
export function decodeEnd(frame: Frame): EndRecord {
  const { header, payload } = frame;
  const place: Place = { frame: header.sequence, offset: frame.offset };
  checkEqual(header.arg0, header.sequence, 'number of frames before END', place);
  checkEqual(payload.length, endPayloadBytes, 'length of the END frame', place);
  const tailBytes = toCount(header.arg1, 'the number of bytes behind END', place);
  checkLimit(tailBytes, tailBytesOf(indexBytesMax), 'the number of bytes behind END', place);
  if (tailBytes !== 0 && (tailBytes < tailBytesOf(8) || tailBytes % 8 !== 0)) {
    throw formatError('the number of bytes behind END is impossible', place, { actual: tailBytes });
  }
  const view = viewOf(payload);
  const counts = Object.fromEntries(
    countNames.map((name, index) => [name, readCount(view, rootDigestBytes + 8 * index, name, place)]),
  ) as unknown as EndCounts;
  return { root: payload.slice(0, rootDigestBytes), counts, tailBytes };
}

/** Throws `CHKPT_ROOT_DIGEST` when END does not say what was read. */
export function checkEnd(end: EndRecord, root: Uint8Array, counts: EndCounts, place: Place): void {
  for (const name of countNames) {
    if (end.counts[name] === counts[name]) continue;
    throw new CheckpointError('CHKPT_ROOT_DIGEST', `END counts other ${name} than were read`, {
      details: { ...place, expected: end.counts[name], actual: counts[name] },
    });
  }
  if (equalBytes(end.root, root)) return;
  throw new CheckpointError('CHKPT_ROOT_DIGEST', 'the root digest does not match what was read', {
    details: { ...place, expected: hexOf(end.root), actual: hexOf(root) },
  });
}

/** Bytes of the INDEX frames that carry a document of this length. */
export function indexFrameBytes(documentBytes: number): number {
  const wholePieces = Math.floor(documentBytes / tagPieceBytesMax);
  const rest = documentBytes % tagPieceBytesMax;
  return wholePieces * frameBytes(tagPieceBytesMax) + (rest === 0 ? 0 : frameBytes(rest));
}

/** Bytes behind END for an index document of this length. */
export function tailBytesOf(documentBytes: number): number {
  return indexFrameBytes(documentBytes) + footerBytes;
}
