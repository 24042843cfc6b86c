/**
 * Links that break: at every message of the control connection, and in the middle of pages. The guest is never lost, never runs on both hosts,
 * and arrives as it was when it stopped.
 */
import { join } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { MigrationInDoubtError } from '../../src/index.ts';
import { type Cut, LinkProxy } from './link-proxy.ts';
import { makePair, migrate, type Pair, watch } from './support.ts';

const small = { memoryBytes: 4 * 2 ** 20, pagesPerSecond: 500, guestLike: true } as const;
const quick = { reconnectMs: 3000, inDoubtMs: 1500, downtimeMaxMs: 1500 } as const;
const proxies: LinkProxy[] = [];
afterEach(async () => {
  for (const proxy of proxies.splice(0)) await proxy[Symbol.asyncDispose]();
});

interface Ended {
  readonly sent: unknown;
  readonly received: unknown;
  readonly proxy: LinkProxy;
}

async function migrateThrough(pair: Pair, cut: Cut | undefined): Promise<Ended> {
  await pair.source.resume();
  let proxy: LinkProxy | undefined;
  const stop = new AbortController();
  const { send, receive } = await migrate(pair, {
    send: quick,
    receive: { reconnectMs: 3000, signal: stop.signal },
    through: async (address) => {
      proxy = await LinkProxy.open(join(pair.folder, 'proxy'), address, cut);
      proxies.push(proxy);
      return proxy.address;
    },
  });
  const sent = await send.catch((error: unknown) => error);
  // A destination that has seen nothing but half a handshake listens on.
  const timer = sent instanceof Error ? setTimeout(() => stop.abort(), 1000) : undefined;
  const received = await receive.catch((error: unknown) => error);
  clearTimeout(timer);
  return { sent, received, proxy: proxy as LinkProxy };
}

/** Exactly one host runs the guest, and it is the one that both say. */
function expectOneOwner(pair: Pair, { sent, received }: Ended): 'moved' | 'stayed' {
  const moved = !(sent instanceof Error);
  expect([pair.source.running, pair.destination.running]).toEqual([!moved, moved]);
  expect(received instanceof Error).toBe(!moved);
  return moved ? 'moved' : 'stayed';
}

it('the control connection may break behind and inside of every message, in both directions', {
  timeout: 240_000,
}, async () => {
  let boundaries: LinkProxy['boundaries'];
  {
    await using pair = await makePair(small);
    const ended = await migrateThrough(pair, undefined);
    expect(expectOneOwner(pair, ended)).toBe('moved');
    boundaries = ended.proxy.boundaries;
  }
  const cuts: Cut[] = (['toDestination', 'toSource'] as const).flatMap((direction) =>
    boundaries[direction].flatMap((offset) =>
      [offset, offset + 5].map(
        (afterBytes) => ({ connection: 0, direction, afterBytes, how: 'reset' }) as const,
      ),
    ),
  );
  const ends = { moved: 0, stayed: 0 };
  for (const cut of cuts) {
    await using pair = await makePair(small);
    const watched = watch(pair);
    const ended = await migrateThrough(pair, cut);
    const end = expectOneOwner(pair, ended);
    ends[end] += 1;
    if (end === 'moved') expect(watched.arrived).toBe(watched.stopped);
  }
  console.log(`${cuts.length} cuts of the control connection: ${ends.moved} moved, ${ends.stayed} stayed`);
  expect(ends.moved).toBeGreaterThan(0);
});

it('a first link that breaks inside of a handshake is told, and the guest goes on', async () => {
  await using pair = await makePair(small);
  const cut: Cut = { connection: 1, direction: 'toDestination', afterBytes: 40, how: 'reset' };
  const ended = await migrateThrough(pair, cut);
  expect(expectOneOwner(pair, ended)).toBe('stayed');
  expect(ended.sent).toMatchObject({ code: 'CHKPT_LINK_LOST' });
});

it.each([4096, 300_000, 900_000])(
  'a data connection that breaks after %d bytes is made anew',
  async (afterBytes) => {
    await using pair = await makePair(small);
    const watched = watch(pair);
    const cut: Cut = { connection: 1, direction: 'toDestination', afterBytes, how: 'reset' };
    const ended = await migrateThrough(pair, cut);
    expect(ended.proxy.hasCut).toBe(true);
    expect(expectOneOwner(pair, ended)).toBe('moved');
    expect(watched.arrived).toBe(watched.stopped);
    expect(ended.sent).toMatchObject({ reconnects: 1 });
  },
);

