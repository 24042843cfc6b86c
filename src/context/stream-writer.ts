/**
 * Writes one checkpoint into a store: header, contexts, END, index and footer, with the rules of the model
 * enforced here so that every producer keeps them: one context open at a time, none opened twice, no tag
 * twice, all limits.
 *
 * A broken rule is an error before anything was written, and the writer goes on. After any other error
 * nothing but `abort()` is possible. Calls come one at a time.
 */
import { CheckpointError, type ErrorDetails } from '../errors/index.ts';
import { contextKinds, endPayloadBytes, frameTypes } from '../format/constants.ts';
import type { Digest64 } from '../format/digest.ts';
import { type EndCounts, encodeEnd, indexFrameBytes, tailBytesOf } from '../format/end.ts';
import { encodeFooter } from '../format/footer.ts';
import { FrameBinding } from '../format/frame-header.ts';
import { IndexBuilder } from '../format/index-document.ts';
import { encodeName } from '../format/names.ts';
import { noPages, type PageTotals } from '../format/page-sequence.ts';
import { countPages, encodeRegionTable } from '../format/region-table.ts';
import { encodeStreamHeader, type ParentReference } from '../format/stream-header.ts';
import { encodeTagPrefix, pieceBytes, tagPrefixBytes } from '../format/tag-frame.ts';
import { formatUuid, hexOf, parseUuid } from '../format/uuid.ts';
import { faultOfValue, type ValueType, valueTypeCode } from '../format/value.ts';
import { contextCountMax, pageBytes, tagCountMax, tagPieceBytesMax, valueBytesMax } from '../limits.ts';
import type { CommitSummary, StoreWriter } from '../store/store.ts';
import { FrameOutput } from './frame-output.ts';
import type { IndexGroup, MemoryFrameSource, MemoryFrameStream } from './memory-frames.ts';
import { callStore, checkAborted } from './store-call.ts';

export interface StreamWriterOptions {
  /** Text form. */
  readonly uuid: string;
  readonly digest: Digest64;
  /** The checkpoint this one builds on; goes with an epoch above 0. */
  readonly parent?: ParentReference | undefined;
  /** 0 without parent. */
  readonly epoch?: bigint | undefined;
  /** Milliseconds since 1970-01-01T00:00:00Z; 0, the default, tells nothing. */
  readonly createdMs?: number | undefined;
  /** False leaves index and footer out. Default true. */
  readonly index?: boolean | undefined;
  /** URL of the store, for errors. */
  readonly store?: string | undefined;
}

/** How far a memory context is. Bytes. */
export interface MemoryProgress {
  /** Bytes of page frames written. */
  readonly writtenBytes: number;
  /** Bytes of guest memory in all regions. */
  readonly memoryBytes: bigint;
}

/** A value that is about to be saved. */
export interface EncodedTag {
  readonly tag: string;
  readonly type: ValueType;
  /** Read until the call that saves it has resolved. */
  readonly data: Uint8Array;
}

/** A checkpoint that is complete and visible. */
export interface StreamWritten extends CommitSummary {
  /** Bytes that it takes in the store. */
  readonly storedBytes: number;
}

type State = 'open' | 'busy' | 'failed' | 'committed' | 'aborted';

interface OpenContext {
  readonly name: string;
  readonly tags: Set<string>;
}

export class StreamWriter {
  readonly #output: FrameOutput;
  readonly #options: StreamWriterOptions;
  readonly #index = new IndexBuilder();
  readonly #groups: IndexGroup[] = [];
  readonly #names = new Set<string>();
  #state: State = 'open';
  #failure: unknown;
  #context: OpenContext | undefined;
  #tagCount = 0;
  #valueBytes = 0;
  #totals: PageTotals = noPages;
  #hasMemory = false;

  private constructor(output: FrameOutput, options: StreamWriterOptions) {
    this.#output = output;
    this.#options = options;
  }

