/** A guest that runs at the destination before its pages are there. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, test } from 'vitest';
import { MigrationInDoubtError } from '../../src/index.ts';
import { type Cut, LinkProxy } from './link-proxy.ts';
import { makePair, migrate, type Pair, watch } from './support.ts';

const hasUserfault = existsSync('/dev/userfaultfd');
if (!hasUserfault) console.log('post-copy is skipped: no /dev/userfaultfd');
const run = hasUserfault ? test : test.skip;

const allAfterwards = { strategy: 'postcopy', precopyRounds: 0 } as const;

/** Stands still, whole. */
async function expectWhole({ source, destination }: Pair): Promise<void> {
  expect(source.running).toBe(false);
  await expect(source.resume()).rejects.toMatchObject({ code: 'CHKPT_VM_FAILED' });
  await destination.pause();
  const stamps = await destination.checkStamps();
  expect(stamps.damaged).toBe(0);
  expect(stamps.stamped).toBeGreaterThan(0);
}

run(
  'a guest whose pages all come after it runs there: what stopped is what arrives, and no write is lost',
  async () => {
    await using pair = await makePair();
    const digests = watch(pair);
    await pair.source.resume();
    const { send, receive } = await migrate(pair, { send: allAfterwards });
    const received = await receive;
    await received.postcopy?.resident;
    const report = await send;
    expect(digests.arrived).toBe(digests.stopped);
    expect(received.postcopy?.pages).toBe(64 * 256);
    expect(received.postcopy?.left()).toBe(0);
    expect(report.rounds.length).toBe(1);
    expect(report.postcopy?.pages).toBeGreaterThan(0);
    await expectWhole(pair);
  },
);

run('the guest runs at the destination while most of its pages are still at the source', async () => {
  await using pair = await makePair({ pagesPerSecond: 2000 });
  await pair.source.resume();
  const { send, receive } = await migrate(pair, { send: { ...allAfterwards, bandwidth: 4e6, codec: 'raw' } });
  const received = await receive;
  expect(pair.destination.running).toBe(true);
  expect(received.postcopy?.left()).toBeGreaterThan(8000);
  // Its own thread is the one that fetches pages: it must not wait for one.
  expect(() => pair.destination.memory.read(0, 8)).toThrow(/another host/);
  await received.postcopy?.resident;
  await send;
  expect(received.postcopy?.waits().length).toBeGreaterThan(0);
  expect(pair.destination.memory.read(0, 8).length).toBe(8);
  await expectWhole(pair);
});

run('a guest that writes faster than the link goes over to post-copy after its rounds', async () => {
  await using pair = await makePair({ memoryBytes: 16 * 2 ** 20, pagesPerSecond: 4000 });
  const digests = watch(pair);
  await pair.source.resume();
  const { send, receive } = await migrate(pair, {
    send: { strategy: 'postcopy', bandwidth: 8e6, codec: 'raw', downtimeTargetMs: 5, streams: 2 },
  });
  const received = await receive;
  await received.postcopy?.resident;
  const report = await send;
  expect(report.rounds.length).toBeGreaterThan(2);
  expect(received.postcopy?.pages).toBeGreaterThan(0);
  expect(received.postcopy?.pages).toBeLessThan(16 * 256);
  expect(digests.arrived).toBe(digests.stopped);
  await expectWhole(pair);
});

run('links that break while pages are fetched are made anew, and the guest waits meanwhile', async () => {
  let reconnects = 0;
  for (const [connection, afterBytes] of [
    [0, 900],
    [1, 300_000],
    [1, 2_000_000],
    [2, 200],
    [2, 40_000],
  ] as const) {
    await using pair = await makePair({ memoryBytes: 16 * 2 ** 20, guestLike: true });
    const digests = watch(pair);
    await pair.source.resume();
    const cut: Cut = { connection, direction: 'toDestination', afterBytes, how: 'reset', staysDown: true };
    let proxy: LinkProxy | undefined;
    const { send, receive } = await migrate(pair, {
      send: { ...allAfterwards, codec: 'raw', inDoubtMs: 5000 },
      through: async (address) => {
        const made = await LinkProxy.open(join(pair.folder, 'proxy'), address, cut, () => {
          void sleep(150).then(() => made.heal());
        });
        proxy = made;
        return made.address;
      },
    });
    const received = await receive;
    await received.postcopy?.resident;
    reconnects += (await send).reconnects;
    expect(digests.arrived, `${connection} ${afterBytes}`).toBe(digests.stopped);
    await expectWhole(pair);
    await proxy?.[Symbol.asyncDispose]();
  }
  console.log(`post-copy: ${reconnects} links made anew`);
  expect(reconnects).toBeGreaterThanOrEqual(4);
});

run('a destination that gives up pages stops its guest, and nobody runs it', async () => {
  await using pair = await makePair({ pagesPerSecond: 4000 });
  await pair.source.resume();
  const stop = new AbortController();
  const { send, receive } = await migrate(pair, {
    send: { ...allAfterwards, bandwidth: 1e6, codec: 'raw' },
    receive: { signal: stop.signal },
  });
  const received = await receive;
  stop.abort();
  await expect(received.postcopy?.resident).rejects.toMatchObject({ code: 'CHKPT_ABORTED' });
  expect(pair.destination.failure).toBeDefined();
  await expect(pair.destination.resume()).rejects.toMatchObject({ code: 'CHKPT_VM_FAILED' });
  await expect(send).rejects.toThrow();
  expect(pair.source.running).toBe(false);
  await expect(pair.source.resume()).rejects.toMatchObject({ code: 'CHKPT_VM_FAILED' });
});

run(
  'a source that cannot reach the destination any more is told in doubt, and goes on when it comes back',
  async () => {
    await using pair = await makePair({ memoryBytes: 16 * 2 ** 20, guestLike: true });
    await pair.source.resume();
    const cut: Cut = {
      ...{ connection: 1, direction: 'toDestination', afterBytes: 500_000, how: 'reset', staysDown: true },
    } as const;
    let proxy: LinkProxy | undefined;
    const { send, receive } = await migrate(pair, {
      send: { ...allAfterwards, codec: 'raw', reconnectMs: 300 },
      through: async (address) => {
        proxy = await LinkProxy.open(join(pair.folder, 'proxy'), address, cut);
        return proxy.address;
      },
    });
    const received = await receive;
    const error = await send.then(
      () => undefined,
      (reason: unknown) => reason,
    );
    expect(error).toBeInstanceOf(MigrationInDoubtError);
    proxy?.heal();
    expect(await (error as MigrationInDoubtError).resolve()).toBe('moved');
    await received.postcopy?.resident;
    await expectWhole(pair);
    await proxy?.[Symbol.asyncDispose]();
  },
);
