/**
 * Encryption at rest: any store, with the stream in it cut into records that are encrypted and authenticated. docs/encryption.md has the
 * bytes and what they guarantee.
 *
 * It lies between the store and everything above: what is saved, loaded, verified or looked at is the stream, and nothing of it leaves here
 * before it was found to be what somebody with the key has written.
 */
import { randomBytes } from 'node:crypto';
import { CheckpointError } from '../../errors/index.ts';
import { streamMagic } from '../../format/constants.ts';
import type { StoreClaims } from '../claims.ts';
import { openStore } from '../default-registry.ts';
import { guardStore } from '../guard.ts';
import type { Store, StoreReader, StoreReadOptions, StoreWriteOptions, StoreWriter } from '../store.ts';
import {
  decodeSealed,
  encodeSealed,
  isSealed,
  type SealAlgorithm,
  type SealHeader,
  saltBytes,
  sealHeaderBytes,
  tagBytes,
} from './seal-header.ts';
import {
  allowUnsealed,
  checkHeader,
  deriveKeys,
  type KeySource,
  keyForLoad,
  keyForSave,
  keyIdOf,
  keyObjectOf,
  sealHeader,
} from './seal-key.ts';
import { checkEnd, layoutOf, type RecordCipher } from './seal-record.ts';
import { SealedReader } from './sealed-reader.ts';
import { SealedWriter } from './sealed-writer.ts';
import { UnsealedReader } from './unsealed-reader.ts';
import { readFullyAt, readUpTo, readUpToAt, truncated } from './whole-reads.ts';

export interface EncryptOptions {
  readonly key: KeySource;
  /** Of what is saved. Default `aes-256-gcm`; `chacha20-poly1305` is for processors without AES instructions. */
  readonly algorithm?: SealAlgorithm | undefined;
  /**
   * Bytes of content in one record of what is saved, a power of two from 4 KiB to 4 MiB: what is read and decrypted for a single byte.
   * Default 256 KiB.
   */
  readonly recordBytes?: number | undefined;
}

const recordBytesDefault = 256 * 1024;

/**
 * The same place, with what is saved there encrypted. What is loaded must be encrypted with a key of `key`, too: anything else is
 * `CHKPT_KEY`, unless `key` is a function that allows it. Parents of what is loaded are opened with the same keys.
 *
 * Throws `TypeError` for a store that is encrypted already, and for what is no key. A save is `CHKPT_UNSUPPORTED` for a store that looks into
 * what it keeps (`dir+pool:`, formats of others).
 */
export function encrypted(target: string | Store, options: EncryptOptions): Store {
  const store = typeof target === 'string' ? openStore(target) : target;
  const { key, algorithm = 'aes-256-gcm', recordBytes = recordBytesDefault } = options;
  checkSource(key);
  encodeSealed({ algorithm, recordBytes, keyId: new Uint8Array(), salt: new Uint8Array() });
  if (store.isSealed === true) throw new TypeError(`${store.url} is encrypted already`);
  return guardStore(new SealedStore(store, { key, algorithm, recordBytes }), store.url);
}

type SealSettings = { readonly [K in keyof EncryptOptions]-?: NonNullable<EncryptOptions[K]> };

class SealedStore implements Store {
  readonly url: string;
  readonly isSealed = true;
  readonly remove?: () => Promise<void>;
  readonly claims?: StoreClaims;
  readonly #inner: Store;
  readonly #options: SealSettings;

  constructor(inner: Store, options: SealSettings) {
    this.#inner = inner;
    this.#options = options;
    this.url = inner.url;
    if (inner.remove !== undefined) this.remove = async () => await inner.remove?.();
    if (inner.claims !== undefined) this.claims = inner.claims;
  }

  beside(url: string): Store {
    return encrypted(this.#inner.beside?.(url) ?? url, this.#options);
  }

  async openWriter(options: StoreWriteOptions): Promise<StoreWriter> {
    const { algorithm, recordBytes } = this.#options;
    if (this.#inner.readsFrames === true) {
      const what = 'this store looks into what it keeps, so that cannot be encrypted';
      throw new CheckpointError('CHKPT_UNSUPPORTED', what, { details: { store: this.url } });
    }
    const key = await keyForSave(this.#options.key, this.url);
    const header = encodeSealed({
      algorithm,
      recordBytes,
      keyId: keyIdOf(key),
      salt: randomBytes(saltBytes),
    });
    const keys = deriveKeys(key, header);
    sealHeader(header, keys);
    const inner = await this.#inner.openWriter(options);
    return await SealedWriter.open(inner, { algorithm, recordBytes, key: keys.record }, header);
  }

  async openReader(options: StoreReadOptions = {}): Promise<StoreReader> {
    if (this.#inner.readsFrames === true) await allowUnsealed(this.#options.key, this.url);
    const inner = await this.#inner.openReader(options);
    try {
      return this.#inner.readsFrames === true ? inner : await this.#open(inner);
    } catch (error) {
      await inner.refuse?.(error);
      await inner.close().catch(() => undefined);
      throw error;
    }
  }

  async #open(inner: StoreReader): Promise<StoreReader> {
    const hasPlaces = inner.readAt !== undefined && inner.byteLength !== undefined;
    const first = new Uint8Array(sealHeaderBytes);
    const byteCount = hasPlaces ? await readUpToAt(inner, 0, first) : await readUpTo(inner, first);
    const header = first.subarray(0, byteCount);
    if (!isSealed(header)) return await this.#openUnsealed(inner, header, hasPlaces);
    if (byteCount < sealHeaderBytes) throw truncated(this.url);
    const facts = decodeSealed(header, this.url);
    const keys = deriveKeys(await keyForLoad(this.#options.key, facts.keyId, this.url), header);
    checkHeader(header, keys, this.url);
    const cipher = { ...cipherOf(facts), key: keys.record };
    const layout = hasPlaces ? await this.#checkedLayout(inner, cipher) : undefined;
    return new SealedReader({ inner, cipher, header, layout, store: this.url });
  }

  /** What is no checkpoint at all is damage; what is one, a question of who may have put it there. */
  async #openUnsealed(inner: StoreReader, first: Uint8Array, hasPlaces: boolean): Promise<StoreReader> {
    const isStream = streamMagic.every((byte, index) => first[index] === byte);
    if (!isStream) {
      throw new CheckpointError('CHKPT_BAD_MAGIC', 'this is not a chkpt checkpoint', {
        details: { store: this.url, offset: 0 },
      });
    }
    await allowUnsealed(this.#options.key, this.url);
    return hasPlaces ? inner : new UnsealedReader(inner, first);
  }

  /** Before anything is read out of the middle it is known that nothing was cut off. */
  async #checkedLayout(inner: StoreReader, cipher: RecordCipher): Promise<ReturnType<typeof layoutOf>> {
    const storedBytes = inner.byteLength ?? 0;
    const layout = layoutOf(storedBytes, cipher.recordBytes);
    if (layout === undefined) throw truncated(this.url);
    const end = new Uint8Array(tagBytes);
    await readFullyAt(inner, storedBytes - tagBytes, end, this.url);
    checkEnd(cipher, layout.recordCount, layout.byteLength, end, this.url);
    return layout;
  }
}

function cipherOf({ algorithm, recordBytes }: SealHeader): Pick<RecordCipher, 'algorithm' | 'recordBytes'> {
  return { algorithm, recordBytes };
}

function checkSource(source: KeySource): void {
  if (typeof source === 'function') return;
  const keys = Array.isArray(source) ? source : [source];
  if (keys.length === 0) throw new TypeError('no key is given');
  for (const key of keys) keyObjectOf(key);
}
