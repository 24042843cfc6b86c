/** Live migration by the original's protocol: sent to an original, received from one, and hostile senders. */
import { once } from 'node:events';
import { afterEach, describe, expect, test } from 'vitest';
import { SyntheticVm } from '../../../src/adapters/synthetic/index.ts';
import { WireReader } from '../../../src/foreign/palacios/wire-reader.ts';
import {
  type DirtyTracker,
  GuestMemory,
  PageSet,
  type PalaciosContext,
  type ReceivePalaciosOptions,
  receivePalacios,
  sendPalacios,
  type VirtualMachine,
} from '../../../src/index.ts';
import {
  encodeBitmap,
  encodePages,
  readBitmap,
  readPages,
} from '../../../src/migration/palacios/memory-wire.ts';
import { extendedDevices, plainDevices } from './support/devices.ts';
import { bitmapOnTheWire, pageOnTheWire } from './support/dumps.ts';
import { fingerprint } from './support/folders.ts';
import { key, record, sampleOriginal, wireOf } from './support/original.ts';
import {
  drain,
  drainAndReset,
  dribble,
  frame,
  groupsIn,
  originalConnects,
  originalListens,
  receiveMigration,
  roundOf,
  sendMigration,
} from './support/peers.ts';

const pageCount = 1030;
const machines: SyntheticVm[] = [];

async function machine(options: Parameters<typeof SyntheticVm.create>[0] = {}): Promise<SyntheticVm> {
  const vm = await SyntheticVm.create({ memoryBytes: pageCount * 4096, pagesPerSecond: 0, ...options });
  machines.push(vm);
  return vm;
}

afterEach(async () => {
  for (const vm of machines.splice(0)) await vm.close();
});

async function codeOf(work: Promise<unknown>): Promise<string> {
  return await work.then(
    () => 'no error',
    (error: { code?: unknown }) => String(error.code ?? error),
  );
}

/** Begins to receive, and tells where. */
function receiving(
  vm: VirtualMachine,
  options: ReceivePalaciosOptions = {},
): { url: Promise<string>; done: ReturnType<typeof receivePalacios> } {
  let told: (url: string) => void = () => undefined;
  const url = new Promise<string>((resolve) => {
    told = resolve;
  });
  const done = receivePalacios(vm, 'palacios+net:a:127.0.0.1:0', { ...options, onListening: told });
  done.catch(() => undefined);
  return { url, done };
}

/** A tracker whose harvests are given. */
function scripted(rounds: readonly number[], total: number): DirtyTracker {
  let at = 0;
  return {
    kind: 'reported',
    reason: 'of this test',
    arm: async () => undefined,
    harvest: async () => {
      const pages = new PageSet(total);
      const count = rounds[Math.min(at, rounds.length - 1)] ?? 0;
      if (count > 0) pages.markRun(0, count);
      at += 1;
      return pages;
    },
    close: async () => undefined,
  };
}

/** The same machine with another tracker. */
function withTracker(vm: SyntheticVm, dirtyTracker: DirtyTracker | undefined): VirtualMachine {
  return new Proxy(vm, {
    get: (target, name) => {
      if (name === 'dirtyTracker') return dirtyTracker;
      const value: unknown = Reflect.get(target, name, target);
      return typeof value === 'function' ? value.bind(target) : value;
    },
  });
}

