/** What a plan foretells of numbers that are given: every outcome, and how the numbers move it. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  type ForecastInput,
  type ForecastSettings,
  forecastMigration,
  writtenPages,
} from '../../src/migration/plan/forecast.ts';

const mib = 2 ** 20;
const pageCount = 262_144;
/** 1 GiB over 100 MiB/s, pages as they are; the guest writes 1000 different pages a second. */
const input: ForecastInput = {
  ...{ pageCount, running: true, canThrottle: false, rate: 100 * mib, rttMs: 0.5 },
  looks: writing(1000),
  ...{ hotPages: undefined, bytesPerPage: 4096, dirtyBytesPerPage: 4096, againBytesPerPage: 4096 },
  ...{ keptPages: 16_384, pagesPerSecond: 1e6, roundMs: 1, roundBytes: 100, readMs: 0 },
};
const settings: ForecastSettings = {
  convergence: { downtimeTargetMs: 50, fixedMs: 4, patience: 4, roundsMax: 1000 },
  ...{ totalMaxMs: 60_000, strategy: 'abort', precopyRounds: undefined, downtimeMaxMs: 5000 },
};

/** A guest that writes so many pages in a second, each of them once. */
function writing(pagesPerSecond: number): ForecastInput['looks'] {
  return [62.5, 250, 1000].map((ms) => ({ ms, pages: (pagesPerSecond * ms) / 1000 }));
}

function forecast(
  changed: Partial<ForecastInput> = {},
  asked: Partial<ForecastSettings> = {},
): ReturnType<typeof forecastMigration> {
  return forecastMigration({ ...input, ...changed }, { ...settings, ...asked });
}

describe('pages that a guest writes in longer times', () => {
  it.each([
    ['a guest that never writes a page twice goes on so', writing(1000), 10_000, 10_000],
    [
      'one whose working set is complete writes no others',
      [
        { ms: 250, pages: 500 },
        { ms: 1000, pages: 500 },
      ],
      60_000,
      500,
    ],
    ['between two looks as many as between them', writing(1000), 500, 500],
    ['before the first one, too', writing(1000), 10, 10],
    [
      'half as fast in each quadrupling of the time',
      [
        { ms: 250, pages: 500 },
        { ms: 1000, pages: 1000 },
      ],
      4000,
      2000,
    ],
    [
      'one that began late may go on',
      [
        { ms: 250, pages: 0 },
        { ms: 1000, pages: 100 },
      ],
      2000,
      200,
    ],
    [
      'none were seen',
      [
        { ms: 250, pages: 0 },
        { ms: 1000, pages: 0 },
      ],
      60_000,
      0,
    ],
    ['nobody has looked', [], 1000, 0],
    ['never more than there are', writing(1000), 1e9, pageCount],
  ])('%s', (_, looks, ms, pages) => {
    expect(writtenPages(looks, ms, pageCount)).toBeCloseTo(pages, 3);
  });

  it('are never fewer in a longer time', () => {
    const steps = fc.array(fc.nat(50_000), { minLength: 1, maxLength: 4 });
    fc.assert(
      fc.property(steps, fc.nat(100_000), fc.nat(100_000), (grown, one, other) => {
        const looks = grown.map((_, i) => ({
          ms: 100 * 4 ** i,
          pages: grown.slice(0, i + 1).reduce((sum, more) => sum + more, 0),
        }));
        const [short, long] = [Math.min(one, other), Math.max(one, other)];
        const fewer = writtenPages(looks, short, pageCount);
        expect(writtenPages(looks, long, pageCount)).toBeGreaterThanOrEqual(fewer - 1e-6);
      }),
    );
  });
});

it('a guest that writes a tenth of the link moves, in the time that its bytes take', () => {
  // 10 MiB/s of 100: 10.24 s, 1.02 s, 0.1 s, and what is left takes less than the target.
  const { outcome, converges, limit, rounds, totalMs, downtimeMs, bytes } = forecast({
    looks: writing(2560),
  });
  expect({ outcome, converges, limit }).toEqual({ outcome: 'moves', converges: true, limit: 'link' });
  expect(rounds.map(({ ms }) => Math.round(ms / 100))).toEqual([102, 10, 1]);
  expect(totalMs).toBeGreaterThan(11_300);
  expect(totalMs).toBeLessThan(11_500);
  expect(downtimeMs).toBeLessThan(50);
  expect(bytes / (1024 * mib)).toBeCloseTo(1.11, 1);
});

