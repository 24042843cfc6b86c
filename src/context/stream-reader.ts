/**
 * Reads one checkpoint forward and verifies everything that docs/format.md asks for: digests, order, names,
 * counts, root digest, index, footer, and that the stream ends where it should.
 *
 * What `next()` yields has matching digests and keeps all rules so far, but the checkpoint as a whole is only
 * known to be sound when the item `end` was yielded. The first error ends the reader; later calls reject with
 * the same one.
 *
 * Calls come one at a time. Memory: the read buffer, one value, and the index of what was read.
 */
import { createHash } from 'node:crypto';
import { CheckpointError, type ErrorDetails, withDetails } from '../errors/index.ts';
import { checkEqual, checkLimit, formatError, type Place } from '../format/bytes.ts';
import { type ContextKind, frameTypes, isUnknownOptionalType } from '../format/constants.ts';
import type { Digest64 } from '../format/digest.ts';
import { checkEnd, decodeEnd, type EndCounts } from '../format/end.ts';
import { checkKnown, contextKindOf, illegalFrame, placeOf } from '../format/frame-order.ts';
import { type Frame, FrameQueue, readBytesDefault } from '../format/frame-queue.ts';
import { IndexBuilder } from '../format/index-document.ts';
import { decodeName } from '../format/names.ts';
import { noPages, type PageTotals } from '../format/page-sequence.ts';
import { countPages, decodeRegionTable, type Region } from '../format/region-table.ts';
import type { StreamHeader } from '../format/stream-header.ts';
import { checkContextClose, parseTagFrame, parseTagMoreFrame } from '../format/tag-frame.ts';
import { hexOf } from '../format/uuid.ts';
import { checkValue, type ValueType } from '../format/value.ts';
import { contextCountMax, pageBytes, tagCountMax, valueBytesMax } from '../limits.ts';
import type { StoreReader } from '../store/store.ts';
import type { AlignedAllocator } from '../util/aligned-buffer.ts';
import { GrowingBytes } from '../util/growing-bytes.ts';
import type { DirectInput, MemoryFrameSink } from './memory-frames.ts';
import { callStore, checkAborted } from './store-call.ts';
import { type MemoryExtent, readTail } from './stream-tail.ts';

export interface StreamReaderOptions {
  readonly digest: Digest64;
  /** URL of the store, for errors. */
  readonly store?: string | undefined;
  readonly signal?: AbortSignal | undefined;
  /** Bytes asked of the store at once. Default 256 KiB. */
  readonly bufferBytes?: number | undefined;
  /** Gives buffers whose start is aligned, for faster reads. */
  readonly allocator?: AlignedAllocator | undefined;
  /** False: a sender who waits to hear of the end hears it from somebody else, when more than verifying is done. Default true. */
  readonly answers?: boolean | undefined;
}

/** What a whole, verified stream amounts to. */
export interface StreamSummary {
  readonly header: StreamHeader;
  /** Root digest, hexadecimal. */
  readonly root: string;
  readonly counts: EndCounts;
  /** Bytes of the whole stream. */
  readonly bytes: number;
  /** True when the stream has an index. */
  readonly indexed: boolean;
}

export type StreamItem =
  | { readonly kind: 'header'; readonly header: StreamHeader }
  | ContextOpenItem
  | TagItem
  | { readonly kind: 'context-close'; readonly name: string; readonly count: number }
  | { readonly kind: 'end'; readonly summary: StreamSummary };

/**
 * A context begins. One of kind `memory` has its regions, and `readMemory()` must come before the next
 * `next()`.
 */
export interface ContextOpenItem {
  readonly kind: 'context-open';
  readonly name: string;
  readonly contextKind: ContextKind;
  /** Offset of the CONTEXT_OPEN frame. */
  readonly offset: number;
  /** Empty for kind `values`. */
  readonly regions: readonly Region[];
}

export interface TagItem {
  readonly kind: 'tag';
  readonly name: string;
  readonly type: ValueType;
  /** Owned by the receiver. */
  readonly data: Uint8Array;
  /** Offset of the TAG frame. */
  readonly offset: number;
}

type Phase = 'start' | 'between' | 'values' | 'pages' | 'pages-done' | 'done';

interface OpenContext {
  readonly name: string;
  readonly ordinal: number;
  readonly offset: number;
  readonly regions: readonly Region[];
  readonly tags: Set<string>;
}

