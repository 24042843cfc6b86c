/**
 * Of a foreign store that is a connection: everything that `foreign-store.suite.ts` asks, whichever end waits for the other, and what the
 * ends owe each other. A stream keeps nothing, so a `JoinedStream` stands for the place.
 */
import { readdirSync, readlinkSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import {
  GuestMemory,
  openCheckpoint,
  PageEncoder,
  receiveCheckpoint,
  type Store,
  verifyCheckpoint,
} from '../../src/index.ts';
import { MemoryStoreSpace } from '../../src/store/memory-store.ts';
import { noise } from '../store/support/sample-stream.ts';
import { describeForeignStore, type ForeignTraits } from './foreign-store.suite.ts';
import { JoinedStream, type StreamEnds, type WaitingEnd } from './joined-stream.ts';

export interface StreamTraits extends Pick<ForeignTraits, 'types' | 'integrity' | 'regions'> {
  /** What a save may end with when the receiver goes before all was sent. */
  readonly receiverGone: readonly string[];
  /** What a load may end with when the sender gives up. */
  readonly senderGone: readonly string[];
}

/** Registers the tests for one kind of connection, in both roles. */
export async function describeForeignStream(
  name: string,
  traits: StreamTraits,
  ends: StreamEnds,
): Promise<void> {
  for (const waits of ['sender', 'receiver'] as const) {
    await describeForeignStore(
      `${name}, the ${waits} waits`,
      { ...traits, removes: false, keeps: false },
      () => {
        const space = new MemoryStoreSpace();
        const kept = space.store('kept');
        return { open: () => new JoinedStream(ends, waits, kept), remains: () => space.names() };
      },
    );
    describe(`stream ${name}, the ${waits} waits`, () => describeEnds(waits, traits, ends));
  }
}

async function codeOf(work: Promise<unknown>): Promise<string> {
  return await work.then(
    () => 'no error',
    (error: { code?: unknown }) => String(error.code ?? error),
  );
}

/** Sockets and files of what has come that this process has open. */
function openThings(): string[] {
  const sockets = process.getActiveResourcesInfo().filter((name) => name.startsWith('TCP'));
  const files = readdirSync('/proc/self/fd').flatMap((descriptor) => {
    try {
      const path = readlinkSync(`/proc/self/fd/${descriptor}`);
      return path.includes('.chkpt-scratch-') ? [path] : [];
    } catch {
      return [];
    }
  });
  return [...sockets, ...files];
}

/** Both ends of a new link: `send` and `receive` begin at the same time, and the one that waits first. */
async function meet(
  waits: WaitingEnd,
  ends: StreamEnds,
  send: (store: Store) => Promise<unknown>,
  receive: (store: Store) => Promise<unknown>,
): Promise<{ sent: string; received: string; url: string }> {
  let told: (url: string) => void = () => undefined;
  const listening = new Promise<string>((resolve) => {
    told = resolve;
  });
  const [first, second] = waits === 'sender' ? [send, receive] : [receive, send];
  const waiting = codeOf(first(ends.listen(told)));
  const url = await listening;
  const coming = codeOf(second(ends.connect(url)));
  const [sent, received] = waits === 'sender' ? [waiting, coming] : [coming, waiting];
  return { sent: await sent, received: await received, url };
}

type Point = 'opened' | 'half' | 'memory' | 'whole';

/** A save up to this point; dropped unless it is `whole`. */
async function send(store: Store, point: Point = 'whole'): Promise<void> {
  const memory = GuestMemory.allocate([{ base: 0, bytes: 1 << 16 }]);
  memory.write(0, noise('page', 5000));
  const checkpoint = await openCheckpoint(store, { mode: 'save' });
  try {
    if (point === 'opened') return;
    const context = await checkpoint.openContext('c');
    await context.save('t', noise('sent', 300_000));
    await context.close();
    if (point === 'half') return;
    await checkpoint.saveMemory('memory', new PageEncoder(memory));
    if (point === 'whole') await checkpoint.commit();
  } finally {
    await checkpoint.abort();
    await memory.close();
  }
}

function describeEnds(waits: WaitingEnd, traits: StreamTraits, ends: StreamEnds): void {
  test('who comes when nobody waits is told so, sending or receiving; what has passed once is not there again', async () => {
    const first = await meet(waits, ends, send, verifyCheckpoint);
    expect([first.sent, first.received]).toEqual(['no error', 'no error']);
    expect(await codeOf(verifyCheckpoint(ends.connect(first.url)))).toBe('CHKPT_LINK_LOST');
    expect(await codeOf(send(ends.connect(first.url)))).toBe('CHKPT_LINK_LOST');
  });

  test('who waits can stop', async () => {
    const stop = new AbortController();
    const store = ends.listen(() => stop.abort());
    const { signal } = stop;
    const work =
      waits === 'sender'
        ? openCheckpoint(store, { mode: 'save', signal })
        : verifyCheckpoint(store, { signal });
    expect(await codeOf(work)).toBe('CHKPT_ABORTED');
  });

  test.each(['opened', 'half', 'memory'] as const)(
    'a receiver takes nothing of a save that is dropped: %s',
    async (point) => {
      const space = new MemoryStoreSpace();
      const { received } = await meet(
        waits,
        ends,
        (sender) => send(sender, point),
        async (receiver) => await receiveCheckpoint(receiver, space.store('kept')),
      );
      expect(traits.senderGone).toContain(received);
      expect(space.names()).toEqual([]);
    },
  );

  test('a save does not succeed when the receiver has given up', async () => {
    const space = new MemoryStoreSpace();
    const stop = new AbortController();
    const { sent, received } = await meet(
      waits,
      ends,
      async (sender) => {
        const checkpoint = await openCheckpoint(sender, { mode: 'save' });
        stop.abort();
        const context = await checkpoint.openContext('c');
        await context.save('t', noise('sent', 300_000));
        await context.close();
        await checkpoint.commit();
      },
      async (receiver) => await receiveCheckpoint(receiver, space.store('kept'), { signal: stop.signal }),
    );
    expect(received).toBe('CHKPT_ABORTED');
    expect(traits.receiverGone).toContain(sent);
    expect(space.names()).toEqual([]);
  });

  test('nothing stays open, whatever became of it', async () => {
    await expect.poll(openThings).toEqual([]);
    await meet(waits, ends, send, verifyCheckpoint);
    for (const point of ['opened', 'half', 'memory'] as const) {
      await meet(waits, ends, (sender) => send(sender, point), verifyCheckpoint);
    }
    const stop = new AbortController();
    await meet(waits, ends, send, async (receiver) => {
      const checkpoint = await openCheckpoint(receiver, { mode: 'load', signal: stop.signal });
      stop.abort();
      await checkpoint.close();
    });
    await expect.poll(openThings).toEqual([]);
  });
}