describe('a guest that is sent to an original', () => {
  test('while it writes has, when all has come, the memory with which it was stopped', async () => {
    const vm = await machine({ seed: 3n });
    await vm.resume();
    const { url, result } = await originalListens(drain);
    const report = await sendPalacios(vm, url, { beside: false });
    expect(vm.running).toBe(false);
    const arrived = receiveMigration(await result, pageCount);
    expect(arrived.memory.equals(vm.memory.read(0, pageCount * 4096))).toBe(true);
    expect(arrived.rounds).toEqual(report.rounds.map(({ pages }) => pages));
    expect(arrived.rounds[0]).toBe(pageCount);
    expect(arrived.rest.map(([name, , close]) => [name, close])).toEqual([
      ['devices', 'devices'],
      ['header', 'header'],
    ]);
    expect(report.bytes).toBe((await result).length);
  });

  test('has its contexts in the order of the original when the machine has those of one', async () => {
    const vm = await machine({ memoryBytes: 64 * 4096 });
    const state = sampleOriginal({ devices: plainDevices, extended: extendedDevices, skip: ['memory'] });
    const contexts = state.map(
      ([name, blobs]): PalaciosContext => ({ name, records: blobs.map(([tag, data]) => ({ tag, data })) }),
    );
    const { url, result } = await originalListens(drain);
    await sendPalacios(vm, url, { contexts: () => contexts });
    const bytes = await result;
    const tail = Buffer.concat(state.map((group) => wireOf(group)));
    expect(bytes.subarray(bytes.length - tail.length).equals(tail)).toBe(true);
    expect(groupsIn(bytes).filter(([name]) => name === 'memory_bitmap_bits')).toHaveLength(2);
  });

  test.each([
    ['199 pages are the last round', [500, 199], [pageCount, 500, 199]],
    ['200 pages are not', [200, 0], [pageCount, 200]],
    ['rounds without pages are not sent', [0], [pageCount]],
    [
      'there are 34 rounds at most, whatever is written',
      [400],
      [pageCount, ...Array.from({ length: 33 }, () => 400)],
    ],
  ])('stops by the rules of the original: %s', async (_what, harvests, expected) => {
    const vm = await machine({ pagesPerSecond: 1000 });
    await vm.resume();
    const { url, result } = await originalListens(drain);
    const report = await sendPalacios(withTracker(vm, scripted(harvests, pageCount)), url);
    expect(receiveMigration(await result, pageCount).rounds).toEqual(expected);
    expect(report.rounds.map(({ pages }) => pages)).toEqual(expected);
  });

  test('that stands still is sent in one round', async () => {
    const vm = await machine({ guestLike: true });
    const { url, result } = await originalListens(drain);
    const report = await sendPalacios(vm, url);
    expect(report.rounds).toEqual([{ round: 0, pages: pageCount, isLast: true }]);
    expect(receiveMigration(await result, pageCount).memory.equals(vm.memory.read(0, pageCount * 4096))).toBe(
      true,
    );
  });

  test('and runs, while nobody can tell what it writes, is refused before anything is sent', async () => {
    const vm = await machine();
    await vm.resume();
    const blind: DirtyTracker = { ...scripted([0], pageCount), kind: 'digest' };
    const unused = 'palacios+net:c:127.0.0.1:9';
    expect(await codeOf(sendPalacios(withTracker(vm, blind), unused))).toBe('CHKPT_UNSUPPORTED');
    expect(vm.running).toBe(true);
    await vm.pause();
  });

  test('with memory that has holes is refused', async () => {
    const vm = await machine({
      memoryBytes: undefined,
      regions: [
        { base: 0, bytes: 4096 },
        { base: 8192, bytes: 4096 },
      ],
    });
    expect(await codeOf(sendPalacios(vm, 'palacios+net:c:127.0.0.1:9'))).toBe('CHKPT_UNSUPPORTED');
    expect(await codeOf(receivePalacios(vm, 'palacios+net:a:127.0.0.1:0'))).toBe('CHKPT_UNSUPPORTED');
  });

  test.each(['the receiver goes away', 'the caller cancels'])('runs on here when %s', async (what) => {
    const vm = await machine();
    await vm.resume();
    const stop = new AbortController();
    const { url } = await originalListens(async (socket) => {
      socket.on('error', () => undefined);
      await once(socket, 'readable');
      if (what === 'the receiver goes away') socket.resetAndDestroy();
      else stop.abort();
    });
    const code = await codeOf(sendPalacios(vm, url, { signal: stop.signal }));
    expect(code).toBe(what === 'the caller cancels' ? 'CHKPT_ABORTED' : 'CHKPT_LINK_LOST');
    expect(vm.running).toBe(true);
    await vm.pause();
  });

  test('stays paused, in doubt, when the receiver ends without closing in good order', async () => {
    const vm = await machine({ memoryBytes: 16 * 4096 });
    const { url } = await originalListens(drainAndReset);
    expect(await codeOf(sendPalacios(vm, url))).toBe('CHKPT_UNACKNOWLEDGED');
    expect(vm.running).toBe(false);
  });
});

