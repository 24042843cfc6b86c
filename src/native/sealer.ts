/** Encryption of sealed streams by native threads: native/binding/seal_wrap.h. */

export interface NativeRecordSealer {
  /** `pieces`: whole records. `out`: room for each of them with a tag behind it. All stay as they are until it is done. */
  seal(firstRecord: number, pieces: readonly Uint8Array[], out: Uint8Array): Promise<void>;
}

/** `algorithm`: 1 AES-256-GCM, 2 ChaCha20-Poly1305. Throws CHKPT_UNSUPPORTED where Node's OpenSSL is not found. */
export type NativeRecordSealerClass = new (
  algorithm: 1 | 2,
  key: Uint8Array,
  recordBytes: number,
) => NativeRecordSealer;
