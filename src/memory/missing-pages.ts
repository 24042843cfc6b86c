/** What guest memory wants of whoever brings its pages later: a lazy load, a migration, an image that it is a clone of. */

/** Who brings pages that are not in memory yet. */
export interface MissingPages {
  /** True from when memory belongs to it until all is there, or it has failed. */
  readonly isLoading: boolean;
  /** Throws what made it fail: what was read of memory since may be wrong. */
  check(): void;
  /** `check`, when what native threads have found may not have been heard of yet. */
  checkSettled?(): Promise<void>;
  /** Throws where this thread must not touch the range, or any memory: it would wait for itself. */
  checkTouch?(address?: bigint, bytes?: number): void;
  /** The range is fetched, without waiting. */
  want?(address: bigint, bytes: number): void;
  /** The range was touched: resolves when it counts as here, or nothing comes any more. */
  settle?(address: bigint, bytes: number): Promise<void>;
  /** What is still missing becomes zeros: the guest must not run any more. */
  close(): Promise<void>;
}
