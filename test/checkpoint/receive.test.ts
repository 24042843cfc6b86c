/** Checkpoints that go to another process: what arrives is what was sent, or nothing, and the sender knows which. */
import { createHash, randomBytes } from 'node:crypto';
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import {
  inspectCheckpoint,
  loadVm,
  openCheckpoint,
  openStore,
  openStreamStore,
  receiveCheckpoint,
  type Store,
  type StreamStoreOptions,
  saveVm,
  verifyCheckpoint,
} from '../../src/index.ts';
import { connect } from '../../src/transport/index.ts';
import { makeFolder } from '../store/support/folders.ts';
import { type Cut, CuttingProxy } from '../transport/support/cutting-proxy.ts';
import { Authority, hasOpenssl } from '../transport/support/pki.ts';
import { ScribbledVm } from './support/scribbled-vm.ts';

const uuid = '5f0c9d36-7c8e-4a52-9d6f-0a1b2c3d4e5f';
const createdMs = 1_700_000_000_000;

function listening(
  url: string,
  options: StreamStoreOptions = {},
): { store: Store; address: Promise<string> } {
  let tell: (address: string) => void = () => undefined;
  const address = new Promise<string>((resolve) => {
    tell = resolve;
  });
  return { store: openStreamStore(url, { ...options, onListening: (found) => tell(found) }), address };
}

/** Hello and proof. */
const handshakeBytes = 16 + 32 + 4 + 24 + 16;

async function codeOf(work: PromiseLike<unknown>): Promise<string> {
  try {
    await work;
    return 'no error';
  } catch (error) {
    return (error as { code: string }).code;
  }
}

function hashOfTree(path: string): string {
  const hash = createHash('sha256');
  const files = statSync(path).isDirectory()
    ? readdirSync(path, { recursive: true, encoding: 'utf8' }).sort()
    : [''];
  for (const name of files) {
    const file = `${path}/${name}`.replace(/\/$/, '');
    if (statSync(file).isFile()) hash.update(name).update(readFileSync(file));
  }
  return hash.digest('hex');
}

const authority = hasOpenssl ? new Authority('chkpt test CA') : undefined;
const host = authority?.issue('host');
const tls = {
  key: host?.key ?? '',
  cert: host?.cert ?? '',
  ca: authority?.cert ?? '',
  authorise: () => true,
};
const kinds: [string, (folder: string) => string, StreamStoreOptions][] = [
  ['tcp:', () => 'tcp://127.0.0.1:0', {}],
  ['unix:', (folder) => `unix:${folder}/s`, {}],
  ['tls: with a one-time key', () => 'tls://127.0.0.1:0', { psk: { key: randomBytes(32) } }],
  ...(hasOpenssl
    ? ([['tls:', () => 'tls://127.0.0.1:0', { tls }]] as [string, () => string, StreamStoreOptions][])
    : []),
];

describe.each(kinds)('over %s', (_name, urlIn, options) => {
  test.each(['file', 'dir'])(
    'a save that is received into %s: is byte for byte one that was saved there',
    async (scheme) => {
      const folder = makeFolder();
      const vm = new ScribbledVm(1, false);
      vm.scribble(800);
      await saveVm(vm, `${scheme}:${folder}/direct`, { uuid, createdMs });
      const { store, address } = listening(urlIn(folder), options);
      const receiving = receiveCheckpoint(store, `${scheme}:${folder}/received`);
      const sent = await saveVm(vm, openStreamStore(await address, options), { uuid, createdMs });
      // The sender hears of it when it is there.
      expect(hashOfTree(`${folder}/received`)).toBe(hashOfTree(`${folder}/direct`));
      const report = await receiving;
      expect(report).toMatchObject({
        root: sent.root,
        acknowledged: true,
        url: `${scheme}:${folder}/received`,
      });
      expect(report.header.uuid).toBe(uuid);
    },
  );

  test('a machine is loaded from a sender, who hears that it was', async () => {
    const vm = new ScribbledVm(2, false);
    vm.scribble(300);
    const { store, address } = listening(urlIn(makeFolder()), options);
    const other = new ScribbledVm(0, false);
    const loading = loadVm(other, store);
    const [sent, loaded] = await Promise.all([
      address.then((found) => saveVm(vm, openStreamStore(found, options))),
      loading,
    ]);
    expect(loaded.root).toBe(sent.root);
    expect(await other.memory.digest()).toBe(await vm.memory.digest());
  });
});

