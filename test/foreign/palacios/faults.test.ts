/**
 * Every call that a save or a load of a folder makes to the file system fails once. A save that needed the call rejects and has changed
 * nothing; one that did not need it succeeds. A load rejects or gives the right thing.
 */
import { existsSync, readdirSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { CheckpointError } from '../../../src/errors/index.ts';
import { ForeignStore } from '../../../src/foreign/foreign-store.ts';
import { PalaciosFolderFormat } from '../../../src/foreign/palacios/folder-format.ts';
import { fileForm, type PalaciosForm, plainForm, textForm } from '../../../src/foreign/palacios/form.ts';
import {
  GuestMemory,
  openCheckpoint,
  PageEncoder,
  type Store,
  verifyCheckpoint,
} from '../../../src/index.ts';
import { hostProcesses } from '../../../src/store/environment.ts';
import { FaultFileSystem, type Operation } from '../../store/support/fault-file-system.ts';
import { contentOf } from './support/folders.ts';

const older = '0f0e0d0c-0b0a-4908-8706-050403020100';
const third = '01234567-89ab-4cde-8f01-23456789abcd';
const newer = 'ffeeddcc-bbaa-4988-8776-554433221100';

async function save(store: Store, uuid: string): Promise<void> {
  const memory = GuestMemory.allocate([{ base: 0, bytes: 8192 }]);
  memory.write(0, Buffer.from(uuid));
  const checkpoint = await openCheckpoint(store, { mode: 'save', uuid, createdMs: 0 });
  try {
    const context = await checkpoint.openContext('pic');
    await context.saveAll({ irr: 7, uuid });
    await context.close();
    await checkpoint.saveMemory('memory', new PageEncoder(memory));
    await checkpoint.commit();
  } catch (error) {
    await checkpoint.abort().catch(() => undefined);
    throw error;
  } finally {
    await memory.close();
  }
}

function storeOf(form: PalaciosForm, path: string, fileSystem: FaultFileSystem): Store {
  const environment = { fileSystem, processes: hostProcesses };
  return new ForeignStore(
    'test:',
    new PalaciosFolderFormat(form, path, 'test:', { environment, blockBytes: 8192 }),
  );
}

describe.each([fileForm, textForm, plainForm])('$scheme:', (form) => {
  async function inFolder(work: (path: string, folder: string) => Promise<void>): Promise<void> {
    const folder = await mkdtemp(join(existsSync('/dev/shm') ? '/dev/shm' : tmpdir(), 'chkpt-faults-'));
    try {
      await work(join(folder, 'c'), folder);
    } finally {
      await rm(folder, { recursive: true });
    }
  }

  /** Runs `work` once without and then with each of its calls failing. */
  async function sweep(
    work: (fileSystem: FaultFileSystem, failing: Operation | undefined) => Promise<void>,
  ): Promise<void> {
    const whole = new FaultFileSystem();
    await work(whole, undefined);
    expect(whole.trace.length).toBeGreaterThan(20);
    for (const operation of whole.trace) {
      for (const errno of form === fileForm ? ['EIO', 'ENOSPC'] : ['EIO']) {
        const plan = ({ index }: Operation): { errno: string } | undefined =>
          index === operation.index ? { errno } : undefined;
        await work(new FaultFileSystem(plan), operation);
      }
    }
  }

  const starts = form === fileForm ? ['nothing', 'an older checkpoint'] : ['an older checkpoint'];
  test.each(starts)('a save that finds %s', async (start) => {
    await sweep(async (fileSystem, failing) => {
      await inFolder(async (path, folder) => {
        const sound = storeOf(form, path, new FaultFileSystem());
        if (start !== 'nothing') await save(sound, older);
        const before = start === 'nothing' ? undefined : await contentOf(path);
        const error = await save(storeOf(form, path, fileSystem), newer).then(
          () => undefined,
          (one: unknown) => one,
        );
        if (error === undefined) {
          expect((await verifyCheckpoint(sound)).header.uuid).toBe(newer);
          // What could not be removed is left to the next save.
          if (failing === undefined) expect(readdirSync(folder)).toEqual(['c']);
          return;
        }
        expect(error, JSON.stringify(failing)).toBeInstanceOf(CheckpointError);
        if (before === undefined) expect(readdirSync(folder)).not.toContain('c');
        else expect(await contentOf(path)).toEqual(before);
        await save(sound, newer);
        expect((await verifyCheckpoint(sound)).header.uuid).toBe(newer);
      });
    });
  });

  test('a process that ends at any call leaves the older or the newer one, whole', async () => {
    const whole = new FaultFileSystem();
    await inFolder(async (path) => {
      await save(storeOf(form, path, new FaultFileSystem()), older);
      await save(storeOf(form, path, whole), newer);
    });
    const found = new Set<string>();
    for (const { index } of whole.trace) {
      await inFolder(async (path) => {
        const sound = storeOf(form, path, new FaultFileSystem());
        await save(sound, older);
        const fileSystem = new FaultFileSystem((operation) =>
          operation.index === index ? 'kill' : undefined,
        );
        await save(storeOf(form, path, fileSystem), newer).catch(() => undefined);
        await fileSystem.release();
        found.add((await verifyCheckpoint(sound)).header.uuid);
        await save(sound, third);
        expect((await verifyCheckpoint(sound)).header.uuid).toBe(third);
      });
    }
    expect([...found].sort()).toEqual([older, newer]);
  });

  test('a load', async () => {
    await inFolder(async (path) => {
      await save(storeOf(form, path, new FaultFileSystem()), older);
      const { root } = await verifyCheckpoint(storeOf(form, path, new FaultFileSystem()));
      await sweep(async (fileSystem, failing) => {
        const report = await verifyCheckpoint(storeOf(form, path, fileSystem)).catch(
          (error: unknown) => error,
        );
        if (report instanceof CheckpointError) expect(failing).toBeDefined();
        else expect((report as { root: string }).root).toBe(root);
      });
    });
  });
});
