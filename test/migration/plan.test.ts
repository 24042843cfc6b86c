/** What a plan promises: it tells what a migration would come to, and changes nothing. */
import { randomBytes } from 'node:crypto';
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { loadVm, type SendProgress, saveVm, sendVm } from '../../src/index.ts';
import { listening } from './plan-support.ts';
import { makePair } from './support.ts';

const mib = 2 ** 20;
const windowMs = 400;

it('a guest that writes little moves by its plan, and then does so through the same listener', async () => {
  await using pair = await makePair({ guestLike: true, pagesPerSecond: 2000 });
  const { source, destination } = pair;
  source.trackChanges();
  await source.resume();
  let pauses = 0;
  const pause = source.pause.bind(source);
  source.pause = async () => {
    pauses += 1;
    await pause();
  };
  const before = await destination.digest();
  const { address, receive } = await listening(pair);
  const phases = new Set<string>();
  const onProgress = ({ phase }: SendProgress): void => void phases.add(phase);
  const journal = join(pair.folder, 'source');
  const options = { bandwidth: 32 * mib, streams: 2, downtimeTargetMs: 1000, journal };
  const plan = await sendVm(source, address, { ...options, plan: true, windowMs, onProgress });

  // Nothing has changed.
  expect([pauses, source.running, destination.running, destination.failure]).toEqual([
    0,
    true,
    false,
    undefined,
  ]);
  expect(await destination.digest()).toBe(before);
  await expect(readdir(journal)).rejects.toMatchObject({ code: 'ENOENT' });
  await expect(readdir(join(pair.folder, 'destination'))).rejects.toMatchObject({ code: 'ENOENT' });
  expect([...phases]).toEqual(['connect', 'watch']);
  const { pagesWritten } = source;
  await new Promise((resolve) => setTimeout(resolve, 50));
  expect(source.pagesWritten).toBeGreaterThan(pagesWritten);

  // It says what is the case, in wide brackets: other tests run beside.
  expect(plan).toMatchObject({ url: address, memoryBytes: 64 * mib, running: true });
  expect(plan.link).toMatchObject({ streams: 2 });
  expect(plan.link.rate).toBeGreaterThan(8 * mib);
  expect(plan.link.rate).toBeLessThan(64 * mib);
  expect(plan.link.rttMs).toBeGreaterThan(0);
  expect(plan.dirty.kind).toBe('write-protect');
  expect(plan.dirty.looks.map(({ pages }) => pages)).toEqual(
    plan.dirty.looks.map(({ pages }) => pages).toSorted((a, b) => a - b),
  );
  expect(plan.dirty.pagesPerSecond).toBeGreaterThan(500);
  expect(plan.dirty.pagesPerSecond).toBeLessThan(4000);
  expect(plan.forecast).toMatchObject({ outcome: 'moves', converges: true, missingPages: 0 });
  expect(plan.forecast.downtimeMs).toBeLessThan(1500);

  const report = await sendVm(source, address, options);
  await receive;
  expect(destination.running).toBe(true);
  expect(plan.forecast.bytes).toBeGreaterThan(report.bytesSent / 2);
  expect(plan.forecast.bytes).toBeLessThan(report.bytesSent * 2);
});

it('a guest that writes faster than the link takes does not converge, and stays, is forced, or switches', async () => {
  await using pair = await makePair({ guestLike: true, pagesPerSecond: 60_000, pattern: 'sequential' });
  await pair.source.resume();
  // With its help it would converge.
  Object.defineProperty(pair.source, 'throttle', { value: undefined });
  const { address, stop } = await listening(pair);
  const outcomes: Record<string, string> = {};
  for (const strategy of ['abort', 'force', 'postcopy'] as const) {
    const { forecast } = await sendVm(pair.source, address, {
      ...{ plan: true, windowMs: 200, bandwidth: 4 * mib, strategy, totalMaxMs: 20_000 },
    });
    outcomes[strategy] = forecast.outcome;
    expect(forecast).toMatchObject({ converges: false, limit: 'writes' });
    if (strategy === 'postcopy') expect(forecast.missingPages).toBeGreaterThan(0);
  }
  expect(outcomes).toEqual({ abort: 'stays', force: 'forced', postcopy: 'postcopy' });
  await stop();
});