test('increments, values of MiBs and checkpoints without index are received as they are', async () => {
  const folder = makeFolder();
  const vm = new ScribbledVm(3, true);
  vm.scribble(500);
  await saveVm(vm, `file:${folder}/0`);
  vm.scribble(20);
  await saveVm(vm, `file:${folder}/1`, { parent: `file:${folder}/0` });
  await using large = await openCheckpoint(`file:${folder}/2`, { mode: 'save', index: false });
  await using context = await large.openContext('Ünïcode "quoted" \\ name');
  await context.saveAll({ large: randomBytes(3_000_001), empty: new Uint8Array(0), x: 1 });
  await context.close();
  await using none = await large.openContext('nothing');
  await none.close();
  await large.commit();
  for (const name of ['0', '1', '2']) {
    for (const to of [`dir:${folder}/d${name}`, `mem:received ${name}`, `file:${folder}/f${name}`]) {
      await receiveCheckpoint(`file:${folder}/${name}`, to);
      await verifyCheckpoint(to);
      await receiveCheckpoint(to, `file:${folder}/back`);
      expect(hashOfTree(`${folder}/back`)).toBe(hashOfTree(`${folder}/${name}`));
    }
  }
});

test('the target can be chosen by what the stream says, and several are received in a row', async () => {
  const folder = makeFolder();
  const { store, address } = listening(`unix:${folder}/s`, { count: 3 });
  const vm = new ScribbledVm(4, false);
  for (let count = 0; count < 3; count += 1) {
    vm.scribble(10);
    const receiving = receiveCheckpoint(store, (header) => `file:${folder}/${header.uuid}.chkpt`);
    const sent = await saveVm(vm, openStreamStore(await address));
    const { url } = await receiving;
    expect(url).toBe(`file:${folder}/${sent.uuid}.chkpt`);
    await using inspection = await inspectCheckpoint(url);
    expect(inspection.header.uuid).toBe(sent.uuid);
  }
  await expect(receiveCheckpoint(store, `file:${folder}/x`)).rejects.toMatchObject({
    code: 'CHKPT_UNSUPPORTED',
  });
  await expect(saveVm(vm, openStreamStore(await address))).rejects.toMatchObject({ code: 'CHKPT_LINK_LOST' });
});

test('who comes while another one is served is refused at once, and the other one is served', async () => {
  const folder = makeFolder();
  const { store, address } = listening(`unix:${folder}/s`, { count: 2 });
  const receiving = receiveCheckpoint(store, `file:${folder}/a`);
  await using first = await openCheckpoint(openStreamStore(await address), { mode: 'save' });
  const second = openCheckpoint(openStreamStore(await address), { mode: 'save' });
  await expect(second).rejects.toMatchObject({ code: 'CHKPT_PEER_REFUSED' });
  await first.commit();
  await receiving;
  await store.openReader({ signal: AbortSignal.abort() }).catch(() => undefined);
});

test('what the receiver fails with is told to the sender, and nothing is published', async () => {
  const folder = makeFolder();
  const { store, address } = listening(`unix:${folder}/s`, { count: 2 });
  const vm = new ScribbledVm(5, false);
  vm.scribble(800);
  const target = `file:${folder}/no/such/folder/x`;
  const receiving = receiveCheckpoint(store, target);
  const [sent, received] = await Promise.allSettled([
    address.then((url) => saveVm(vm, openStreamStore(url))),
    receiving,
  ]);
  expect(received).toMatchObject({ reason: { code: 'CHKPT_NOT_FOUND' } });
  expect(sent).toMatchObject({ reason: { code: 'CHKPT_PEER_REFUSED' } });
  expect(String((sent as PromiseRejectedResult).reason)).toContain('CHKPT_NOT_FOUND');

  const other = new ScribbledVm(0, false, [{ base: 0, bytes: 1024 ** 2 }]);
  const [again, loaded] = await Promise.allSettled([
    address.then((url) => saveVm(vm, openStreamStore(url))),
    loadVm(other, store),
  ]);
  expect(loaded).toMatchObject({ reason: { code: 'CHKPT_VM_REGIONS' } });
  expect(again).toMatchObject({ reason: { code: 'CHKPT_PEER_REFUSED' } });
});

