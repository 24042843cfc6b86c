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
    await new Promise((resolve) => setTimeout(resolve, 50));
    await pair.destination.pause();
    const stamps = await pair.destination.checkStamps();
    expect(stamps.damaged).toBe(0);
    expect(stamps.stamped).toBeGreaterThan(0);
  },
);

it('a tracker that cannot be asked while the guest runs makes way for digests of what was sent', async () => {
  await using pair = await makePair({ guestLike: true, pagesPerSecond: 3000 });
  const watched = watch(pair);
  pair.source.trackChanges({ kind: 'digest' });
  await pair.source.resume();
  const { send, receive } = await migrate(pair, { send: { streams: 2, downtimeTargetMs: 500 } });
  const report = await send;
  await receive;
  expect(watched.arrived).toBe(watched.stopped);
  expect(report.tracker).toMatchObject({ kind: 'digest', reason: expect.stringContaining('was sent') });
  // Rounds are of all pages, and what is sent is what has changed.
  expect(report.rounds.length).toBeGreaterThan(1);
  for (const { round, pages } of report.rounds) if (round > 0) expect(pages).toBeLessThan(16384 / 2);
});

it('who gives up when the guest is about to run here is told that it runs', async () => {
  await using pair = await makePair({ memoryBytes: 8 * 2 ** 20 });
  await pair.source.resume();
  const stop = new AbortController();
  const { destination } = pair;
  const resume = destination.resume.bind(destination);
  destination.resume = async () => {
    stop.abort();
    await resume();
  };
  const { send, receive } = await migrate(pair, { receive: { signal: stop.signal } });
  await send;
  await receive;
  expect(destination.running).toBe(true);
});
