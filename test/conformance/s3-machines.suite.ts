/** What whole machines expect of a service of S3: the same tests with a real one and with the one of the tests, so that this can be trusted. */
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { SyntheticVm, type SyntheticVmOptions } from '../../src/adapters/synthetic/index.ts';
import {
  CheckpointError,
  collectGarbage,
  flattenCheckpoint,
  inspectCheckpoint,
  loadVm,
  openStore,
  saveVm,
  verifyChain,
  verifyCheckpoint,
} from '../../src/index.ts';
import { dataName } from '../../src/store/s3/manifest.ts';
import type { S3Service } from '../../src/store/s3/service.ts';
import { sha256Of } from '../../src/store/s3/sha256.ts';
import { ScribbledVm } from '../checkpoint/support/scribbled-vm.ts';
import { runHere } from '../cli/support/in-process.ts';
import { makeFolder } from '../store/support/folders.ts';
import { isSame, load, longStream, sampleStream, save } from '../store/support/sample-stream.ts';
import { hasUserfaultfd } from '../support/userfaultfd.ts';

export interface S3Subject {
  readonly service: S3Service;
  /** Begin of keys that nobody has used. */
  readonly prefix: string;
  /** Of the place with this name behind the prefix; without a name that of the prefix. */
  url(name?: string, more?: string): string;
}

const mebibyte = 1024 ** 2;
const machine: SyntheticVmOptions = {
  regions: [
    { base: 0, bytes: 640 * 1024 },
    { base: mebibyte, bytes: 16 * mebibyte + 20 * 1024 },
  ],
  guestLike: true,
  cores: 2,
  seed: 5,
};
/** What a guest writes while it is loaded: four blocks. */
const written = { first: 1024, count: 64 };
const key = new Uint8Array(32).fill(0x5a);

export function describeS3Machines(name: string, subject: () => S3Subject): void {
  describe(name, () => {
    describeLoads(subject);
    describeChains(subject);
    describeLeftovers(subject);
  });
}

function describeLoads(subject: () => S3Subject): void {
  test('a machine comes back whole, out of objects of several parts, and the next one takes its place', async () => {
    const { url, prefix, service } = subject();
    const place = url('vm', '&part-mib=5');
    await using vm = await SyntheticVm.create(machine);
    const { root } = await saveVm(vm, place, { codec: 'raw' });
    await using other = await SyntheticVm.create({ ...machine, seed: 77 });
    expect((await loadVm(other, place)).root).toBe(root);
    expect(await other.digest()).toBe(await vm.digest());
    expect(await verifyCheckpoint(place)).toMatchObject({ root, integrity: 'detect' });
    await using next = await SyntheticVm.create({ ...machine, seed: 6 });
    await saveVm(next, place);
    await loadVm(other, place);
    expect(await other.digest()).toBe(await next.digest());
    expect(await keysOf(service, prefix)).toHaveLength(2);
  });

  test('a machine runs while its memory comes, and every byte that it did not write is what was saved', async ({
    skip,
  }) => {
    const place = subject().url('vm', '&part-mib=5');
    await using saved = await SyntheticVm.create(machine);
    const { root } = await saveVm(saved, place);
    await using vm = await SyntheticVm.create({ ...machine, seed: 77, writePages: written, threads: 2 });
    const { lazy } = await loadVm(vm, place, { lazy: { fillDelayMs: 500 } });
    if (!lazy.active) {
      if (hasUserfaultfd) throw new Error(`not lazy: ${lazy.reason}`);
      return skip(lazy.reason);
    }
    const { load: loading } = lazy;
    expect(loading.counts().missing).toBe(loading.counts().blocks);
    await vm.resume();
    await expect.poll(() => loading.counts().faultBlocks, { interval: 5 }).toBeGreaterThan(0);
    expect(loading.counts().missing).toBeGreaterThan(0);
    expect(await loading.resident).toMatchObject({ root, missing: 0 });
    await vm.pause();
    const { stamped, damaged } = await vm.checkStamps();
    expect(damaged).toBe(0);
    expect(stamped).toBeGreaterThan(0);
    expect(await vm.memory.digest()).not.toBe(await saved.memory.digest());
    const first = mebibyte + (written.first - 160) * 4096;
    vm.memory.write(first, saved.memory.read(first, written.count * 4096));
    expect(await vm.memory.digest()).toBe(await saved.memory.digest());
  });

  test('what is encrypted comes back with its key only, eager and lazy, with a child elsewhere, and nothing of it can be read there', async () => {
    const { url, prefix, service } = subject();
    const [place, child] = [url('vm', '&part-mib=5'), `file:${makeFolder()}/child`];
    await using vm = await SyntheticVm.create(machine);
    const secret = Buffer.alloc(4096, 'what only this guest knows');
    vm.memory.write(2 * mebibyte, secret);
    await saveVm(vm, place, { key, codec: 'raw' });
    const stored = await bytesOf(service, prefix);
    expect(stored.length).toBeGreaterThan(5 * mebibyte);
    expect(stored.includes(secret.subarray(0, 26))).toBe(false);
    await using other = await SyntheticVm.create({ ...machine, seed: 77 });
    await loadVm(other, place, { key });
    expect(await other.digest()).toBe(await vm.digest());
    vm.memory.write(3 * mebibyte, secret);
    await saveVm(vm, child, { key, parent: place });
    for (const one of [place, child])
      expect(await verifyCheckpoint(one, { key })).toMatchObject({ integrity: 'authenticate' });
    await using lazy = await SyntheticVm.create({ ...machine, seed: 77 });
    const report = await loadVm(lazy, child, { key, lazy: true });
    if (report.lazy.active) await report.lazy.load.resident;
    expect(await lazy.digest()).toBe(await vm.digest());
    for (const wrong of [undefined, new Uint8Array(32)])
      await expect(loadVm(other, place, { key: wrong })).rejects.toMatchObject({ code: 'CHKPT_KEY' });
  });
}

