/** The 128 bytes at the start of every stream (docs/format.md section 3). */
import { CheckpointError } from '../errors/index.ts';
import {
  checkEqual,
  checkZero,
  equalBytes,
  formatError,
  isZero,
  type Place,
  readCount,
  viewOf,
} from './bytes.ts';
import {
  majorVersion,
  minorVersions,
  rootDigestBytes,
  sealMagic,
  streamHeaderBytes,
  streamMagic,
  uuidBytes,
} from './constants.ts';
import type { Digest64 } from './digest.ts';
import { formatUuid, hexOf, parseHex, parseUuid } from './uuid.ts';

/** The checkpoint that an incremental one builds on. */
export interface ParentReference {
  /** Text form. */
  readonly uuid: string;
  /** Root digest, hexadecimal. */
  readonly root: string;
}

export interface StreamHeader {
  /** Text form. */
  readonly uuid: string;
  readonly parent: ParentReference | undefined;
  /** 0 without parent, else greater than the parent's. */
  readonly epoch: bigint;
  /** Milliseconds since 1970-01-01T00:00:00Z; 0 when not told. */
  readonly createdMs: number;
  /** Minor version of the format; a greater one than ours may hold optional frames that we pass over. */
  readonly minor: number;
}

const parentAt = 32;
const epochAt = 48;
const flagsAt = 56;
const parentRootAt = 64;
const createdAt = 96;
const reservedAt = 104;
const digestAt = 120;
const start: Place = { offset: 0 };

/**
 * Throws TypeError for what is not a UUID or digest, RangeError for an epoch that does not go with the
 * parent.
 */
export function encodeStreamHeader(header: Omit<StreamHeader, 'minor'>, digest: Digest64): Uint8Array {
  const { parent, epoch, createdMs } = header;
  if (epoch < 0n || epoch >= 1n << 64n || (parent === undefined) !== (epoch === 0n)) {
    throw new RangeError(
      `epoch ${epoch} ${parent === undefined ? 'without parent must be 0' : 'must be above 0'}`,
    );
  }
  if (!Number.isSafeInteger(createdMs) || createdMs < 0) {
    throw new RangeError(`creation time must be a count of milliseconds, not ${createdMs}`);
  }
  const bytes = new Uint8Array(streamHeaderBytes);
  const view = viewOf(bytes);
  bytes.set(streamMagic);
  view.setUint16(8, majorVersion, true);
  view.setUint16(10, parent === undefined ? minorVersions.alone : minorVersions.increment, true);
  view.setUint32(12, streamHeaderBytes, true);
  bytes.set(nonZero(parseUuid(header.uuid), 'UUID'), 16);
  view.setBigUint64(epochAt, epoch, true);
  if (parent !== undefined) {
    bytes.set(nonZero(parseUuid(parent.uuid), 'UUID of the parent'), parentAt);
    bytes.set(nonZero(parseHex(parent.root, rootDigestBytes), 'root digest of the parent'), parentRootAt);
  }
  view.setBigUint64(createdAt, BigInt(createdMs), true);
  view.setBigUint64(digestAt, digest(bytes.subarray(0, digestAt)), true);
  return bytes;
}

/**
 * Throws `CHKPT_BAD_MAGIC`, `CHKPT_DIGEST`, `CHKPT_VERSION` or `CHKPT_FORMAT`, in this order of checks.
 * REQUIRES: `bytes` has 128 bytes.
 */
export function decodeStreamHeader(bytes: Uint8Array, digest: Digest64): StreamHeader {
  checkMagic(bytes);
  const view = viewOf(bytes);
  if (view.getBigUint64(digestAt, true) !== digest(bytes.subarray(0, digestAt))) {
    throw new CheckpointError('CHKPT_DIGEST', 'the stream header does not match its digest', {
      details: start,
    });
  }
  const major = view.getUint16(8, true);
  if (major !== majorVersion) {
    throw new CheckpointError('CHKPT_VERSION', `format version ${major} is not ${majorVersion}`, {
      details: { ...start, expected: majorVersion, actual: major },
    });
  }
  checkEqual(view.getUint32(12, true), streamHeaderBytes, 'length of the stream header', start);
  checkEqual(view.getBigUint64(flagsAt, true), 0, 'flags of the stream header', start);
  checkZero(bytes.subarray(reservedAt, digestAt), 'a reserved byte of the stream header', start);
  const uuid = bytes.subarray(16, 16 + uuidBytes);
  if (isZero(uuid)) throw formatError('the UUID is zero', start);
  const epoch = view.getBigUint64(epochAt, true);
  const minor = view.getUint16(10, true);
  const parent = decodeParent(bytes, epoch);
  if (parent !== undefined && minor < minorVersions.increment) {
    throw formatError('a parent in a stream of format 1.0', start);
  }
  return {
    uuid: formatUuid(uuid),
    parent,
    epoch,
    createdMs: readCount(view, createdAt, 'the creation time', start),
    minor,
  };
}

/** Throws `CHKPT_KEY` for an encrypted one, `CHKPT_BAD_MAGIC` when the first bytes, as far as there are any, are not a checkpoint's. */
export function checkMagic(bytes: Uint8Array): void {
  const length = Math.min(bytes.length, streamMagic.length);
  if (equalBytes(bytes.subarray(0, length), streamMagic.subarray(0, length))) return;
  if (length === sealMagic.length && equalBytes(bytes.subarray(0, length), sealMagic)) {
    throw new CheckpointError('CHKPT_KEY', 'this checkpoint is encrypted, and no key was given', {
      details: start,
    });
  }
  throw new CheckpointError('CHKPT_BAD_MAGIC', 'this is not a chkpt checkpoint', {
    details: { ...start, expected: hexOf(streamMagic.slice()), actual: hexOf(bytes.slice(0, length)) },
  });
}

function decodeParent(bytes: Uint8Array, epoch: bigint): ParentReference | undefined {
  const uuid = bytes.subarray(parentAt, parentAt + uuidBytes);
  const root = bytes.subarray(parentRootAt, parentRootAt + rootDigestBytes);
  const none = isZero(uuid);
  if (isZero(root) !== none || (epoch === 0n) !== none) {
    throw formatError('parent UUID, parent root digest and epoch do not go together', start);
  }
  return none ? undefined : { uuid: formatUuid(uuid), root: hexOf(root) };
}

function nonZero(bytes: Uint8Array, what: string): Uint8Array {
  if (isZero(bytes)) throw new TypeError(`${what} must not be zero`);
  return bytes;
}
