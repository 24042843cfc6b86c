/**
 * What a machine's tracker tells, for two who ask: the rounds of a migration, and the increment that is kept before post-copy. Whatever the
 * rounds harvest is remembered for the increment, from the checkpoint on that the tracker has watched since.
 */
import { ChangeLog } from '../../checkpoint/change-log.ts';
import type { DirtyTracker, PageSet } from '../../memory/index.ts';

export class SharedTracker {
  /** For the rounds. Arming it forgets nothing: what was written before is told with the rest. */
  readonly rounds: DirtyTracker;
  /** For the increment, once, when the rounds have looked for the last time and the guest stands still. */
  readonly increment: DirtyTracker;

  private constructor(tracker: DirtyTracker, since: PageSet) {
    const { kind, reason } = tracker;
    const close = async (): Promise<void> => undefined;
    const harvest = async (): Promise<PageSet> => {
      const pages = await tracker.harvest();
      since.merge(pages);
      return pages;
    };
    const arm = async (): Promise<void> => void (await harvest());
    const firstWriteCost = async (): Promise<number | undefined> => await tracker.firstWriteCost?.();
    this.rounds = { kind, reason, arm, harvest, firstWriteCost, close };
    this.increment = { kind, reason, arm: close, harvest: async () => since.take(), close };
  }

  /**
   * Takes over what the log of `tracker` knows; undefined when that is nothing, or when the rounds do without it. Whoever resets the log
   * afterwards takes nothing away.
   */
  static async of(tracker: DirtyTracker | undefined): Promise<SharedTracker | undefined> {
    if (tracker === undefined || tracker.kind === 'digest' || tracker.kind === 'soft-dirty') return undefined;
    const log = ChangeLog.of(tracker);
    const { baseline } = log;
    if (baseline === undefined) return undefined;
    const since = await log.take();
    if (since === undefined) return undefined;
    const shared = new SharedTracker(tracker, since);
    await ChangeLog.of(shared.increment).loaded(baseline);
    return shared;
  }
}
