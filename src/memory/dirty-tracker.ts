/**
 * What finds the pages that a guest has written. `docs/dirty-tracking.md` says what each kind needs, promises and cannot see.
 */
import type { PageSet } from './page-set.ts';

export type TrackerKind = 'kvm-log' | 'kvm-ring' | 'write-protect' | 'soft-dirty' | 'digest' | 'reported';

export interface DirtyTracker {
  readonly kind: TrackerKind;
  /** Why this one, and why no better one. */
  readonly reason: string;
  /** Everything counts as clean from here on. */
  arm(): Promise<void>;
  /**
   * Pages that may have been written since `arm` or the last `harvest`; they count as clean again. The guest may run. When what
   * the set is for fails, merge it into the next one: it is the only place that knows these pages.
   */
  harvest(): Promise<PageSet>;
  close(): Promise<void>;
}