function describeChains(subject: () => S3Subject): void {
  test('parents and children lie in s3: and in files, in turn, and a chain of both is made whole in either', async () => {
    const { url } = subject();
    const folder = makeFolder();
    const vm = new ScribbledVm(1, true);
    vm.scribble(900);
    const places = [url('zero'), `file:${folder}/one`, url('two'), `dir:${folder}/three`];
    const digests: bigint[] = [];
    for (const [index, place] of places.entries()) {
      const { parent } = await saveVm(vm, place, index === 0 ? {} : { parent: places[index - 1] });
      expect(parent === undefined).toBe(index === 0);
      digests.push(await vm.memory.digest());
      vm.scribble(30);
    }
    expect(new Set(digests).size).toBe(places.length);
    for (const [index, place] of places.entries()) expect(await digestAt(place)).toBe(digests[index]);
    expect((await verifyChain(places[3] ?? '')).parents).toHaveLength(3);
    // A chain that ends in a file goes into s3:, one that ends in s3: goes into a file.
    for (const [from, to] of [
      [3, url('flat')],
      [2, `file:${folder}/flat`],
    ] as const) {
      await flattenCheckpoint(places[from] ?? '', to);
      await using inspection = await inspectCheckpoint(to);
      expect(inspection.header.parent).toBeUndefined();
      expect(await digestAt(to)).toBe(digests[from]);
    }
    // In its own place: its child finds it as before.
    await flattenCheckpoint(places[2] ?? '', places[2] ?? '');
    expect(await digestAt(places[3] ?? '')).toBe(digests[3]);
  });
}

