/**
 * The 104 bytes in front of a sealed stream (docs/encryption.md): bytes ⇄ values. Pure; untrusted input.
 *
 * Nothing here needs a key: who reads finds out which key is wanted, and damage differs from a wrong key.
 */
import { createHash } from 'node:crypto';
import { CheckpointError } from '../../errors/index.ts';
import { sealMagic } from '../../format/constants.ts';

export const sealVersion = 1;
export const sealHeaderBytes = 104;
export const keyIdBytes = 16;
export const saltBytes = 32;
export const tagBytes = 16;

/** Plaintext bytes of a record as a power of two: 4 KiB to 4 MiB. Bounds what a forged header can make a reader allocate. */
export const recordBitsMin = 12;
export const recordBitsMax = 22;

const algorithms = ['aes-256-gcm', 'chacha20-poly1305'] as const;
export type SealAlgorithm = (typeof algorithms)[number];

/** Where what stands. */
const versionAt = 8;
const algorithmAt = 10;
const recordBitsAt = 11;
const reservedAt = 12;
const keyIdAt = 16;
const saltAt = 32;
export const macAt = 64;
const checksumAt = 96;

export interface SealHeader {
  readonly algorithm: SealAlgorithm;
  readonly recordBytes: number;
  readonly keyId: Uint8Array;
  readonly salt: Uint8Array;
}

/** Everything that the MAC covers. Throws `TypeError`, `RangeError` for an algorithm or a size that cannot be. */
export function encodeSealed({ algorithm, recordBytes, keyId, salt }: SealHeader): Uint8Array {
  const code = 1 + algorithms.indexOf(algorithm);
  if (code === 0) throw new TypeError(`unknown algorithm ${String(algorithm)}`);
  const bits = Math.log2(recordBytes);
  if (!Number.isInteger(bits) || bits < recordBitsMin || bits > recordBitsMax) {
    throw new RangeError(`recordBytes must be a power of two from 4 KiB to 4 MiB, not ${recordBytes}`);
  }
  const bytes = new Uint8Array(sealHeaderBytes);
  bytes.set(sealMagic);
  new DataView(bytes.buffer).setUint16(versionAt, sealVersion, true);
  bytes[algorithmAt] = code;
  bytes[recordBitsAt] = bits;
  bytes.set(keyId, keyIdAt);
  bytes.set(salt, saltAt);
  return bytes;
}

/** Completes the header. */
export function placeMac(bytes: Uint8Array, mac: Uint8Array): void {
  bytes.set(mac, macAt);
  bytes.set(checksumOf(bytes), checksumAt);
}

/** The MAC that stands in a header. */
export function macOf(bytes: Uint8Array): Uint8Array {
  return bytes.subarray(macAt, checksumAt);
}

/** True when `bytes` begin as a sealed stream does. */
export function isSealed(bytes: Uint8Array): boolean {
  return sealMagic.every((byte, index) => bytes[index] === byte);
}

/**
 * Throws `CHKPT_SEAL` for a damaged header, `CHKPT_VERSION` for one of a newer version. REQUIRES: `bytes` has 104 bytes and `isSealed`.
 */
export function decodeSealed(bytes: Uint8Array, store: string): SealHeader {
  const details = { store, offset: 0 };
  if (!Buffer.from(checksumOf(bytes)).equals(bytes.subarray(checksumAt, sealHeaderBytes))) {
    throw new CheckpointError('CHKPT_SEAL', 'the header of the encryption is damaged', { details });
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset, sealHeaderBytes);
  const version = view.getUint16(versionAt, true);
  const algorithm = algorithms[(bytes[algorithmAt] ?? 0) - 1];
  if (version !== sealVersion || algorithm === undefined) {
    throw new CheckpointError('CHKPT_VERSION', 'encrypted in a way that this version does not know', {
      details: { ...details, expected: sealVersion, actual: version },
    });
  }
  const bits = bytes[recordBitsAt] ?? 0;
  if (bits < recordBitsMin || bits > recordBitsMax || view.getUint32(reservedAt, true) !== 0) {
    throw new CheckpointError('CHKPT_SEAL', 'the header of the encryption is not valid', { details });
  }
  return {
    algorithm,
    recordBytes: 2 ** bits,
    keyId: bytes.slice(keyIdAt, saltAt),
    salt: bytes.slice(saltAt, macAt),
  };
}

/** Tells damage by accident from another key; it has no key itself. */
function checksumOf(bytes: Uint8Array): Uint8Array {
  return createHash('sha256')
    .update(bytes.subarray(0, checksumAt))
    .digest()
    .subarray(0, sealHeaderBytes - checksumAt);
}
