/** What a report says that tracking has cost the guest: what was counted and measured, and nothing where that cannot be had. */
import { expect, it } from 'vitest';
import { CheckpointError, type DirtyTracker, GuestMemory, PageSet, trackMemory } from '../../src/index.ts';
import { MemorySnapshot } from '../../src/memory/index.ts';
import { CountedTracker, trackingReport } from '../../src/migration/source/tracking-cost.ts';
import { makePair, migrate } from './support.ts';

const mib = 2 ** 20;

it('of a guest whose pages are write-protected: a fault for each page that was told, at the cost that was measured', async (context) => {
  await using pair = await makePair({ memoryBytes: 16 * mib, pagesPerSecond: 4000 });
  const tracker = pair.source.trackChanges();
  if (tracker.kind !== 'write-protect') return context.skip(`no write protection here: ${tracker.reason}`);
  let told = 0;
  const harvest = tracker.harvest.bind(tracker);
  tracker.harvest = async () => {
    const found = await harvest();
    told += found.count();
    return found;
  };
  await pair.source.resume();
  const { send, receive } = await migrate(pair, { send: { bandwidth: 64 * mib } });
  const { tracker: report } = await send;
  await receive;
  expect(report.kind).toBe('write-protect');
  expect(told).toBeGreaterThan(0);
  expect(report.faults).toBe(told);
  expect(report.armMs).toBeGreaterThan(0);
  expect(report.harvestMs).toBeGreaterThan(0);
  const { faultNs = 0 } = report;
  expect(faultNs).toBeGreaterThan(0);
  expect(faultNs).toBeLessThan(1e6);
  expect(report.stallMs).toBeCloseTo((told * faultNs) / 1e6, 6);
  expect(report.unknown).toBeUndefined();
});

it('of a guest whose pages are compared: nothing, and that is known', async () => {
  await using pair = await makePair({ memoryBytes: 8 * mib });
  pair.source.trackChanges({ kind: 'digest' });
  await pair.source.resume();
  const { send, receive } = await migrate(pair, { send: { downtimeTargetMs: 500 } });
  const { tracker } = await send;
  await receive;
  expect(tracker).toMatchObject({ kind: 'digest', armMs: 0, harvestMs: 0, stallMs: 0 });
});

it('behind a live save, whose threads hear of each write, it is not known, and the report says why', async (context) => {
  await using memory = GuestMemory.allocate([{ base: 0n, bytes: mib }]);
  const tracker = trackMemory(memory);
  const counted = new CountedTracker(tracker);
  await counted.arm();
  await counted.harvest();
  try {
    const snapshot = MemorySnapshot.open(memory, tracker);
    await snapshot.freeze(mib, undefined);
    await snapshot.close();
    const report = await trackingReport(tracker, tracker, counted);
    expect(report.stallMs).toBeUndefined();
    expect(report.unknown).toContain('could not be measured');
  } catch (error) {
    if (!(error instanceof CheckpointError)) throw error;
    context.skip(`memory cannot be frozen here: ${error.message}`);
  } finally {
    await tracker.close();
  }
});

it.each(['reported', 'kvm-log', 'write-protect'] as const)(
  'a tracker of somebody else is not guessed at (%s)',
  async (kind) => {
    const found = new PageSet(100);
    found.markRun(3, 7);
    const tracker: DirtyTracker = {
      ...{ kind, reason: 'mine', arm: async () => undefined, close: async () => undefined },
      harvest: async () => found,
    };
    const counted = new CountedTracker(tracker);
    await counted.arm();
    await counted.harvest();
    expect(counted.pages).toBe(7);
    const report = await trackingReport(tracker, tracker, counted);
    expect(report).toMatchObject({ kind, reason: 'mine', unknown: expect.any(String) });
    expect([report.stallMs, report.faults]).toEqual([undefined, undefined]);
    const failing: DirtyTracker = { ...tracker, firstWriteCost: () => Promise.reject(new Error('gone')) };
    expect((await trackingReport(failing, failing, counted)).stallMs).toBeUndefined();
  },
);

it('the cost of a first write is asked of an open tracker, and is none where nobody hears of writes', async () => {
  await using memory = GuestMemory.allocate([{ base: 0n, bytes: mib }]);
  const tracker = trackMemory(memory, { kind: 'digest' });
  expect(await tracker.firstWriteCost()).toBe(0);
  await tracker.close();
  await expect(tracker.firstWriteCost()).rejects.toMatchObject({ code: 'CHKPT_CLOSED' });
  const reported = trackMemory(memory, { kind: 'reported' });
  expect(await reported.firstWriteCost()).toBeUndefined();
  await reported.close();
});