it.each([
  ['stays where nothing helps', {}, {}, { outcome: 'stays', throttledShare: 0 }],
  [
    'stands still for long when it is forced',
    {},
    { strategy: 'force', downtimeMaxMs: undefined },
    { outcome: 'forced' },
  ],
  [
    'stays when it would stand still for longer than is allowed',
    {},
    { strategy: 'force' },
    { outcome: 'stays' },
  ],
  ['is slowed down until it moves', { canThrottle: true }, { totalMaxMs: 600_000 }, { outcome: 'moves' }],
  ['goes on at the destination', {}, { strategy: 'postcopy' }, { outcome: 'postcopy' }],
] as [string, Partial<ForecastInput>, Partial<ForecastSettings>, object][])(
  'a guest that writes more than the link takes %s',
  (_, changed, asked, expected) => {
    const told = forecast({ looks: writing(30_000), ...changed }, asked);
    expect(told).toMatchObject({ ...expected, converges: false, limit: 'writes' });
    expect(told.throttledShare > 0).toBe(changed.canThrottle === true);
    expect(told.missingPages > 0).toBe(told.outcome === 'postcopy');
    if (told.outcome === 'forced') expect(told.downtimeMs).toBeGreaterThan(50);
    if (told.outcome === 'stays' && changed.canThrottle !== true)
      expect(told.totalMs).toBeGreaterThanOrEqual(60_000);
    if (told.outcome === 'postcopy') expect(told.downtimeMs).toBeLessThan(50);
  },
);

it('with rounds that are counted post-copy begins behind them, and without any all pages are missing', () => {
  const none = forecast({}, { strategy: 'postcopy', precopyRounds: 0 });
  expect(none).toMatchObject({
    outcome: 'postcopy',
    roundCount: 0,
    missingPages: pageCount,
    converges: true,
  });
  const one = forecast({ looks: writing(30_000) }, { strategy: 'postcopy', precopyRounds: 1 });
  expect(one.roundCount).toBe(1);
  expect(one.missingPages).toBeLessThanOrEqual(pageCount);
  expect(one.totalMs).toBeGreaterThan(10_240);
});

it('a guest that stands still takes one round', () => {
  expect(forecast({ running: false })).toMatchObject({ outcome: 'moves', roundCount: 1, dirtyRate: 0 });
});

it('what is slower is the limit: the link, or the encoder', () => {
  expect(forecast({ looks: [] }).limit).toBe('link');
  const slow = forecast({ looks: [], pagesPerSecond: 10_000 });
  expect(slow.limit).toBe('encoding');
  expect(slow.totalMs).toBeGreaterThan(26_000);
  expect(slow.sendRate).toBeCloseTo(40_960_000, -3);
});

it('pages that are written again and again go as differences, as many as are kept', () => {
  const hot = {
    looks: [
      { ms: 250, pages: 10_000 },
      { ms: 1000, pages: 10_000 },
    ],
    hotPages: 10_000,
  };
  const whole = forecast(hot);
  expect(whole.outcome).toBe('stays');
  const differences = forecast({ ...hot, againBytesPerPage: 100 });
  expect(differences).toMatchObject({ outcome: 'moves', converges: true });
  expect(forecast({ ...hot, againBytesPerPage: 100, keptPages: 0 }).outcome).toBe('stays');
});

it('memory that is read as a whole in each round is read while the guest stands still, too', () => {
  const tracked = forecast({ looks: [] });
  const compared = forecast({ looks: [], readMs: 40 });
  expect(compared.downtimeMs).toBeGreaterThan(tracked.downtimeMs + 35);
  // When that alone is too long, it is not the guest's fault.
  expect(forecast({ looks: [], readMs: 60 })).toMatchObject({ outcome: 'stays', limit: 'encoding' });
});

it('a better link never makes a guest stay that would have moved', () => {
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 200 }), fc.integer({ min: 10, max: 40_000 }), (rate, dirty) => {
      const worse = forecast({ rate: rate * mib, looks: writing(dirty) });
      const better = forecast({ rate: 2 * rate * mib, looks: writing(dirty) });
      if (worse.outcome === 'moves') expect(better.outcome).toBe('moves');
      expect(worse.roundCount).toBeGreaterThanOrEqual(1);
      expect(Number.isFinite(worse.totalMs + worse.bytes + worse.downtimeMs)).toBe(true);
    }),
  );
});
