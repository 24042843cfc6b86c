/**
 * Loading through the model. Contexts may be opened in any order although the stream only runs forward: value
 * contexts that are passed over are kept, within the limits of the format. Guest memory is never kept, so a
 * memory context that stands in the way must be loaded, or skipped by option.
 *
 * Every value has passed its digests when it is handed out, but **the checkpoint as a whole is only known to
 * be sound when `finish()` has resolved**: it may still be cut short, or have lost a context at its end. Who
 * must not act on part of a checkpoint calls `finish()` first and opens value contexts afterwards.
 *
 * Calls may be made without waiting for the ones before: they run one after the other. The first damage ends
 * the checkpoint: every later call rejects with the same error.
 */
import { CheckpointError, type ErrorCode, type ErrorDetails } from '../errors/index.ts';
import type { PageTotals } from '../format/page-sequence.ts';
import type { Region } from '../format/region-table.ts';
import type { StreamHeader } from '../format/stream-header.ts';
import { CallQueue } from '../util/call-queue.ts';
import { LoadContext, type StoredTag } from './load-context.ts';
import type { MemoryFrameSink } from './memory-frames.ts';
import type { ContextOpenItem, StreamReader, StreamSummary } from './stream-reader.ts';

/** Makes the sink when the regions are known. It must not wait for calls of the checkpoint. */
export type SinkFactory = (regions: readonly Region[]) => MemoryFrameSink | Promise<MemoryFrameSink>;

export interface LoadMemoryResult {
  readonly regions: readonly Region[];
  readonly totals: PageTotals;
}

/** A checkpoint that is being loaded. */
export class LoadCheckpoint {
  readonly mode = 'load';
  readonly header: StreamHeader;
  readonly #reader: StreamReader;
  readonly #store: string | undefined;
  readonly #skipMemory: MemoryFrameSink | undefined;
  readonly #stop: AbortController;
  readonly #queue = new CallQueue();
  /** Value contexts that were read and not opened yet. */
  readonly #kept = new Map<string, ReadonlyMap<string, StoredTag>>();
  readonly #opened = new Set<string>();
  #open: LoadContext | undefined;
  #pendingMemory: ContextOpenItem | undefined;
  #memoryName: string | undefined;
  #summary: StreamSummary | undefined;
  #failure: { readonly error: unknown } | undefined;
  #closed = false;

  /** Use `openCheckpoint()`. `reader` has yielded its header; `stop` cancels its reads. */
  constructor(
    reader: StreamReader,
    header: StreamHeader,
    store: string | undefined,
    skipMemory: MemoryFrameSink | undefined,
    stop: AbortController,
  ) {
    this.#reader = reader;
    this.header = header;
    this.#store = store;
    this.#skipMemory = skipMemory;
    this.#stop = stop;
  }

  /** UUID of the checkpoint, text form. */
  get uuid(): string {
    return this.header.uuid;
  }