it('without a tracker that can be asked, a sample of pages says what is written', async () => {
  await using pair = await makePair({ memoryBytes: 128 * mib, guestLike: true, pagesPerSecond: 8000 });
  pair.source.trackChanges({ kind: 'digest' });
  await pair.source.resume();
  const { address, stop } = await listening(pair);
  const plan = await sendVm(pair.source, address, { plan: true, windowMs, downtimeTargetMs: 500 });
  expect(plan.dirty).toMatchObject({ kind: 'digest', sampledPages: 16_384 });
  expect(plan.dirty.reason).toContain('was sent');
  expect(plan.dirty.pagesPerSecond).toBeGreaterThan(2000);
  expect(plan.dirty.pagesPerSecond).toBeLessThan(16_000);
  expect(plan.encoding.readMs).toBeGreaterThan(0);
  expect(plan.uncertain.join()).toContain('16384 of 32768 pages');
  await stop();
});

it.each(['write-protect', 'digest'] as const)(
  'an increment after a plan has every change, those that the plan was told of included (%s)',
  async (kind) => {
    await using pair = await makePair({ memoryBytes: 16 * mib, pagesPerSecond: 4000 });
    const { source, destination, folder } = pair;
    source.trackChanges({ kind });
    await source.resume();
    await saveVm(source, `file:${folder}/base`);
    await new Promise((resolve) => setTimeout(resolve, 50));
    const { address, stop } = await listening(pair);
    await sendVm(source, address, { plan: true, windowMs: 200 });
    await source.pause();
    const expected = await source.digest();
    const report = await saveVm(source, `file:${folder}/next`, { parent: `file:${folder}/base` });
    expect(report.tracker?.kind).toBe(kind);
    await stop();
    await loadVm(destination, `file:${folder}/next`);
    expect(await destination.digest()).toBe(expected);
  },
);

it('a plan that is cancelled ends at once, and the next one is taken', async () => {
  await using pair = await makePair({ memoryBytes: 16 * mib });
  await pair.source.resume();
  const { address, stop } = await listening(pair);
  for (const phase of ['connect', 'watch']) {
    const cancel = new AbortController();
    const plan = sendVm(pair.source, address, {
      ...{ plan: true, windowMs: 60_000, signal: cancel.signal, bandwidth: 600 * mib },
      onProgress: (progress) => {
        if (progress.phase === phase) setTimeout(() => cancel.abort(), 50);
      },
    });
    await expect(plan).rejects.toMatchObject({ code: 'CHKPT_ABORTED' });
  }
  const plan = await sendVm(pair.source, address, { plan: true, windowMs: 50 });
  expect(plan.forecast.outcome).toBe('moves');
  await stop();
});

it('a destination that would refuse the guest says so to its plan, with the reason, and listens on', async () => {
  await using pair = await makePair({ memoryBytes: 16 * mib });
  await using other = await makePair({ memoryBytes: 8 * mib });
  const { address, stop } = await listening(pair);
  await expect(sendVm(other.source, address, { plan: true, windowMs: 50 })).rejects.toMatchObject({
    code: 'CHKPT_PEER_REFUSED',
    message: expect.stringContaining('CHKPT_VM_REGIONS'),
  });
  const plan = await sendVm(pair.source, address, { plan: true, windowMs: 50 });
  expect(plan).toMatchObject({ running: false, dirty: { looks: [], pagesPerSecond: 0 } });
  expect(plan.uncertain.join()).toContain('stands still');
  await stop();
});

it('a one-time key is good for a plan and still for the migration', async () => {
  await using pair = await makePair({ memoryBytes: 8 * mib });
  await pair.source.resume();
  const psk = { key: randomBytes(32), uses: 2 };
  const { address, receive } = await listening(pair, { psk });
  await sendVm(pair.source, address, { plan: true, windowMs: 50, psk });
  await sendVm(pair.source, address, { journal: join(pair.folder, 'source'), psk });
  await receive;
  expect(pair.destination.running).toBe(true);
});

it('options of a plan are checked before anything is measured', async () => {
  await using pair = await makePair({ memoryBytes: 8 * mib });
  for (const windowMs of [0, 49, 60_001, Number.NaN]) {
    await expect(sendVm(pair.source, 'unix:/nowhere', { plan: true, windowMs })).rejects.toThrow(RangeError);
  }
  await expect(sendVm(pair.source, 'unix:/nowhere', { plan: true, streams: 17 })).rejects.toThrow(RangeError);
  await expect(sendVm(pair.source, 'unix:/nowhere', { plan: true })).rejects.toMatchObject({
    code: 'CHKPT_LINK_LOST',
  });
});