/** A small checkpoint needs no large buffer: a page more than it has, so that its end is found by the same read. */
function readBytesFor(byteLength: number | undefined): number {
  return Math.min(readBytesDefault, (byteLength ?? readBytesDefault) + pageBytes);
}

export class StreamReader {
  readonly #reader: StoreReader;
  readonly #options: StreamReaderOptions;
  readonly #queue: FrameQueue;
  readonly #rootHash = createHash('sha256');
  readonly #index = new IndexBuilder();
  readonly #names = new Set<string>();
  #phase: Phase = 'start';
  #busy = false;
  #failure: { readonly error: unknown } | undefined;
  #header: StreamHeader | undefined;
  #context: OpenContext | undefined;
  #tagCount = 0;
  #valueBytes = 0;
  #totals: PageTotals = noPages;
  #memory: MemoryExtent | undefined;

  constructor(reader: StoreReader, options: StreamReaderOptions) {
    this.#reader = reader;
    this.#options = options;
    const bufferBytes = options.bufferBytes ?? readBytesFor(reader.byteLength);
    this.#queue = new FrameQueue(options.digest, bufferBytes, options.allocator);
  }

  /** Bytes of the stream taken so far. */
  get offset(): number {
    return this.#queue.offset;
  }

  /**
   * The next item; `undefined` after `end`. Throws every error of kind `damaged`, `CHKPT_VERSION`, and the
   * store's.
   */
  async next(): Promise<StreamItem | undefined> {
    if (this.#phase === 'pages') this.#refuse('readMemory() must come before next()');
    return await this.#run(async () => {
      switch (this.#phase) {
        case 'start':
          return await this.#readHeader();
        case 'between':
          return await this.#readBetween();
        case 'values':
          return await this.#readInValues();
        case 'pages-done':
          return this.#closeContext(await this.#frame(), this.#totals.pages);
        default:
          return undefined;
      }
    });
  }

  /** Passes the pages of the memory context that was just opened to `sink`. Throws what the sink throws. */
  async readMemory(sink: MemoryFrameSink): Promise<PageTotals> {
    if (this.#phase !== 'pages') this.#refuse('readMemory() without an open memory context');
    return await this.#run(() => this.#passMemory(sink));
  }

  /** Items up to `end`. A memory context needs `readMemory()` in the body of the loop. */
  async *[Symbol.asyncIterator](): AsyncGenerator<StreamItem, void> {
    for (let item = await this.next(); item !== undefined; item = await this.next()) yield item;
  }

  /** Closes the store's reader. */
  async close(): Promise<void> {
    await callStore(this.#options.store, 'closing', () => this.#reader.close());
  }

  /** For a call out of order, unless the reader has ended with an error before. */
  #refuse(what: string): void {
    if (this.#failure === undefined) throw new TypeError(what);
  }

  async #run<T>(action: () => Promise<T>): Promise<T> {
    if (this.#busy) throw new TypeError('StreamReader: the call before has not resolved yet');
    if (this.#failure !== undefined) throw this.#failure.error;
    this.#busy = true;
    try {
      return await action();
    } catch (error) {
      const place: ErrorDetails = { store: this.#options.store, context: this.#context?.name };
      this.#failure = { error: withDetails(error, place) };
      if (this.#options.answers !== false) await this.#reader.refuse?.(this.#failure.error);
      throw this.#failure.error;
    } finally {
      this.#busy = false;
    }
  }

  async #readHeader(): Promise<StreamItem> {
    let taken = this.#queue.takeStreamHeader();
    while (taken === undefined) {
      await this.#fill();
      taken = this.#queue.takeStreamHeader();
    }
    this.#rootHash.update(taken.bytes);
    this.#header = taken.header;
    this.#phase = 'between';
    return { kind: 'header', header: taken.header };
  }

  async #readBetween(): Promise<StreamItem> {
    const frame = await this.#frame();
    switch (frame.header.type) {
      case frameTypes.contextOpen:
        return await this.#openContext(frame);
      case frameTypes.end:
        return await this.#readEnd(frame);
      default:
        throw illegalFrame(frame, 'between contexts');
    }
  }

  async #readInValues(): Promise<StreamItem> {
    const frame = await this.#frame();
    switch (frame.header.type) {
      case frameTypes.tag:
        return await this.#readTag(frame);
      case frameTypes.contextClose:
        return this.#closeContext(frame, this.#context?.tags.size ?? 0);
      default:
        throw illegalFrame(frame, 'in a value context');
    }
  }

  async #openContext(frame: Frame): Promise<StreamItem> {
    const { header, payload, offset } = frame;
    const place = placeOf(frame);
    const ordinal = this.#names.size;
    checkLimit(ordinal + 1, contextCountMax, 'the number of contexts', place);
    checkEqual(header.arg0, ordinal, 'ordinal of a CONTEXT_OPEN frame', place);
    const contextKind = contextKindOf(frame);
    const name = decodeName(payload, place);
    if (this.#names.has(name)) throw formatError(`context ${name} stands twice`, place);
    this.#names.add(name);
    this.#index.openContext(offset, contextKind, payload);
    const regions = contextKind === 'memory' ? await this.#readRegions(place) : [];
    this.#context = { name, ordinal, offset, regions, tags: new Set() };
    this.#phase = contextKind === 'memory' ? 'pages' : 'values';
    return { kind: 'context-open', name, contextKind, offset, regions };
  }

  async #readRegions(open: Place): Promise<readonly Region[]> {
    if (this.#memory !== undefined) throw formatError('a second memory context', open);
    const frame = await this.#frame('exact');
    if (frame.header.type !== frameTypes.regionTable) throw illegalFrame(frame, 'in place of a region table');
    const regions = decodeRegionTable(frame.header, frame.payload, placeOf(frame));
    this.#memory = { start: this.#queue.offset, end: this.#queue.offset, regions, groups: undefined };
    return regions;
  }

  #closeContext(frame: Frame, count: number): StreamItem {
    const context = this.#context;
    if (context === undefined || frame.header.type !== frameTypes.contextClose) {
      throw illegalFrame(frame, 'at the end of a context');
    }
    checkContextClose(frame.header, context.ordinal, count, placeOf(frame));
    this.#context = undefined;
    this.#phase = 'between';
    return { kind: 'context-close', name: context.name, count };
  }

  async #readTag(first: Frame): Promise<StreamItem> {
    const { offset } = first;
    const place = placeOf(first);
    const { tag, tagBytes, type, dataBytes, piece } = parseTagFrame(first);
    const tags = this.#context?.tags ?? new Set();
    if (tags.has(tag)) throw formatError(`tag ${tag} stands twice`, { ...place, tag });
    checkLimit(this.#tagCount + 1, tagCountMax, 'the number of tags', place);
    checkLimit(this.#valueBytes + dataBytes, valueBytesMax, 'the bytes of all values', { ...place, tag });
    tags.add(tag);
    this.#tagCount += 1;
    this.#valueBytes += dataBytes;
    this.#index.tag(offset, dataBytes, type, tagBytes);

    const value = new GrowingBytes(dataBytes);
    value.append(piece);
    while (!value.isComplete) {
      const frame = await this.#frame('exact');
      checkKnown(frame);
      value.append(parseTagMoreFrame(frame, dataBytes, value.length));
    }
    const data = value.take();
    checkValue(type, data, { ...place, tag });
    return { kind: 'tag', name: tag, type, data, offset };
  }

  async #passMemory(sink: MemoryFrameSink): Promise<PageTotals> {
    const queue = this.#queue;
    const regions = this.#context?.regions ?? [];
    const { binding, buffered } = queue;
    const position = {
      uuid: binding.uuid,
      epoch: binding.epoch,
      sequence: queue.sequence,
      offset: queue.offset,
    };
    let pulled = buffered.length;
    let digested = 0;
    const input = {
      buffered,
      read: async (target: Uint8Array): Promise<number> => {
        const count = await this.#read(target);
        pulled += count;
        return count;
      },
      direct: this.#direct(queue.offset + buffered.length, (byteCount) => {
        pulled += byteCount;
      }),
    };
    const onDigests = (digests: Uint8Array, frameCount: number): void => {
      this.#rootHash.update(digests);
      digested += digests.length === 8 * frameCount ? frameCount : Number.NaN;
    };
    const result = await sink.consume(position, regions, input, onDigests, this.#options.signal);
    const { frameCount, byteCount, leftover, totals, groups } = result;
    if (digested !== frameCount || byteCount + leftover.length !== pulled) {
      throw new CheckpointError('CHKPT_INTERNAL', 'a memory sink lost count of its frames');
    }
    queue.resume(frameCount, byteCount, leftover);
    await this.#checkCoverage(totals.pages, countPages(regions));
    this.#memory = { start: position.offset, end: queue.offset, regions, groups };
    this.#totals = totals;
    this.#phase = 'pages-done';
    return totals;
  }

  /** Where native threads can read on, from an offset of the stream. */
  #direct(offset: number, took: (byteCount: number) => void): DirectInput | undefined {
    const reader = this.#reader;
    const { skip } = reader;
    if (skip === undefined) return undefined;
    let start = 0;
    for (const extent of reader.extents?.() ?? []) {
      const before = offset - start;
      start += extent.bytes;
      if (start <= offset) continue;
      if ('view' in extent) return undefined;
      const isFile = 'descriptor' in extent;
      return {
        from: isFile ? extent.descriptor : extent.source,
        position: (isFile ? extent.position : 0) + before,
        bytes: extent.bytes - before,
        took: (byteCount) => {
          reader.skip?.(byteCount);
          took(byteCount);
        },
      };
    }
    return undefined;
  }

  /** When pages are missing, tells a stream that ends early from one that is wrong. */
  async #checkCoverage(pages: number, expected: number): Promise<void> {
    if (pages === expected) return;
    while (this.#queue.take() === undefined) await this.#fill();
    const { sequence, offset } = this.#queue;
    checkEqual(pages, expected, 'number of pages covered', { frame: sequence - 1, offset });
  }

  async #readEnd(frame: Frame): Promise<StreamItem> {
    const place = placeOf(frame);
    const end = decodeEnd(frame);
    const root = this.#rootHash.digest();
    const counts = {
      ...countsOf(this.#totals),
      contexts: this.#names.size,
      tags: this.#tagCount,
    };
    checkEnd(end, root, counts, place);
    await readTail(end, frame.offset, this.#index, this.#memory, {
      queue: this.#queue,
      fill: () => this.#fill(),
    });
    await this.#checkStreamEnd();
    this.#phase = 'done';
    const header = this.#header;
    if (header === undefined) throw new TypeError('END without a header');
    const received = { uuid: header.uuid, root: hexOf(root), bytes: this.#queue.offset };
    if (this.#options.answers !== false) await this.#reader.acknowledge?.(received);
    const { bytes } = received;
    const summary = { header, root: received.root, counts, bytes, indexed: end.tailBytes > 0 };
    return { kind: 'end', summary };
  }

  async #checkStreamEnd(): Promise<void> {
    const rest = this.#queue.buffered.length > 0 ? 1 : await this.#read(this.#queue.space());
    if (rest === 0) return;
    throw new CheckpointError('CHKPT_TRAILING_DATA', 'bytes follow the end of the checkpoint', {
      details: { offset: this.#queue.offset },
    });
  }

  /**
   * The next frame, hashed into the root digest unless it is END. Passes over unknown optional frames unless
   * `exact`.
   */
  async #frame(mode: 'any' | 'exact' = 'any'): Promise<Frame> {
    for (;;) {
      const frame = this.#queue.take();
      if (frame === undefined) {
        await this.#fill();
        continue;
      }
      if (frame.header.type !== frameTypes.end) this.#rootHash.update(frame.digest);
      if (mode === 'exact' || !isUnknownOptionalType(frame.header.type)) return frame;
    }
  }

  async #fill(): Promise<void> {
    const count = await this.#read(this.#queue.space());
    this.#queue.filled(count);
    if (count > 0) return;
    const { sequence, offset, buffered } = this.#queue;
    throw new CheckpointError('CHKPT_TRUNCATED', 'the stream ends early', {
      details: { frame: sequence, offset: offset + buffered.length },
    });
  }

  async #read(target: Uint8Array): Promise<number> {
    const { store, signal } = this.#options;
    checkAborted(signal, store);
    const count = await callStore(store, 'reading', () => this.#reader.read(target));
    if (Number.isInteger(count) && count >= 0 && count <= target.length) return count;
    throw new CheckpointError('CHKPT_STORE_FAILED', 'the store read an impossible number of bytes', {
      details: { store, actual: count },
    });
  }
}

function countsOf({
  pages,
  zeroPages,
  fillPages,
  storedPages,
  samePages,
  parentPages,
  encodedBytes,
}: PageTotals): PageTotals {
  return { pages, zeroPages, fillPages, storedPages, samePages, parentPages, encodedBytes };
}
