/**
 * Whole records, encrypted by native threads while JavaScript does something else: the records of one stream are messages of their own, so
 * their order is only that in which they are written, and where the store says where that is, threads do that too.
 *
 * Bounds: three jobs of 1 MiB (or one record, if that is more), and their ciphertext.
 */
import { errnoName } from '../../errors/index.ts';
import { awaitNative, type NativeRecordSealer, nativeAddon } from '../../native/index.ts';
import { allocateAligned } from '../../util/aligned-buffer.ts';
import type { DirectOutput } from '../store.ts';
import { tagBytes } from './seal-header.ts';
import type { RecordCipher } from './seal-record.ts';

const jobBytesTarget = 1024 * 1024;
const jobsMax = 3;

/** Whole records of a stream. */
export interface RecordJob {
  readonly first: number;
  readonly records: number;
  readonly pieces: readonly Uint8Array[];
  /** Where their ciphertext goes. */
  readonly room: Uint8Array;
  /** Of the first one in what is written. */
  readonly offset: number;
}

export interface SealedRecords {
  /** Ciphertext of each record, its tag behind it. */
  readonly stored: Uint8Array;
  readonly tags: readonly Uint8Array[];
  /** Of the write, with its errno code as `code`. */
  readonly failure: Error | undefined;
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

  /** Jobs that are started from now on write into the file themselves. Undefined: nobody but their caller can. */
  direct(output: DirectOutput | undefined): DirectOutput | undefined {
    if (typeof output?.descriptor === 'number' && this.#sealer.writeTo(output.descriptor, output.position))
      return output;
    this.#sealer.stayInMemory();
    return undefined;
  }

  /** Starts at once. The pieces are the caller's again when it has ended. */
  async seal({ first, records, pieces, room, offset }: RecordJob): Promise<SealedRecords> {
    const storedBytes = this.#recordBytes + tagBytes;
    const stored = room.subarray(0, records * storedBytes);
    const errno = await awaitNative(this.#sealer.seal(first, pieces, stored, offset));
    const tags = Array.from({ length: records }, (_, index) =>
      stored.subarray((index + 1) * storedBytes - tagBytes, (index + 1) * storedBytes),
    );
    return { stored, tags, failure: errno === 0 ? undefined : writeError(errno) };
  }

  /** `room` is free when `done` has resolved, which it must. Called in the order of the jobs. */
  giveBack(room: Uint8Array, done: Promise<void>): void {
    this.#used.push(done.then(() => room));
  }
}

function writeError(errno: number): Error {
  return Object.assign(new Error('cannot write what was encrypted'), { code: errnoName(errno) ?? 'EIO' });
}
