/**
 * Migrations of a writing guest over links that break at random places, for random times. `CHKPT_MIGRATIONS=1000` for as many; the seed of a
 * failure is in its message, and `CHKPT_MIGRATION_SEED` begins with it.
 */
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, it } from 'vitest';
import { MigrationInDoubtError } from '../../src/index.ts';
import { leasesOf, runUnderLease } from './lease.mjs';
import { type Cut, LinkProxy } from './link-proxy.ts';
import { randomOf } from './random.ts';
import { makePair, migrate, watch } from './support.ts';

const count = Number(process.env['CHKPT_MIGRATIONS'] ?? 12);
const firstSeed = Number(process.env['CHKPT_MIGRATION_SEED'] ?? 1);
/** Nine of ten writes go to a tenth of the pages: these are sent again, as differences. */
const machine = {
  memoryBytes: 4 * 2 ** 20,
  pagesPerSecond: 1500,
  pattern: 'hotspot',
  guestLike: true,
} as const;

function cutOf(random: () => number, streams: number): Cut {
  const connection = Math.floor(random() * (streams + 1));
  const direction = random() < 0.6 ? 'toDestination' : 'toSource';
  const most = connection === 0 ? (direction === 'toDestination' ? 1400 : 700) : 1_200_000;
  return { connection, direction, afterBytes: Math.floor(random() * most), how: 'reset', staysDown: true };
}

/** Pages that went as differences in the migrations that have come to their end. */
let deltaPages = 0;

async function once(seed: number): Promise<string> {
  const random = randomOf(seed);
  const streams = 1 + Math.floor(random() * 2);
  const cut = cutOf(random, streams);
  const downMs = Math.floor(random() * 900);
  await using pair = await makePair({ ...machine, seed });
  const watched = watch(pair);
  const lease = join(pair.folder, 'lease');
  runUnderLease(pair.source, lease, 'source');
  runUnderLease(pair.destination, lease, 'destination');
  pair.source.trackChanges();
  await pair.source.resume();
  const stop = new AbortController();
  let proxy: LinkProxy | undefined;
  const { send, receive } = await migrate(pair, {
    send: {
      streams,
      downtimeTargetMs: 12,
      // A busy machine may take longer for a round, however few its pages: the guest is stopped all the same.
      totalMaxMs: 8000,
      strategy: 'force',
      bandwidth: 20e6,
      reconnectMs: 4000,
      inDoubtMs: 300,
      downtimeMaxMs: 1500,
    },
    receive: { reconnectMs: 4000, signal: stop.signal },
    through: async (address) => {
      const made = await LinkProxy.open(join(pair.folder, 'proxy'), address, cut, () => {
        void sleep(downMs).then(() => made.heal());
      });
      proxy = made;
      return made.address;
    },
  });
  const received = receive.then(
    () => 'moved',
    () => 'stayed',
  );
  try {
    let end: string = await send.then(
      ({ rounds }) => {
        deltaPages += rounds.reduce((sum, round) => sum + round.deltaPages, 0);
        return 'moved';
      },
      (error: unknown) => (error instanceof MigrationInDoubtError ? 'inDoubt' : 'stayed'),
    );
    const wasInDoubt = end === 'inDoubt';
    if (wasInDoubt) {
      const error = await send.catch((reason: MigrationInDoubtError) => reason);
      expect(pair.source.running).toBe(false);
      end = await (error as unknown as MigrationInDoubtError).resolve();
    }
    // A destination that has seen nothing, or half a handshake, listens on.
    const timer = end === 'stayed' ? setTimeout(() => stop.abort(), 1500) : undefined;
    expect(await received).toBe(end);
    clearTimeout(timer);
    expect([pair.source.running, pair.destination.running]).toEqual([end === 'stayed', end === 'moved']);
    if (end === 'moved') expect(watched.arrived).toBe(watched.stopped);
    const { taken, violations } = leasesOf(lease);
    expect([violations, taken.filter((one) => one === 'destination').length]).toEqual([
      [],
      end === 'moved' ? 1 : 0,
    ]);
    const here = end === 'moved' ? pair.destination : pair.source;
    await here.pause();
    expect((await here.checkStamps()).damaged).toBe(0);
    return wasInDoubt ? `${end} after doubt` : end;
  } catch (error) {
    throw new Error(`seed ${seed}`, { cause: error });
  } finally {
    await proxy?.[Symbol.asyncDispose]();
  }
}

it(`${count} migrations over links that break: one owner each, and no write lost`, {
  timeout: 60_000 + count * 10_000,
}, async () => {
  const ends: Record<string, number> = {};
  for (let seed = firstSeed; seed < firstSeed + count; seed += 1) {
    const end = await once(seed);
    ends[end] = (ends[end] ?? 0) + 1;
  }
  console.log(`${count} migrations: ${JSON.stringify(ends)}, ${deltaPages} pages as differences`);
  expect(deltaPages).toBeGreaterThan(0);
  expect(Object.values(ends).reduce((sum, number) => sum + number, 0)).toBe(count);
});
