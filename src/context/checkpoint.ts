/**
 * Opens a checkpoint in a store, to save or to load. The store is given as an object here; URLs are resolved
 * one layer up.
 */
import { randomUUID } from 'node:crypto';
import type { Digest64 } from '../format/digest.ts';
import type { ParentReference } from '../format/stream-header.ts';
import { formatUuid, parseUuid } from '../format/uuid.ts';
import type { Store } from '../store/store.ts';
import type { AlignedAllocator } from '../util/aligned-buffer.ts';
import { LoadCheckpoint } from './load-checkpoint.ts';
import type { MemoryFrameSink } from './memory-frames.ts';
import { skipMemorySink } from './portable-sink.ts';
import { SaveCheckpoint } from './save-checkpoint.ts';
import { callStore, checkAborted } from './store-call.ts';
import { StreamReader } from './stream-reader.ts';
import { StreamWriter } from './stream-writer.ts';

interface OpenOptions {
  readonly digest: Digest64;
  /** Cancels the whole save or load: every call under way or to come rejects with `CHKPT_ABORTED`. */
  readonly signal?: AbortSignal | undefined;
}

export interface OpenForSaveOptions extends OpenOptions {
  readonly mode: 'save';
  /** Text form. Default: random. */
  readonly uuid?: string | undefined;
  /** Milliseconds since 1970-01-01T00:00:00Z; 0 tells nothing. Default: now. */
  readonly createdMs?: number | undefined;
  /** The checkpoint this one builds on. */
  readonly parent?: ParentReference | undefined;
  /** Greater than the parent's; 0, the default, without parent. */
  readonly epoch?: bigint | undefined;
  /** False leaves the index out. Default true. */
  readonly index?: boolean | undefined;
}

export interface OpenForLoadOptions extends OpenOptions {
  readonly mode: 'load';
  /**
   * Where guest memory goes that stands before what is loaded and that `loadMemory` was not called for. True
   * verifies it and keeps nothing. Default: such memory is an error.
   */
  readonly skipMemory?: MemoryFrameSink | true | undefined;
  /** Gives read buffers whose start is aligned. */
  readonly allocator?: AlignedAllocator | undefined;
}

/** Starts a save. Throws what the store throws, TypeError or RangeError for options that cannot be. */
export function openCheckpoint(store: Store, options: OpenForSaveOptions): Promise<SaveCheckpoint>;
/** Starts a load: the stream header is read and verified. */
export function openCheckpoint(store: Store, options: OpenForLoadOptions): Promise<LoadCheckpoint>;
export async function openCheckpoint(
  store: Store,
  options: OpenForSaveOptions | OpenForLoadOptions,
): Promise<SaveCheckpoint | LoadCheckpoint> {
  checkAborted(options.signal, store.url);
  switch (options.mode) {
    case 'save':
      return await openForSave(store, options);
    case 'load':
      return await openForLoad(store, options);
    default:
      throw new TypeError(
        `mode must be 'save' or 'load', not ${String((options as { mode: unknown }).mode)}`,
      );
  }
}

async function openForSave(store: Store, options: OpenForSaveOptions): Promise<SaveCheckpoint> {
  const { digest, signal, parent, epoch, index, createdMs = Date.now() } = options;
  const uuid = formatUuid(parseUuid(options.uuid ?? randomUUID()));
  const storeWriter = await callStore(store.url, 'opening', () => store.openWriter({ uuid, signal }));
  const writer = await StreamWriter.open(storeWriter, {
    uuid,
    digest,
    parent,
    epoch,
    index,
    createdMs,
    store: store.url,
  });
  return new SaveCheckpoint(writer, store.url, signal);
}

async function openForLoad(store: Store, options: OpenForLoadOptions): Promise<LoadCheckpoint> {
  const { digest, allocator, skipMemory } = options;
  const stop = new AbortController();
  const signal = AbortSignal.any([stop.signal, ...(options.signal === undefined ? [] : [options.signal])]);
  const storeReader = await callStore(store.url, 'opening', () => store.openReader({ signal }));
  const reader = new StreamReader(storeReader, { digest, allocator, signal, store: store.url });
  try {
    const item = await reader.next();
    if (item?.kind !== 'header') throw new TypeError('a stream starts with its header');
    const skip = skipMemory === true ? skipMemorySink(digest) : skipMemory;
    return new LoadCheckpoint(reader, item.header, store.url, skip, stop);
  } catch (error) {
    await reader.close().catch(() => undefined);
    throw error;
  }
}
