/** Puts a frame around a payload that already stands in its place. */
import { pad8, viewOf } from './bytes.ts';
import { frameHeaderBytes } from './constants.ts';
import { encodeFrameHeader, type FrameBinding } from './frame-header.ts';

/** What a producer says about a frame; the rest follows from its place. */
export interface FrameArguments {
  readonly type: number;
  readonly arg0?: number | bigint;
  readonly arg1?: number | bigint;
}

/**
 * Completes the frame in `target`: its payload of `payloadBytes` stands from byte 56 on; padding, digests and
 * header are written around it. Returns the bytes of the whole frame. REQUIRES: `target` has room for them.
 */
export function sealFrame(
  target: Uint8Array,
  frame: FrameArguments,
  payloadBytes: number,
  sequence: number,
  offset: number,
  binding: FrameBinding,
): number {
  const end = frameHeaderBytes + pad8(payloadBytes);
  target.fill(0, frameHeaderBytes + payloadBytes, end);
  const payloadDigest = binding.digest(target.subarray(frameHeaderBytes, end));
  sealHeader(target, frame, payloadBytes, payloadDigest, sequence, offset, binding);
  return end;
}

/** Writes only the header, for a payload that stands elsewhere. */
export function sealHeader(
  target: Uint8Array,
  frame: FrameArguments,
  payloadBytes: number,
  payloadDigest: bigint,
  sequence: number,
  offset: number,
  binding: FrameBinding,
): void {
  const { type } = frame;
  const arg0 = BigInt(frame.arg0 ?? 0);
  const arg1 = BigInt(frame.arg1 ?? 0);
  encodeFrameHeader(target, { type, payloadBytes, sequence, arg0, arg1, payloadDigest }, offset, binding);
}

/** Header digest of a sealed frame, as its 8 bytes in the stream: what the root digest is made of. */
export function headerDigestBytes(frame: Uint8Array): Uint8Array {
  return frame.subarray(frameHeaderBytes - 8, frameHeaderBytes);
}

/** The same as a number. */
export function headerDigestOf(frame: Uint8Array): bigint {
  return viewOf(frame).getBigUint64(frameHeaderBytes - 8, true);
}
