/** `dir+pool:`: what checkpoints have in common is stored once, and none depends on another one. */
import { execFileSync } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import {
  chmodSync,
  closeSync,
  copyFileSync,
  linkSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  unlinkSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { expect, test } from 'vitest';
import { SyntheticVm } from '../../src/adapters/synthetic/index.ts';
import {
  collectGarbage,
  convertCheckpoint,
  inspectCheckpoint,
  loadVm,
  openStore,
  saveVm,
  verifyCheckpoint,
} from '../../src/index.ts';
import { type Manifest, serializeManifest } from '../../src/store/manifest.ts';
import { buildCommandLine } from '../cli/support/dist.ts';
import { listTree, makeFolder, openDescriptors } from './support/folders.ts';

const mebibyte = 1024 ** 2;
const pageCount = 24 * 256;
const machine = { memoryBytes: 24 * mebibyte, guestLike: true, seed: 3 };

/** Bytes of all files below a folder, each file once. */
function bytesOf(...folders: string[]): number {
  const seen = new Map<bigint, number>();
  for (const folder of folders) {
    for (const path of listTree(folder).filter((name) => !name.endsWith('/'))) {
      const { ino, size } = statSync(`${folder}/${path}`, { bigint: true });
      seen.set(ino, Number(size));
    }
  }
  return [...seen.values()].reduce((sum, size) => sum + size, 0);
}

const packsIn = (folder: string): string[] => listTree(folder).filter((path) => path.endsWith('.pack'));

function manifestOf(path: string): Manifest {
  return JSON.parse(readFileSync(`${path}/MANIFEST.json`, 'utf8')) as Manifest;
}

/** Changes a page in each of `count` places. */
function scribble(vm: SyntheticVm, count: number, text = 'changed'): void {
  for (let index = 0; index < count; index += 1) {
    vm.memory.write(4096 * Math.floor((index * pageCount) / count), Buffer.from(`${text} ${index}`));
  }
}

async function digestOfLoaded(url: string, id?: string): Promise<string> {
  await using vm = await SyntheticVm.create({ ...machine, guestLike: false, ...(id && { id }) });
  await loadVm(vm, url);
  return await vm.digest();
}

test('two checkpoints of nearly equal machines take little more than one, and both load', async () => {
  const folder = makeFolder();
  await using vm = await SyntheticVm.create(machine);
  const digests = [await vm.digest()];
  const first = await saveVm(vm, `dir+pool:${folder}/a`);
  const alone = bytesOf(folder);
  expect(Math.abs(alone - first.checkpointBytes)).toBeLessThan(20_000);
  scribble(vm, 12);
  digests.push(await vm.digest());
  const second = await saveVm(vm, `dir+pool:${folder}/b`);
  expect(bytesOf(folder) - alone).toBeLessThan(alone / 8);
  expect(Math.abs(bytesOf(folder) - alone - second.checkpointBytes)).toBeLessThan(20_000);
  for (const scheme of ['dir', 'dir+pool']) {
    expect(await digestOfLoaded(`${scheme}:${folder}/a`)).toBe(digests[0]);
    expect(await digestOfLoaded(`${scheme}:${folder}/b`)).toBe(digests[1]);
    expect(await verifyCheckpoint(`${scheme}:${folder}/b`)).toMatchObject({ integrity: 'detect' });
  }
  expect(openDescriptors(folder)).toEqual([]);
});

test('a pack that others may write to is not used: it could be changed when it has been compared', async () => {
  const folder = makeFolder();
  await using vm = await SyntheticVm.create(machine);
  await saveVm(vm, `dir+pool:${folder}/a`);
  const alone = bytesOf(folder);
  for (const path of packsIn(`${folder}/chkpt-pool`)) chmodSync(`${folder}/chkpt-pool/${path}`, 0o622);
  await saveVm(vm, `dir+pool:${folder}/b`);
  expect(bytesOf(folder)).toBeGreaterThan(1.9 * alone);
  await saveVm(vm, `dir+pool:${folder}/c`);
  expect(bytesOf(folder)).toBeLessThan(2.1 * alone);
});

test('a checkpoint without memory is saved while the pool is still being looked at', async () => {
  const folder = makeFolder();
  await using vm = await SyntheticVm.create(machine);
  await saveVm(vm, `dir+pool:${folder}/a`);
  const pool = `${folder}/chkpt-pool`;
  const [pack] = packsIn(pool);
  // Enough of them that it takes a while.
  for (let count = 0; count < 40; count += 1) copyFileSync(`${pool}/${pack}`, `${pool}/${randomUUID()}.pack`);
  await saveVm(vm, `dir+pool:${folder}/b`, { skip: ['memory'] });
  expect(await verifyCheckpoint(`dir:${folder}/b`)).toMatchObject({ integrity: 'detect' });
});

test('two machines of one image share; so do raw ones, page by page', async () => {
  const folder = makeFolder();
  await using one = await SyntheticVm.create({ ...machine, id: 'one' });
  await using two = await SyntheticVm.create({ ...machine, id: 'two', cores: 2 });
  scribble(two, 200);
  for (const codec of ['lz4', 'raw'] as const) {
    const pool = `${folder}/${codec}-pool`;
    await saveVm(one, `dir+pool:${folder}/${codec}-one?pool=${pool}`, { codec });
    const alone = bytesOf(folder);
    const { checkpointBytes } = await saveVm(two, `dir+pool:${folder}/${codec}-two?pool=${pool}`, { codec });
    // 200 pages; without compression no more than them are stored, and with it the blocks that they are in.
    if (codec === 'raw') expect(checkpointBytes).toBeLessThan(220 * 4096 + 300_000);
    expect(bytesOf(folder) - alone).toBeLessThan(0.8 * alone);
  }
  expect(readdirSync(`${folder}/raw-pool`).length).toBeGreaterThan(1);
  await using target = await SyntheticVm.create({ ...machine, guestLike: false, id: 'two', cores: 2 });
  await loadVm(target, `dir:${folder}/raw-two`);
  expect(await target.digest()).toBe(await two.digest());
});

test('the stream is the same as without a pool, byte for byte, also through convert', async () => {
  const folder = makeFolder();
  const fixed = { uuid: '11111111-2222-4333-8444-555555555555', createdMs: 0 };
  await using vm = await SyntheticVm.create(machine);
  await saveVm(vm, `file:${folder}/plain`, fixed);
  await saveVm(vm, `dir+pool:${folder}/pooled`, fixed);
  await convertCheckpoint(`dir+pool:${folder}/pooled`, `file:${folder}/back`);
  await convertCheckpoint(`file:${folder}/plain`, `dir+pool:${folder}/there`);
  await convertCheckpoint(`dir:${folder}/there`, `file:${folder}/again`);
  const plain = readFileSync(`${folder}/plain`);
  for (const name of ['back', 'again'])
    expect(readFileSync(`${folder}/${name}`).equals(plain), name).toBe(true);
  // What came as pieces of any size was shared with what came in slabs.
  expect(bytesOf(`${folder}/there`, `${folder}/pooled`)).toBeLessThan(1.2 * plain.length);
});

test('removing one, the pool, or moving all of them hurts no other one', async () => {
  const folder = makeFolder();
  await using vm = await SyntheticVm.create(machine);
  const digest = await vm.digest();
  for (const name of ['a', 'b', 'c']) await saveVm(vm, `dir+pool:${folder}/${name}`);
  await openStore(`dir:${folder}/a`).remove?.();
  expect(await digestOfLoaded(`dir:${folder}/b`)).toBe(digest);
  rmSync(`${folder}/chkpt-pool`, { recursive: true });
  rmSync(`${folder}/b`, { recursive: true });
  mkdirSync(`${folder}/elsewhere`);
  renameSync(`${folder}/c`, `${folder}/elsewhere/c`);
  expect(await digestOfLoaded(`dir:${folder}/elsewhere/c`)).toBe(digest);
});

test('packs go with the last checkpoint that uses them: removed, replaced, or by gc', async () => {
  const folder = makeFolder();
  const pool = `${folder}/chkpt-pool`;
  await using vm = await SyntheticVm.create(machine);
  // Which equal pages a bounded table finds hangs on the UUID: then the second save may have something of its own.
  await saveVm(vm, `dir+pool:${folder}/a`, { dedup: false });
  // So may one whose first batch is small: a pack is used when enough of it was asked for.
  for (let attempt = 1; ; attempt += 1) {
    await saveVm(vm, `dir+pool:${folder}/b`, { dedup: false });
    if (packsIn(pool).length === 1 || attempt === 10) break;
    await openStore(`dir+pool:${folder}/b`).remove?.();
  }
  expect(packsIn(pool)).toHaveLength(1);
  expect((await collectGarbage(folder)).leftovers).toEqual([]);
  await openStore(`dir+pool:${folder}/a`).remove?.();
  expect(packsIn(pool)).toHaveLength(1);
  await using other = await SyntheticVm.create({ ...machine, seed: 4 });
  await saveVm(other, `dir+pool:${folder}/b`);
  expect(packsIn(pool)).toHaveLength(1);
  // Somebody who knows nothing of pools.
  rmSync(`${folder}/b`, { recursive: true });
  const [pack] = packsIn(pool);
  const found = await collectGarbage(folder);
  expect(found).toMatchObject({ removed: false, leftovers: [{ path: `${pool}/${pack}`, kind: 'file' }] });
  expect(found.bytes).toBeGreaterThan(mebibyte);
  expect(packsIn(pool)).toHaveLength(1);
  expect((await collectGarbage(folder, { remove: true })).leftovers).toEqual(found.leftovers);
  expect(listTree(folder)).toEqual(['chkpt-pool/', 'chkpt-pool/CHKPT-POOL']);
});

test('gc tells a pack whose last user it would remove, once', async () => {
  const folder = makeFolder();
  await using vm = await SyntheticVm.create(machine);
  const { checkpointBytes } = await saveVm(vm, `dir+pool:${folder}/a`);
  // As a save leaves it that was killed.
  const { generation } = manifestOf(`${folder}/a`);
  renameSync(`${folder}/a/${generation}`, `${folder}/a/.tmp-${generation}-4999999`);
  unlinkSync(`${folder}/a/MANIFEST.json`);
  const found = await collectGarbage(folder);
  expect(found.leftovers.map(({ path }) => path)).toContain(
    `${folder}/chkpt-pool/${packsIn(`${folder}/chkpt-pool`)[0]}`,
  );
  expect(Math.abs(found.bytes - checkpointBytes)).toBeLessThan(20_000);
  const removed = await collectGarbage(folder, { remove: true });
  expect(removed).toEqual({ ...found, removed: true });
  expect(listTree(folder)).toEqual(['a/', 'chkpt-pool/', 'chkpt-pool/CHKPT-POOL']);
});

test('gc takes no pack out of a checkpoint, and none that a checkpoint elsewhere uses', async () => {
  const folder = makeFolder();
  await using vm = await SyntheticVm.create(machine);
  mkdirSync(`${folder}/far`);
  await saveVm(vm, `dir+pool:${folder}/far/a?pool=${folder}/pool`);
  expect((await collectGarbage(folder, { remove: true })).leftovers).toEqual([]);
  rmSync(`${folder}/pool`, { recursive: true });
  for (const path of [folder, `${folder}/far`, `${folder}/far/a`]) {
    expect((await collectGarbage(path, { remove: true })).leftovers).toEqual([]);
  }
  await verifyCheckpoint(`dir:${folder}/far/a`);
});

test('damage of a pack is noticed by everyone who uses it, and not handed on', async () => {
  const folder = makeFolder();
  await using vm = await SyntheticVm.create(machine);
  await saveVm(vm, `dir+pool:${folder}/a`);
  await saveVm(vm, `dir+pool:${folder}/b`);
  // Blocks that two threads cut in another order are in a small pack of the second save.
  const sizeOf = (path: string): number => statSync(`${folder}/chkpt-pool/${path}`).size;
  const [pack] = packsIn(`${folder}/chkpt-pool`).sort((one, other) => sizeOf(other) - sizeOf(one));
  const file = openSync(`${folder}/chkpt-pool/${pack}`, 'r+');
  const byte = Buffer.alloc(1);
  readSync(file, byte, 0, 1, mebibyte);
  writeSync(file, Uint8Array.of((byte[0] ?? 0) ^ 1), 0, 1, mebibyte);
  closeSync(file);
  for (const name of ['a', 'b']) {
    await expect(verifyCheckpoint(`dir:${folder}/${name}`)).rejects.toMatchObject({ code: 'CHKPT_DIGEST' });
    await expect(digestOfLoaded(`dir:${folder}/${name}`)).rejects.toMatchObject({ code: 'CHKPT_DIGEST' });
  }
  const { checkpointBytes } = await saveVm(vm, `dir+pool:${folder}/c`);
  await verifyCheckpoint(`dir:${folder}/c`);
  expect(checkpointBytes).toBeLessThan(600_000);
});

test('what the manifest names and is not so is CHKPT_MANIFEST', async () => {
  const folder = makeFolder();
  await using vm = await SyntheticVm.create({ memoryBytes: 4 * mebibyte, guestLike: true });
  const changes: ((generation: string, pack: string, map: string) => void)[] = [
    (generation, pack) => unlinkSync(`${generation}/${pack}`),
    (generation, pack) => truncateSync(`${generation}/${pack}`, 1000),
    (generation, pack) => writeFileSync(`${generation}/${pack}`, '\0', { flag: 'a' }),
    (generation, pack) => {
      renameSync(`${generation}/${pack}`, `${generation}/other`);
      symlinkSync('other', `${generation}/${pack}`);
    },
    (generation, pack) => {
      unlinkSync(`${generation}/${pack}`);
      mkdirSync(`${generation}/${pack}`);
    },
    (generation, _, map) => unlinkSync(`${generation}/${map}`),
    (generation, _, map) => truncateSync(`${generation}/${map}`, 24),
    (generation, _, map) => writeFileSync(`${generation}/${map}`, Buffer.alloc(24), { flag: 'r+' }),
    // A map that fits, of something else.
    (generation, _, map) => {
      const bytes = readFileSync(`${generation}/${map}`);
      bytes.writeUInt32LE(bytes.readUInt32LE(8) + 8, 8);
      writeFileSync(`${generation}/${map}`, bytes);
    },
    (generation) => truncateSync(`${generation}/004-memory.pages`, 7),
  ];
  for (const [index, change] of changes.entries()) {
    const path = `${folder}/${index}`;
    await saveVm(vm, `dir+pool:${path}`);
    const { generation, packs = [], segments } = manifestOf(path);
    const memory = segments.find(({ kind }) => kind === 'memory');
    const work = `${path}/${generation}`;
    if (index === changes.length - 1) renameSync(`${work}/${memory?.file}`, `${work}/004-memory.pages`);
    change(work, String(packs[0]?.file), String(memory?.pooled?.map));
    if (index === changes.length - 1) renameSync(`${work}/004-memory.pages`, `${work}/${memory?.file}`);
    const reading = verifyCheckpoint(`dir:${path}`);
    await expect(reading, `change ${index}`).rejects.toMatchObject({ code: 'CHKPT_MANIFEST' });
    rmSync(path, { recursive: true });
    rmSync(`${folder}/chkpt-pool`, { recursive: true });
  }
  expect(openDescriptors(folder)).toEqual([]);
});

test('a forged map reads only what belongs to the checkpoint', async () => {
  const folder = makeFolder();
  await using vm = await SyntheticVm.create({ memoryBytes: 4 * mebibyte, guestLike: true });
  await saveVm(vm, `dir+pool:${folder}/a`);
  const manifest = manifestOf(`${folder}/a`);
  const memory = manifest.segments.find(({ kind }) => kind === 'memory');
  const path = `${folder}/a/${manifest.generation}/${memory?.pooled?.map}`;
  const sound = readFileSync(path);
  const { createHash } = await import('node:crypto');
  for (const [at, value] of [
    [0, 0xff],
    [7, 0x7f],
    [8, 0x10],
    [15, 0x7f],
    [16, 1],
    [19, 0xff],
    [20, 0],
    [23, 0xff],
  ] as const) {
    const forged = Buffer.from(sound);
    forged[at] = value;
    if (forged.equals(sound)) continue;
    writeFileSync(path, forged);
    const digest = createHash('sha256').update(forged).digest('hex');
    const segments = manifest.segments.map((segment) =>
      segment.pooled === undefined ? segment : { ...segment, pooled: { ...segment.pooled, digest } },
    );
    writeFileSync(`${folder}/a/MANIFEST.json`, serializeManifest({ ...manifest, segments }));
    const failure = await verifyCheckpoint(`dir:${folder}/a`).catch((error: unknown) => error);
    expect(failure, `byte ${at}`).toMatchObject({ kind: 'damaged' });
  }
});

test('a pool that cannot be used is an error before anything is written', async () => {
  const folder = makeFolder();
  await using vm = await SyntheticVm.create({ memoryBytes: mebibyte });
  writeFileSync(`${folder}/file`, '');
  await expect(saveVm(vm, `dir+pool:${folder}/a?pool=${folder}/file`)).rejects.toMatchObject({
    code: expect.stringMatching(/^CHKPT_/),
  });
  await expect(saveVm(vm, `dir+pool:${folder}/a?pool=${folder}/none/pool`)).rejects.toMatchObject({
    code: 'CHKPT_NOT_FOUND',
  });
  for (const rest of ['', '?pool=x', '/', `${folder}/a?pool=${folder}/a`, `${folder}/a?pool=`]) {
    expect(() => openStore(`dir+pool:${rest}`), rest).toThrow(
      expect.objectContaining({ code: 'CHKPT_STORE_URL' }),
    );
  }
  if (statSync(folder).dev !== statSync(tmpdir()).dev) {
    const far = `${tmpdir()}/chkpt-pool-test-${process.pid}`;
    await expect(saveVm(vm, `dir+pool:${folder}/a?pool=${far}`)).rejects.toMatchObject({
      code: 'CHKPT_UNSUPPORTED',
    });
    rmSync(far, { recursive: true });
  }
  expect(listTree(folder)).toEqual(['file']);
});

test('packs of others, links and folders in a pool are not believed', async () => {
  const folder = makeFolder();
  const pool = `${folder}/chkpt-pool`;
  await using vm = await SyntheticVm.create(machine);
  await saveVm(vm, `dir+pool:${folder}/a`);
  const [pack = ''] = packsIn(pool);
  const name = (last: string): string => `${pool}/00000000-0000-4000-8000-00000000000${last}.pack`;
  symlinkSync(`${pool}/${pack}`, name('1'));
  mkdirSync(name('2'));
  writeFileSync(name('3'), 'no pack');
  linkSync(name('3'), name('4'));
  copyFileSync(`${pool}/${pack}`, name('5'));
  truncateSync(name('5'), statSync(name('5')).size - 1);
  await saveVm(vm, `dir+pool:${folder}/b`);
  const names = packsIn(`${folder}/b`).map((path) => path.replace(/.*\//, ''));
  expect(names).toContain(pack);
  expect(names.filter((one) => one.startsWith('00000000'))).toEqual([]);
  await verifyCheckpoint(`dir:${folder}/b`);
});

test('info tells what is its own and what is shared', async () => {
  const folder = makeFolder();
  await using vm = await SyntheticVm.create(machine);
  await saveVm(vm, `dir+pool:${folder}/a`);
  const sharesOf = async (name: string): Promise<{ own: number; shared: number } | undefined> => {
    await using inspection = await inspectCheckpoint(`dir:${folder}/${name}`);
    return inspection.shares;
  };
  const alone = await sharesOf('a');
  expect(alone?.shared).toBe(0);
  scribble(vm, 12);
  await saveVm(vm, `dir+pool:${folder}/b`);
  const [a, b] = [await sharesOf('a'), await sharesOf('b')];
  expect(a?.shared).toBeGreaterThan(mebibyte);
  expect(b?.shared).toBe(a?.shared);
  expect(a?.own).toBe((alone?.own ?? 0) - (a?.shared ?? 0));
  expect(b?.own).toBeLessThan((alone?.own ?? 0) / 8);
  await saveVm(vm, `dir:${folder}/plain`);
  expect(await sharesOf('plain')).toBeUndefined();
});

test('an increment in a pool loads, and its chain may be made whole in its place', async () => {
  const folder = makeFolder();
  await using vm = await SyntheticVm.create(machine);
  await saveVm(vm, `dir+pool:${folder}/a`);
  scribble(vm, 9);
  await saveVm(vm, `dir+pool:${folder}/b`, { parent: `dir+pool:${folder}/a` });
  expect(await digestOfLoaded(`dir:${folder}/b`)).toBe(await vm.digest());
});

test('without native code a checkpoint with packs is read, and one is saved that shares nothing', async () => {
  const folder = makeFolder();
  await using vm = await SyntheticVm.create({ memoryBytes: 4 * mebibyte, guestLike: true });
  await saveVm(vm, `dir+pool:${folder}/a`);
  const cli = buildCommandLine();
  const env = { ...process.env, CHKPT_NO_NATIVE: '1' };
  const run = (...parameters: string[]): string =>
    execFileSync(process.execPath, [cli, ...parameters], { env, encoding: 'utf8', stdio: 'pipe' });
  run('verify', `dir:${folder}/a`);
  expect(run('info', `dir:${folder}/a`)).toMatch(/shared +0 bytes/);
  run('convert', `dir:${folder}/a`, `dir+pool:${folder}/b`);
  expect(packsIn(`${folder}/b`)).toEqual([]);
  expect(manifestOf(`${folder}/b`)).toMatchObject({ version: 1 });
  await verifyCheckpoint(`dir+pool:${folder}/b`);
});