test('a sender that gives up, or is cancelled, leaves nothing behind', async () => {
  const folder = makeFolder();
  const { store, address } = listening(`unix:${folder}/s`, { count: 2 });
  for (const way of ['abort', 'signal'] as const) {
    const receiving = receiveCheckpoint(store, `file:${folder}/x`);
    const controller = new AbortController();
    const options = { mode: 'save', signal: controller.signal } as const;
    const checkpoint = await openCheckpoint(openStreamStore(await address), options);
    const context = await checkpoint.openContext('a');
    await context.save('b', randomBytes(500_000));
    if (way === 'signal') controller.abort();
    await checkpoint.abort();
    const code = way === 'abort' ? 'CHKPT_PEER_REFUSED' : 'CHKPT_LINK_LOST';
    await expect(receiving).rejects.toMatchObject({ code });
    expect(readdirSync(folder).filter((name) => name.startsWith('x'))).toEqual([]);
  }
});

test('a receiver that is cancelled tells the sender, before and in the middle of the stream', async () => {
  const folder = makeFolder();
  const early = new AbortController();
  const { store } = listening(`unix:${folder}/s`);
  const never = receiveCheckpoint(store, `file:${folder}/x`, { signal: early.signal });
  setTimeout(() => early.abort(), 20);
  await expect(never).rejects.toMatchObject({ code: 'CHKPT_ABORTED' });

  const controller = new AbortController();
  const second = listening(`unix:${folder}/t`);
  const receiving = receiveCheckpoint(second.store, `file:${folder}/x`, { signal: controller.signal });
  const checkpoint = await openCheckpoint(openStreamStore(await second.address), { mode: 'save' });
  const context = await checkpoint.openContext('a');
  await context.save('b', randomBytes(500_000));
  controller.abort();
  await expect(receiving).rejects.toMatchObject({ code: 'CHKPT_ABORTED' });
  await expect(
    (async () => {
      for (;;) await context.save(String(Math.random()), randomBytes(500_000));
    })(),
  ).rejects.toMatchObject({ code: 'CHKPT_PEER_REFUSED' });
  await checkpoint.abort();
  expect(readdirSync(folder).filter((name) => name.startsWith('x'))).toEqual([]);
});

describe('a connection that is cut', () => {
  const proxyFor = async (address: string, cutAt?: number, cut?: Cut): Promise<CuttingProxy> => {
    const port = Number(address.replace(/.*:/, ''));
    return await CuttingProxy.open({ target: { host: '127.0.0.1', port }, cutAt, cut });
  };

  /** Handshake and records of a small stream, as they go over the wire. */
  async function record(): Promise<Buffer> {
    const { store, address } = listening('tcp://127.0.0.1:0');
    const receiving = receiveCheckpoint(store, 'mem:recorded');
    const proxy = await proxyFor(await address);
    await saveSmall(proxy.address);
    await receiving;
    proxy.close();
    return Buffer.concat(proxy.sent);
  }

  async function saveSmall(url: string): Promise<void> {
    await using checkpoint = await openCheckpoint(openStreamStore(url), { mode: 'save', uuid, createdMs });
    for (const name of ['one', 'two']) {
      await using context = await checkpoint.openContext(name);
      await context.saveAll({ a: 1, b: randomBytes(300), c: 'text' });
    }
    await checkpoint.commit();
  }

  test('at any byte is an error on both sides and publishes nothing; after END the sender says that it does not know', async () => {
    const folder = makeFolder();
    const wire = await record();
    const all = process.env['CHKPT_HOSTILE'] === 'full';
    const ways = ['reset', 'close', 'half-close'] as const;
    // Headers of records and of the first frames, and then every so often.
    const places = [...wire.keys()].filter((at) => at > 0 && (all || at % 97 === 0 || at > wire.length - 12));
    for (const [index, cutAt] of places.entries()) {
      const { store, address } = listening('tcp://127.0.0.1:0', { handshakeMs: 300 });
      const controller = new AbortController();
      const receiving = receiveCheckpoint(store, `file:${folder}/x`, { signal: controller.signal });
      receiving.catch(() => undefined);
      const cut = ways[index % ways.length] ?? 'reset';
      const proxy = await proxyFor(await address, cutAt, cut);
      const sent = await codeOf(saveSmall(proxy.address));
      // A handshake that was cut leaves the listener as it was.
      if (cutAt < handshakeBytes) controller.abort();
      const received = await codeOf(receiving);
      const place = `${cut} at ${cutAt} of ${wire.length}: sender ${sent}, receiver ${received}`;
      expect(received, place).toBe(cutAt < handshakeBytes ? 'CHKPT_ABORTED' : 'CHKPT_LINK_LOST');
      expect(sent, place).toMatch(/^CHKPT_(LINK_LOST|PEER_REFUSED|TIMEOUT|UNACKNOWLEDGED)$/);
      expect(readdirSync(folder), place).toEqual([]);
      proxy.close();
    }
  });

  test('before the acknowledgement comes is CHKPT_UNACKNOWLEDGED, and the checkpoint is there', async () => {
    const folder = makeFolder();
    const wire = await record();
    const { store, address } = listening('tcp://127.0.0.1:0');
    const receiving = receiveCheckpoint(store, `file:${folder}/kept`);
    const proxy = await proxyFor(await address, wire.length, 'deaf');
    const doubt = { code: 'CHKPT_UNACKNOWLEDGED', kind: 'doubt' };
    await expect(saveSmall(proxy.address)).rejects.toMatchObject(doubt);
    await receiving;
    await verifyCheckpoint(`file:${folder}/kept`);
    proxy.close();
  });
});

