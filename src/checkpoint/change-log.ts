/**
 * What a machine's dirty tracker has told since its last checkpoint. Nothing that it told is lost: what a failed save took is
 * kept for the next one.
 */
import { type DirtyTracker, type PageDigests, PageSet } from '../memory/index.ts';
import type { Store } from '../store/index.ts';
import { type CheckpointName, standsFor } from './parent.ts';

/** A checkpoint, and where it was when it was saved or loaded. */
export interface StoredName extends CheckpointName {
  readonly store: Store;
}

export class ChangeLog {
  static readonly #logs = new WeakMap<DirtyTracker, ChangeLog>();
  readonly tracker: DirtyTracker;
  /** Digests of the pages as they are in `baseline`, when somebody wants equal pages to be left out. */
  digests: PageDigests | undefined;
  /** The checkpoint since which changes are known. */
  #baseline: StoredName | undefined;
  #armed = false;
  /** Told, and not in any checkpoint yet. */
  #carried: PageSet | undefined;

  /** The log of a tracker; one for each. */
  static of(tracker: DirtyTracker): ChangeLog {
    let log = ChangeLog.#logs.get(tracker);
    if (log === undefined) {
      log = new ChangeLog(tracker);
      ChangeLog.#logs.set(tracker, log);
    }
    return log;
  }

  private constructor(tracker: DirtyTracker) {
    this.tracker = tracker;
  }

  /** True when it knows what has changed since that checkpoint. */
  knowsSince(name: CheckpointName): boolean {
    return (
      this.#armed &&
      this.#baseline !== undefined &&
      standsFor({ ...this.#baseline, replaces: undefined }, name)
    );
  }

  /** The checkpoint since which it knows what has changed. */
  get baseline(): StoredName | undefined {
    return this.#armed ? this.#baseline : undefined;
  }

  /**
   * Begins to watch what is written, for whoever only wants to know: then `observe`. What the next `take` gives is not less for it, and nothing
   * counts as known that was not.
   */
  async beginObserving(): Promise<void> {
    if (this.#armed) await this.observe();
    else await this.tracker.arm();
  }

  /** The pages that were written since the last look. They stay in what the next `take` gives. */
  async observe(): Promise<PageSet> {
    const found = await this.#harvest();
    // One that nobody has armed before counts for nobody.
    if (this.#armed && this.#carried !== undefined) this.#carried.merge(found);
    else if (this.#armed) {
      this.#carried = new PageSet(found.pageCount);
      this.#carried.merge(found);
    }
    return found;
  }

  /** Has the tracker look while the machine runs, so that `take` has less to find. */
  async lookAhead(): Promise<void> {
    await this.take();
  }

  /**
   * The pages that changed since the baseline; undefined when that is not known. While the machine stands still: from here on
   * the tracker counts for the checkpoint that is being saved. Then `commit` or `rollback`.
   */
  async take(): Promise<PageSet | undefined> {
    if (!this.#armed) {
      await this.tracker.arm();
      this.#armed = true;
      this.#baseline = undefined;
      this.#carried = undefined;
      return undefined;
    }
    const changed = await this.#harvest();
    if (this.#carried !== undefined) changed.merge(this.#carried);
    this.#carried = changed;
    return this.#baseline === undefined ? undefined : changed;
  }

  /**
   * As `take`, for a load that makes these pages what they were, and then says `broughtBack`: until then nothing is taken, and a tracker
   * that can leaves them as they are, so that no write of the load is one that it has to notice.
   */
  async look(): Promise<PageSet | undefined> {
    if (!this.#armed || this.#baseline === undefined || this.tracker.look === undefined)
      return await this.take();
    const { tracker } = this;
    const changed = await this.#found(async () => await tracker.look?.());
    if (changed !== undefined && this.#carried !== undefined) changed.merge(this.#carried);
    return changed;
  }

  async #harvest(): Promise<PageSet> {
    return await this.#found(() => this.tracker.harvest());
  }

  /** A tracker that could not say is one that has told nothing. */
  async #found<T>(find: () => Promise<T>): Promise<T> {
    try {
      return await find();
    } catch (error) {
      this.#armed = false;
      this.#baseline = undefined;
      throw error;
    }
  }

  /** The checkpoint with what `take` gave is safe. */
  commit({ uuid, root, store }: StoredName): void {
    this.#baseline = { uuid, root, store };
    this.#carried = undefined;
  }

  /** There is no such checkpoint: the next one has these pages too. */
  rollback({ ofOther = false }: { readonly ofOther?: boolean } = {}): void {
    // Digests were noted for pages that went nowhere, or are those of another checkpoint than the baseline.
    const isOwn = this.#carried !== undefined && this.#baseline !== undefined && !ofOther;
    if (isOwn && this.#carried !== undefined) this.digests?.forget(this.#carried);
    else this.digests = undefined;
  }

  /** Nothing is known of the changes any more. The next save starts anew. */
  reset(): void {
    this.digests = undefined;
    this.#armed = false;
    this.#baseline = undefined;
    this.#carried = undefined;
  }

  /** The machine holds that checkpoint and stands still. */
  async loaded({ uuid, root, store }: StoredName): Promise<void> {
    this.reset();
    await this.tracker.arm();
    this.#armed = true;
    this.#baseline = { uuid, root, store };
  }

  /**
   * The same after a load that wrote only what had changed, `suspects` at most: then looking once more costs less than beginning anew.
   * A tracker that would have to read all memory knows them as they were before the load: they count as changed.
   */
  async broughtBack({ uuid, root, store }: StoredName, suspects: PageSet): Promise<void> {
    this.digests = undefined;
    try {
      if (this.tracker.kind !== 'digest') await this.tracker.harvest();
    } catch (error) {
      this.reset();
      throw error;
    }
    this.#baseline = { uuid, root, store };
    this.#carried = this.tracker.kind === 'digest' ? suspects : undefined;
  }
}
