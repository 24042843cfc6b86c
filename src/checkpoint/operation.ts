/**
 * A save or load in progress: a promise of its report and, when wanted, an async iterable of its progress.
 *
 *   const report = await saveVm(vm, url);
 *   const save = saveVm(vm, url);
 *   for await (const progress of save) draw(progress);
 *   const report = await save;
 */

/** How far an operation is. */
export interface Progress {
  readonly phase: 'state' | 'memory' | 'commit';
  /** Bytes of guest memory done, zero pages included. */
  readonly memoryBytesDone: number;
  /** Bytes of guest memory in all. */
  readonly memoryBytes: number;
  /** Since the operation began, milliseconds. */
  readonly elapsedMs: number;
}

/** What every progress has: a new phase is told at once. */
export interface PhaseProgress {
  readonly phase: string;
  /** Since the operation began, milliseconds. */
  readonly elapsedMs: number;
}

/** Least time between two progress reports, milliseconds. */
const reportIntervalMs = 50;

export class Operation<T, P extends PhaseProgress = Progress> implements Promise<T>, AsyncIterable<P> {
  readonly [Symbol.toStringTag] = 'Operation';
  readonly #result: Promise<T>;
  #latest: P | undefined;
  #settled = false;
  #wake: (() => void) | undefined;

  /** Starts `work` at once; it calls `report` as it goes. */
  constructor(
    work: (report: (progress: Omit<P, 'elapsedMs'>) => void) => Promise<T>,
    onProgress?: (progress: P) => void,
  ) {
    const begin = performance.now();
    let last = Number.NEGATIVE_INFINITY;
    let phase: unknown;
    const report = (progress: Omit<P, 'elapsedMs'>): void => {
      const now = performance.now();
      if (phase === progress.phase && now - last < reportIntervalMs) return;
      last = now;
      phase = progress.phase;
      this.#latest = { ...progress, elapsedMs: now - begin } as P;
      onProgress?.(this.#latest);
      this.#wake?.();
    };
    this.#result = work(report).finally(() => {
      this.#settled = true;
      this.#wake?.();
    });
    // Whoever only iterates gets the failure from the iterator.
    this.#result.catch(() => undefined);
  }

  // biome-ignore lint/suspicious/noThenProperty: an operation is a promise
  then<R = T, E = never>(
    onResolve?: ((value: T) => R | PromiseLike<R>) | null,
    onReject?: ((reason: unknown) => E | PromiseLike<E>) | null,
  ): Promise<R | E> {
    return this.#result.then(onResolve, onReject);
  }

  catch<E = never>(onReject?: ((reason: unknown) => E | PromiseLike<E>) | null): Promise<T | E> {
    return this.#result.catch(onReject);
  }

  finally(onFinally?: (() => void) | null): Promise<T> {
    return this.#result.finally(onFinally);
  }

  /** The latest progress each time it is asked for; ends with the operation and throws its error. */
  async *[Symbol.asyncIterator](): AsyncGenerator<P, void> {
    let told: P | undefined;
    for (;;) {
      if (this.#latest !== undefined && this.#latest !== told) {
        told = this.#latest;
        yield told;
      } else if (this.#settled) {
        await this.#result;
        return;
      } else {
        await new Promise<void>((wake) => {
          this.#wake = wake;
        });
      }
    }
  }
}
