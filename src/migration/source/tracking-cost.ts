/** What tracking has cost a guest while it was sent, as far as it can be known. */
import type { DirtyTracker, PageSet } from '../../memory/index.ts';
import type { TrackingReport } from '../outcome.ts';

/** A tracker whose time and pages are counted. */
export class CountedTracker {
  readonly #tracker: DirtyTracker;
  armMs = 0;
  harvestMs = 0;
  /** Told, each as often as it was. */
  pages = 0;

  constructor(tracker: DirtyTracker) {
    this.#tracker = tracker;
  }

  async arm(): Promise<void> {
    const begin = performance.now();
    await this.#tracker.arm();
    this.armMs += performance.now() - begin;
  }

  async harvest(): Promise<PageSet> {
    const begin = performance.now();
    const found = await this.#tracker.harvest();
    this.harvestMs += performance.now() - begin;
    this.pages += found.count();
    return found;
  }
}

/** Why the cost of a write is not known, where it is not. */
const unknown: Partial<Record<DirtyTracker['kind'], string>> = {
  'write-protect':
    'what a first write costs could not be measured: huge pages, or a live save whose threads hear of each write',
  'kvm-log': 'what a vCPU pays for a first write under KVM is not measured',
  'kvm-ring': 'what a vCPU pays for a first write under KVM is not measured',
  reported: 'what the log costs is known to who keeps it',
};

/** `tracker`, `counted`: undefined where pages were compared with what was sent. Never rejects. */
export async function trackingReport(
  { kind, reason }: Pick<TrackingReport, 'kind' | 'reason'>,
  tracker: DirtyTracker | undefined,
  counted: CountedTracker | undefined,
): Promise<TrackingReport> {
  if (tracker === undefined || counted === undefined) {
    // Memory is read while the guest runs, and once while it stands still, which is part of the downtime.
    return { kind, reason, armMs: 0, harvestMs: 0, stallMs: 0 };
  }
  const { armMs, harvestMs, pages } = counted;
  const nanoseconds = await tracker.firstWriteCost?.().catch(() => undefined);
  const time = { kind, reason, armMs, harvestMs };
  if (nanoseconds === undefined) {
    return { ...time, unknown: unknown[kind] ?? 'the tracker does not know what a first write costs' };
  }
  return { ...time, faults: pages, faultNs: nanoseconds, stallMs: (pages * nanoseconds) / 1e6 };
}
