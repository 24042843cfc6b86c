/** What a migration refuses, gives up, or is told to give up: each time the guest runs on where it was. */
import { randomBytes } from 'node:crypto';
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { SyntheticVm } from '../../src/adapters/synthetic/index.ts';
import { MigrationInDoubtError, receiveVm, sendVm } from '../../src/index.ts';
import { makePair, migrate, watch } from './support.ts';

const mib = 2 ** 20;

/** Every page is written between two looks, however little of the processor the guest gets. */
function writesEverything(source: SyntheticVm): void {
  const tracker = source.trackChanges();
  const harvest = tracker.harvest.bind(tracker);
  tracker.harvest = async () => {
    const pages = await harvest();
    pages.markRun(0, pages.pageCount);
    return pages;
  };
}

it('a machine of another size is refused before a byte of it is touched, with the reason', async () => {
  await using pair = await makePair({ memoryBytes: 16 * mib });
  const other = await SyntheticVm.create({ id: 'guest', memoryBytes: 8 * mib });
  await using mixed = { ...pair, destination: other, [Symbol.asyncDispose]: () => other.close() };
  await pair.source.resume();
  const before = await other.digest();
  const { send, receive } = await migrate(mixed);
  await expect(send).rejects.toMatchObject({
    code: 'CHKPT_PEER_REFUSED',
    message: expect.stringContaining('CHKPT_VM_REGIONS'),
  });
  await expect(receive).rejects.toMatchObject({ code: 'CHKPT_VM_REGIONS' });
  expect(pair.source.running).toBe(true);
  expect(other.failure).toBeUndefined();
  // The address is free again.
  await using second = await makePair({ memoryBytes: mib });
  const again = receiveVm(second.destination, `unix:${pair.folder}/socket`, {
    signal: AbortSignal.timeout(300),
  });
  await expect(again).rejects.toMatchObject({ code: 'CHKPT_ABORTED' });
  expect(await other.digest()).toBe(before);
});

it('cancelled between two rounds: the guest runs on, and the destination refuses to run what it has', async () => {
  await using pair = await makePair({ pagesPerSecond: 20_000, guestLike: true });
  await pair.source.resume();
  const stop = new AbortController();
  const { send, receive } = await migrate(pair, {
    send: {
      signal: stop.signal,
      // Too slow to converge.
      bandwidth: 8 * mib,
      onProgress: ({ phase, round }) => {
        if (phase === 'memory' && round === 1) stop.abort();
      },
    },
  });
  const received = receive.catch((error: unknown) => error);
  const error = await send.catch((reason: unknown) => reason);
  expect(error).toMatchObject({ code: 'CHKPT_ABORTED' });
  // No other error may be taken for doubt.
  expect(error).not.toBeInstanceOf(MigrationInDoubtError);
  expect(pair.source.running).toBe(true);
  await received;
  await expect(pair.destination.resume()).rejects.toMatchObject({ code: 'CHKPT_VM_FAILED' });
  const { pagesWritten } = pair.source;
  await new Promise((resolve) => setTimeout(resolve, 100));
  expect(pair.source.pagesWritten).toBeGreaterThan(pagesWritten);
});

it('a guest that writes faster than the link takes: abort leaves it, force moves it', {
  timeout: 120_000,
}, async () => {
  const busy = { memoryBytes: 16 * mib, pagesPerSecond: 20_000, guestLike: true } as const;
  const slow = { bandwidth: 4 * mib, downtimeTargetMs: 1, totalMaxMs: 3000 } as const;
  {
    await using pair = await makePair(busy);
    writesEverything(pair.source);
    await pair.source.resume();
    const { send, receive } = await migrate(pair, { send: slow });
    receive.catch(() => undefined);
    await expect(send).rejects.toMatchObject({ code: 'CHKPT_NO_CONVERGENCE' });
    expect(pair.source.running).toBe(true);
  }
  await using pair = await makePair(busy);
  writesEverything(pair.source);
  const watched = watch(pair);
  await pair.source.resume();
  const { send, receive } = await migrate(pair, {
    send: { ...slow, strategy: 'force', downtimeMaxMs: 60_000 },
  });
  const report = await send;
  await receive;
  expect(watched.arrived).toBe(watched.stopped);
  expect(report.downtime.totalMs).toBeGreaterThan(slow.downtimeTargetMs);
  // The cap holds, but for one piece.
  expect(report.bytesSent / report.elapsedMs).toBeLessThan((slow.bandwidth * 1.3) / 1000 + 3000);
});

it('a machine that can be slowed down is, until it converges, and is fast again afterwards', {
  timeout: 120_000,
}, async () => {
  await using pair = await makePair({ memoryBytes: 4 * mib, guestLike: true });
  writesEverything(pair.source);
  const shares: number[] = [];
  const { source } = pair;
  Object.assign(source, {
    throttle: async (share: number) => {
      shares.push(share);
      // A guest that is slowed down to nothing converges.
      if (share > 0.3) await source.pause();
    },
  });
  await source.resume();
  const { send, receive } = await migrate(pair, { send: { bandwidth: 2 * mib, downtimeTargetMs: 1 } });
  const report = await send;
  await receive;
  expect(shares.slice(0, 2)).toEqual([0.2, 0.35]);
  expect(shares.at(-1)).toBe(0);
  expect(report.throttledShare).toBeCloseTo(0.35);
});

