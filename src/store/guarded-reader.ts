/** The reader's half of the guard: see guard.ts. */
import { CheckpointError } from '../errors/index.ts';
import { fromStore, storeFailure, throwIfAborted } from './failure.ts';
import type { Integrity, ReceivedSummary, StoredShares, StoreExtent, StoreReader } from './store.ts';

/** A reader without random access. */
export class GuardedReader implements StoreReader {
  readonly byteLength: number | undefined;
  readonly integrity: Integrity;
  protected readonly inner: StoreReader;
  readonly #signal: AbortSignal | undefined;
  readonly #url: string;
  readonly #inFlight = new Set<Promise<unknown>>();
  #isReading = false;
  #closing: Promise<void> | undefined;

  constructor(
    inner: StoreReader,
    byteLength: number | undefined,
    signal: AbortSignal | undefined,
    url: string,
  ) {
    this.inner = inner;
    this.byteLength = byteLength;
    const { integrity } = inner;
    this.integrity = integrity === 'none' || integrity === 'authenticate' ? integrity : 'detect';
    this.#signal = signal;
    this.#url = url;
  }

  protected get isClosing(): boolean {
    return this.#closing !== undefined;
  }

  async read(target: Uint8Array): Promise<number> {
    if (this.#isReading) throw new TypeError('read() before the read() before it has resolved');
    this.#isReading = true;
    try {
      return await this.fill('read', target, () => this.inner.read(target));
    } finally {
      this.#isReading = false;
    }
  }

  async shares(): Promise<StoredShares | undefined> {
    const shares = await this.#perform('shares', async () => await this.inner.shares?.());
    const isBytes = (value: unknown): boolean => Number.isSafeInteger(value) && Number(value) >= 0;
    return isBytes(shares?.own) && isBytes(shares?.shared) ? shares : undefined;
  }

  async acknowledge(received: ReceivedSummary): Promise<void> {
    await this.#perform('acknowledge', async () => await this.inner.acknowledge?.(received));
  }

  async refuse(error: unknown): Promise<void> {
    try {
      await this.inner.refuse?.(error);
    } catch {
      // What it was refused for is what the caller must hear of.
    }
  }

  /** Waits for the reads in progress. */
  async close(): Promise<void> {
    this.#closing ??= this.#close();
    return await this.#closing;
  }

  protected async fill(call: string, target: Uint8Array, work: () => Promise<number>): Promise<number> {
    if (this.#closing !== undefined) {
      throw new CheckpointError('CHKPT_CLOSED', `${call}() after close()`, { details: { store: this.#url } });
    }
    if (!(target instanceof Uint8Array)) throw new TypeError(`${call}() takes a Uint8Array`);
    if (target.length === 0) throw new RangeError(`${call}() into an empty Uint8Array`);
    const byteCountMax = target.length;
    const result = this.#perform(call, work);
    this.#inFlight.add(result);
    try {
      const byteCount = await result;
      if (Number.isInteger(byteCount) && byteCount >= 0 && byteCount <= byteCountMax) return byteCount;
      throw storeFailure(`${call}() of ${byteCountMax} bytes returned ${byteCount}`, this.#url);
    } finally {
      this.#inFlight.delete(result);
    }
  }

  protected ask<T>(call: string, work: () => T): T {
    try {
      return work();
    } catch (error) {
      throw fromStore(error, call, this.#signal, this.#url);
    }
  }

  async #perform<T>(call: string, work: () => Promise<T>): Promise<T> {
    try {
      throwIfAborted(this.#signal, this.#url);
      return await work();
    } catch (error) {
      throw fromStore(error, call, this.#signal, this.#url);
    }
  }

  async #close(): Promise<void> {
    await Promise.allSettled(this.#inFlight);
    try {
      await this.inner.close();
    } catch (error) {
      throw fromStore(error, 'close', undefined, this.#url);
    }
  }
}

/** A reader with random access. `readAt` may be called while other reads are in progress. */
export class GuardedRandomReader extends GuardedReader {
  async readAt(offset: number, target: Uint8Array): Promise<number> {
    if (!(Number.isSafeInteger(offset) && offset >= 0)) throw new RangeError(`not an offset: ${offset}`);
    return await this.fill('readAt', target, () => this.inner.readAt?.(offset, target) as Promise<number>);
  }

  /** Nothing when what the store gives is not the whole stream. */
  extents(): readonly StoreExtent[] | undefined {
    if (this.isClosing) return undefined;
    const extents = this.ask('extents', () => this.inner.extents?.());
    const bytes = extents?.reduce((sum, extent) => sum + extent.bytes, 0);
    return bytes === this.byteLength ? extents : undefined;
  }

  /** Present where the store has it. */
  get skip(): ((byteCount: number) => void) | undefined {
    if (this.inner.skip === undefined) return undefined;
    return (byteCount) => this.ask('skip', () => this.inner.skip?.(byteCount));
  }
}
