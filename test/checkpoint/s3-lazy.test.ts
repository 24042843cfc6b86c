/** Lazy loads from `s3:`: every range is of the object that was opened, and a page is what was saved or an error, whoever has the bucket. */
import { beforeAll, describe, expect, test } from 'vitest';
import '../support/s3/credentials.ts';
import { SyntheticVm, type SyntheticVmOptions } from '../../src/adapters/synthetic/index.ts';
import {
  CheckpointError,
  type LazyLoad,
  type LazyOptions,
  type LoadReport,
  loadVm,
  MemoryStoreSpace,
  saveVm,
} from '../../src/index.ts';
import { type Fault, S3TestServer } from '../support/s3/server.ts';
import type { Asked } from '../support/s3/state.ts';
import { hasUserfaultfd } from '../support/userfaultfd.ts';

const mebibyte = 1024 ** 2;
const blockBytes = 65_536;
const regions = [
  { base: 0, bytes: 640 * 1024 },
  { base: mebibyte, bytes: 16 * mebibyte + 20 * 1024 },
];
const machine: SyntheticVmOptions = {
  regions,
  guestLike: true,
  seed: 5,
  pagesPerSecond: 0,
  pattern: 'random',
};
const slow: LazyOptions = { fillDelayMs: 600_000 };

const space = new MemoryStoreSpace();
let digest = '';
let refusal: string | undefined;

beforeAll(async () => {
  await using vm = await SyntheticVm.create(machine);
  const local = space.store('s3-lazy');
  await saveVm(vm, local);
  digest = await vm.digest();
  // Who may use it is lazy; nothing is skipped there, whatever the report says.
  if (hasUserfaultfd) return;
  await using probe = await SyntheticVm.create(machine);
  const { lazy } = await loadVm(probe, local, { lazy: true });
  refusal = lazy.active ? undefined : lazy.reason;
  if (refusal !== undefined) console.log(`lazy loads from s3: are skipped here: ${refusal}`);
});

interface Saved {
  readonly server: S3TestServer;
  readonly url: string;
  readonly dataKey: string;
}

async function saved(): Promise<Saved> {
  const server = await S3TestServer.start();
  const url = server.url('vm');
  await using vm = await SyntheticVm.create(machine);
  await saveVm(vm, url);
  return { server, url, dataKey: server.remains().find((key) => key !== 'vm') ?? '' };
}

function loadOf({ lazy }: LoadReport): LazyLoad {
  if (!lazy.active) throw new Error(`not lazy: ${lazy.reason}`);
  return lazy.load;
}

const codeOf = async (work: Promise<unknown>): Promise<string> => {
  const error: unknown = await work.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  return error instanceof CheckpointError ? error.code : String(error);
};

/** Reads all blocks: each is what was saved, or an error. Gives the number of those that are errors. */
async function refusedBlocks(vm: SyntheticVm): Promise<number> {
  await using whole = await SyntheticVm.create(machine);
  await loadVm(whole, space.store('s3-lazy'));
  let refused = 0;
  for (let place = mebibyte; place + blockBytes <= 17 * mebibyte; place += blockBytes) {
    const right = Buffer.from(whole.memory.read(place, blockBytes));
    try {
      expect(right.equals(vm.memory.read(place, blockBytes))).toBe(true);
    } catch (error) {
      if (!(error instanceof CheckpointError)) throw error;
      refused += 1;
    }
  }
  return refused;
}

async function expectStopped(vm: SyntheticVm, server: S3TestServer): Promise<void> {
  expect(vm.running).toBe(false);
  expect(await codeOf(vm.resume())).toBe('CHKPT_VM_FAILED');
  const before = server.remains();
  expect(await codeOf(saveVm(vm, server.url('never')))).toBe('CHKPT_VM_FAILED');
  expect(server.remains()).toEqual(before);
}

test('every GET of data is a range of exactly the object that was opened, and memory comes after the load', async ({
  skip,
}) => {
  if (refusal !== undefined) skip(refusal);
  const { server, url, dataKey } = await saved();
  const { etag, bytes } = server.state.objects.get(dataKey) ?? {};
  const asked: Asked[] = [];
  server.fault = (one) => {
    if (one.method === 'GET' && one.key !== 'vm') asked.push(one);
    return undefined;
  };
  await using vm = await SyntheticVm.create({ ...machine, seed: 77 });
  const report = await loadVm(vm, url, { lazy: { fillDelayMs: 1500 } });
  const load = loadOf(report);
  expect(load.counts().missing).toBe(load.counts().blocks);
  const askedBefore = bytesOf(asked);
  expect(await vm.digest()).toBe(digest);
  expect(await load.resident).toMatchObject({ root: report.root, missing: 0 });
  expect(await vm.digest()).toBe(digest);
  expect(new Set(asked.map(({ key, headers }) => `${key} ${headers['if-match']}`))).toEqual(
    new Set([`${dataKey} "${etag}"`]),
  );
  expect(bytesOf(asked)).toBeGreaterThan((bytes?.length ?? 0) / 2 + askedBefore);
});

/** Sum of the ranges. Every GET has one. */
function bytesOf(asked: readonly Asked[]): number {
  return asked.reduce((sum, { headers }) => {
    const [, first, last] = /^bytes=(\d+)-(\d+)$/.exec(headers['range'] ?? '') ?? [];
    return sum + Number(last) - Number(first) + 1;
  }, 0);
}