it('over TCP with a one-time key; without it, and with another one, nobody gets in', async () => {
  await using pair = await makePair({ memoryBytes: 8 * mib });
  await pair.source.resume();
  const key = randomBytes(32);
  const { send, receive, address } = await migrate(pair, {
    url: 'tcp://127.0.0.1:0',
    receive: { psk: { key, uses: 2 } },
    send: { psk: { key, uses: 2 } },
    through: async (where) => {
      for (const options of [{}, { psk: { key: randomBytes(32) } }]) {
        const intruder = await SyntheticVm.create({ id: 'guest', memoryBytes: 8 * mib });
        const folder = join(pair.folder, 'intruder');
        await expect(sendVm(intruder, where, { ...options, journal: folder })).rejects.toMatchObject({
          kind: 'io',
        });
        await intruder.close();
      }
      return where;
    },
  });
  expect(address).toMatch(/^tcp:/);
  await send;
  await receive;
  expect([pair.source.running, pair.destination.running]).toEqual([false, true]);
});

it('journals say who owned the guest, and hosts that have them do not take the same migration twice', async () => {
  await using pair = await makePair({ memoryBytes: 8 * mib });
  await pair.source.resume();
  const migration = '3d0a7a0e-5a3f-4e0c-9df1-6f3f5c0e8a11';
  const { send, receive } = await migrate(pair, { send: { migration } });
  await send;
  await receive;
  const journal = async (side: string): Promise<string[]> => {
    const [file] = await readdir(join(pair.folder, side));
    return (await readFile(join(pair.folder, side, String(file)), 'utf8')).trim().split('\n').slice(1);
  };
  expect(await journal('source')).toEqual(['begin', 'commit', 'released']);
  expect((await journal('destination')).slice(0, 2)).toEqual(['prepared', 'own']);
  const again = await SyntheticVm.create({ id: 'guest', memoryBytes: 8 * mib });
  await expect(
    sendVm(again, 'unix:/nowhere', { migration, journal: join(pair.folder, 'source') }),
  ).rejects.toMatchObject({ code: 'CHKPT_USAGE' });
  await again.close();
});

it('a machine that runs receives nothing, and one without memory is not sent', async () => {
  await using pair = await makePair({ memoryBytes: mib });
  await pair.destination.resume();
  await expect(receiveVm(pair.destination, `unix:${pair.folder}/s`)).rejects.toMatchObject({
    code: 'CHKPT_VM_RUNNING',
  });
  await expect(sendVm({ ...pair.source, memory: undefined } as never, 'unix:/nowhere')).rejects.toThrow(
    TypeError,
  );
  await expect(sendVm(pair.source, 'unix:/nowhere', { streams: 0 })).rejects.toThrow(RangeError);
});

it('a guest that takes long to stop runs again when the migration has given up meanwhile', async () => {
  await using pair = await makePair({ memoryBytes: 8 * mib });
  const { source } = pair;
  await source.resume();
  const pause = source.pause.bind(source);
  source.pause = async () => {
    await new Promise((resolve) => setTimeout(resolve, 500));
    await pause();
  };
  const { send, receive } = await migrate(pair, { send: { downtimeMaxMs: 100 } });
  receive.catch(() => undefined);
  await expect(send).rejects.toMatchObject({ code: 'CHKPT_TIMEOUT' });
  expect(source.running).toBe(true);
  await new Promise((resolve) => setTimeout(resolve, 600));
  expect(source.running).toBe(true);
});

it('a receiver that is busy with another guest is not knocked at for ever', async () => {
  await using pair = await makePair({ memoryBytes: 8 * mib, pagesPerSecond: 20_000, guestLike: true });
  await pair.source.resume();
  const first = await migrate(pair, { send: { bandwidth: mib, totalMaxMs: 60_000 } });
  first.send.catch(() => undefined);
  first.receive.catch(() => undefined);
  await new Promise((resolve) => setTimeout(resolve, 500));
  const other = await SyntheticVm.create({ id: 'other', memoryBytes: 8 * mib });
  await expect(
    sendVm(other, first.address, { journal: join(pair.folder, 'other'), reconnectMs: 1000 }),
  ).rejects.toMatchObject({ code: 'CHKPT_LINK_LOST' });
  await other.close();
});

it('a destination whose memory is gone says so, and is not taken for a broken link', async () => {
  await using pair = await makePair({ memoryBytes: 8 * mib, pagesPerSecond: 20_000, guestLike: true });
  await pair.source.resume();
  let closing: Promise<void> | undefined;
  const { send, receive } = await migrate(pair, {
    send: {
      bandwidth: 4 * mib,
      onProgress: ({ phase, round }) => {
        if (phase === 'memory' && round > 0) closing ??= pair.destination.memory.close();
      },
    },
  });
  const received = receive.catch((error: unknown) => error);
  await expect(send).rejects.toMatchObject({
    code: 'CHKPT_PEER_REFUSED',
    message: expect.stringContaining('CHKPT_CLOSED'),
  });
  expect(await received).toMatchObject({ code: 'CHKPT_CLOSED' });
  await closing;
  expect(pair.source.running).toBe(true);
});
