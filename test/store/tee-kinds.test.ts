/** One save into stores of every kind: what one of them does, or fails to do, is nothing to the others. */
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import '../support/s3/credentials.ts';
import { SyntheticVm } from '../../src/adapters/synthetic/index.ts';
import { CheckpointError, loadVm, openStore, type Store, saveVm, verifyCheckpoint } from '../../src/index.ts';
import { EveryStore, everyKind, isForeign, nativeKinds, type StoreKind } from '../support/every-store.ts';
import { S3TestServer } from '../support/s3/server.ts';
import { fastBase, listTree } from './support/folders.ts';

const mebibyte = 1024 ** 2;
const machine = {
  regions: [
    { base: 0, bytes: 640 * 1024 },
    { base: mebibyte, bytes: mebibyte },
  ],
  guestLike: true,
  cores: 2,
};
let folder = '';
let server: S3TestServer;
let every: EveryStore;
const open = (kind: StoreKind): Store => every.open(kind);

beforeAll(async () => {
  folder = mkdtempSync(`${fastBase()}/chkpt-tee-`);
  server = await S3TestServer.start('by-hand');
  every = new EveryStore(folder, server);
});
afterAll(async () => {
  rmSync(folder, { recursive: true, force: true });
  await server.close();
});

const stages = ['open', 'middle', 'commit'] as const;
type Stage = (typeof stages)[number];

/** The same store, which fails for a reason of its own. */
function failing(store: Store, stage: Stage): Store {
  const fail = (): never => {
    throw new CheckpointError('CHKPT_NO_SPACE', `full: ${stage}`);
  };
  let writes = 0;
  const write = (): void => {
    writes += 1;
    if (stage === 'middle' && writes === 4) fail();
  };
  return {
    url: store.url,
    openReader: (options) => store.openReader(options),
    async openWriter(options) {
      if (stage === 'open') fail();
      const writer = await store.openWriter(options);
      return {
        beginSegment: async (segment) => await writer.beginSegment?.(segment),
        endSegment: async (summary) => await writer.endSegment?.(summary),
        async write(bytes) {
          write();
          await writer.write(bytes);
        },
        commit: async (summary) => (stage === 'commit' ? fail() : await writer.commit(summary)),
        abort: async () => await writer.abort(),
      };
    },
  };
}

async function digestIn(kind: StoreKind, parents?: readonly Store[]): Promise<string> {
  await using vm = await SyntheticVm.create({ ...machine, guestLike: false });
  await loadVm(vm, open(kind), { parents });
  return await vm.digest();
}

/** What is in each, at the moment. */
const expected = new Map<StoreKind, string>();

async function expectEach(): Promise<void> {
  for (const [kind, digest] of expected) expect(await digestIn(kind), kind).toBe(digest);
}

/** A machine that is another one each time. */
let seed = 0;
async function nextMachine(): Promise<SyntheticVm> {
  seed += 1;
  return await SyntheticVm.create({ ...machine, seed });
}

