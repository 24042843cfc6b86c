/**
 * One save into several stores: the stream is made once and written into each. A store that fails is left behind, with nothing in it, and
 * the others go on; only when all have failed does the save.
 *
 * Memory is written as frames by all of them: what one could do faster by itself (`direct`, `takeMemory`) is not asked for.
 */
import { CheckpointError } from '../errors/index.ts';
import { openStore } from './default-registry.ts';
import { fromStore } from './failure.ts';
import { guardStore } from './guard.ts';
import type {
  CommitSummary,
  Segment,
  SegmentSummary,
  Store,
  StoreReader,
  StoreWriteOptions,
  StoreWriter,
} from './store.ts';

/** What became of one of several stores. */
export interface TeeOutcome {
  readonly url: string;
  /** Bytes that the checkpoint takes there; undefined when it failed. */
  readonly storedBytes?: number | undefined;
  /** Why there is nothing. */
  readonly error?: CheckpointError | undefined;
}

/** One after the other, as they were given. */
interface Branch {
  readonly store: Store;
  writer: StoreWriter | undefined;
  storedBytes?: number | undefined;
  error?: CheckpointError;
}

export class TeeStore implements Store {
  readonly url: string;
  readonly stores: readonly Store[];
  readonly beside?: (url: string) => Store;
  #branches: readonly Branch[] = [];

  /** Throws `RangeError` for no store, or one that is given twice. */
  constructor(stores: readonly Store[]) {
    const urls = stores.map(({ url }) => url);
    const twice = urls.find((url, index) => urls.indexOf(url) !== index);
    if (twice !== undefined) throw new RangeError(`the same store twice: ${twice}`);
    if (urls.length === 0) throw new RangeError('no store is given');
    this.stores = stores.map((store) => guardStore(store, store.url));
    this.url = `tee:${urls.join(' ')}`;
    const [first] = this.stores;
    // Parents have one place, and the keys of the first.
    if (first?.beside !== undefined) this.beside = (url) => first.beside?.(url) ?? openStore(url);
  }

  /** Of the last save, in the order of the stores. */
  get outcomes(): readonly TeeOutcome[] {
    return this.#branches.map(({ store: { url }, storedBytes, error }) => ({ url, storedBytes, error }));
  }

  /** Stores that have the last save. */
  get kept(): readonly Store[] {
    return this.#branches.filter(({ error }) => error === undefined).map(({ store }) => store);
  }

  async openWriter(options: StoreWriteOptions): Promise<StoreWriter> {
    const branches: Branch[] = this.stores.map((store) => ({ store, writer: undefined }));
    this.#branches = branches;
    const writer = new TeeWriter(branches, options.signal);
    await writer.open(options);
    return writer;
  }

  async openReader(): Promise<StoreReader> {
    throw new CheckpointError('CHKPT_UNSUPPORTED', 'a checkpoint is loaded from one store', {
      details: { store: this.url },
    });
  }
}

class TeeWriter implements StoreWriter {
  readonly #branches: readonly Branch[];
  readonly #signal: AbortSignal | undefined;
  storedBytes: number | undefined;

  constructor(branches: readonly Branch[], signal: AbortSignal | undefined) {
    this.#branches = branches;
    this.#signal = signal;
  }

  async open(options: StoreWriteOptions): Promise<void> {
    await this.#each('openWriter', async (branch) => {
      branch.writer = await branch.store.openWriter(options);
    });
  }

  async beginSegment(segment: Segment): Promise<void> {
    await this.#each('beginSegment', ({ writer }) => writer?.beginSegment?.(segment));
  }

  async endSegment(summary: SegmentSummary): Promise<void> {
    await this.#each('endSegment', ({ writer }) => writer?.endSegment?.(summary));
  }

  async write(bytes: Uint8Array): Promise<void> {
    await this.#each('write', ({ writer }) => writer?.write(bytes));
  }

  async writeAll(pieces: readonly Uint8Array[]): Promise<void> {
    await this.#each('writeAll', ({ writer }) => writer?.writeAll?.(pieces));
  }

  async commit(summary: CommitSummary): Promise<void> {
    await this.#each('commit', async (branch) => {
      await branch.writer?.commit(summary);
      branch.storedBytes = branch.writer?.storedBytes ?? summary.bytes;
    });
    this.storedBytes = this.#branches.find(({ storedBytes }) => storedBytes !== undefined)?.storedBytes;
  }

  async abort(): Promise<void> {
    const writers = this.#branches.flatMap(({ writer }) => (writer === undefined ? [] : [writer]));
    const results = await Promise.allSettled(writers.map((writer) => writer.abort()));
    const failed = results.find((result) => result.status === 'rejected');
    if (failed !== undefined) throw failed.reason;
  }

  /** In all stores that have not failed, at the same time. Throws what the first one threw when none is left. */
  async #each(call: string, work: (branch: Branch) => Promise<void> | undefined): Promise<void> {
    const alive = this.#branches.filter(({ error }) => error === undefined);
    await Promise.all(alive.map((branch) => this.#attempt(call, branch, work)));
    // A cancelled save is cancelled everywhere: no store has failed.
    const [first] = this.#branches;
    if (first?.error !== undefined && this.#branches.every(({ error }) => error !== undefined))
      throw first.error;
  }

  async #attempt(
    call: string,
    branch: Branch,
    work: (branch: Branch) => Promise<void> | undefined,
  ): Promise<void> {
    try {
      await work(branch);
    } catch (error) {
      // Its guard has dropped what was written.
      branch.error = fromStore(error, call, this.#signal, branch.store.url);
    }
  }
}
