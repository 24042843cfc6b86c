/** A load of a folder that is overtaken by saves gets a checkpoint that was there at one moment, or is told; never some of two. */
import { join } from 'node:path';
import { expect, test } from 'vitest';
import type { ForeignFormat } from '../../src/foreign/foreign-format.ts';
import { ForeignStore } from '../../src/foreign/foreign-store.ts';
import { Gem5Format } from '../../src/foreign/gem5/gem5-store.ts';
import { PalaciosFolderFormat } from '../../src/foreign/palacios/folder-format.ts';
import { fileForm, plainForm, textForm } from '../../src/foreign/palacios/form.ts';
import { GuestMemory, openCheckpoint, PageDecoder, PageEncoder, type Store } from '../../src/index.ts';
import { hostEnvironment, type StoreEnvironment } from '../../src/store/environment.ts';
import { makeFolder, openDescriptors } from '../store/support/folders.ts';

type MakeFormat = (path: string, environment: StoreEnvironment) => ForeignFormat;

const palacios =
  (form: typeof fileForm): MakeFormat =>
  (path, environment) =>
    new PalaciosFolderFormat(form, path, 'test:', { environment, blockBytes: 8192 });
const formats: [string, MakeFormat][] = [
  ['gem5:', (path, environment) => new Gem5Format({ environment }, path, 'test:')],
  ...[fileForm, textForm, plainForm].map((form): [string, MakeFormat] => [`${form.scheme}:`, palacios(form)]),
];

const uuidOf = (turn: number): string => `0f0e0d0c-0b0a-4908-8706-${String(turn).padStart(12, '0')}`;

/** Everything in it says which turn it is of. */
async function save(store: Store, turn: number): Promise<void> {
  const memory = GuestMemory.allocate([{ base: 0, bytes: 8192 }]);
  memory.write(5000, Uint8Array.of(turn));
  const checkpoint = await openCheckpoint(store, { mode: 'save', uuid: uuidOf(turn) });
  for (const name of ['a', 'b', 'c']) {
    const context = await checkpoint.openContext(name);
    await context.saveAll({ turn });
    await context.close();
  }
  await checkpoint.saveMemory('memory', new PageEncoder(memory));
  await checkpoint.commit();
  await memory.close();
}

/** The turns that a load finds. */
async function load(store: Store): Promise<Set<number>> {
  const memory = GuestMemory.allocate([{ base: 0, bytes: 8192 }]);
  const checkpoint = await openCheckpoint(store, { mode: 'load' });
  try {
    const found = new Set([Number(checkpoint.header?.uuid.slice(-12))]);
    for (const name of ['a', 'b', 'c']) {
      const context = await checkpoint.openContext(name);
      found.add(Number((await context.loadAll())['turn']));
      await context.close();
    }
    await checkpoint.loadMemory('memory', () => new PageDecoder(memory));
    await checkpoint.finish();
    return found.add(memory.read(5000, 1)[0] ?? -1);
  } finally {
    await checkpoint.close();
    await memory.close();
  }
}

/** Files are opened through this one; before the openings that are `overtaken`, counted from 1, a save replaces the checkpoint. */
function overtakenStore(make: MakeFormat, path: string, overtaken: (opening: number) => boolean) {
  const sound = new ForeignStore('test:', make(path, hostEnvironment));
  const counts = { openings: 0, turn: 0 };
  const fileSystem: StoreEnvironment['fileSystem'] = {
    ...hostEnvironment.fileSystem,
    open: async (file, flags, mode) => {
      counts.openings += 1;
      if (overtaken(counts.openings)) {
        counts.turn += 1;
        await save(sound, counts.turn);
      }
      return await hostEnvironment.fileSystem.open(file, flags, mode);
    },
  };
  const store = new ForeignStore('test:', make(path, { ...hostEnvironment, fileSystem }));
  return { sound, store, counts };
}

test.each(formats)('once, before any file that it opens: %s', async (_name, make) => {
  const path = join(makeFolder(), 'c');
  const whole = overtakenStore(make, path, () => false);
  await save(whole.sound, 0);
  expect(await load(whole.store)).toEqual(new Set([0]));
  for (let at = 1; at <= whole.counts.openings; at += 1) {
    const { sound, store } = overtakenStore(make, path, (opening) => opening === at);
    await save(sound, 0);
    const found = [...(await load(store))];
    expect([[0], [1]], `opening ${at}`).toContainEqual(found);
    expect(openDescriptors(path)).toEqual([]);
  }
});

test.each(formats)('ten times: %s', async (_name, make) => {
  const path = join(makeFolder(), 'c');
  const { sound, store, counts } = overtakenStore(
    make,
    path,
    (opening) => opening % 3 === 0 && opening <= 30,
  );
  await save(sound, 0);
  expect((await load(store)).size).toBe(1);
  expect(counts.turn).toBeGreaterThan(2);
});

test.each(formats)('without end: %s', async (_name, make) => {
  const path = join(makeFolder(), 'c');
  const { sound, store, counts } = overtakenStore(make, path, () => true);
  await save(sound, 0);
  const result = await load(store).catch((error: { code?: unknown }) => error.code);
  if (result instanceof Set) expect(result.size).toBe(1);
  else expect(result).toBe('CHKPT_IO');
  expect(counts.turn).toBeGreaterThan(2);
  expect(openDescriptors(path)).toEqual([]);
});