  /** Writes the stream header. When that fails the store's writer is aborted. */
  static async open(writer: StoreWriter, options: StreamWriterOptions): Promise<StreamWriter> {
    try {
      const { digest, parent, epoch = 0n, createdMs = 0 } = options;
      const uuid = parseUuid(options.uuid);
      const header = encodeStreamHeader({ uuid: options.uuid, parent, epoch, createdMs }, digest);
      const output = new FrameOutput(writer, new FrameBinding(uuid, epoch, digest), options.store);
      await output.beginSegment({ kind: 'start', name: 'start' });
      await output.header(header);
      await output.endSegment();
      return new StreamWriter(output, { ...options, uuid: formatUuid(uuid) });
    } catch (error) {
      await callStore(options.store, 'aborting', () => writer.abort()).catch(() => undefined);
      throw error;
    }
  }

  /** Text form, lower case. */
  get uuid(): string {
    return this.#options.uuid;
  }

  /** False after a failure, `finish()` or `abort()`. */
  get isUsable(): boolean {
    return this.#state === 'open';
  }

  /** Bytes of the stream so far. */
  get byteCount(): number {
    return this.#output.position.offset;
  }

  /**
   * Throws `CHKPT_CONTEXT_OPEN`, `CHKPT_CONTEXT_REOPENED`, `CHKPT_NAME`, `CHKPT_VALUE_RANGE`, `CHKPT_CLOSED`.
   */
  async openContext(name: string): Promise<void> {
    this.#checkState();
    const nameBytes = this.#checkNewContext(name);
    await this.#write(async () => {
      await this.#output.beginSegment({ kind: 'values', name });
      await this.#writeContextOpen(name, nameBytes, 'values');
    });
    this.#context = { name, tags: new Set() };
  }

  /** Saves one value. Throws `CHKPT_TAG_DUPLICATE`, `CHKPT_NAME`, `CHKPT_VALUE_RANGE`, … */
  async tag(tag: string, type: ValueType, data: Uint8Array): Promise<void> {
    await this.tags([{ tag, type, data }]);
  }

  /** Saves several values, or none of them when one breaks a rule. */
  async tags(entries: readonly EncodedTag[]): Promise<void> {
    this.#checkState();
    const context = this.#openContext();
    const names = this.#checkTags(entries, context);
    await this.#write(async () => {
      for (const [index, entry] of entries.entries()) {
        await this.#writeTag(entry, names[index] ?? new Uint8Array());
        context.tags.add(entry.tag);
      }
    });
  }

  async closeContext(): Promise<void> {
    this.#checkState();
    const context = this.#openContext();
    await this.#write(async () => {
      await this.#writeContextClose(context.tags.size);
      await this.#output.endSegment();
    });
    this.#context = undefined;
  }

  /**
   * Writes a memory context. Slabs go to the store as they are, one batch at a time, and are released when
   * their write has resolved. Throws what the source throws, `CHKPT_ABORTED`, …
   */
  async memory(
    name: string,
    source: MemoryFrameSource,
    signal?: AbortSignal,
    onProgress?: (progress: MemoryProgress) => void,
  ): Promise<void> {
    this.#checkState();
    const nameBytes = this.#checkNewContext(name);
    if (this.#hasMemory) {
      throw this.#error('CHKPT_CONTEXT_REOPENED', 'a checkpoint has one memory context', { context: name });
    }
    const table = encodeRegionTable(source.regions);
    checkAborted(signal, this.#options.store);
    await this.#write(async () => {
      this.#hasMemory = true;
      if (await this.#handOver(name, source)) return;
      await this.#output.beginSegment({ kind: 'memory', name });
      await this.#writeContextOpen(name, nameBytes, 'memory');
      const regionTable = { type: frameTypes.regionTable, arg0: source.regions.length, arg1: pageBytes };
      await this.#output.frame(regionTable, table.length, (payload) => payload.set(table));
      await this.#output.flush();
      await this.#writePages(source, signal, onProgress);
      await this.#writeContextClose(this.#totals.pages);
      await this.#output.endSegment();
    });
  }

  /** Stores that keep memory in a way of their own take it as it is: then it is not part of the stream. */
  async #handOver(name: string, { handOver }: MemoryFrameSource): Promise<boolean> {
    if (handOver === undefined || this.#options.parent !== undefined) return false;
    return await this.#output.takeMemory(name, handOver);
  }

  /** Writes END, index and footer, and commits. Throws `CHKPT_CONTEXT_OPEN` while a context is open. */
  async finish(): Promise<StreamWritten> {
    this.#checkState();
    if (this.#context !== undefined) {
      throw this.#error('CHKPT_CONTEXT_OPEN', 'commit while a context is open', {
        context: this.#context.name,
      });
    }
    const summary = await this.#write(async () => {
      await this.#output.beginSegment({ kind: 'end', name: 'end' });
      const root = await this.#writeEnd();
      await this.#output.flush();
      await this.#output.endSegment();
      const { uuid, parent, epoch = 0n } = this.#options;
      const bytes = this.#output.position.offset;
      const facts: CommitSummary = { uuid, parent: parent?.uuid.toLowerCase(), epoch, root, bytes };
      return { ...facts, storedBytes: await this.#output.commit(facts) };
    });
    this.#state = 'committed';
    return summary;
  }

  /** Drops everything written. Does nothing after `finish()` resolved, or when called twice. */
  async abort(): Promise<void> {
    if (this.#state === 'committed' || this.#state === 'aborted') return;
    if (this.#state === 'busy') this.#checkState();
    this.#state = 'aborted';
    await this.#output.abort();
  }

  async #writePages(
    source: MemoryFrameSource,
    signal: AbortSignal | undefined,
    onProgress: ((progress: MemoryProgress) => void) | undefined,
  ): Promise<void> {
    const memoryBytes = source.regions.reduce((sum, region) => sum + region.bytes, 0n);
    const start = this.#output.position.offset;
    const stream = source.open(this.#output.position, signal, this.#output.direct());
    try {
      for (;;) {
        const batch = await stream.next().catch((error: unknown) => {
          checkAborted(signal, this.#options.store);
          throw error;
        });
        if (batch === undefined) break;
        try {
          await this.#output.slabs(batch);
          this.#groups.push(...batch.groups);
        } finally {
          batch.release();
        }
        checkAborted(signal, this.#options.store);
        onProgress?.({ writtenBytes: this.#output.position.offset - start, memoryBytes });
      }
      this.#totals = checkedTotals(stream, countPages(source.regions));
    } catch (error) {
      await stream.close().catch(() => undefined);
      throw error;
    }
    await stream.close();
  }

  async #writeContextOpen(name: string, nameBytes: Uint8Array, kind: 'values' | 'memory'): Promise<void> {
    this.#index.openContext(this.#output.position.offset, kind, nameBytes);
    const frame = { type: frameTypes.contextOpen, arg0: this.#names.size, arg1: contextKinds[kind] };
    this.#names.add(name);
    await this.#output.frame(frame, nameBytes.length, (payload) => payload.set(nameBytes));
  }

  async #writeContextClose(count: number): Promise<void> {
    await this.#output.frame({ type: frameTypes.contextClose, arg0: this.#names.size - 1, arg1: count });
  }

  async #writeTag({ type, data }: EncodedTag, nameBytes: Uint8Array): Promise<void> {
    this.#index.tag(this.#output.position.offset, data.length, type, nameBytes);
    this.#tagCount += 1;
    this.#valueBytes += data.length;
    const prefixBytes = tagPrefixBytes(nameBytes.length);
    const firstBytes = pieceBytes(data.length, 0);
    const frame = { type: frameTypes.tag, arg0: valueTypeCode(type) };
    await this.#output.frame(frame, prefixBytes + firstBytes, (payload) => {
      encodeTagPrefix(payload.subarray(0, prefixBytes), nameBytes, data.length);
      payload.set(data.subarray(0, firstBytes), prefixBytes);
    });
    for (let at = firstBytes; at < data.length; at += tagPieceBytesMax) {
      const piece = data.subarray(at, at + pieceBytes(data.length, at));
      await this.#output.frameAround({ type: frameTypes.tagMore, arg0: at }, piece);
    }
  }

  /** Returns the root digest, hexadecimal. */
  async #writeEnd(): Promise<string> {
    const root = this.#output.sealRoot();
    const document = this.#options.index === false ? undefined : this.#index.build(this.#groups);
    const { sequence, offset: endOffset } = this.#output.position;
    const tailBytes = document === undefined ? 0 : tailBytesOf(document.length);
    const counts: EndCounts = {
      ...this.#totals,
      contexts: this.#names.size,
      tags: this.#tagCount,
    };
    const end = { type: frameTypes.end, arg0: sequence, arg1: tailBytes };
    await this.#output.frame(end, endPayloadBytes, (payload) => encodeEnd(payload, root, counts));
    if (document !== undefined) await this.#writeIndex(document, endOffset);
    return hexOf(root);
  }

  async #writeIndex(document: Uint8Array, endOffset: number): Promise<void> {
    const { offset: indexOffset, uuid } = this.#output.position;
    for (let at = 0; at < document.length; at += tagPieceBytesMax) {
      const piece = document.subarray(at, at + pieceBytes(document.length, at));
      const frame = { type: frameTypes.index, arg0: at, arg1: document.length };
      if (piece.length === tagPieceBytesMax) await this.#output.frameAround(frame, piece);
      else await this.#output.frame(frame, piece.length, (payload) => payload.set(piece));
    }
    const indexBytes = indexFrameBytes(document.length);
    const streamBytes = indexOffset + tailBytesOf(document.length);
    const footer = { endOffset, indexOffset, indexBytes, uuid, streamBytes };
    await this.#output.raw(encodeFooter(footer, this.#options.digest));
  }

  #checkNewContext(name: string): Uint8Array {
    if (this.#context !== undefined) {
      throw this.#error('CHKPT_CONTEXT_OPEN', `context ${this.#context.name} is still open`, {
        context: name,
      });
    }
    const bytes = encodeName(name, this.#place({ context: name }));
    if (this.#names.has(name))
      throw this.#error('CHKPT_CONTEXT_REOPENED', 'opened before', { context: name });
    if (this.#names.size >= contextCountMax) {
      throw this.#error('CHKPT_VALUE_RANGE', 'too many contexts', { context: name });
    }
    return bytes;
  }

  #checkTags(entries: readonly EncodedTag[], context: OpenContext): Uint8Array[] {
    let valueBytes = this.#valueBytes;
    const seen = new Set<string>();
    return entries.map(({ tag, type, data }) => {
      const place = { context: context.name, tag };
      const bytes = encodeName(tag, this.#place(place));
      if (context.tags.has(tag) || seen.has(tag))
        throw this.#error('CHKPT_TAG_DUPLICATE', 'saved before', place);
      seen.add(tag);
      valueBytes += data.length;
      if (valueBytes > valueBytesMax || this.#tagCount + seen.size > tagCountMax) {
        throw this.#error('CHKPT_VALUE_RANGE', 'the values exceed what a checkpoint may hold', place);
      }
      const fault = faultOfValue(type, data);
      if (fault !== undefined) throw this.#error('CHKPT_VALUE_RANGE', fault, place);
      return bytes;
    });
  }

  #openContext(): OpenContext {
    if (this.#context !== undefined) return this.#context;
    throw this.#error('CHKPT_CONTEXT_CLOSED', 'no context is open', {});
  }

  #checkState(): void {
    if (this.#state === 'open') return;
    if (this.#state === 'busy') throw new TypeError('StreamWriter: the call before has not resolved yet');
    const cause = this.#failure === undefined ? {} : { cause: this.#failure };
    const details = this.#place({});
    throw new CheckpointError('CHKPT_CLOSED', `the checkpoint is ${this.#state}`, { details, ...cause });
  }

  async #write<T>(action: () => Promise<T>): Promise<T> {
    this.#state = 'busy';
    try {
      const result = await action();
      if (this.#state === 'busy') this.#state = 'open';
      return result;
    } catch (error) {
      this.#failure = error;
      if (this.#state === 'busy') this.#state = 'failed';
      throw error;
    }
  }

  #place(details: ErrorDetails): ErrorDetails {
    return { store: this.#options.store, ...details };
  }

  #error(
    code: ConstructorParameters<typeof CheckpointError>[0],
    what: string,
    details: ErrorDetails,
  ): CheckpointError {
    return new CheckpointError(code, what, { details: this.#place(details) });
  }
}

function checkedTotals(stream: MemoryFrameStream, pageCount: number): PageTotals {
  const { pages, zeroPages, fillPages, storedPages, samePages, parentPages, encodedBytes } = stream.totals();
  if (pages !== pageCount || zeroPages + fillPages + storedPages + samePages + parentPages !== pages) {
    throw new CheckpointError('CHKPT_INTERNAL', 'a memory source did not cover every page once', {
      details: { expected: pageCount, actual: pages },
    });
  }
  return { pages, zeroPages, fillPages, storedPages, samePages, parentPages, encodedBytes };
}
