/** What people are shown of a plan. */
import { expect, test } from 'vitest';
import { planText } from '../../src/cli/migration-plan.ts';
import type { MigrationForecast, MigrationPlan } from '../../src/index.ts';

const forecast: MigrationForecast = {
  ...{
    outcome: 'moves',
    converges: true,
    limit: 'link',
    roundCount: 2,
    totalMs: 11_400,
    bytes: 1.1 * 2 ** 30,
  },
  rounds: [
    { pages: 262_144, bytes: 2 ** 30, ms: 10_240, dirtyPages: 26_214 },
    { pages: 26_214, bytes: 107_372_544, ms: 1024, dirtyPages: 2600 },
  ],
  ...{
    downtimeMs: 44,
    downtimeTargetMs: 50,
    sendRate: 2 ** 20,
    dirtyRate: 1,
    throttledShare: 0,
    missingPages: 0,
  },
};
const plan: MigrationPlan = {
  ...{
    url: 'tls://host:7000',
    memoryBytes: 2 ** 30,
    running: true,
    forecast,
    uncertain: [],
    elapsedMs: 2000,
  },
  link: { streams: 2, rate: 100 * 2 ** 20, rttMs: 0.42, bytes: 10 ** 8, ms: 1000 },
  dirty: {
    ...{ kind: 'write-protect', reason: 'sees every write', pagesPerSecond: 2560 },
    ...{ looks: [{ ms: 1000, pages: 2560 }], sampledPages: undefined, hotPages: undefined },
  },
  encoding: {
    ...{ codec: 'lz4', threads: 4, sampledPages: 8192, sampledDirtyPages: 640, bytesPerPage: 1365 },
    ...{
      dirtyBytesPerPage: 2048,
      againBytesPerPage: 100,
      pagesPerSecond: 262_144,
      roundMs: 2,
      roundBytes: 0,
      readMs: 0,
    },
  },
};

test('what was measured, each round, and what comes of it', () => {
  expect(planText(plan)).toBe(`guest    1.00 GiB, 2560 pages written in 1.00 s (10.0 MiB/s of memory)
link     100 MiB/s over 2 connections, 0.42 ms there and back: tls://host:7000
pages    lz4: 3.00 : 1, written ones 2.00 : 1; 1.00 GiB/s with 4 threads
tracker  write-protect: sees every write

ROUND   PAGES      SENT    TIME  WRITTEN
    0  262144  1.00 GiB  10.2 s    26214
    1   26214   102 MiB  1.02 s     2600

It would move in about 11.4 s and 1.10 GiB, and stands still for about 44 ms (50 ms asked for); the link is the limit.
`);
});

test.each([
  [
    { outcome: 'forced', converges: false, limit: 'writes', downtimeMs: 2500 },
    /^It would move .* about 2\.50 s .*; it is forced: the guest writes too fast/m,
  ],
  [
    { outcome: 'stays', limit: 'writes', throttledShare: 0.95 },
    /^It would stay: .*, slowed down by up to 95 %; the guest writes too fast/m,
  ],
  [
    { outcome: 'postcopy', missingPages: 77 },
    /^It would go on there with 77 pages missing, have all in about 11\.4 s/m,
  ],
  [{ limit: 'encoding' }, /; encoding is the limit\.$/m],
] as [Partial<MigrationForecast>, RegExp][])('the last line says it: %j', (changed, line) => {
  expect(planText({ ...plan, forecast: { ...forecast, ...changed } })).toMatch(line);
});

test('of many rounds the first and the last, of none that there are none; what is not sure comes last', () => {
  const rounds = Array.from({ length: 30 }, (_, i) => ({ pages: 1000 + i, bytes: 1, ms: 1, dirtyPages: 1 }));
  const text = planText({
    ...plan,
    forecast: { ...forecast, rounds, roundCount: 900 },
    uncertain: ['a guess'],
  });
  expect(text.match(/^ +\d+ /gm)).toHaveLength(8);
  expect(text).toMatch(/^ {4}5 .*\n {4}….*\n {3}28 .*\n {3}29 .*\n {4}…$/m);
  expect(text).toMatch(/\nnot sure: a guess\n$/);
  const none = { ...forecast, rounds: [], roundCount: 0 };
  expect(planText({ ...plan, running: false, forecast: none })).toMatch(
    /^guest +1.00 GiB, stands still$[\s\S]*^no rounds$/m,
  );
});

test('nothing that came from elsewhere moves the cursor', () => {
  expect(planText({ ...plan, url: 'unix:/\u001b[2J' })).not.toContain('\u001b');
});
