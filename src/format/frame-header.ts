/**
 * The 56 bytes before every payload, and the digest that binds them to their place (docs/format.md
 * section 4).
 *
 *   0        4        8                16               24     32     40               48               56
 *   | type   | flags  | payload bytes  | sequence       | arg0 | arg1 | payload digest | header digest | payload…
 */
import { CheckpointError } from '../errors/index.ts';
import { framePayloadBytesMax } from '../limits.ts';
import { checkEqual, checkLimit, type Place, pad8, readCount, viewOf } from './bytes.ts';
import { frameHeaderBytes, frameTypeName, uuidBytes } from './constants.ts';
import type { Digest64 } from './digest.ts';

const boundHeaderBytes = 48;

export interface FrameHeader {
  readonly type: number;
  /** Without padding. */
  readonly payloadBytes: number;
  readonly sequence: number;
  readonly arg0: bigint;
  readonly arg1: bigint;
  readonly payloadDigest: bigint;
}

/** What ties the frames of one checkpoint to it. Owns a scratch buffer; synchronous. */
export class FrameBinding {
  readonly uuid: Uint8Array;
  readonly epoch: bigint;
  readonly digest: Digest64;
  readonly #bytes = new Uint8Array(uuidBytes + 8 + 8 + boundHeaderBytes);
  readonly #view = viewOf(this.#bytes);

  constructor(uuid: Uint8Array, epoch: bigint, digest: Digest64) {
    this.uuid = uuid.slice();
    this.epoch = epoch;
    this.digest = digest;
    this.#bytes.set(this.uuid);
    this.#view.setBigUint64(uuidBytes, epoch, true);
  }

  /** Header digest of the frame at `offset` with these first 48 bytes. */
  headerDigest(header: Uint8Array, offset: number): bigint {
    this.#view.setBigUint64(uuidBytes + 8, BigInt(offset), true);
    this.#bytes.set(header.subarray(0, boundHeaderBytes), uuidBytes + 16);
    return this.digest(this.#bytes);
  }
}

/** Writes the header into the first 56 bytes of `target`. */
export function encodeFrameHeader(
  target: Uint8Array,
  header: FrameHeader,
  offset: number,
  binding: FrameBinding,
): void {
  const view = viewOf(target);
  view.setUint32(0, header.type, true);
  view.setUint32(4, 0, true);
  view.setBigUint64(8, BigInt(header.payloadBytes), true);
  view.setBigUint64(16, BigInt(header.sequence), true);
  view.setBigUint64(24, header.arg0, true);
  view.setBigUint64(32, header.arg1, true);
  view.setBigUint64(40, header.payloadDigest, true);
  view.setBigUint64(boundHeaderBytes, binding.headerDigest(target, offset), true);
}

/**
 * Checks and decodes the first 56 bytes of `source`, a frame at `offset`. `sequence` is the one that must
 * stand there; `undefined` takes any, for readers that jump. Throws `CHKPT_DIGEST`, `CHKPT_FORMAT`,
 * `CHKPT_LIMIT`.
 */
export function decodeFrameHeader(
  source: Uint8Array,
  sequence: number | undefined,
  offset: number,
  binding: FrameBinding,
): FrameHeader {
  const place: Place = sequence === undefined ? { offset } : { frame: sequence, offset };
  const view = viewOf(source);
  if (view.getBigUint64(boundHeaderBytes, true) !== binding.headerDigest(source, offset)) {
    throw new CheckpointError('CHKPT_DIGEST', 'a frame header does not match its digest', { details: place });
  }
  checkEqual(view.getUint32(4, true), 0, 'flags of a frame', place);
  const stored = readCount(view, 16, 'the sequence number', place);
  if (sequence !== undefined) checkEqual(stored, sequence, 'sequence number of a frame', place);
  const payloadBytes = readCount(view, 8, 'payload of a frame', place);
  checkLimit(payloadBytes, framePayloadBytesMax, 'payload of a frame', place);
  return {
    type: view.getUint32(0, true),
    payloadBytes,
    sequence: stored,
    arg0: view.getBigUint64(24, true),
    arg1: view.getBigUint64(32, true),
    payloadDigest: view.getBigUint64(40, true),
  };
}

/** Checks digest and padding of a payload, given with its padding. Throws `CHKPT_DIGEST`, `CHKPT_FORMAT`. */
export function checkPayload(
  header: FrameHeader,
  padded: Uint8Array,
  offset: number,
  digest: Digest64,
): void {
  const place: Place = { frame: header.sequence, offset };
  if (digest(padded) !== header.payloadDigest) {
    throw new CheckpointError('CHKPT_DIGEST', 'the payload of a frame does not match its digest', {
      details: place,
    });
  }
  for (let at = header.payloadBytes; at < padded.length; at++)
    checkEqual(padded[at] ?? 0, 0, 'padding', place);
}

/** Bytes of a whole frame with this payload. */
export function frameBytes(payloadBytes: number): number {
  return frameHeaderBytes + pad8(payloadBytes);
}

/** Throws `CHKPT_FORMAT` when a frame without payload has one. */
export function checkNoPayload(header: FrameHeader, place: Place): void {
  checkEqual(header.payloadBytes, 0, `payload of a ${frameTypeName(header.type)} frame`, place);
}
