/** A checkpoint from every kind of store into every kind of store: the same machine, the same values, or an error that says why not. */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { gzipSync } from 'node:zlib';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import '../support/s3/credentials.ts';
import { SyntheticVm } from '../../src/adapters/synthetic/index.ts';
import { CheckpointContent } from '../../src/checkpoint/checkpoint-content.ts';
import { readCheckpoint } from '../../src/checkpoint/verify.ts';
import {
  convertCheckpoint,
  encrypted,
  loadVm,
  openPalaciosStore,
  openStore,
  palaciosUserStore,
  type Store,
  saveVm,
  TeeStore,
} from '../../src/index.ts';
import { skeletonText } from '../foreign/gem5/skeleton-text.ts';
import { plainDevices } from '../foreign/palacios/support/devices.ts';
import { writeOriginal } from '../foreign/palacios/support/folders.ts';
import { sampleOriginal } from '../foreign/palacios/support/original.ts';
import { ReferenceHandler } from '../foreign/palacios/support/reference-handler.ts';
import { fastBase } from '../store/support/folders.ts';
import { noise } from '../store/support/sample-stream.ts';
import {
  EveryStore,
  everyKind,
  everyStoreKey,
  isForeign,
  nativeKinds,
  type StoreKind,
} from '../support/every-store.ts';
import { S3TestServer } from '../support/s3/server.ts';
import { ScribbledVm } from './support/scribbled-vm.ts';

const mebibyte = 1024 ** 2;
const lowBytes = 640 * 1024;
const machine = {
  regions: [
    { base: 0, bytes: lowBytes },
    { base: mebibyte, bytes: mebibyte },
  ],
  cores: 2,
};
const pairs = everyKind.flatMap((from) => everyKind.map((to) => [from, to] as const));

let folder = '';
let server: S3TestServer;
let every: EveryStore;
let digest = '';
let root = '';
let values: ReadonlyMap<string, string>;

beforeAll(async () => {
  folder = mkdtempSync(`${fastBase()}/chkpt-convert-`);
  server = await S3TestServer.start('by-hand');
  every = new EveryStore(folder, server);
  await using vm = await SyntheticVm.create({ ...machine, guestLike: true });
  const report = await saveVm(
    vm,
    everyKind.map((kind) => every.open(kind)),
  );
  expect(report.stores?.filter(({ error }) => error !== undefined)).toEqual([]);
  digest = await vm.digest();
  root = report.root;
  values = await valuesIn(every.open('file'));
  expect(values.size).toBeGreaterThan(50);
});
afterAll(async () => {
  rmSync(folder, { recursive: true, force: true });
  await server.close();
});

class Values extends CheckpointContent {
  readonly found = new Map<string, string>();

  override takeTag(context: string, tag: string, data: Uint8Array): void {
    this.found.set(`${context}/${tag}`, Buffer.from(data).toString('hex'));
  }
}

/** Every value of a checkpoint, by context and tag; all digests are checked on the way. */
async function valuesIn(store: Store): Promise<ReadonlyMap<string, string>> {
  const content = new Values();
  await readCheckpoint(store, { content, report: () => undefined });
  return content.found;
}

async function machineIn(store: Store, parents?: readonly Store[]): Promise<string> {
  await using vm = await SyntheticVm.create(machine);
  await loadVm(vm, store, { parents });
  return await vm.digest();
}

/** Of memory alone. */
async function memoryIn(store: Store, bytes: number): Promise<bigint> {
  const vm = new ScribbledVm(0, false, [{ base: 0, bytes }]);
  await loadVm(vm, store, { skip: ['devices', 'cores'], ignore: ['id', 'cpu'] });
  return await vm.memory.digest();
}

describe('a whole checkpoint', () => {
  test.each(pairs)('%s → %s', async (from, to) => {
    const name = `from ${from}`;
    const source = every.open(from);
    const report = await convertCheckpoint(source, every.open(to, name));
    expect(report.checked).toBe(to === 'encrypted file' ? 'authenticate' : 'detect');
    expect(report.integrity).toBe(from === 'encrypted file' ? 'authenticate' : 'detect');
    expect(report.memoryBytes).toBe(lowBytes + mebibyte);
    // A format of others makes another stream of the same.
    if (!isForeign(from)) expect(report.root).toBe(root);
    const target = every.open(to, name);
    expect(await machineIn(target)).toBe(digest);
    expect(await valuesIn(target)).toEqual(values);
  });
});

describe('an increment', () => {
  const changed = { place: mebibyte + 8192, bytes: new Uint8Array(4096).fill(7) };
  let after = '';

  beforeAll(async () => {
    await using vm = await SyntheticVm.create(machine);
    await loadVm(vm, every.open('file'));
    vm.memory.write(changed.place, changed.bytes);
    after = await vm.digest();
    expect(after).not.toBe(digest);
    const children = nativeKinds.map((kind) => every.open(kind, 'child'));
    const { stores } = await saveVm(vm, children, { parent: every.open('file') });
    expect(stores?.filter(({ error }) => error !== undefined)).toEqual([]);
  });

  test.each(pairs.filter(([from]) => !isForeign(from)))('%s → %s', async (from, to) => {
    const name = `child from ${from}`;
    const work = convertCheckpoint(every.open(from, 'child'), every.open(to, name));
    if (isForeign(to)) {
      await expect(work).rejects.toMatchObject({
        code: 'CHKPT_UNSUPPORTED',
        message: expect.stringContaining('flatten'),
      });
      await expect(every.open(to, name).openReader()).rejects.toMatchObject({ code: 'CHKPT_NOT_FOUND' });
      return;
    }
    expect((await work).parent).toMatch(/^[0-9a-f-]{36}$/);
    expect(await machineIn(every.open(to, name), [every.open('file')])).toBe(after);
  });
});

