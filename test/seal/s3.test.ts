/** Encrypted checkpoints in `s3:`: whoever has the bucket and not the key reads nothing of them, and changes nothing unseen. */
import { describe, expect, test } from 'vitest';
import '../support/s3/credentials.ts';
import { inspectCheckpoint, loadVm, saveVm, verifyChain, verifyCheckpoint } from '../../src/index.ts';
import { ScribbledVm } from '../checkpoint/support/scribbled-vm.ts';
import { noise } from '../store/support/sample-stream.ts';
import { S3TestServer } from '../support/s3/server.ts';
import { hasUserfaultfd } from '../support/userfaultfd.ts';
import { key, otherKey } from './support.ts';

const secret = 'what only this guest knows';

function scribbled(): ScribbledVm {
  const vm = new ScribbledVm(3, true);
  vm.scribble(900);
  vm.write(2345, Buffer.alloc(4096, secret));
  return vm;
}

/** In two parts; `raw`, so that what is not encrypted is there as it was. */
async function saved(): Promise<{ server: S3TestServer; url: string; vm: ScribbledVm; dataKey: string }> {
  const server = await S3TestServer.start();
  const url = server.url('vm', '&part-mib=5');
  const vm = scribbled();
  const pageCount = 1500;
  const random = noise('guest', pageCount * 4096);
  for (let page = 0; page < pageCount; page += 1)
    vm.write(page, random.subarray(4096 * page).subarray(0, 4096));
  await saveVm(vm, url, { key, codec: 'raw' });
  const dataKey = server.remains().find((name) => name !== 'vm') ?? '';
  return { server, url, vm, dataKey };
}

test('a machine comes back with the key, eager and lazy, and the bucket has nothing of it', async () => {
  const { server, url, vm, dataKey } = await saved();
  const { bytes = Buffer.alloc(0), etag } = server.state.objects.get(dataKey) ?? {};
  expect(etag).toMatch(/-[2-9]$/); // in parts
  expect(bytes.includes(secret)).toBe(false);
  const digest = await vm.memory.digest();
  const eager = new ScribbledVm(0, false);
  await loadVm(eager, url, { key });
  expect(await eager.memory.digest()).toBe(digest);
  const lazy = new ScribbledVm(0, false);
  const report = await loadVm(lazy, url, { key, lazy: true });
  if (report.lazy.active) await report.lazy.load.resident;
  else console.log(`not lazy here: ${report.lazy.reason}`);
  if (hasUserfaultfd) expect(report.lazy.active).toBe(true);
  expect(await lazy.memory.digest()).toBe(digest);
});

test('an increment and its parent are found with the key; verify and info say authenticate of both', async () => {
  const { server, url, vm } = await saved();
  const child = server.url('child');
  vm.scribble(30);
  const { root } = await saveVm(vm, child, { key, parent: url });
  expect(await verifyCheckpoint(child, { key })).toMatchObject({ integrity: 'authenticate', root });
  expect(await verifyCheckpoint(url, { key })).toMatchObject({ integrity: 'authenticate' });
  expect((await verifyChain(child, { key })).parents).toHaveLength(1);
  const target = new ScribbledVm(0, false);
  await loadVm(target, child, { key });
  expect(await target.memory.digest()).toBe(await vm.memory.digest());
  await using inspection = await inspectCheckpoint(child, { key });
  expect(inspection).toMatchObject({ integrity: 'authenticate', source: 'index' });
  expect(inspection.header.parent).toBeDefined();
  // The manifest can be read without the key, and tells nothing of that.
  const manifest: unknown = JSON.parse(server.state.objects.get('child')?.bytes.toString() ?? '');
  expect(manifest).toMatchObject({ parent: null, epoch: '0' });
});

test('without the key, with another one, and with one for what is not encrypted: CHKPT_KEY, the machine untouched', async () => {
  const { server, url } = await saved();
  const plain = server.url('plain');
  await saveVm(scribbled(), plain, { codec: 'raw' });
  const stored = [...server.state.objects].find(([name]) => name.startsWith('plain.objects/'))?.[1].bytes;
  expect(stored?.includes(secret)).toBe(true); // as it would be in the other one
  const vm = scribbled();
  const before = await vm.memory.digest();
  const wrong = { code: 'CHKPT_KEY', kind: 'mismatch' };
  for (const [place, option] of [
    [url, undefined],
    [url, otherKey],
    [plain, key],
  ] as const) {
    for (const lazy of [false, true]) {
      await expect(loadVm(vm, place, { key: option, lazy })).rejects.toMatchObject(wrong);
    }
    await expect(verifyCheckpoint(place, { key: option })).rejects.toMatchObject(wrong);
    await expect(inspectCheckpoint(place, { key: option })).rejects.toMatchObject(wrong);
  }
  expect(vm.failure).toBeUndefined();
  expect(await vm.memory.digest()).toBe(before);
});

function flip(bytes: Buffer, at: number): void {
  bytes[at] = (bytes[at] ?? 0) ^ 1;
}

describe('who has the bucket and changes', () => {
  test.each([
    ['a bit in the middle', (bytes: Buffer) => flip(bytes, Math.floor(bytes.length / 2))],
    ['a bit of the header', (bytes: Buffer) => flip(bytes, 70)],
    ['a bit of the end', (bytes: Buffer) => flip(bytes, bytes.length - 1)],
    [
      'the order of records',
      (bytes: Buffer) => {
        const [record, headerBytes] = [2 ** 18 + 16, 104];
        const [first, second] = [headerBytes + record, headerBytes + 2 * record];
        const moved = Buffer.from(bytes.subarray(first, second));
        bytes.copyWithin(first, second, second + record);
        moved.copy(bytes, second);
      },
    ],
  ])('%s, with a right ETag, is found: CHKPT_SEAL for verify, eager and lazy loads', async (_, change) => {
    const { server, url, dataKey } = await saved();
    change(server.state.objects.get(dataKey)?.bytes ?? Buffer.alloc(0));
    const forged = { code: 'CHKPT_SEAL', kind: 'damaged' };
    await expect(verifyCheckpoint(url, { key })).rejects.toMatchObject(forged);
    await expect(loadVm(new ScribbledVm(0, false), url, { key })).rejects.toMatchObject(forged);
    const vm = new ScribbledVm(0, false);
    const loading = loadVm(vm, url, { key, lazy: true }).then(async ({ lazy }) => {
      if (lazy.active) await lazy.load.resident;
    });
    await expect(loading).rejects.toMatchObject(forged);
  });
});

test('a save with a key that fails leaves nothing, and what was there before', async () => {
  const { server, url, vm } = await saved();
  const before = server.remains();
  const digest = await vm.memory.digest();
  server.fault = ({ method, key: place }) =>
    method === 'PUT' && place !== 'vm' ? { refuse: 403, code: 'AccessDenied' } : undefined;
  vm.scribble(100);
  await expect(saveVm(vm, url, { key, codec: 'raw' })).rejects.toMatchObject({ code: 'CHKPT_PERMISSION' });
  server.fault = undefined;
  expect(server.remains()).toEqual(before);
  const target = new ScribbledVm(0, false);
  await loadVm(target, url, { key });
  expect(await target.memory.digest()).toBe(digest);
});
