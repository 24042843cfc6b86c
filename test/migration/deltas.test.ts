/** Pages that are sent again as their difference: less on the wire, and whatever breaks, what arrives is what was sent. */
import fc from 'fast-check';
import { expect, it } from 'vitest';
import { type Break, pageBytes, RoundsBench } from './rounds-fixture.ts';
import { makePair, migrate, watch } from './support.ts';

/** mulberry32 */
function randomOf(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** A page that LZ4 about halves: every other line is one that was there before. */
function textLike(random: () => number): Uint8Array {
  const page = new Uint8Array(pageBytes);
  for (let line = 0; line < pageBytes; line += 64) {
    const earlier = 128 * Math.floor((random() * line) / 128);
    if (line % 128 === 0) for (let at = 0; at < 64; at += 1) page[line + at] = Math.floor(random() * 256);
    else page.copyWithin(line, earlier, earlier + 64);
  }
  return page;
}

/** Rounds of a guest that changes up to 16 words of the same pages, over and over. */
async function rewrite(deltaCache: number, tracks: boolean) {
  await using bench = await RoundsBench.open({ pageCount: 1024, deltaCache, tracks });
  const random = randomOf(7);
  for (let page = 0; page < 1024; page += 1) bench.fill(page, textLike(random));
  await bench.begin();
  await bench.send();
  let bytes = 0;
  let deltaPages = 0;
  for (let round = 1; round <= 6; round += 1) {
    for (let page = 100; page < 500; page += 1) bench.edit(page, 1 + Math.floor(random() * 16), random);
    const count = await bench.send();
    expect(count?.pages).toBe(400);
    // The first of them brings what the others differ from.
    if (round > 1) bytes += count?.bytes ?? 0;
    deltaPages += count?.deltaPages ?? 0;
    expect(await bench.isEqual()).toBe(true);
  }
  return { bytes, deltaPages };
}

it.each([true, false])(
  'pages that change little take less than 0.3 of their bytes (tracker: %s)',
  async (tracks) => {
    const whole = await rewrite(0, tracks);
    const deltas = await rewrite(64 * 2 ** 20, tracks);
    console.log(`${deltas.bytes} bytes with differences, ${whole.bytes} without`);
    expect(whole.deltaPages).toBe(0);
    expect(deltas.deltaPages).toBe(5 * 400);
    expect(deltas.bytes).toBeLessThan(0.3 * whole.bytes);
  },
);

it('of more pages than the cache holds, as many go as differences in every round as it holds', async () => {
  const { deltaPages } = await rewrite(100 * pageBytes, true);
  expect(deltaPages).toBe(5 * 100);
});

const step = fc.oneof(
  { weight: 6, arbitrary: fc.constant<Break>({}) },
  { weight: 3, arbitrary: fc.record({ afterBytes: fc.integer({ min: 0, max: 60_000 }) }) },
  { weight: 1, arbitrary: fc.record({ afterStreams: fc.integer({ min: 1, max: 2 }) }) },
  { weight: 1, arbitrary: fc.constant('restart' as const) },
);

it('whatever breaks, the destination comes to hold what the source has, and never takes a difference for another page', async () => {
  let deltaPages = 0;
  let breaks = 0;
  await fc.assert(
    fc.asyncProperty(
      fc.array(step, { minLength: 4, maxLength: 14 }),
      fc.integer(),
      fc.constantFrom(40, 1000),
      fc.boolean(),
      fc.constantFrom(1, 2),
      async (steps, seed, versions, tracks, lanes) => {
        const deltaCache = versions * pageBytes;
        await using bench = await RoundsBench.open({ pageCount: 512, deltaCache, tracks, lanes });
        const random = randomOf(seed);
        for (let page = 0; page < 300; page += 1) bench.fill(page, textLike(random));
        await bench.begin();
        for (const one of [...steps, {}, {}]) {
          // A guest rewrites a few of its pages wholly, or with zeros, and most of them a little.
          for (let page = 0; page < 512; page += 1) {
            const choice = random();
            if (choice < 0.3) bench.edit(page, 1 + Math.floor(random() * 16), random);
            else if (choice < 0.32) bench.fill(page, textLike(random));
            else if (choice < 0.34) bench.fill(page, new Uint8Array(pageBytes));
          }
          if (one === 'restart') {
            bench.restart();
            await bench.begin();
            continue;
          }
          const count = await bench.send(one);
          deltaPages += count?.deltaPages ?? 0;
          if (count !== undefined) continue;
          breaks += 1;
          await bench.begin();
        }
        expect(await bench.isEqual()).toBe(true);
      },
    ),
    {
      numRuns: 15,
      examples: [
        [[{}, {}, {}, 'restart', {}], 1, 1000, true, 1],
        [[{}, {}, { afterStreams: 1 }, { afterBytes: 20_000 }, {}], 2, 1000, false, 2],
      ],
    },
  );
  console.log(`${deltaPages} differences, ${breaks} breaks`);
  expect(deltaPages).toBeGreaterThan(100);
  expect(breaks).toBeGreaterThan(10);
});

it('a destination that holds another page than was sent refuses, and the guest stays', async () => {
  await using pair = await makePair({ memoryBytes: 4 * 2 ** 20, pagesPerSecond: 20_000, guestLike: true });
  pair.source.trackChanges();
  await pair.source.resume();
  const { memory } = pair.destination;
  let isPlanted = false;
  const { send, receive } = await migrate(pair, {
    send: {
      downtimeTargetMs: 1,
      reconnectMs: 500,
      onProgress: ({ round }) => {
        // A bit of each page turns over at the destination.
        if (round < 3 || isPlanted) return;
        isPlanted = true;
        for (let page = 0; page < 1024; page += 1) {
          const at = page * pageBytes + 100;
          memory.write(
            at,
            memory.read(at, 1).map((byte) => byte ^ 1),
          );
        }
      },
    },
  });
  await expect(receive).rejects.toMatchObject({ code: 'CHKPT_DIGEST' });
  // Or the link goes before what the destination says about it is heard.
  await expect(send).rejects.toMatchObject({
    code: expect.stringMatching(/^CHKPT_(PEER_REFUSED|LINK_LOST)$/),
  });
  expect([pair.source.running, pair.destination.running]).toEqual([true, false]);
});

it('a guest that writes faster than the link carries pages arrives, because the link carries their differences', async () => {
  // 65 MB/s in pages of which LZ4 makes half; most are written again before a round of whole ones is over.
  const machine = {
    memoryBytes: 32 * 2 ** 20,
    pagesPerSecond: 16_000,
    writePages: { first: 0, count: 4096 },
  };
  const send = { bandwidth: 15e6, downtimeTargetMs: 60, totalMaxMs: 2500 };
  {
    await using pair = await makePair({ ...machine, guestLike: true });
    pair.source.trackChanges();
    await pair.source.resume();
    const { send: sent, receive } = await migrate(pair, { send: { ...send, deltaCache: 0 } });
    receive.catch(() => undefined);
    await expect(sent).rejects.toMatchObject({ code: 'CHKPT_NO_CONVERGENCE' });
  }
  await using pair = await makePair({ ...machine, guestLike: true });
  const watched = watch(pair);
  pair.source.trackChanges();
  await pair.source.resume();
  const { send: sent, receive } = await migrate(pair, { send: { ...send, totalMaxMs: 60_000 } });
  const report = await sent;
  await receive;
  expect(watched.arrived).toBe(watched.stopped);
  expect(report.rounds.reduce((sum, round) => sum + round.deltaPages, 0)).toBeGreaterThan(0);
  console.log(
    report.rounds
      .map(
        ({ pages, deltaPages, bytes, ms }) =>
          `${pages} pages, ${deltaPages} differences, ${bytes} bytes, ${Math.round(ms)} ms`,
      )
      .join('\n'),
    report.downtime,
  );
});