test('a damaged stream is refused with what is wrong, and nothing is published', async () => {
  const folder = makeFolder();
  const vm = new ScribbledVm(6, false);
  vm.scribble(50);
  await saveVm(vm, `file:${folder}/good`, { uuid });
  const good = readFileSync(`${folder}/good`);
  for (let count = 0; count < 40; count += 1) {
    const { store, address } = listening(`unix:${folder}/s`);
    const receiving = receiveCheckpoint(store, `dir:${folder}/x`).catch(
      (error: unknown) => error as { kind: string },
    );
    const writer = await openStreamStore(await address).openWriter({ uuid });
    const bad = Buffer.from(good);
    const at = Math.floor((count * good.length) / 40);
    bad[at] = (bad[at] ?? 0) ^ (1 << (count % 8));
    const sending = (async () => {
      await writer.write(bad);
      await writer.commit({ uuid, parent: undefined, epoch: 0n, root: '0'.repeat(64), bytes: bad.length });
    })();
    await expect(sending).rejects.toMatchObject({ code: 'CHKPT_PEER_REFUSED' });
    expect((await receiving) as object).toMatchObject({ kind: expect.stringMatching(/damaged|unsupported/) });
    await writer.abort();
    expect(readdirSync(folder).includes('x')).toBe(false);
  }
});

test('a peer that acknowledges something else is not believed', async () => {
  const folder = makeFolder();
  const { listen } = await import('../../src/transport/index.ts');
  const listener = await listen(`unix:${folder}/s`);
  const saving = openCheckpoint(openStreamStore(`unix:${folder}/s`), { mode: 'save' }).then((checkpoint) =>
    checkpoint.commit(),
  );
  saving.catch(() => undefined);
  const far = await listener.accept();
  const header = Buffer.alloc(8 + 56);
  header.writeUInt32LE(16, 0);
  header.writeUInt32LE(56, 4);
  const target = Buffer.alloc(4096);
  for (let end = false; !end; ) {
    const byteCount = await far.read(target);
    end = target.readUInt32LE(byteCount - 8) === 2 && target.readUInt32LE(byteCount - 4) === 0;
  }
  await far.write(header);
  await expect(saving).rejects.toMatchObject({ code: 'CHKPT_UNACKNOWLEDGED' });
  far.destroy();
  await listener.close();
});

test('every length and type of a record is checked before anything is made of it', async () => {
  for (const [type, length] of [
    [1, 0],
    [1, 2 ** 30 + 1],
    [1, 2 ** 32 - 1],
    [2, 1],
    [3, 1025],
    [4, 1],
    [5, 0],
    [16, 56],
    [0, 0],
    [2 ** 31, 8],
  ] as const) {
    const folder = makeFolder();
    const { store, address } = listening(`unix:${folder}/s`);
    const receiving = receiveCheckpoint(store, `file:${folder}/x`);
    receiving.catch(() => undefined);
    const near = await connect(await address, { kind: 'checkpoint' });
    const header = Buffer.alloc(8);
    header.writeUInt32LE(type, 0);
    header.writeUInt32LE(length, 4);
    await near.write(header);
    await near.read(Buffer.alloc(2000));
    near.destroy();
    await expect(receiving, `${type} ${length}`).rejects.toMatchObject({ code: 'CHKPT_PEER_PROTOCOL' });
  }
  expect(() => openStore('tcp://x')).toThrow(/not an address/);
});