describe('a checkpoint with a key', () => {
  test.each(everyKind)('→ %s, as --key does it', async (to) => {
    const name = 'sealed';
    const target = every.open(to, name);
    if (to === 'encrypted file') return; // has one already
    const source = every.open('encrypted file').url;
    const work = convertCheckpoint(source, target, { key: everyStoreKey });
    if (isForeign(to) || to === 'dir+pool') {
      await expect(work).rejects.toMatchObject({ code: 'CHKPT_UNSUPPORTED' });
      await expect(every.open(to, name).openReader()).rejects.toMatchObject({ code: 'CHKPT_NOT_FOUND' });
    } else {
      expect((await work).checked).toBe('authenticate');
      expect(await machineIn(encrypted(every.open(to, name), { key: everyStoreKey }))).toBe(digest);
    }
    await convertCheckpoint(source, every.open(to, `${name} not`), { key: everyStoreKey, toKey: 'none' });
    expect(await machineIn(every.open(to, `${name} not`))).toBe(digest);
  });
});

/** Checkpoints that nobody of chkpt wrote. */
describe('an original', () => {
  const bytes = 2 * mebibyte;
  const image = Buffer.alloc(bytes);
  image.set(noise('ram', 300_000), 500_000);

  test.each(everyKind)('of gem5 → %s', async (to) => {
    const path = `${folder}/original for ${to}`;
    mkdirSync(path);
    writeFileSync(`${path}/m5.cpt`, skeletonText({ cores: 1, storeBytes: [bytes] }));
    writeFileSync(`${path}/board.physmem.store0.pmem`, gzipSync(image));
    const source = openStore(`gem5:${path}`);
    const target = every.open(to, 'original of gem5');
    await convertCheckpoint(source, target);
    const vm = new ScribbledVm(0, false, [{ base: 0, bytes }]);
    vm.memory.write(0, image);
    expect(await memoryIn(target, bytes)).toBe(await vm.memory.digest());
    expect(await valuesIn(target)).toEqual(await valuesIn(source));
  });

  const devices = new Map(
    plainDevices.map(([id, blobs]) => [id, blobs.map(([tag, data]) => [tag, data.length] as const)] as const),
  );

  test.each(everyKind)('of Palacios → %s', async (to) => {
    const path = `${folder}/original of Palacios for ${to}`;
    await writeOriginal(path, 'file', sampleOriginal({ devices: plainDevices }));
    const source = openPalaciosStore(`palacios+file:${path}`, { devices });
    const handler = new ReferenceHandler();
    // It tells no lengths: who does not know its devices cannot read them back.
    const target =
      to === 'user' ? palaciosUserStore(handler.handle, { devices }) : every.open(to, 'original of Palacios');
    await convertCheckpoint(source, target);
    expect(await memoryIn(target, 3 * 16_384)).toBe(await memoryIn(source, 3 * 16_384));
    expect(await valuesIn(target)).toEqual(await valuesIn(source));
  });

  test('of Palacios that a handler keeps, whose devices nobody knows, is CHKPT_UNSUPPORTED', async () => {
    const path = `${folder}/original for the handler`;
    await writeOriginal(path, 'file', sampleOriginal({ devices: plainDevices }));
    const store = palaciosUserStore(new ReferenceHandler().handle);
    const unsupported = { code: 'CHKPT_UNSUPPORTED', message: expect.stringContaining('devices') };
    // Read back, and as a source.
    await expect(convertCheckpoint(`palacios+file:${path}`, store)).rejects.toMatchObject(unsupported);
    await expect(convertCheckpoint(store, every.open('file', 'never'))).rejects.toMatchObject(unsupported);
    await expect(every.open('file', 'never').openReader()).rejects.toMatchObject({
      code: 'CHKPT_NOT_FOUND',
    });
  });
});

test('what has nothing to be read is a typed error as a source', async () => {
  const target = every.open('file', 'never');
  const tee = new TeeStore([every.open('file'), every.open('dir')]);
  for (const source of ['null:', tee])
    await expect(convertCheckpoint(source, target)).rejects.toMatchObject({ code: 'CHKPT_UNSUPPORTED' });
  // Into them it goes, and is not read back.
  expect((await convertCheckpoint(every.open('s3'), 'null:')).checked).toBeUndefined();
  const both = new TeeStore([every.open('dir', 'both'), every.open('gem5', 'both')]);
  expect((await convertCheckpoint(every.open('s3'), both)).checked).toBeUndefined();
  for (const kind of ['dir', 'gem5'] as const) expect(await machineIn(every.open(kind, 'both'))).toBe(digest);
});

test.each(everyKind)('%s into its own place is CHKPT_STORE_URL, and stays', async (kind: StoreKind) => {
  const work = convertCheckpoint(every.open(kind), every.open(kind));
  await expect(work).rejects.toMatchObject({ code: 'CHKPT_STORE_URL' });
  expect(await machineIn(every.open(kind))).toBe(digest);
});
