/** Machines in encrypted checkpoints: whatever takes a URL takes a key, and parents are found with it. */
import { readFileSync, writeFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import {
  CheckpointError,
  convertCheckpoint,
  diffCheckpoints,
  encrypted,
  flattenCheckpoint,
  inspectCheckpoint,
  keepLast,
  keyIdOf,
  loadVm,
  openCheckpoint,
  openSharedImage,
  receiveCheckpoint,
  saveVm,
  verifyChain,
  verifyCheckpoint,
} from '../../src/index.ts';
import { ScribbledVm } from '../checkpoint/support/scribbled-vm.ts';
import { makeFolder } from '../store/support/folders.ts';
import { readAll } from '../support/altered-store.ts';
import { key, otherKey } from './support.ts';

function scribbled(): ScribbledVm {
  const vm = new ScribbledVm(3, true);
  vm.scribble(300);
  return vm;
}

type Key = NonNullable<NonNullable<Parameters<typeof loadVm>[2]>['key']>;

async function digestAt(url: string, option?: Key, lazy = false): Promise<bigint> {
  const vm = new ScribbledVm(0, false);
  const { lazy: outcome } = await loadVm(vm, url, { key: option, lazy });
  if (outcome.active) await outcome.load.resident;
  else if (lazy) console.log(`not lazy here: ${outcome.reason}`);
  return await vm.memory.digest();
}

const idOf = (one: Uint8Array): string => Buffer.from(keyIdOf(one)).toString('hex');

test.each(['file', 'dir', 'mem'])(
  'a machine in %s: comes back with the key, eager and lazy',
  async (scheme) => {
    const url = `${scheme}:${makeFolder()}/vm`;
    const vm = scribbled();
    const saved = await saveVm(vm, url, { key });
    const digest = await vm.memory.digest();
    const verified = await verifyCheckpoint(url, { key });
    expect(verified).toMatchObject({ integrity: 'authenticate', root: saved.root });
    expect(saved.checkpointBytes).toBeGreaterThan(verified.bytes);
    expect(await digestAt(url, key)).toBe(digest);
    expect(await digestAt(url, key, true)).toBe(digest);
    await using inspection = await inspectCheckpoint(url, { key });
    expect(inspection).toMatchObject({ integrity: 'authenticate', source: 'index' });
  },
);

test('a record that was changed is never decoded: eager and lazy loads say CHKPT_SEAL, and the machine refuses to run', async () => {
  const path = `${makeFolder()}/vm`;
  const store = encrypted(`file:${path}`, { key, recordBytes: 4096 });
  const saved = scribbled();
  saved.scribble(6000);
  await saveVm(saved, store);
  const bytes = readFileSync(path);
  // Behind what is read at once: guest memory was touched before.
  const place = Math.floor(0.8 * bytes.length);
  bytes[place] = (bytes[place] ?? 0) ^ 1;
  writeFileSync(path, bytes);
  const wrong = { code: 'CHKPT_SEAL', kind: 'damaged' };
  const vm = new ScribbledVm(0, false);
  await expect(loadVm(vm, store)).rejects.toMatchObject(wrong);
  expect(vm.failure).toBeDefined();
  await expect(verifyCheckpoint(store)).rejects.toMatchObject(wrong);
  const other = new ScribbledVm(0, false);
  const report = await loadVm(other, store, { lazy: true }).catch((error: unknown) => error);
  if (report instanceof Error) return expect(report).toMatchObject(wrong);
  const { lazy } = report as Awaited<ReturnType<typeof loadVm>>;
  if (!lazy.active) throw new Error('it was loaded');
  await expect(lazy.load.resident).rejects.toMatchObject(wrong);
  expect(other.failure).toBeDefined();
});

test('without the key, with another one, and with one for what is not encrypted: CHKPT_KEY, the machine untouched', async () => {
  const folder = makeFolder();
  const [secret, plain] = [`file:${folder}/secret`, `file:${folder}/plain`];
  await saveVm(scribbled(), secret, { key });
  await saveVm(scribbled(), plain);
  const vm = scribbled();
  const before = await vm.memory.digest();
  const wrong = { code: 'CHKPT_KEY', kind: 'mismatch' };
  for (const [url, option] of [
    [secret, undefined],
    [secret, otherKey],
    [plain, key],
    [secret, () => undefined],
  ] as const) {
    await expect(loadVm(vm, url, { key: option })).rejects.toMatchObject(wrong);
    await expect(verifyCheckpoint(url, { key: option })).rejects.toMatchObject(wrong);
    await expect(verifyChain(url, { key: option })).rejects.toMatchObject(wrong);
    await expect(inspectCheckpoint(url, { key: option })).rejects.toMatchObject(wrong);
    await expect(openCheckpoint(url, { mode: 'load', key: option })).rejects.toMatchObject(wrong);
    await expect(convertCheckpoint(url, `${plain}.copy`, { key: option })).rejects.toMatchObject(wrong);
  }
  expect(vm.failure).toBeUndefined();
  expect(await vm.memory.digest()).toBe(before);
  await expect(saveVm(vm, secret, { key: () => undefined })).rejects.toMatchObject(wrong);
});

test('a chain is opened with the key of its newest, with several keys, and with a function by checkpoint', async () => {
  const folder = makeFolder();
  const url = (n: number): string => `file:${folder}/${n}`;
  const vm = scribbled();
  await saveVm(vm, url(0), { key: otherKey });
  vm.scribble(20);
  await saveVm(vm, url(1), { key: [key, otherKey], parent: url(0) });
  vm.scribble(20);
  const asked: (string | undefined)[] = [];
  const byId = ({ purpose, keyId }: { purpose: string; keyId?: string | undefined }): Uint8Array => {
    if (purpose === 'load') asked.push(keyId);
    return keyId === idOf(otherKey) ? otherKey : key;
  };
  await saveVm(vm, url(2), { key: byId, parent: url(1) });
  const digest = await vm.memory.digest();
  expect(await digestAt(url(2), [otherKey, key])).toBe(digest);
  expect(await digestAt(url(2), byId)).toBe(digest);
  expect(new Set(asked)).toEqual(new Set([idOf(key), idOf(otherKey)]));
  const chain = await verifyChain(url(2), { key: [key, otherKey] });
  expect([chain, ...chain.parents].map(({ integrity }) => integrity)).toEqual(Array(3).fill('authenticate'));
  // A key of a parent that is not there is not a parent that is missing.
  const { details } = await loadVm(new ScribbledVm(0, false), url(2), { key }).then(
    () => new CheckpointError('CHKPT_INTERNAL', 'loaded'),
    (error: unknown) => error as CheckpointError,
  );
  expect(details).toMatchObject({ expected: idOf(otherKey), actual: idOf(key) });
  expect((await diffCheckpoints(url(1), url(2), { key: byId })).differing).toBeGreaterThan(0);
});

test('a chain with members that are not encrypted needs a function that allows it', async () => {
  const folder = makeFolder();
  const [plain, secret] = [`dir:${folder}/plain`, `dir:${folder}/secret`];
  const vm = scribbled();
  await saveVm(vm, plain);
  vm.scribble(20);
  await expect(saveVm(vm, secret, { key, parent: plain })).rejects.toMatchObject({ code: 'CHKPT_KEY' });
  const lenient = ({ purpose, keyId }: { purpose: string; keyId?: string | undefined }) =>
    purpose === 'load' && keyId === undefined ? undefined : key;
  await saveVm(vm, secret, { key: lenient, parent: plain });
  expect(await digestAt(secret, lenient)).toBe(await vm.memory.digest());
  await expect(digestAt(secret, key)).rejects.toMatchObject({ code: 'CHKPT_KEY' });
});

test('convert encrypts, changes the key, and decrypts: the stream stays what it is', async () => {
  const folder = makeFolder();
  const at = (name: string): string => `file:${folder}/${name}`;
  await saveVm(scribbled(), at('plain'));
  const sealed = await convertCheckpoint(at('plain'), at('sealed'), { toKey: key });
  const again = await convertCheckpoint(at('sealed'), at('again'), { key, toKey: otherKey });
  const same = await convertCheckpoint(at('again'), at('same'), { key: otherKey });
  const back = await convertCheckpoint(at('same'), at('back'), { key: otherKey, toKey: 'none' });
  expect([sealed, again, same, back].map(({ integrity, checked }) => [integrity, checked])).toEqual([
    ['detect', 'authenticate'],
    ['authenticate', 'authenticate'],
    ['authenticate', 'authenticate'],
    ['authenticate', 'detect'],
  ]);
  const { openStore } = await import('../../src/index.ts');
  expect((await readAll(openStore(at('back')))).equals(await readAll(openStore(at('plain'))))).toBe(true);
  expect(
    (await readAll(encrypted(at('same'), { key: otherKey }))).equals(await readAll(openStore(at('plain')))),
  ).toBe(true);
});

test('flatten and keepLast keep the key, in place too', async () => {
  const folder = makeFolder();
  const url = (n: number | string): string => `file:${folder}/${n}`;
  const vm = scribbled();
  for (let n = 0; n < 4; n += 1) {
    await saveVm(vm, url(n), { key, ...(n === 0 ? {} : { parent: url(n - 1) }) });
    if (n < 3) vm.scribble(10);
  }
  const digest = await vm.memory.digest();
  await flattenCheckpoint(url(3), url('flat'), { key });
  expect(await digestAt(url('flat'), key)).toBe(digest);
  await flattenCheckpoint(url(3), url('plain'), { key, toKey: 'none' });
  expect(await digestAt(url('plain'))).toBe(digest);
  await keepLast(url(3), 2, { key });
  expect(await digestAt(url(3), key)).toBe(digest);
  expect((await verifyChain(url(3), { key })).parents).toHaveLength(1);
});

test('from end to end over a connection, with an acknowledgement, into a store with another key', async () => {
  const folder = makeFolder();
  const link = `unix:${folder}/link`;
  const vm = scribbled();
  const receiving = receiveCheckpoint(link, `file:${folder}/kept`, { key, toKey: otherKey });
  await new Promise((resolve) => setTimeout(resolve, 300));
  const saved = await saveVm(vm, link, { key });
  expect(await receiving).toMatchObject({ acknowledged: true, integrity: 'authenticate', root: saved.root });
  expect(await digestAt(`file:${folder}/kept`, otherKey)).toBe(await vm.memory.digest());
});

test('what looks into a stream takes none that is encrypted, and what needs native reads says so', async () => {
  const folder = makeFolder();
  const vm = scribbled();
  const unsupported = { code: 'CHKPT_UNSUPPORTED' };
  await expect(saveVm(vm, `dir+pool:${folder}/vm`, { key })).rejects.toMatchObject(unsupported);
  await expect(saveVm(vm, `gem5:${folder}/gem5`, { key })).rejects.toMatchObject(unsupported);
  await saveVm(vm, `dir+pool:${folder}/vm`);
  await expect(verifyCheckpoint(`dir+pool:${folder}/vm`, { key })).rejects.toMatchObject({
    code: 'CHKPT_KEY',
  });
  await saveVm(vm, `file:${folder}/vm.chkpt`, { key });
  await expect(openSharedImage(`file:${folder}/vm.chkpt`, { key })).rejects.toMatchObject(unsupported);
  const { changed } = await loadVm(new ScribbledVm(0, false), `file:${folder}/vm.chkpt`, {
    key,
    onlyChanged: true,
  });
  expect(changed).toMatchObject({ active: false, reason: expect.any(String) });
});
