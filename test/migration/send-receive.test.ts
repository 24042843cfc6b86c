/** Whole migrations of the synthetic machine, whose pages say what they are and when they were written. */
import { expect, it } from 'vitest';
import type { SendProgress } from '../../src/index.ts';
import { makePair, migrate, watch } from './support.ts';

it('a machine that stands still arrives as it is, and stands still', async () => {
  await using pair = await makePair({ guestLike: true });
  const before = await pair.source.digest();
  const { send, receive } = await migrate(pair);
  const report = await send;
  await receive;
  expect(await pair.destination.digest()).toBe(before);
  expect(report.memoryBytes).toBe(64 * 2 ** 20);
});

it.each([1, 2, 3])(
  'a running guest arrives as it was when it stopped, over %d connections',
  async (streams) => {
    await using pair = await makePair({ guestLike: true, pagesPerSecond: 3000 });
    const watched = watch(pair);
    pair.source.trackChanges();
    await pair.source.resume();
    const told: SendProgress[] = [];
    const { send, receive } = await migrate(pair, { send: { streams, onProgress: (one) => told.push(one) } });
    const report = await send;
    const received = await receive;
    expect(pair.destination.running).toBe(true);
    expect(watched.arrived).toBe(watched.stopped);
    expect(pair.source.running).toBe(false);
    await expect(pair.source.resume()).rejects.toMatchObject({ code: 'CHKPT_VM_FAILED' });
    expect(report.rounds.length).toBeGreaterThan(1);
    expect(report.migration).toBe(received.migration);
    expect(report.tracker.kind).toBe('write-protect');
    expect(told.at(0)?.phase).toBe('connect');
    console.log(report);
    await new Promise((resolve) => setTimeout(resolve, 50));
    await pair.destination.pause();
    const stamps = await pair.destination.checkStamps();
    expect(stamps.damaged).toBe(0);
    expect(stamps.stamped).toBeGreaterThan(0);
  },
);
