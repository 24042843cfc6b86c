/** Encryption of sealed streams by native threads: native/binding/seal_wrap.h. */

export interface NativeRecordSealer {
  /** What is sealed from now on is written into this file too; false: there is no descriptor to spare. */
  writeTo(descriptor: number, position: number): boolean;
  /** It is not any more. */
  stayInMemory(): void;
  /**
   * `pieces`: whole records. `out`: room for each of them with a tag behind it. All stay as they are until it is done. `offset`: bytes
   * behind the position of `writeTo`. Resolves to the errno of a write that failed, or 0.
   */
  seal(firstRecord: number, pieces: readonly Uint8Array[], out: Uint8Array, offset: number): Promise<number>;
}

/** `algorithm`: 1 AES-256-GCM, 2 ChaCha20-Poly1305. Throws CHKPT_UNSUPPORTED where Node's OpenSSL is not found. */
export type NativeRecordSealerClass = new (
  algorithm: 1 | 2,
  key: Uint8Array,
  recordBytes: number,
) => NativeRecordSealer;