test('a load goes on when its checkpoint is replaced here, and what it had open goes when it is done', async ({
  skip,
}) => {
  if (refusal !== undefined) skip(refusal);
  const { server, url } = await saved();
  await using vm = await SyntheticVm.create({ ...machine, seed: 77 });
  const load = loadOf(await loadVm(vm, url, { lazy: { fillDelayMs: 500 } }));
  await using other = await SyntheticVm.create({ ...machine, seed: 6 });
  await saveVm(other, url);
  expect(server.remains()).toHaveLength(3);
  await load.resident;
  expect(await vm.digest()).toBe(digest);
  await expect.poll(() => server.remains(), { timeout: 10_000 }).toHaveLength(2);
  await using again = await SyntheticVm.create(machine);
  await loadVm(again, url);
  expect(await again.digest()).toBe(await other.digest());
});

describe('an object that somebody else', () => {
  test.each<[string, (saved: Saved) => void]>([
    [
      'replaces',
      ({ server, dataKey }) => {
        const { bytes = Buffer.alloc(0) } = server.state.objects.get(dataKey) ?? {};
        server.state.put(dataKey, Buffer.from(bytes), 'f'.repeat(32)); // the same bytes: the ETag is what counts
      },
    ],
    ['replaces by a short one', ({ server, dataKey }) => void server.state.put(dataKey, Buffer.alloc(1000))],
    ['removes', ({ server, dataKey }) => void server.state.objects.delete(dataKey)],
  ])('%s midway stops the guest with CHKPT_REPLACED, and it refuses to run', async (_, change) => {
    if (refusal !== undefined) return void console.log(`skipped: ${refusal}`);
    const place = await saved();
    await using vm = await SyntheticVm.create({ ...machine, threads: 2 });
    const load = loadOf(await loadVm(vm, place.url, { lazy: slow }));
    await vm.memory.bring(3 * mebibyte, 8 * blockBytes);
    const { missing, blocks } = load.counts();
    expect(missing).toBeGreaterThan(0);
    expect(missing).toBeLessThan(blocks);
    change(place);
    await vm.resume();
    expect(await codeOf(load.resident)).toBe('CHKPT_REPLACED');
    await expectStopped(vm, place.server);
    // A sound checkpoint makes it a machine again.
    await loadVm(vm, space.store('s3-lazy'));
    expect(await vm.digest()).toBe(digest);
  });

  test('replaces is found by the fill, too', async ({ skip }) => {
    if (refusal !== undefined) skip(refusal);
    const { server, url, dataKey } = await saved();
    let isLoaded = false;
    server.fault = () => {
      if (isLoaded) server.state.put(dataKey, Buffer.alloc(1000));
      return undefined;
    };
    await using vm = await SyntheticVm.create({ ...machine, seed: 77 });
    const load = loadOf(await loadVm(vm, url, { lazy: { fillDelayMs: 300 } }));
    isLoaded = true;
    expect(await codeOf(load.resident)).toBe('CHKPT_REPLACED');
    await expectStopped(vm, server);
    expect(await refusedBlocks(vm)).toBeGreaterThan(0);
  });
});

/** The right ETag, length and range, and one bit that is another one. */
const oneBit: Fault = {
  answer: (right) => {
    const body = Buffer.from(right.body ?? '');
    const middle = Math.floor(body.length / 2);
    body[middle] = (body[middle] ?? 0) ^ 16;
    return { ...right, body };
  },
};

/** As many bytes, but those at the end of the object. */
const bytesOfTheEnd = (server: S3TestServer, dataKey: string): Fault => ({
  answer: (right) => {
    const { bytes = Buffer.alloc(0) } = server.state.objects.get(dataKey) ?? {};
    const length = right.body?.length ?? 0;
    return { ...right, body: Buffer.from(bytes.subarray(bytes.length - length)) };
  },
});

describe('a range with the right ETag and', () => {
  test.each<[string, (saved: Saved) => Fault]>([
    ['one bit that is wrong', () => oneBit],
    ['bytes of another place', ({ server, dataKey }) => bytesOfTheEnd(server, dataKey)],
  ])('%s is CHKPT_DIGEST, never content: of a fault, of the fill, and of bring', async (_, make) => {
    if (refusal !== undefined) return void console.log(`skipped: ${refusal}`);
    const place = await saved();
    const { server, url } = place;
    for (const cause of ['fault', 'fill', 'bring'] as const) {
      server.fault = undefined;
      const options = cause === 'fill' ? { fillDelayMs: 300 } : slow;
      await using vm = await SyntheticVm.create({ ...machine, seed: 77, threads: 2 });
      const load = loadOf(await loadVm(vm, url, { lazy: options }));
      server.fault = ({ headers }) => (headers['range'] === undefined ? undefined : make(place));
      if (cause === 'fault') await vm.resume();
      if (cause === 'bring')
        await expect(vm.memory.bring(3 * mebibyte, blockBytes)).rejects.toMatchObject({
          code: 'CHKPT_DIGEST',
        });
      await expect(load.resident).rejects.toMatchObject({ code: 'CHKPT_DIGEST' });
      server.fault = undefined;
      await expectStopped(vm, server);
      expect(await refusedBlocks(vm)).toBeGreaterThan(0);
    }
  });
});

test('ranges that first fail or end early are asked for again, and the load goes on', async ({ skip }) => {
  if (refusal !== undefined) skip(refusal);
  const { server, url } = await saved();
  await using vm = await SyntheticVm.create({ ...machine, seed: 77 });
  const load = loadOf(await loadVm(vm, url, { lazy: slow }));
  const faults: Fault[] = ['drop', { cutAfter: 1000 }, { refuse: 503, code: 'SlowDown' }, { cutAfter: 0 }];
  let asked = 0;
  server.fault = () => faults[asked++];
  await vm.memory.bring(3 * mebibyte, blockBytes);
  expect(asked).toBeGreaterThan(faults.length);
  expect(await vm.digest()).toBe(digest);
  expect(load.counts().missing).toBe(0);
});
