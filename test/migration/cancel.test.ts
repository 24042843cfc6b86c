/**
 * Either end gives up: at every moment of a migration, and at random ones around its completion. One host runs the guest afterwards, with
 * what it had when it stopped. `CHKPT_CANCELS=1000` for as many random ones; `CHKPT_CANCEL_SEED` begins with another seed.
 */
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, expect, it } from 'vitest';
import { CheckpointError } from '../../src/index.ts';
import { Journal } from '../../src/migration/journal.ts';
import { RecordChannel } from '../../src/migration/wire/record-channel.ts';
import { leasesOf, runUnderLease } from './lease.mjs';
import { watchPoints } from './points.mjs';
import { randomOf } from './random.ts';
import { makePair, migrate, watch } from './support.ts';

const count = Number(process.env['CHKPT_CANCELS'] ?? 24);
const firstSeed = Number(process.env['CHKPT_CANCEL_SEED'] ?? 1);
const machine = { memoryBytes: 2 ** 20, pagesPerSecond: 500, guestLike: true } as const;

let unwatch = (): void => undefined;
afterEach(() => unwatch());

type End = 'moved' | 'stayed';
type Side = 'source' | 'destination';

/** A migration that `who` gives up when `isNow` says so, given the moment and its number. Resolves to how it ended, for both. */
async function cancelled(
  who: Side,
  isNow: (point: string, number: number) => boolean,
  delayMs = 0,
): Promise<{ readonly end: End; readonly wasReached: boolean; readonly points: number }> {
  await using pair = await makePair(machine);
  const watched = watch(pair);
  const lease = join(pair.folder, 'lease');
  runUnderLease(pair.source, lease, 'source');
  runUnderLease(pair.destination, lease, 'destination');
  const stops = { source: new AbortController(), destination: new AbortController() };
  let points = 0;
  let wasReached = false;
  unwatch = watchPoints({ Journal, RecordChannel }, async (point) => {
    const number = points;
    points += 1;
    if (wasReached || !isNow(point, number)) return;
    wasReached = true;
    if (delayMs > 0) setTimeout(() => stops[who].abort(), delayMs);
    else stops[who].abort();
  });
  await pair.source.resume();
  const { send, receive } = await migrate(pair, {
    send: { signal: stops.source.signal, reconnectMs: 300, downtimeMaxMs: 2000 },
    receive: { signal: stops.destination.signal, reconnectMs: 300, lingerMs: 300 },
  });
  const ended = receive.then(
    () => 'moved' as const,
    () => 'stayed' as const,
  );
  const end = await send.then(
    () => 'moved' as const,
    (error: unknown) => {
      expect(error).toBeInstanceOf(CheckpointError);
      return 'stayed' as const;
    },
  );
  // At once: nobody has to do anything about it.
  expect([pair.source.running, end]).toEqual([end === 'stayed', end]);
  // One that has seen nothing waits for another guest.
  if (end === 'stayed') stops.destination.abort();
  expect(await ended).toBe(end);
  expect(pair.destination.running).toBe(end === 'moved');
  if (end === 'moved') expect(watched.arrived).toBe(watched.stopped);
  const here = end === 'moved' ? pair.destination : pair.source;
  await here.pause();
  expect((await here.checkStamps()).damaged).toBe(0);
  expect(leasesOf(lease).violations).toEqual([]);
  await sleep(0);
  unwatch();
  return { end, wasReached, points };
}

/** Moments of the source and of the destination, and what becomes of the guest when the source, or the destination, gives up then. */
const moments: readonly (readonly [
  point: string,
  bySource: End | 'either',
  byDestination: End | 'either',
])[] = [
  ['source before record begin', 'stayed', 'stayed'],
  ['source after record begin', 'stayed', 'stayed'],
  ['source after send offer', 'stayed', 'stayed'],
  ['destination after receipt of offer', 'stayed', 'stayed'],
  ['destination after send accept', 'stayed', 'stayed'],
  ['source after receipt of accept', 'stayed', 'stayed'],
  ['destination before send got', 'stayed', 'stayed'],
  ['source after receipt of got', 'stayed', 'stayed'],
  ['source before send end', 'stayed', 'stayed'],
  ['source after send end', 'stayed', 'stayed'],
  ['destination after receipt of end', 'stayed', 'stayed'],
  ['destination before record prepared', 'stayed', 'stayed'],
  ['destination after record prepared', 'stayed', 'stayed'],
  ['destination before send prepared', 'stayed', 'stayed'],
  // Who is faster, PREPARED or the cancel.
  ['destination after send prepared', 'either', 'stayed'],
  ['source after receipt of prepared', 'stayed', 'either'],
  // From here on the source does not take it back.
  ['source before record commit', 'moved', 'either'],
  ['source after record commit', 'moved', 'either'],
  ['source after send commit', 'moved', 'either'],
  ['destination after receipt of commit', 'moved', 'stayed'],
  // And from here on the destination does not give it away.
  ['destination before record own', 'moved', 'moved'],
  ['destination after record own', 'moved', 'moved'],
  ['destination before send running', 'moved', 'moved'],
  ['source after receipt of running', 'moved', 'moved'],
  ['source before record released', 'moved', 'moved'],
  ['source after record released', 'moved', 'moved'],
  ['source before send done', 'moved', 'moved'],
];

it.each(['source', 'destination'] as const)(
  'the %s gives up at every moment: before COMMIT the guest stays',
  {
    timeout: 120_000,
  },
  async (who) => {
    const ends = { moved: 0, stayed: 0 };
    for (const [point, bySource, byDestination] of moments) {
      const { end, wasReached } = await cancelled(who, (now) => now === point);
      const expected = who === 'source' ? bySource : byDestination;
      expect([point, wasReached, expected === 'either' ? expected : end]).toEqual([point, true, expected]);
      ends[end] += 1;
    }
    console.log(`${moments.length} moments at which the ${who} gives up: ${JSON.stringify(ends)}`);
  },
);

it(`${count} migrations given up at random around their completion: one owner each, whole`, {
  timeout: 60_000 + count * 5000,
}, async () => {
  const { points } = await cancelled('source', () => false);
  const ends = { moved: 0, stayed: 0 };
  for (let seed = firstSeed; seed < firstSeed + count; seed += 1) {
    const random = randomOf(seed);
    const who = random() < 0.5 ? 'source' : 'destination';
    // END, PREPARED, COMMIT, OWN and RELEASED are in the last part of them.
    const at = Math.floor(points * (random() < 0.2 ? random() : 1 - 0.5 * random()));
    const delayMs = random() < 0.5 ? 0 : Math.floor(random() * 5);
    try {
      ends[(await cancelled(who, (_, number) => number === at, delayMs)).end] += 1;
    } catch (error) {
      throw new Error(`seed ${seed}`, { cause: error });
    }
  }
  console.log(`${count} migrations given up at random: ${JSON.stringify(ends)}`);
  expect(ends.moved + ends.stayed).toBe(count);
});
