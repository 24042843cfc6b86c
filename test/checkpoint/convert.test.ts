/** A checkpoint from one store into another. */
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { SyntheticVm } from '../../src/adapters/synthetic/index.ts';
import {
  convertCheckpoint,
  loadVm,
  openStore,
  type Store,
  saveVm,
  verifyCheckpoint,
} from '../../src/index.ts';

let folder = '';
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'chkpt-convert-'));
});
afterEach(async () => await rm(folder, { recursive: true }));

const at = (name: string): string => `${name.endsWith('/') ? 'dir' : 'file'}:${join(folder, name)}`;

describe('convertCheckpoint', () => {
  test('file: into dir: and back gives the same bytes, read back on the way', async () => {
    await using vm = await SyntheticVm.create({ memoryBytes: 8 << 20, cores: 2, guestLike: true });
    const saved = await saveVm(vm, at('a'));
    const there = await convertCheckpoint(at('a'), at('b/'));
    expect(there).toMatchObject({
      root: saved.root,
      uuid: saved.uuid,
      checked: 'detect',
      integrity: 'detect',
    });
    expect(there.memoryBytes).toBe(8 << 20);
    await convertCheckpoint(at('b/'), at('c'));
    expect((await readFile(join(folder, 'a'))).equals(await readFile(join(folder, 'c')))).toBe(true);
    const digest = await vm.memory.digest();
    await loadVm(vm, at('b/'));
    expect(await vm.memory.digest()).toBe(digest);
  });

  test('an increment stays one', async () => {
    await using vm = await SyntheticVm.create({ memoryBytes: 4 << 20, cores: 1, guestLike: true });
    const base = await saveVm(vm, at('base'));
    vm.memory.write(0n, new Uint8Array([1, 2, 3]));
    await saveVm(vm, at('next'), { parent: at('base') });
    const report = await convertCheckpoint(at('next'), at('copy/'));
    expect(report.parent).toBe(base.uuid);
    const digest = await vm.memory.digest();
    await loadVm(vm, at('copy/'));
    expect(await vm.memory.digest()).toBe(digest);
  });

  test('damage in the source is an error of kind damaged, and nothing is written', async () => {
    await using vm = await SyntheticVm.create({ memoryBytes: 4 << 20, cores: 1, guestLike: true });
    await saveVm(vm, at('a'));
    const bytes = await readFile(join(folder, 'a'));
    bytes[bytes.length >> 1] = (bytes[bytes.length >> 1] ?? 0) ^ 1;
    await writeFile(join(folder, 'a'), bytes);
    const before = await readdir(folder);
    await expect(convertCheckpoint(at('a'), at('b/'))).rejects.toMatchObject({ kind: 'damaged' });
    expect(await readdir(folder)).toEqual(before);
  });

  test('a target that reads back as something else is an error that names it', async () => {
    await using vm = await SyntheticVm.create({ memoryBytes: 1 << 20, cores: 1 });
    await saveVm(vm, at('a'));
    await saveVm(vm, at('other'));
    const forgetful: Store = {
      url: 'forgetful:',
      openWriter: async () => ({
        write: async () => undefined,
        commit: async () => undefined,
        abort: async () => undefined,
      }),
      openReader: async (options) => await openStore(at('other')).openReader(options),
    };
    await expect(convertCheckpoint(at('a'), forgetful)).rejects.toMatchObject({
      code: 'CHKPT_FORMAT',
      details: { store: 'forgetful:' },
    });
    expect((await convertCheckpoint(at('a'), forgetful, { check: false })).checked).toBe(undefined);
  });

  describe.each(['gem5', 'palacios+file'])(
    '%s: what is read back has as many contexts, tags and pages, but',
    (scheme) => {
      const place = (name: string): string => `${scheme}:${join(folder, name)}`;
      /** Keeps what it gets, and has something else. */
      const forgetful = (other: string): Store => ({
        url: 'forgetful:',
        readsFrames: true,
        openWriter: async (options) => await openStore(place('kept')).openWriter(options),
        openReader: async (options) => await openStore(place(other)).openReader(options),
      });
      const options = { memoryBytes: 8 << 20, cores: 1, guestLike: true } as const;

      test('nothing else: it is what was written', async () => {
        await using vm = await SyntheticVm.create({ ...options, id: 'one' });
        await saveVm(vm, at('a'));
        await saveVm(vm, place('other'));
        expect((await convertCheckpoint(at('a'), forgetful('other'))).checked).toBe('detect');
      });

      test('one bit of memory is another one', async () => {
        await using vm = await SyntheticVm.create({ ...options, id: 'one' });
        await saveVm(vm, at('a'));
        const address = 1234 * 4096 + 17;
        const [byte = 0] = vm.memory.read(address, 1);
        vm.memory.write(address, Uint8Array.of(byte ^ 4));
        await saveVm(vm, place('other'));
        await expect(convertCheckpoint(at('a'), forgetful('other'))).rejects.toMatchObject({
          code: 'CHKPT_FORMAT',
          message: expect.stringContaining('its memory is not the same'),
        });
      });

      test('a value is another one', async () => {
        await using one = await SyntheticVm.create({ ...options, id: 'one' });
        await using two = await SyntheticVm.create({ ...options, id: 'two' });
        expect(await one.memory.digest()).toBe(await two.memory.digest());
        await saveVm(one, at('a'));
        await saveVm(two, place('other'));
        await expect(convertCheckpoint(at('a'), forgetful('other'))).rejects.toMatchObject({
          code: 'CHKPT_FORMAT',
          message: expect.stringMatching(/: [^ ]+\/[^ ]+ has another value/),
        });
      });
    },
  );

  test('a store is not converted into itself', async () => {
    await using vm = await SyntheticVm.create({ memoryBytes: 1 << 20, cores: 1 });
    const { root } = await saveVm(vm, at('a'));
    await expect(convertCheckpoint(at('a'), at('a'))).rejects.toMatchObject({ code: 'CHKPT_STORE_URL' });
    expect((await verifyCheckpoint(at('a'))).root).toBe(root);
  });
});