describe('one save into stores of every kind', () => {
  test('is the same machine in each, and the same stream in those that keep it', async () => {
    await using vm = await nextMachine();
    const report = await saveVm(vm, everyKind.map(open));
    expect(report.stores?.map(({ error }) => error)).toEqual(everyKind.map(() => undefined));
    for (const kind of everyKind) expected.set(kind, await vm.digest());
    await expectEach();
    for (const kind of nativeKinds) expect((await verifyCheckpoint(open(kind))).root, kind).toBe(report.root);
  });

  const cases = everyKind.flatMap((kind) => stages.map((stage) => [kind, stage] as const));
  test.each(cases)(
    '%s fails (%s): its older checkpoint stays, all others have the newer one',
    async (kind, stage) => {
      await using vm = await nextMachine();
      const report = await saveVm(
        vm,
        everyKind.map((one) => (one === kind ? failing(open(one), stage) : open(one))),
      );
      for (const [index, one] of everyKind.entries()) {
        const outcome = report.stores?.[index];
        expect(outcome?.url).toBe(open(one).url);
        if (one === kind) {
          expect(outcome?.error).toMatchObject({
            code: 'CHKPT_NO_SPACE',
            message: expect.stringContaining(stage),
          });
          expect(outcome?.storedBytes).toBeUndefined();
        } else {
          expect(outcome?.error, one).toBeUndefined();
          expect(outcome?.storedBytes, one).toBeGreaterThan(0);
          expected.set(one, await vm.digest());
        }
      }
      await expectEach();
    },
  );

  test.each([
    ['where it looks', ({ method, key: place }) => method === 'GET' && place === 'vm'],
    ['of data', ({ method, key: place }) => method === 'PUT' && place.startsWith('vm.objects/')],
    ['of the manifest', ({ method, key: place }) => method === 'PUT' && place === 'vm'],
  ] as [string, (asked: { method: string; key: string }) => boolean][])(
    'a service that refuses the request %s is told, and nothing of this save is in it',
    async (_, isRefused) => {
      await using vm = await nextMachine();
      const before = server.remains();
      server.fault = (asked) => (isRefused(asked) ? { refuse: 403, code: 'AccessDenied' } : undefined);
      const report = await saveVm(vm, everyKind.map(open));
      server.fault = undefined;
      const refused = report.stores?.filter(({ error }) => error !== undefined);
      expect(refused).toMatchObject([{ url: open('s3').url, error: { code: 'CHKPT_PERMISSION' } }]);
      expect(server.remains()).toEqual(before);
      for (const kind of everyKind) if (kind !== 's3') expected.set(kind, await vm.digest());
      await expectEach();
    },
  );

  test('of all that fail but one, that one has it', async () => {
    await using vm = await nextMachine();
    const stageOf = (index: number): Stage => stages[index % stages.length] ?? 'open';
    const stores = everyKind.map((kind, index) =>
      kind === 's3' ? open(kind) : failing(open(kind), stageOf(index)),
    );
    const report = await saveVm(vm, stores);
    expect(report.stores?.filter(({ error }) => error === undefined)).toMatchObject([
      { url: open('s3').url },
    ]);
    expected.set('s3', await vm.digest());
    await expectEach();
  });

  test('an increment goes into those that can have one, and the others say so', async () => {
    await using vm = await nextMachine();
    const parent = `file:${folder}/parent`;
    await saveVm(vm, parent);
    vm.memory.write(2 * mebibyte - 4096, new Uint8Array(4096).fill(7));
    const report = await saveVm(vm, everyKind.map(open), { parent });
    for (const [index, kind] of everyKind.entries()) {
      const { error } = report.stores?.[index] ?? {};
      expect(error?.code, kind).toBe(isForeign(kind) ? 'CHKPT_UNSUPPORTED' : undefined);
      if (!isForeign(kind)) expected.set(kind, await vm.digest());
    }
    // Its parent has no key: where that is must be said.
    await expect(digestIn('encrypted file')).rejects.toMatchObject({ code: 'CHKPT_KEY' });
    expect(await digestIn('encrypted file', [openStore(parent)])).toBe(await vm.digest());
    expected.delete('encrypted file');
    await expectEach();
  });

  test('nothing is left of what failed', () => {
    const left = listTree(folder).filter((name) => /tmp|\.old$|scratch/.test(name));
    expect(left).toEqual([]);
    expect(server.remains()).toHaveLength(2);
  });

  test('a place that cannot be one is told, too', async () => {
    mkdirSync(`${folder}/in the way`);
    await using vm = await nextMachine();
    const report = await saveVm(vm, [`file:${folder}/in the way`, `gem5:${folder}/beside`]);
    expect(report.stores).toMatchObject([{ error: { code: 'CHKPT_STORE_URL' } }, { error: undefined }]);
    await using other = await SyntheticVm.create({ ...machine, guestLike: false });
    await loadVm(other, `gem5:${folder}/beside`);
    expect(await other.digest()).toBe(await vm.digest());
  });
});