describe('a guest that an original sends', () => {
  const state = sampleOriginal({ devices: plainDevices, extended: extendedDevices, skip: ['memory'] });

  test.each(['it connects', 'it listens'])(
    'has its memory and its contexts here, in rounds: %s',
    async (role) => {
      const vm = await machine();
      const { bytes, memory } = sendMigration(pageCount, state);
      const applied: (readonly PalaciosContext[])[] = [];
      const closes: string[] = [];
      const options = {
        apply: (contexts: readonly PalaciosContext[]) => void applied.push(contexts),
        onClosingName: (context: string, close: string) => void closes.push(`${context} as ${close}`),
      };
      let report: Awaited<ReturnType<typeof receivePalacios>>;
      if (role === 'it connects') {
        const { url, done } = receiving(vm, options);
        await originalConnects(await url, (socket) => dribble(socket, bytes, 4001));
        report = await done;
      } else {
        const { url } = await originalListens((socket) => dribble(socket, bytes, 4001));
        report = await receivePalacios(vm, url, options);
      }
      expect(memory.equals(vm.memory.read(0, pageCount * 4096))).toBe(true);
      expect(report).toMatchObject({
        rounds: 3,
        pages: pageCount + Math.ceil(pageCount / 3) + Math.ceil(pageCount / 11),
        bytes: bytes.length,
      });
      const found = applied[0]?.map(({ name, records }) => [
        name,
        records.map(({ tag, data }) => [tag, fingerprint(data)]),
      ]);
      expect(found).toEqual(
        state.map(([name, blobs]) => [name, blobs.map(([tag, data]) => [tag, fingerprint(data)])]),
      );
      expect(closes).toEqual(['pci-0.0-0 as BAR-5', 'pci-0.1-1 as BAR-5']);
      expect(vm.failure).toBe(undefined);
      await vm.resume();
      await vm.pause();
    },
  );

  test('is not taken by a machine that does not know what to do with its state', async () => {
    const vm = await machine();
    const { url, done } = receiving(vm);
    await originalConnects(await url, (socket) =>
      dribble(socket, sendMigration(pageCount, state).bytes, 65_536),
    );
    expect(await codeOf(done)).toBe('CHKPT_UNSUPPORTED');
    expect(vm.failure).toBeInstanceOf(Error);
  });
});

describe('a guest that goes from chkpt to chkpt this way', () => {
  test('is the same machine there, devices and cores too', async () => {
    const [source, target] = [await machine({ cores: 2, seed: 5n }), await machine({ cores: 2, seed: 9n })];
    await source.resume();
    const { url, done } = receiving(target);
    const sending = sendPalacios(source, (await url).replace(':a:', ':c:'));
    await Promise.all([sending, done]);
    expect(await target.digest()).toBe(await source.digest());
    expect((await target.checkStamps()).damaged).toBe(0);
    await target.resume();
    await target.pause();
  });

  test('and is another one than the target is a mismatch, and the target refuses to run', async () => {
    const [source, target] = [await machine({ id: 'a' }), await machine({ id: 'b' })];
    const { url, done } = receiving(target);
    const codes = await Promise.all([
      codeOf(sendPalacios(source, (await url).replace(':a:', ':c:'))),
      codeOf(done),
    ]);
    expect(codes).toEqual(['CHKPT_UNACKNOWLEDGED', 'CHKPT_VM_ID']);
    expect(await codeOf(target.resume())).toBe('CHKPT_VM_FAILED');
  });
});

