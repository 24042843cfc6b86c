/**
 * What finds the pages that a guest has written. `docs/dirty-tracking.md` says what each kind needs, promises and cannot see.
 */
import type { PageSet } from './page-set.ts';

export type TrackerKind = 'kvm-log' | 'kvm-ring' | 'write-protect' | 'soft-dirty' | 'digest' | 'reported';

export interface DirtyTracker {
  readonly kind: TrackerKind;
  /** Why this one, and why no better one. */
  readonly reason: string;
  /** Everything counts as clean from here on. Rejects with `CHKPT_CLOSED`, `CHKPT_ABORTED`, `CHKPT_MEMORY_DETACHED`, `CHKPT_IO`. */
  arm(): Promise<void>;
  /**
   * Pages that may have been written since `arm` or the last `harvest`; they count as clean again. The guest may run. When what
   * the set is for fails, merge it into the next one: it is the only place that knows these pages.
   *
   * Rejects as `arm`, and with `CHKPT_CLOSED` before `arm`; what it had found by then is in the next set.
   */
  harvest(): Promise<PageSet>;
  /**
   * The same for who writes those pages himself, while the guest stands still: what it tells is in the next `harvest` too. Where tracking
   * makes writes dear these pages stay as they are. Optional: without it `harvest` does. Rejects as `harvest`.
   */
  look?(): Promise<PageSet>;
  /**
   * What the first write of a page since the last look costs the guest because it is tracked, nanoseconds; undefined: nobody knows. Measured
   * on other pages. Optional: without it nobody does.
   */
  firstWriteCost?(): Promise<number | undefined>;
  /** Waits for what is under way and ends tracking. Harmless when called twice. */
  close(): Promise<void>;
}