function describeLeftovers(subject: () => S3Subject): void {
  test('what killed saves leave is found and removed, and the checkpoint beside it stays', async () => {
    const { url, prefix, service } = subject();
    const cwd = makeFolder();
    writeFileSync(`${cwd}/ram`, longStream('ram', mebibyte).bytes);
    const words = ['save', '--memory', 'ram', '--quiet', url('vm')];
    expect(await runHere(words, cwd)).toMatchObject({ code: 0 });
    const kept = await keysOf(service, prefix);
    await litter(url, prefix, service);
    expect((await collectGarbage(url())).leftovers).toEqual([]); // all of it is young
    const { leftovers } = await collectGarbage(url(), { olderThanMs: 0 });
    expect(leftovers).toHaveLength(4);
    for (const [kind, bytes, name] of [
      ['object', 1000, 'vm.objects/'],
      ['object', 500, 'gone.objects/'],
      ['object', expect.any(Number), '.continued'],
      ['upload', 10 * mebibyte, 'vm.objects/'],
    ])
      expect(leftovers).toContainEqual({ kind, bytes, path: expect.stringContaining(name) });
    expect(leftovers.every(({ path }) => path.includes(prefix))).toBe(true);
    expect(await keysOf(service, prefix)).toHaveLength(kept.length + 4);
    const removed = await runHere(['gc', url(), '--older-than', '0', '--remove'], cwd);
    expect(removed).toMatchObject({ code: 0, stderr: expect.stringMatching(/^removed 4 leftovers/) });
    expect(await keysOf(service, prefix)).toEqual(kept);
    expect(await runHere(['load', url('vm'), '--memory', 'out'], cwd)).toMatchObject({ code: 0 });
    expect(isSame(readFileSync(`${cwd}/out`), readFileSync(`${cwd}/ram`))).toBe(true);
    expect(readdirSync(cwd).sort()).toEqual(['out', 'ram']);
  });

  test('a save that goes on while its upload is removed says so, and leaves nothing', async () => {
    const { url, prefix, service } = subject();
    await save(openStore(url('vm')), sampleStream('older'));
    const kept = await keysOf(service, prefix);
    const { stream, writer } = await halfSaved(url, prefix, service);
    await collectGarbage(url(), { remove: true, olderThanMs: 0 });
    const failure: unknown = await writer.commit(stream.summary).catch((error: unknown) => error);
    expect(failure).toBeInstanceOf(CheckpointError);
    expect(await keysOf(service, prefix)).toEqual(kept);
    expect(isSame(await load(openStore(url('vm'))), sampleStream('older').bytes)).toBe(true);
  });
}

type Url = S3Subject['url'];

/** Everything of a save but its commit, two parts of which have arrived. */
async function halfSaved(
  url: Url,
  prefix: string,
  service: S3Service,
): Promise<{
  stream: ReturnType<typeof longStream>;
  writer: Awaited<ReturnType<ReturnType<typeof openStore>['openWriter']>>;
}> {
  const stream = longStream('killed', 11 * mebibyte);
  const { uuid } = stream.summary;
  const writer = await openStore(url('vm', '&part-mib=5')).openWriter({ uuid });
  for (const { segment, summary, bytes } of stream.segments) {
    await writer.beginSegment?.(segment);
    await writer.write(bytes);
    await writer.endSegment?.(summary);
  }
  const arrived = async (): Promise<number> => {
    for await (const { key: uploaded, id } of service.uploads(prefix))
      return await service.uploadBytes(uploaded, id);
    return 0;
  };
  await expect.poll(arrived, { timeout: 20_000 }).toBe(10 * mebibyte);
  return { stream, writer };
}

/** All that killed saves leave: an upload, data whose commit never came, of a place with a checkpoint and of one without, and a claim. */
async function litter(url: Url, prefix: string, service: S3Service): Promise<void> {
  await halfSaved(url, prefix, service);
  const { uuid } = sampleStream('late').summary;
  for (const [place, byteCount] of [
    ['vm', 1000],
    ['gone', 500],
  ] as const) {
    const bytes = new Uint8Array(byteCount);
    const name = `${prefix}${place}.objects/${dataName(uuid, '0'.repeat(32), 0)}`;
    await service.put(name, bytes, sha256Of(bytes));
  }
  await openStore(url('vm')).claims?.take({ uuid, by: 'nobody', timeMs: 0 });
}

async function digestAt(url: string): Promise<bigint> {
  const vm = new ScribbledVm(0, false);
  await loadVm(vm, url);
  return await vm.memory.digest();
}

async function keysOf(service: S3Service, prefix: string): Promise<string[]> {
  const found: string[] = [];
  for await (const object of service.objects(prefix)) found.push(object.key);
  for await (const upload of service.uploads(prefix)) found.push(`upload ${upload.key}`);
  return found.sort();
}

/** Of everything there. */
async function bytesOf(service: S3Service, prefix: string): Promise<Buffer> {
  const pieces: Uint8Array[] = [];
  for await (const { key: one } of service.objects(prefix))
    pieces.push((await service.readSmall(one, 64 * mebibyte))?.bytes ?? new Uint8Array());
  return Buffer.concat(pieces);
}
