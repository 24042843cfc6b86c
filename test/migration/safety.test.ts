/** The checkpoint of a guest that goes over to post-copy: what is left when a host is lost in the middle. */
import { randomBytes, randomUUID } from 'node:crypto';
import { existsSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { SyntheticVm } from '../../src/adapters/synthetic/index.ts';
import { ChangeLog } from '../../src/checkpoint/change-log.ts';
import { describeMember } from '../../src/checkpoint/parent.ts';
import {
  encrypted,
  GuestMemory,
  loadVm,
  MigrationInDoubtError,
  openStore,
  type SendVmOptions,
  type Store,
  saveVm,
  sendVm,
  trackMemory,
} from '../../src/index.ts';
import { Journal } from '../../src/migration/journal.ts';
import { SharedTracker } from '../../src/migration/source/shared-tracker.ts';
import { RecordChannel } from '../../src/migration/wire/record-channel.ts';
import { LinkProxy } from './link-proxy.ts';
import { watchPoints } from './points.mjs';
import { makePair, migrate, type Pair } from './support.ts';

const hasUserfault = existsSync('/dev/userfaultfd');
if (!hasUserfault) console.log('safety checkpoints are not tested: no /dev/userfaultfd');
const run = hasUserfault ? test : test.skip;

const memoryBytes = 16 * 2 ** 20;
const allAfterwards: SendVmOptions = { strategy: 'postcopy', precopyRounds: 0, codec: 'raw' };

/** Of the guest whenever it stops on the source; the last one. */
function watchStops({ source }: Pair): { digest?: string } {
  const stops: { digest?: string } = {};
  const pause = source.pause.bind(source);
  source.pause = async () => {
    await pause();
    stops.digest = await source.digest();
  };
  return stops;
}

/** A third host: loads the checkpoint by force, and lets the guest run. */
async function digestByForce(url: string | Store): Promise<string> {
  await using vm = await SyntheticVm.create({ id: 'guest', memoryBytes });
  await expect(loadVm(vm, url, { as: 'continue' })).rejects.toMatchObject({
    code: 'CHKPT_CONTINUED',
    message: expect.stringContaining('migration '),
  });
  const { earlier } = await loadVm(vm, url, { as: 'continue', force: true });
  expect(earlier?.by).toContain('migration ');
  const digest = await vm.digest();
  await vm.resume();
  expect(vm.running).toBe(true);
  return digest;
}

/** The guest runs at the destination without most of its pages, and then the link is gone for ever. */
async function loseDestination(
  pair: Pair,
  safety: SendVmOptions['safety'],
  precopyRounds = 0,
): Promise<void> {
  const stop = new AbortController();
  let proxy: LinkProxy | undefined;
  const { send, receive } = await migrate(pair, {
    // Slow enough that most pages are still to come.
    send: {
      ...allAfterwards,
      precopyRounds,
      safety,
      bandwidth: precopyRounds === 0 ? 2e6 : 8e6,
      reconnectMs: 200,
      inDoubtMs: 500,
    },
    receive: { signal: stop.signal },
    through: async (address) => {
      proxy = await LinkProxy.open(`${pair.folder}/proxy`, address);
      return proxy.address;
    },
  });
  const { postcopy } = await receive;
  expect(postcopy?.left()).toBeGreaterThan(1000);
  await proxy?.[Symbol.asyncDispose]();
  await expect(send).rejects.toBeInstanceOf(MigrationInDoubtError);
  stop.abort();
  await expect(postcopy?.resident).rejects.toThrow();
  expect([pair.source.running, pair.destination.running]).toEqual([false, false]);
}

run(
  'the destination is lost while pages come: the checkpoint is the guest as it stopped, by force',
  async () => {
    await using pair = await makePair({ memoryBytes });
    const url = `file:${pair.folder}/safety.chkpt`;
    const stops = watchStops(pair);
    await pair.source.resume();
    await loseDestination(pair, url);
    expect(await digestByForce(url)).toBe(stops.digest);
  },
);

run(
  'with a parent the guest stands still for what differs from it, and the chain is the guest as it stopped',
  async () => {
    await using pair = await makePair({ memoryBytes, guestLike: true, pagesPerSecond: 500 });
    const [base, url] = [`file:${pair.folder}/base.chkpt`, `file:${pair.folder}/safety.chkpt`];
    await pair.source.resume();
    await saveVm(pair.source, base, { live: true });
    const stops = watchStops(pair);
    await loseDestination(pair, { store: url, parent: base });
    expect(await digestByForce(url)).toBe(stops.digest);
    const bytesOf = (name: string): number => statSync(`${pair.folder}/${name}.chkpt`).size;
    expect(bytesOf('safety')).toBeLessThan(bytesOf('base') / 2);
  },
);

run('in an encrypted store, with an encrypted parent', async () => {
  await using pair = await makePair({ memoryBytes, guestLike: true, pagesPerSecond: 500 });
  const key = randomBytes(32);
  const [base, safety] = ['base', 'safety'].map((name) =>
    encrypted(`file:${pair.folder}/${name}.chkpt`, { key }),
  ) as [Store, Store];
  await pair.source.resume();
  await saveVm(pair.source, base, { live: true });
  const stops = watchStops(pair);
  await loseDestination(pair, { store: safety, parent: base });
  await expect(describeMember(safety.url)).rejects.toMatchObject({ code: 'CHKPT_KEY' });
  expect(await digestByForce(safety)).toBe(stops.digest);
});

run('with a tracker that has watched since the parent nothing else is looked at', async () => {
  const writePages = { first: 0, count: 1500 };
  await using pair = await makePair({ memoryBytes, guestLike: true, pagesPerSecond: 4000, writePages });
  const [base, url] = [`file:${pair.folder}/base.chkpt`, `file:${pair.folder}/safety.chkpt`];
  await using _ = pair.source.trackChanges();
  await pair.source.resume();
  await saveVm(pair.source, base, { live: true });
  const stops = watchStops(pair);
  // Whoever read the parent's pages would find that out.
  flipByte(`${pair.folder}/base.chkpt`);
  await loseDestination(pair, { store: url, parent: base }, 1);
  flipByte(`${pair.folder}/base.chkpt`);
  expect(await digestByForce(url)).toBe(stops.digest);
  const { ownPages } = await describeMember(url);
  expect(ownPages).toBeGreaterThan(1000);
  expect(ownPages).toBeLessThanOrEqual(writePages.count);
});

test('what a tracker tells the rounds, before and after they arm it, the increment is told, too', async () => {
  const memory = GuestMemory.allocate([{ base: 0, bytes: 64 * 4096 }]);
  const tracker = trackMemory(memory, { kind: 'reported' });
  const store = openStore('mem:none');
  await ChangeLog.of(tracker).loaded({ uuid: randomUUID(), root: '00'.repeat(32), store });
  tracker.mark(1, 1);
  const shared = await SharedTracker.of(tracker);
  ChangeLog.of(tracker).reset();
  tracker.mark(5, 1);
  await shared?.rounds.arm();
  tracker.mark(10, 2);
  expect((await shared?.rounds.harvest())?.count()).toBe(2);
  tracker.mark(10, 1);
  expect((await shared?.rounds.harvest())?.count()).toBe(1);
  const runs = [...((await shared?.increment.harvest())?.runs() ?? [])].map((run) => Array.from(run));
  expect(runs).toEqual([[1, 1, 5, 1, 10, 2]]);
  await tracker.close();
  await memory.close();
});

/** In the middle, where pages are. */
function flipByte(path: string): void {
  const bytes = readFileSync(path);
  const at = bytes.length >> 1;
  bytes[at] = (bytes[at] ?? 0) ^ 1;
  writeFileSync(path, bytes);
}

run('it is durable and claimed before the end is said, and stays when the guest has moved', async () => {
  await using pair = await makePair({ memoryBytes });
  const stops = watchStops(pair);
  const names = (): string[] =>
    readdirSync(pair.folder)
      .map((name) => name.replace(/\.[0-9a-f-]{36}\./, '.UUID.'))
      .filter((name) => name.includes('safety'));
  const found: string[][] = [];
  const unwatch = watchPoints({ Journal, RecordChannel }, (point) => {
    if (point === 'source before send end') found.push(names());
  });
  try {
    await pair.source.resume();
    const url = `file:${pair.folder}/safety.chkpt`;
    const { send, receive } = await migrate(pair, { send: { ...allAfterwards, safety: url } });
    await (await receive).postcopy?.resident;
    const { safety, downtime } = await send;
    expect(found).toEqual([['safety.chkpt', 'safety.chkpt.UUID.continued']]);
    expect(safety).toMatchObject({ url, parent: undefined });
    expect(safety?.ms).toBeLessThanOrEqual(downtime.pagesMs);
    expect(await digestByForce(url)).toBe(stops.digest);
  } finally {
    unwatch();
  }
});

run('a store that fails: the guest stays, runs, and the error is that of the store', async () => {
  await using pair = await makePair({ memoryBytes });
  await pair.source.resume();
  const safety = `file:${pair.folder}/no/such/folder/safety.chkpt`;
  const { send, receive } = await migrate(pair, { send: { ...allAfterwards, safety } });
  await expect(send).rejects.toMatchObject({ code: 'CHKPT_NOT_FOUND' });
  await expect(receive).rejects.toThrow();
  expect([pair.source.running, pair.destination.running]).toEqual([true, false]);
});

run('a migration that comes to nothing afterwards leaves no checkpoint of a guest that runs on', async () => {
  await using pair = await makePair({ memoryBytes });
  await pair.source.resume();
  pair.destination.endLoad = async (failure) => {
    if (failure === undefined) throw new Error('no');
  };
  const safety = `file:${pair.folder}/safety.chkpt`;
  const { send, receive } = await migrate(pair, { send: { ...allAfterwards, safety } });
  await expect(send).rejects.toMatchObject({ code: 'CHKPT_PEER_REFUSED' });
  await expect(receive).rejects.toThrow();
  expect(pair.source.running).toBe(true);
  expect(readdirSync(pair.folder).filter((name) => name.includes('safety'))).toEqual([]);
});

run(
  'a link that breaks behind the checkpoint: the guest runs on, and no checkpoint of it is left',
  async () => {
    await using pair = await makePair({ memoryBytes });
    let proxy: LinkProxy | undefined;
    const unwatch = watchPoints({ Journal, RecordChannel }, (point) => {
      if (point === 'source before send end') proxy?.endSilence();
    });
    try {
      await pair.source.resume();
      const { send, receive } = await migrate(pair, {
        send: { ...allAfterwards, safety: `file:${pair.folder}/safety.chkpt` },
        through: async (address) => {
          proxy = await LinkProxy.open(`${pair.folder}/proxy`, address);
          return proxy.address;
        },
      });
      await expect(send).rejects.toMatchObject({ code: 'CHKPT_LINK_LOST' });
      await expect(receive).rejects.toThrow();
      expect(pair.source.running).toBe(true);
      expect(readdirSync(pair.folder).filter((name) => name.includes('safety'))).toEqual([]);
    } finally {
      unwatch();
      await proxy?.[Symbol.asyncDispose]();
    }
  },
);

run('a guest that converges needs none', async () => {
  await using pair = await makePair({ memoryBytes, pagesPerSecond: 10 });
  await pair.source.resume();
  const safety = `file:${pair.folder}/safety.chkpt`;
  const { send, receive } = await migrate(pair, {
    send: { strategy: 'postcopy', downtimeTargetMs: 5000, safety },
  });
  await receive;
  expect((await send).safety).toBeUndefined();
  expect(existsSync(`${pair.folder}/safety.chkpt`)).toBe(false);
});

test('what cannot be kept so is refused before anything is sent', async () => {
  await using pair = await makePair({ memoryBytes });
  const journal = `${pair.folder}/source`;
  const store = `file:${pair.folder}/safety.chkpt`;
  const parent = `file:${pair.folder}/none.chkpt`;
  const send = (options: SendVmOptions) => sendVm(pair.source, 'unix:/no/where', { journal, ...options });
  await expect(send({ ...allAfterwards, safety: 'unix:/no/where' })).rejects.toMatchObject({
    code: 'CHKPT_UNSUPPORTED',
  });
  await expect(send({ ...allAfterwards, safety: { store, parent } })).rejects.toMatchObject({
    code: 'CHKPT_NOT_FOUND',
  });
  await expect(send({ safety: store })).rejects.toThrow(TypeError);
  expect(readdirSync(journal)).toEqual([]);
});
