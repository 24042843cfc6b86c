/** One save into several stores. */
import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { SyntheticVm } from '../../src/adapters/synthetic/index.ts';
import { CheckpointError } from '../../src/errors/index.ts';
import { loadVm, openStore, type Store, saveVm, TeeStore, verifyCheckpoint } from '../../src/index.ts';
import { load, sampleStream, save } from './support/sample-stream.ts';

let folder = '';
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'chkpt-tee-'));
});
afterEach(async () => await rm(folder, { recursive: true }));

/** Fails at the n-th call of one kind. */
function failing(
  call: 'openWriter' | 'write' | 'commit',
  at: number,
  url = 'bad:',
): Store & { aborted: number } {
  let seen = 0;
  const check = (now: string): void => {
    if (now !== call) return;
    seen += 1;
    if (seen === at) throw new CheckpointError('CHKPT_NO_SPACE', 'full');
  };
  const store = {
    url,
    aborted: 0,
    async openWriter() {
      check('openWriter');
      return {
        write: async () => check('write'),
        commit: async () => check('commit'),
        abort: async () => {
          store.aborted += 1;
        },
      };
    },
    openReader: async () => {
      throw new CheckpointError('CHKPT_NOT_FOUND', 'nothing');
    },
  };
  return store;
}

describe('saveVm into several stores', () => {
  test('each has the same checkpoint, byte for byte where it is a file', async () => {
    await using vm = await SyntheticVm.create({ memoryBytes: 8 << 20, cores: 1, guestLike: true });
    const urls = [`file:${folder}/a`, `file:${folder}/b`, `dir:${folder}/c`];
    const report = await saveVm(vm, urls);
    expect(report.stores?.map(({ url, error }) => [url, error])).toEqual(urls.map((url) => [url, undefined]));
    const [a, b] = await Promise.all(['a', 'b'].map((name) => readFile(join(folder, name))));
    expect(a?.equals(b ?? Buffer.alloc(0))).toBe(true);
    for (const url of urls) expect((await verifyCheckpoint(url)).root).toBe(report.root);
    const digest = await vm.memory?.digest();
    await loadVm(vm, urls[2] ?? '');
    expect(await vm.memory?.digest()).toBe(digest);
  });

  test.each([
    ['openWriter', 1],
    ['write', 1],
    ['write', 2],
    ['commit', 1],
  ] as const)('a store that fails does not spoil the others and is told: %s %i', async (call, at) => {
    await using vm = await SyntheticVm.create({ memoryBytes: 8 << 20, cores: 1, guestLike: true });
    const bad = failing(call, at);
    const report = await saveVm(vm, [bad, `file:${folder}/good`]);
    expect(report.stores?.[0]).toMatchObject({
      url: 'bad:',
      error: { code: 'CHKPT_NO_SPACE' },
      storedBytes: undefined,
    });
    expect(report.stores?.[1]).toMatchObject({ error: undefined, storedBytes: report.checkpointBytes });
    expect((await verifyCheckpoint(`file:${folder}/good`)).root).toBe(report.root);
    if (call !== 'openWriter') expect(bad.aborted).toBe(1);
  });

  test('when all have failed the save has, with the error of the first store', async () => {
    await using vm = await SyntheticVm.create({ memoryBytes: 1 << 20, cores: 1, guestLike: true });
    const [one, two] = [failing('write', 2, 'one:'), failing('commit', 1, 'two:')];
    await expect(saveVm(vm, [one, two])).rejects.toMatchObject({ code: 'CHKPT_NO_SPACE' });
    expect([one.aborted > 0, two.aborted > 0]).toEqual([true, true]);
  });

  test('an abort ends it everywhere, and nothing remains', async () => {
    await using vm = await SyntheticVm.create({ memoryBytes: 64 << 20, cores: 1, guestLike: true });
    const stop = new AbortController();
    const attempt = saveVm(vm, [`file:${folder}/a`, `dir:${folder}/b`], {
      signal: stop.signal,
      onProgress: ({ phase }) => phase === 'memory' && stop.abort(),
    });
    await expect(attempt).rejects.toMatchObject({ code: 'CHKPT_ABORTED' });
    expect(await readdir(folder)).toEqual([]);
  });

  test('an increment of it finds its parent from each of the places', async () => {
    await using vm = await SyntheticVm.create({ memoryBytes: 4 << 20, cores: 1, guestLike: true });
    await saveVm(vm, `file:${folder}/base`);
    vm.memory?.write(0n, new Uint8Array([1, 2, 3, 4]));
    const report = await saveVm(vm, [`file:${folder}/one`, `dir:${folder}/two`], {
      parent: `file:${folder}/base`,
    });
    const digest = await vm.memory?.digest();
    expect(report.parent).toBeDefined();
    for (const place of ['file:', 'dir:']) {
      vm.memory?.write(0n, new Uint8Array([9, 9, 9, 9]));
      await loadVm(vm, `${place}${folder}/${place === 'file:' ? 'one' : 'two'}`);
      expect(await vm.memory?.digest()).toBe(digest);
    }
  });

  test('no store may be the parent of what is saved', async () => {
    await using vm = await SyntheticVm.create({ memoryBytes: 1 << 20, cores: 1, guestLike: true });
    await saveVm(vm, `file:${folder}/base`);
    const targets = [`file:${folder}/one`, `file:${folder}/./base`];
    await expect(saveVm(vm, targets, { parent: `file:${folder}/base` })).rejects.toMatchObject({
      code: 'CHKPT_PARENT_CYCLE',
    });
  });
});

describe('TeeStore', () => {
  test('writes what it is given, in segments and pieces, into each', async () => {
    const stream = sampleStream('tee');
    const stores = [`mem:tee-a-${process.pid}`, `mem:tee-b-${process.pid}`].map(openStore);
    await save(new TeeStore(stores), stream);
    for (const store of stores) {
      expect(Buffer.compare(await load(store), stream.bytes)).toBe(0);
      await store.remove?.();
    }
  });

  test('the same store twice, or none, is a RangeError; reading is not supported', async () => {
    const store = openStore(`mem:tee-${process.pid}`);
    expect(() => new TeeStore([store, store])).toThrow(RangeError);
    expect(() => new TeeStore([])).toThrow(RangeError);
    await expect(new TeeStore([store]).openReader()).rejects.toMatchObject({ code: 'CHKPT_UNSUPPORTED' });
  });
});
