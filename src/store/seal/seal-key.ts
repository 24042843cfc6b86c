/**
 * Keys of sealed checkpoints: whose key it is, and what is derived from it. Nothing of a key is kept but in `KeyObject`s, which Node keeps
 * outside of the heap and clears when they go; bytes that are made on the way are overwritten.
 */
import { createHmac, createSecretKey, hkdfSync, KeyObject, timingSafeEqual } from 'node:crypto';
import { CheckpointError } from '../../errors/index.ts';
import { keyIdBytes, macAt, macOf, placeMac } from './seal-header.ts';

/** A key as a caller has it: 32 bytes. */
export type SealKey = Uint8Array | KeyObject;

/** For which checkpoint a key is wanted. */
export interface KeyRequest {
  /** URL of its store. */
  readonly store: string;
  readonly purpose: 'save' | 'load';
  /** Of a load: id of the key that it was sealed with, hexadecimal; undefined when it is not encrypted. */
  readonly keyId?: string | undefined;
}

/**
 * Which key: one; several, of which the first seals and each opens what it has sealed; or whatever a function says. A function that gives
 * none for a load says that this checkpoint may be one that is not encrypted.
 */
export type KeySource =
  | SealKey
  | readonly SealKey[]
  | ((request: KeyRequest) => SealKey | undefined | Promise<SealKey | undefined>);

export const sealKeyBytes = 32;

const idInfo = 'chkpt key id v1';
const sealInfo = Buffer.from('chkpt seal v1');

/** Keys of one checkpoint. */
export interface DerivedKeys {
  /** Of the records. */
  readonly record: KeyObject;
  readonly header: KeyObject;
}

/** Throws `TypeError` for what is no key. */
export function keyObjectOf(key: SealKey): KeyObject {
  const object =
    key instanceof KeyObject ? key : key instanceof Uint8Array ? createSecretKey(key) : undefined;
  if (object?.type !== 'secret' || object.symmetricKeySize !== sealKeyBytes) {
    throw new TypeError(`a key has ${sealKeyBytes} bytes`);
  }
  return object;
}

/** The public name of a key. */
export function keyIdOf(key: SealKey): Uint8Array {
  return new Uint8Array(hkdfSync('sha256', keyObjectOf(key), '', idInfo, keyIdBytes));
}

/** `header`: with magic, parameters and salt; whatever of them differs gives other keys. */
export function deriveKeys(key: KeyObject, header: Uint8Array): DerivedKeys {
  const info = Buffer.concat([sealInfo, header.subarray(0, macAt)]);
  const bytes = new Uint8Array(hkdfSync('sha256', key, header.subarray(32, macAt), info, 2 * sealKeyBytes));
  try {
    return {
      record: createSecretKey(bytes.subarray(0, sealKeyBytes)),
      header: createSecretKey(bytes.subarray(sealKeyBytes)),
    };
  } finally {
    bytes.fill(0);
  }
}

/** Completes the header. */
export function sealHeader(header: Uint8Array, keys: DerivedKeys): void {
  placeMac(header, macFor(header, keys));
}

/** Throws `CHKPT_SEAL` when somebody who does not have the key has made or changed the header. */
export function checkHeader(header: Uint8Array, keys: DerivedKeys, store: string): void {
  if (timingSafeEqual(macFor(header, keys), macOf(header))) return;
  throw new CheckpointError('CHKPT_SEAL', 'the header of the encryption is forged', {
    details: { store, offset: 0 },
  });
}

/** Throws `CHKPT_KEY` when there is none. */
export async function keyForSave(source: KeySource, store: string): Promise<KeyObject> {
  const [key] = await keysOf(source, { store, purpose: 'save' });
  if (key !== undefined) return key;
  throw new CheckpointError('CHKPT_KEY', 'there is no key to encrypt this checkpoint with', {
    details: { store },
  });
}

/** Throws `CHKPT_KEY` when the key that it was sealed with is not there. */
export async function keyForLoad(source: KeySource, keyId: Uint8Array, store: string): Promise<KeyObject> {
  const wanted = hexOf(keyId);
  const keys = await keysOf(source, { store, purpose: 'load', keyId: wanted });
  const found = keys.find((key) => hexOf(keyIdOf(key)) === wanted);
  if (found !== undefined) return found;
  const what =
    keys.length === 0 ? 'the key of this checkpoint is not there' : 'it was encrypted with another key';
  throw new CheckpointError('CHKPT_KEY', what, {
    details: { store, expected: wanted, actual: keys[0] && hexOf(keyIdOf(keys[0])) },
  });
}

/** Throws `CHKPT_KEY` unless the caller says that this checkpoint may be one that is not encrypted. */
export async function allowUnsealed(source: KeySource, store: string): Promise<void> {
  if ((await keysOf(source, { store, purpose: 'load' })).length === 0) return;
  const what = 'a key was given, and this checkpoint is not encrypted';
  throw new CheckpointError('CHKPT_KEY', what, { details: { store } });
}

async function keysOf(source: KeySource, request: KeyRequest): Promise<KeyObject[]> {
  const given = typeof source === 'function' ? await source(request) : source;
  if (given === undefined) return [];
  return (Array.isArray(given) ? given : [given as SealKey]).map(keyObjectOf);
}

function macFor(header: Uint8Array, { header: key }: DerivedKeys): Uint8Array {
  return createHmac('sha256', key).update(header.subarray(0, macAt)).digest();
}

function hexOf(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('hex');
}
