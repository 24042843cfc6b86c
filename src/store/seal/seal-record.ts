/**
 * Records of a sealed stream: one AEAD message each, bound to its place; and the end record, which holds nothing and says how long the
 * stream is. After STREAM (Hoang, Reyhanitabar, Rogaway, Vizár 2015), with an empty last segment.
 */
import {
  type CipherGCM,
  createCipheriv,
  createDecipheriv,
  createHash,
  type DecipherGCM,
  type Hash,
  type KeyObject,
} from 'node:crypto';
import { CheckpointError } from '../../errors/index.ts';
import { type SealAlgorithm, sealHeaderBytes, tagBytes } from './seal-header.ts';

const nonceBytes = 12;

/** What is needed to seal or open the records of one checkpoint. */
export interface RecordCipher {
  readonly algorithm: SealAlgorithm;
  readonly key: KeyObject;
  /** Plaintext of every record but the last one. */
  readonly recordBytes: number;
}

/** Of the record number `index`. The key is of this checkpoint alone, so no nonce comes twice. */
function nonceOf(index: number, isEnd: boolean): Uint8Array {
  const nonce = new Uint8Array(nonceBytes);
  new DataView(nonce.buffer).setBigUint64(0, BigInt(index), true);
  nonce[8] = isEnd ? 1 : 0;
  return nonce;
}

/** Starts the record number `index`. */
export function sealRecord({ algorithm, key }: RecordCipher, index: number): CipherGCM {
  return createCipheriv(algorithm as 'aes-256-gcm', key, nonceOf(index, false), { authTagLength: tagBytes });
}

/** The end record of a stream of `recordCount` records. */
export function sealEnd({ algorithm, key }: RecordCipher, recordCount: number, byteCount: number): Buffer {
  const options = { authTagLength: tagBytes };
  const cipher = createCipheriv(algorithm as 'aes-256-gcm', key, nonceOf(recordCount, true), options);
  cipher.setAAD(lengthOf(byteCount), { plaintextLength: 0 });
  cipher.final();
  return cipher.getAuthTag();
}

/**
 * The content of a record, checked. Nothing of it is told before the tag was found right. Throws `CHKPT_SEAL`. `stored`: ciphertext and
 * tag.
 */
export function openRecord(cipher: RecordCipher, index: number, stored: Uint8Array, store: string): Buffer {
  const byteCount = stored.length - tagBytes;
  const decipher = decipherOf(cipher, nonceOf(index, false), stored.subarray(byteCount));
  const content = decipher.update(stored.subarray(0, byteCount));
  if (isRight(decipher)) return content;
  content.fill(0);
  throw new CheckpointError('CHKPT_SEAL', `record ${index} was damaged, moved or forged`, {
    details: { store, offset: sealHeaderBytes + index * (cipher.recordBytes + tagBytes) },
  });
}

/** Throws `CHKPT_SEAL`. `stored`: the tag. */
export function checkEnd(
  cipher: RecordCipher,
  recordCount: number,
  byteCount: number,
  stored: Uint8Array,
  store: string,
): void {
  const decipher = decipherOf(cipher, nonceOf(recordCount, true), stored);
  decipher.setAAD(lengthOf(byteCount), { plaintextLength: 0 });
  if (isRight(decipher)) return;
  throw new CheckpointError('CHKPT_SEAL', 'the end was cut off, damaged or forged', {
    details: { store, offset: sealHeaderBytes + byteCount + recordCount * tagBytes },
  });
}

/** Names what was sealed, without a key: a digest over header and tags. */
export class SealRoot {
  readonly #hash: Hash = createHash('sha256');

  add(bytes: Uint8Array): void {
    this.#hash.update(bytes);
  }

  /** Hexadecimal. Once. */
  end(): string {
    return this.#hash.digest('hex');
  }
}

/** How the records of a stream lie in a store. */
export interface SealLayout {
  readonly recordCount: number;
  /** Of the content. */
  readonly byteLength: number;
}

/** Of a sealed stream of so many bytes; undefined when there is none of that length. */
export function layoutOf(storedBytes: number, recordBytes: number): SealLayout | undefined {
  const body = storedBytes - sealHeaderBytes - tagBytes;
  if (body < 0) return undefined;
  const recordCount = Math.ceil(body / (recordBytes + tagBytes));
  const byteLength = body - recordCount * tagBytes;
  // Nobody makes a record without content.
  const lastBytes = body - (recordCount - 1) * (recordBytes + tagBytes);
  return recordCount > 0 && lastBytes <= tagBytes ? undefined : { recordCount, byteLength };
}

function decipherOf({ algorithm, key }: RecordCipher, nonce: Uint8Array, tag: Uint8Array): DecipherGCM {
  const options = { authTagLength: tagBytes };
  return createDecipheriv(algorithm as 'aes-256-gcm', key, nonce, options).setAuthTag(tag);
}

function isRight(decipher: DecipherGCM): boolean {
  try {
    decipher.final();
    return true;
  } catch {
    return false;
  }
}

function lengthOf(byteCount: number): Uint8Array {
  const bytes = new Uint8Array(8);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(byteCount), true);
  return bytes;
}
