/**
 * Guest memory as gzip files, one for each run of pages in a region, compressed and decompressed by native threads.
 *
 * What is written is many members, one for each `memberBytes` of memory and four of 4 KiB at the end, which any reader of gzip joins; the
 * table of them makes reading parallel, and verifies each before it is decoded. Memory is bounded, whatever the size of the guest.
 */
import { awaitNative, callNative, type NativeGzipImage, nativeAddon } from '../native/index.ts';
import { checkThreads, type GuestMemory } from './guest-memory.ts';

export interface GzipOptions {
  readonly signal?: AbortSignal | undefined;
  /** 1 to 64; default: number of processors. */
  readonly threads?: number | undefined;
  /** Told now and then how many pages are done, of all regions so far. */
  readonly onPages?: ((pageCount: number) => void) | undefined;
}

/** Bytes of one entry of a table. */
export const memberEntryBytes = 12;
/** Pages of memory at the end of a region that are members of their own. */
const smallMemberCount = 4;
const pageBytes = 4096;
const tellEveryMs = 100;

/** Members of so many bytes of memory; what `memory` and `memberBytes` have to do with a table. Units: bytes. */
export function memberCount(regionBytes: bigint, memberBytes: number): number {
  const small =
    regionBytes / BigInt(pageBytes) < BigInt(smallMemberCount)
      ? Number(regionBytes) / pageBytes
      : smallMemberCount;
  const large = Number(regionBytes) - small * pageBytes;
  return Math.ceil(large / memberBytes) + small;
}

/** Consecutive pages of one region; numbered through all regions. */
export interface PageRange {
  readonly first: number;
  readonly count: number;
}

export class GzipImage {
  readonly #image: GuestMemory;
  readonly #native: NativeGzipImage;
  readonly #options: GzipOptions;

  /** Throws `CHKPT_CLOSED`. */
  constructor(image: GuestMemory, options: GzipOptions = {}) {
    checkThreads(options.threads);
    this.#image = image;
    this.#options = options;
    this.#native = callNative(() => new (nativeAddon().GzipImage)(image.native));
  }

  /**
   * Writes pages to an open file, from its start on. Resolves to the table of the members. Rejects with
   * `CHKPT_ABORTED`, `CHKPT_MEMORY_SHORT`, and what writing fails with.
   */
  save({ first, count }: PageRange, descriptor: number, memberBytes: number): Promise<Uint8Array> {
    const threads = checkThreads(this.#options.threads);
    return this.#run(() => this.#native.save(first, count, descriptor, memberBytes, threads));
  }

  /**
   * Reads a file of which there is a table into pages. Rejects with `CHKPT_DIGEST`, `CHKPT_TRUNCATED`, `CHKPT_LIMIT`, `CHKPT_DECODE`,
   * … and the offset of the member. REQUIRES: as many entries as these pages have members.
   */
  loadMembers(
    { first, count }: PageRange,
    descriptor: number,
    table: Uint8Array,
    memberBytes: number,
  ): Promise<void> {
    const threads = checkThreads(this.#options.threads);
    return this.#run(() => this.#native.loadMembers(first, count, descriptor, table, memberBytes, threads));
  }

  /** Reads a file of any members, one thread. Rejects as `loadMembers`, and with `CHKPT_FORMAT`, `CHKPT_TRAILING_DATA`. */
  loadStream({ first, count }: PageRange, descriptor: number, fileBytes: number): Promise<void> {
    return this.#run(() => this.#native.loadStream(first, count, descriptor, fileBytes));
  }

  async #run<T>(call: () => Promise<T>): Promise<T> {
    const { signal, onPages } = this.#options;
    const cancel = (): void => this.#native.cancel();
    if (signal?.aborted === true) cancel();
    signal?.addEventListener('abort', cancel, { once: true });
    const tell = (): void => onPages?.(this.#native.pagesDone());
    const timer = onPages === undefined ? undefined : setInterval(tell, tellEveryMs);
    try {
      return await this.#image.hold(awaitNative(callNative(call)));
    } finally {
      clearInterval(timer);
      tell();
      signal?.removeEventListener('abort', cancel);
    }
  }
}