describe('a link that breaks between COMMIT and its answer, and stays down,', () => {
  const messageBytes = 32;

  interface Doubt extends AsyncDisposable {
    readonly pair: Pair;
    readonly watched: ReturnType<typeof watch>;
    readonly error: unknown;
    readonly proxy: LinkProxy;
    readonly receive: Promise<unknown>;
  }

  /** The last message of that direction is lost, and the `behind` before it. */
  async function inDoubt(direction: Cut['direction'], behind: number) {
    // On a busy machine two migrations may have another number of messages: then it was a message before that one, or none.
    for (let attempt = 1; ; attempt += 1) {
      const doubt = await cutOnce(direction, behind);
      const { error, pair } = doubt;
      if (!(error instanceof MigrationInDoubtError) && attempt < 5) {
        console.log(`another message was cut: ${error}`);
        await doubt[Symbol.asyncDispose]();
        continue;
      }
      expect(error).toBeInstanceOf(MigrationInDoubtError);
      expect(error).toMatchObject({ code: 'CHKPT_IN_DOUBT', kind: 'doubt' });
      expect(pair.source.running).toBe(false);
      await expect(pair.source.resume()).rejects.toMatchObject({ code: 'CHKPT_VM_FAILED' });
      return { ...doubt, error: error as MigrationInDoubtError };
    }
  }

  async function cutOnce(direction: Cut['direction'], behind: number): Promise<Doubt> {
    const total = await (async () => {
      await using other = await makePair(small);
      const { proxy } = await migrateThrough(other, undefined);
      return proxy.control[direction];
    })();
    const afterBytes = total - messageBytes * (1 + behind);
    const pair = await makePair(small);
    const watched = watch(pair);
    await pair.source.resume();
    const stop = new AbortController();
    let proxy: LinkProxy | undefined;
    const { send, receive } = await migrate(pair, {
      send: quick,
      receive: { reconnectMs: 30_000, signal: stop.signal },
      through: async (address) => {
        const cut: Cut = { connection: 0, direction, afterBytes, how: 'reset', staysDown: true };
        proxy = await LinkProxy.open(join(pair.folder, 'proxy'), address, cut);
        proxies.push(proxy);
        return proxy.address;
      },
    });
    receive.catch(() => undefined);
    const error = await send.catch((reason: unknown) => reason);
    const end = async (): Promise<void> => {
      stop.abort();
      await receive.catch(() => undefined);
      await pair[Symbol.asyncDispose]();
    };
    const link = proxy as unknown as LinkProxy;
    return { pair, watched, error, proxy: link, receive, [Symbol.asyncDispose]: end };
  }

  it('COMMIT is lost: nobody runs the guest until the link heals, then the destination does', async () => {
    await using doubt = await inDoubt('toDestination', 1);
    const { pair, watched, error, proxy, receive } = doubt;
    expect(pair.destination.running).toBe(false);
    proxy.heal();
    expect(await error.resolve()).toBe('moved');
    await receive;
    expect([pair.source.running, pair.destination.running]).toEqual([false, true]);
    expect(watched.arrived).toBe(watched.stopped);
  });

  it('its answer is lost: the destination runs the guest, and the source comes to know', async () => {
    await using doubt = await inDoubt('toSource', 0);
    const { pair, error, proxy, receive } = doubt;
    await receive;
    expect(pair.destination.running).toBe(true);
    proxy.heal();
    expect(await error.resolve()).toBe('moved');
    expect([pair.source.running, pair.destination.running]).toEqual([false, true]);
  });

  it('an operator who has fenced the destination takes the guest back', async () => {
    await using doubt = await inDoubt('toDestination', 1);
    const { pair, error } = doubt;
    expect(() => error.forceLocal({ fenced: false } as never)).toThrow(TypeError);
    expect(await error.forceLocal({ fenced: true })).toBe('stayed');
    expect([pair.source.running, pair.destination.running]).toEqual([true, false]);
  });
});

/** A migration whose destination cannot be heard from about PREPARED on; how many bytes come before it differs from one to the next. */
async function migrateIntoSilence(pair: Pair) {
  await pair.source.resume();
  const total = await (async () => {
    await using other = await makePair(small);
    return (await migrateThrough(other, undefined)).proxy.control.toSource;
  })();
  // PREPARED is the last message but one.
  const cut: Cut = { connection: 0, direction: 'toSource', afterBytes: total - 64, how: 'silence' };
  let proxy: LinkProxy | undefined;
  const { send, receive } = await migrate(pair, {
    send: quick,
    receive: { reconnectMs: 30_000 },
    through: async (address) => {
      proxy = await LinkProxy.open(join(pair.folder, 'proxy'), address, cut);
      proxies.push(proxy);
      return proxy.address;
    },
  });
  const received = receive.catch((error: unknown) => error);
  const sent = await send.catch((error: unknown) => error);
  return { sent, received, endSilence: () => proxy?.endSilence() };
}

it('a destination that falls silent while the guest stands still costs a bounded time, and the guest goes on', {
  timeout: 240_000,
}, async () => {
  for (let attempt = 1; ; attempt += 1) {
    await using pair = await makePair(small);
    const { sent, received, endSilence } = await migrateIntoSilence(pair);
    // The cut has missed it.
    if (!(sent instanceof Error) && attempt < 8) continue;
    expect(sent).toMatchObject({ code: 'CHKPT_TIMEOUT' });
    expect(pair.source.running).toBe(true);
    expect(pair.destination.running).toBe(false);
    // It has promised, and waits for a word: the source brings it when the link is back.
    endSilence();
    expect(await received).toMatchObject({ code: 'CHKPT_ABORTED' });
    return await expect(pair.destination.resume()).rejects.toMatchObject({ code: 'CHKPT_VM_FAILED' });
  }
});
