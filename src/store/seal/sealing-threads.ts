/**
 * Whole records, encrypted by native threads while JavaScript does something else: the records of one stream are messages of their own, so
 * their order is only that in which they are written.
 *
 * Bounds: three jobs of 1 MiB (or one record, if that is more), and their ciphertext.
 */
import { awaitNative, type NativeRecordSealer, nativeAddon } from '../../native/index.ts';
import { allocateAligned } from '../../util/aligned-buffer.ts';
import { tagBytes } from './seal-header.ts';
import type { RecordCipher } from './seal-record.ts';

const jobBytesTarget = 1024 * 1024;
const jobsMax = 3;

export interface SealedRecords {
  /** Ciphertext of each record, its tag behind it. */
  readonly stored: Uint8Array;
  readonly tags: readonly Uint8Array[];
}

export class SealingThreads {
  readonly #sealer: NativeRecordSealer;
  readonly #recordBytes: number;
  /** Resolve to memory that is free again, the one that was used first in front. */
  readonly #used: Promise<Uint8Array>[] = [];

  private constructor(sealer: NativeRecordSealer, recordBytes: number) {
    this.#sealer = sealer;
    this.#recordBytes = recordBytes;
  }

  /** Undefined where native code does not find the ciphers of Node. */
  static of({ algorithm, key, recordBytes }: RecordCipher): SealingThreads | undefined {
    const bytes = key.export();
    try {
      const { RecordSealer } = nativeAddon();
      return new SealingThreads(
        new RecordSealer(algorithm === 'aes-256-gcm' ? 1 : 2, bytes, recordBytes),
        recordBytes,
      );
    } catch {
      return undefined;
    } finally {
      bytes.fill(0);
    }
  }

  /** Records of one job out of so many bytes. */
  recordsIn(byteCount: number): number {
    const most = Math.max(1, Math.floor(jobBytesTarget / this.#recordBytes));
    return Math.min(most, Math.floor(byteCount / this.#recordBytes));
  }

  /** Room for the ciphertext of one job, when there is some. */
  async room(): Promise<Uint8Array> {
    if (this.#used.length >= jobsMax) return (await this.#used.shift()) as Uint8Array;
    const records = Math.max(1, this.recordsIn(jobBytesTarget));
    return allocateAligned(records * (this.#recordBytes + tagBytes));
  }

  /** Starts at once. `pieces`, whole records of which the first has number `first`, are the caller's again when it has ended. */
  async seal(
    first: number,
    records: number,
    pieces: readonly Uint8Array[],
    room: Uint8Array,
  ): Promise<SealedRecords> {
    const storedBytes = this.#recordBytes + tagBytes;
    const stored = room.subarray(0, records * storedBytes);
    await awaitNative(this.#sealer.seal(first, pieces, stored));
    const tags = Array.from({ length: records }, (_, index) =>
      stored.subarray((index + 1) * storedBytes - tagBytes, (index + 1) * storedBytes),
    );
    return { stored, tags };
  }

  /** `room` is free when `done` has resolved, which it must. Called in the order of the jobs. */
  giveBack(room: Uint8Array, done: Promise<void>): void {
    this.#used.push(done.then(() => room));
  }
}