describe('a sender that means no good', () => {
  const bits = (bytes: number): Buffer => frame('memory_bitmap_bits', Buffer.alloc(bytes));
  const all = new Map(Array.from({ length: 8 }, (_, page) => [page, new Uint8Array(4096)] as const));
  const round = roundOf(8, all);
  const wrongPage = (change: (bytes: Buffer) => void): Buffer => {
    const copy = Buffer.from(round);
    change(copy);
    return copy;
  };
  const cases: [what: string, bytes: Buffer, code: string, touched: boolean][] = [
    ['nothing', Buffer.alloc(0), 'CHKPT_FORMAT', false],
    ['a checkpoint, no migration', wireOf(['memory_img', []]), 'CHKPT_FORMAT', false],
    ['a set of pages that is too long', bits(2), 'CHKPT_FORMAT', false],
    ['a set of pages that is empty', bits(0), 'CHKPT_FORMAT', false],
    [
      'a set of 2^62 pages',
      Buffer.concat([
        key('memory_bitmap_bits'),
        record(['memory_bitmap_bits', Buffer.alloc(0)]).subarray(0, 30),
        Buffer.from([0, 0, 0, 0, 0, 0, 0, 0x40]),
      ]),
      'CHKPT_LIMIT',
      false,
    ],
    [
      'a set of pages of another name',
      Buffer.concat([
        key('memory_bitmap_bits'),
        record(['memory_bitmap', Buffer.alloc(1)]),
        key('memory_bitmap_bits'),
      ]),
      'CHKPT_FORMAT',
      false,
    ],
    ['a page of another length', wrongPage((bytes) => bytes.writeUInt8(0xff, 80 + 36)), 'CHKPT_FORMAT', true],
    ['a page of another tag', wrongPage((bytes) => bytes.writeUInt8(0x58, 80 + 26)), 'CHKPT_FORMAT', true],
    ['a page without boundary', wrongPage((bytes) => bytes.writeUInt8(0, 80 + 13)), 'CHKPT_FORMAT', true],
    ['an end inside a page', round.subarray(0, 3000), 'CHKPT_TRUNCATED', true],
    ['35 rounds', Buffer.concat(Array.from({ length: 35 }, () => round)), 'CHKPT_LIMIT', true],
    ['no state', Buffer.concat([round, bits(1)]), 'CHKPT_FORMAT', true],
    ['a core cut short', Buffer.concat([bits(1), wireOf(['guest_info0', []])]), 'CHKPT_FORMAT', false],
  ];

  test.each(cases)(
    'is a typed error, and a machine that was touched refuses to run: %s',
    async (_what, bytes, code, touched) => {
      const vm = await machine({ memoryBytes: 8 * 4096 });
      const { url, done } = receiving(vm, { apply: () => undefined });
      await originalConnects(await url, async (socket) => {
        socket.on('error', () => undefined);
        socket.write(bytes);
      });
      expect(await codeOf(done)).toBe(code);
      expect(vm.failure !== undefined).toBe(touched);
    },
  );

  test('pads its set of pages with pages that do not exist is CHKPT_FORMAT', async () => {
    const vm = await machine({ memoryBytes: 5 * 4096 });
    const { url, done } = receiving(vm);
    await originalConnects(
      await url,
      async (socket) => void socket.write(frame('memory_bitmap_bits', Buffer.from([0x20]))),
    );
    expect(await codeOf(done)).toBe('CHKPT_FORMAT');
  });

  test('into a machine that runs is refused', async () => {
    const vm = await machine();
    await vm.resume();
    expect(await codeOf(receivePalacios(vm, 'palacios+net:a:127.0.0.1:0'))).toBe('CHKPT_VM_RUNNING');
    await vm.pause();
  });
});

test('sets of pages and pages have the bytes of the description', async () => {
  const memory = GuestMemory.allocate([{ base: 0, bytes: 12 * 4096 }]);
  const pages = new PageSet(12);
  for (const page of [0, 3, 9]) pages.markRun(page, 1);
  expect(new Uint8Array(Buffer.concat(encodeBitmap(pages)))).toEqual(bitmapOnTheWire);
  for (const frames of encodePages(memory, pages)) expect(new Uint8Array(frames)).toEqual(pageOnTheWire);
  await memory.close();
});

test('pages beyond 2 GiB and 4 GiB of a sparse guest are sent to their places', async () => {
  const bytes = 5n << 30n;
  const memory = GuestMemory.allocate([{ base: 0, bytes }]);
  const pages = new PageSet(memory.pageCount);
  for (const page of [524_287, 524_288, 1_048_576]) {
    pages.markRun(page, 1);
    memory.write(page * 4096, Uint8Array.of(page & 255, 7));
  }
  const wire = Buffer.concat([...encodeBitmap(pages), ...encodePages(memory, pages)]);
  const groups = groupsIn(wire);
  expect(groups).toHaveLength(4);
  expect(groups.slice(1).map(([, [blob]]) => [...(blob?.[1].subarray(0, 2) ?? [])])).toEqual([
    [255, 7],
    [0, 7],
    [0, 7],
  ]);
  let at = 0;
  const read = async (target: Uint8Array): Promise<number> => {
    const count = wire.copy(target, 0, at, at + target.length);
    at += count;
    return count;
  };
  const target = GuestMemory.allocate([{ base: 0, bytes }]);
  const reader = new WireReader({ read }, 'test');
  await reader.open();
  await readPages(reader, target, await readBitmap(reader, target), () => undefined);
  for (const page of [524_287, 524_288, 1_048_576])
    expect([...target.read(page * 4096, 2)]).toEqual([page & 255, 7]);
  for (const one of [memory, target]) await one.close();
});
