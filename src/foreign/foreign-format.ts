/**
 * What a checkpoint format of somebody else has to do to be a store: take and give contexts, tags and guest memory as a whole. It knows
 * nothing of the native stream; `foreign-store.ts` translates.
 */
import type { MemoryRegion } from '../context/memory-frames.ts';
import type { ValueType } from '../format/value.ts';
import type { GuestMemory } from '../memory/index.ts';
import type { Integrity } from '../store/index.ts';

/** A value, in the encoding of docs/format.md section 5. */
export interface ForeignTag {
  readonly name: string;
  readonly type: ValueType;
  readonly data: Uint8Array;
}

export interface ForeignContext {
  readonly name: string;
  readonly tags: readonly ForeignTag[];
}

/** A checkpoint but for the pages of its memory. */
export interface ForeignContent {
  /** Text form. A format that has none derives it from what it has: the same files give the same. */
  readonly uuid: string;
  /** Milliseconds since 1970-01-01T00:00:00Z; 0: not known. */
  readonly createdMs: number;
  /** In the order of the stream, memory left out. */
  readonly contexts: readonly ForeignContext[];
  readonly memory: ForeignMemory | undefined;
}

export interface ForeignMemory {
  /** Name of the memory context. */
  readonly name: string;
  /** So many contexts stand before it. */
  readonly at: number;
  readonly regions: readonly MemoryRegion[];
}

export interface ForeignMemoryOptions {
  readonly signal: AbortSignal | undefined;
  /** Worker threads; default: number of processors. */
  readonly threads?: number | undefined;
  /** Told now and then how many pages are done. */
  readonly onPages?: ((pageCount: number) => void) | undefined;
  /** Of a writer: the contexts that stand before memory, where they are known by now: of memory that comes as frames. */
  readonly before?: readonly ForeignContext[] | undefined;
}

/** One save. Calls come one at a time. Nothing is visible before `commit` resolves. */
export interface ForeignWriter {
  /**
   * Takes guest memory: at most once, before `commit`. All of it was read when the promise resolves: the guest may go on then, and the
   * image may be closed.
   */
  memory(name: string, image: GuestMemory, options: ForeignMemoryOptions): Promise<void>;
  /** Everything else; makes the checkpoint visible, and durable where the store is durable. Returns the bytes it takes in all. */
  commit(content: ForeignContent): Promise<number>;
  /** Nothing remains. Safe twice, and after a failure of any other call. */
  abort(): Promise<void>;
}

/** One load: everything but memory has been read and checked. */
export interface ForeignReading extends ForeignContent {
  readonly integrity: Integrity;
  /** Fills `image`, which is zero everywhere and has the regions of `memory`. Throws errors of kind `damaged`. */
  readMemory(image: GuestMemory, options: ForeignMemoryOptions): Promise<void>;
  close(): Promise<void>;
}

export interface ForeignFormat {
  /** Folder for a scratch file of the size of guest memory, unless the system's. */
  readonly scratchFolder?: string | undefined;
  createWriter(options: {
    readonly uuid: string;
    readonly signal?: AbortSignal | undefined;
  }): Promise<ForeignWriter>;
  /** Throws `CHKPT_NOT_FOUND`, errors of kind `damaged`. */
  openReading(options: { readonly signal?: AbortSignal | undefined }): Promise<ForeignReading>;
  /** As `Store.remove`. */
  remove?(): Promise<void>;
}