  /**
   * Opens a value context, reading on until it is there. Throws `CHKPT_NO_CONTEXT`, `CHKPT_CONTEXT_OPEN`
   * (also when guest memory stands before it), `CHKPT_CONTEXT_REOPENED`, every error of kind `damaged`.
   */
  async openContext(name: string): Promise<LoadContext> {
    return await this.#run(async () => {
      this.#checkNoneOpen(name);
      if (this.#opened.has(name)) throw this.#error('CHKPT_CONTEXT_REOPENED', 'opened before', name);
      const tags = await this.#findContext(name);
      this.#opened.add(name);
      this.#kept.delete(name);
      this.#open = new LoadContext(name, tags, {
        store: this.#store,
        run: (action) => this.#run(action),
        close: async () => {
          this.#open = undefined;
        },
      });
      return this.#open;
    });
  }

  /**
   * Loads guest memory into `sink`, reading on until it is there. When it rejects the content of the memory
   * is undefined. Throws `CHKPT_NO_CONTEXT`, `CHKPT_CONTEXT_OPEN`, `CHKPT_CONTEXT_REOPENED`, and what the
   * sink throws.
   */
  async loadMemory(name: string, sink: MemoryFrameSink | SinkFactory): Promise<LoadMemoryResult> {
    return await this.#run(async () => {
      this.#checkNoneOpen(name);
      if (this.#memoryName === name) {
        throw this.#error('CHKPT_CONTEXT_REOPENED', 'the memory was loaded or skipped before', name);
      }
      while (this.#pendingMemory === undefined && (await this.#readContext()));
      const { name: found, regions } = this.#pendingMemory ?? {};
      if (found !== name || regions === undefined)
        throw this.#error('CHKPT_NO_CONTEXT', 'no such memory', name);
      const target = typeof sink === 'function' ? await sink(regions) : sink;
      return { regions, totals: await this.#passMemory(target) };
    });
  }

  /**
   * Reads to the end of the stream and verifies it as a whole. Value contexts not opened yet can be opened
   * afterwards. Throws `CHKPT_CONTEXT_OPEN` while a context is open, `CHKPT_ROOT_DIGEST`, `CHKPT_TRUNCATED`,
   * …
   */
  async finish(): Promise<StreamSummary> {
    return await this.#run(async () => {
      this.#checkNoneOpen(undefined);
      while (this.#summary === undefined) {
        await this.#passPendingMemory('the end of the checkpoint');
        await this.#readContext();
      }
      return this.#summary;
    });
  }

  /** Ends the load; stops a `loadMemory` under way. Does nothing when called again. */
  async close(): Promise<void> {
    this.#stop.abort();
    await this.#queue.run(async () => {
      if (this.#closed) return;
      this.#closed = true;
      this.#kept.clear();
      await this.#reader.close();
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  /** What only a checkpoint opened for saving can do. */
  protected async saveMemory(): Promise<never> {
    throw this.#error('CHKPT_MODE', 'the checkpoint was opened for loading', undefined);
  }

  protected async commit(): Promise<never> {
    throw this.#error('CHKPT_MODE', 'the checkpoint was opened for loading', undefined);
  }

  protected async abort(): Promise<never> {
    throw this.#error('CHKPT_MODE', 'the checkpoint was opened for loading', undefined);
  }

  async #run<T>(action: () => Promise<T>): Promise<T> {
    return await this.#queue.run(async () => {
      if (this.#closed) throw this.#error('CHKPT_CLOSED', 'the checkpoint was closed', undefined);
      if (this.#failure !== undefined) throw this.#failure.error;
      return await action();
    });
  }

  async #findContext(name: string): Promise<ReadonlyMap<string, StoredTag>> {
    for (;;) {
      const tags = this.#kept.get(name);
      if (tags !== undefined) return tags;
      if (name === this.#memoryName || name === this.#pendingMemory?.name) {
        throw this.#error('CHKPT_NO_CONTEXT', 'this context is guest memory: use loadMemory()', name);
      }
      if (this.#summary !== undefined) throw this.#error('CHKPT_NO_CONTEXT', 'no such context', name);
      await this.#passPendingMemory(name);
      await this.#readContext();
    }
  }

  /** Reads one value context, or up to the pages of a memory context. False at the end of the stream. */
  async #readContext(): Promise<boolean> {
    if (this.#summary !== undefined) return false;
    return await this.#reading(async () => {
      const item = await this.#reader.next();
      if (item?.kind === 'end') this.#summary = item.summary;
      if (item?.kind !== 'context-open') return false;
      if (item.contextKind === 'memory') this.#pendingMemory = item;
      else this.#kept.set(item.name, await this.#readTags());
      return true;
    });
  }

  async #readTags(): Promise<ReadonlyMap<string, StoredTag>> {
    const tags = new Map<string, StoredTag>();
    for (let item = await this.#reader.next(); item?.kind === 'tag'; item = await this.#reader.next()) {
      tags.set(item.name, { type: item.type, data: item.data });
    }
    return tags;
  }

  async #passPendingMemory(wanted: string): Promise<void> {
    const pending = this.#pendingMemory;
    if (pending === undefined) return;
    if (this.#skipMemory !== undefined) {
      await this.#passMemory(this.#skipMemory);
      return;
    }
    throw this.#error(
      'CHKPT_CONTEXT_OPEN',
      `guest memory stands before ${wanted}: loadMemory() first, or open with skipMemory`,
      pending.name,
    );
  }

  async #passMemory(sink: MemoryFrameSink): Promise<PageTotals> {
    return await this.#reading(async () => {
      this.#memoryName = this.#pendingMemory?.name;
      this.#pendingMemory = undefined;
      const totals = await this.#reader.readMemory(sink);
      await this.#reader.next();
      return totals;
    });
  }

  async #reading<T>(action: () => Promise<T>): Promise<T> {
    try {
      return await action();
    } catch (error) {
      this.#failure = { error };
      this.#kept.clear();
      throw error;
    }
  }

  #checkNoneOpen(context: string | undefined): void {
    if (this.#open === undefined) return;
    throw this.#error('CHKPT_CONTEXT_OPEN', `context ${this.#open.name} is still open`, context);
  }

  #error(code: ErrorCode, what: string, context: string | undefined): CheckpointError {
    const details: ErrorDetails = { store: this.#store, context };
    return new CheckpointError(code, what, { details });
  }
}
