/**
 * Every call that a save or a load of a folder makes to the file system fails once, and at every call a process ends. A save that needed
 * the call rejects and has changed nothing; one that did not need it succeeds. A load rejects or gives the right thing.
 */
import { existsSync, readdirSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { CheckpointError } from '../../../src/errors/index.ts';
import {
  GuestMemory,
  openCheckpoint,
  PageEncoder,
  type Store,
  verifyCheckpoint,
} from '../../../src/index.ts';
import type { FaultFileSystem, Operation } from '../../store/support/fault-file-system.ts';

const older = '0f0e0d0c-0b0a-4908-8706-050403020100';
const third = '01234567-89ab-4cde-8f01-23456789abcd';
const newer = 'ffeeddcc-bbaa-4988-8776-554433221100';

export interface FolderSubject {
  readonly name: string;
  /** Errors that calls fail with. */
  readonly errnos: readonly string[];
  readonly starts: readonly ('nothing' | 'an older checkpoint')[];
  makeFileSystem(plan?: FaultFileSystem['plan']): FaultFileSystem;
  /** `hasEnded`: of a process that will be found dead by those that come later. */
  storeOf(path: string, fileSystem: FaultFileSystem, hasEnded?: boolean): Store;
  /** What the checkpoint is made of, to be compared. */
  contentOf(path: string): Promise<unknown>;
  /** Fails when something of the dead is left. `folder` has the checkpoint. */
  expectClean?(path: string, folder: string): Promise<void>;
  /** What `chkpt gc --remove` does. */
  collect(folder: string): Promise<void>;
}

/** The UUID of the checkpoint, or the code of the error that a load gives. */
async function foundAt(store: Store): Promise<string> {
  return await verifyCheckpoint(store).then(
    ({ header }) => header.uuid,
    (error: unknown) => String((error as { code?: unknown }).code ?? error),
  );
}

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

async function inFolder(work: (path: string, folder: string) => Promise<void>): Promise<void> {
  const folder = await mkdtemp(join(existsSync('/dev/shm') ? '/dev/shm' : tmpdir(), 'chkpt-faults-'));
  try {
    await work(join(folder, 'c'), folder);
  } finally {
    await rm(folder, { recursive: true });
  }
}

export function describeFolderFaults(subject: FolderSubject): void {
  const { storeOf, makeFileSystem, contentOf } = subject;

  /** Runs `work` once without and then with each of its calls failing. */
  async function sweep(
    work: (fileSystem: FaultFileSystem, failing: Operation | undefined) => Promise<void>,
  ): Promise<void> {
    const whole = makeFileSystem();
    await work(whole, undefined);
    expect(whole.trace.length).toBeGreaterThan(10);
    for (const operation of whole.trace) {
      for (const errno of subject.errnos) {
        const plan = ({ index }: Operation): { errno: string } | undefined =>
          index === operation.index ? { errno } : undefined;
        await work(makeFileSystem(plan), operation);
      }
    }
  }

  describe(subject.name, () => {
    test.each(subject.starts)('a save that finds %s', async (start) => {
      let rejected = 0;
      await sweep(async (fileSystem, failing) => {
        await inFolder(async (path, folder) => {
          const sound = storeOf(path, makeFileSystem());
          if (start !== 'nothing') await save(sound, older);
          const before = start === 'nothing' ? undefined : await contentOf(path);
          const error = await save(storeOf(path, fileSystem), newer).then(
            () => undefined,
            (one: unknown) => one,
          );
          if (error === undefined) {
            expect((await verifyCheckpoint(sound)).header.uuid).toBe(newer);
            // What could not be removed is left to the next save.
            if (failing === undefined) expect(readdirSync(folder)).toEqual(['c']);
            return;
          }
          rejected += 1;
          expect(error, JSON.stringify(failing)).toBeInstanceOf(CheckpointError);
          if (before !== undefined) expect(await contentOf(path), JSON.stringify(failing)).toEqual(before);
          else await expect(verifyCheckpoint(sound)).rejects.toMatchObject({ code: 'CHKPT_NOT_FOUND' });
          await save(sound, newer);
          expect((await verifyCheckpoint(sound)).header.uuid).toBe(newer);
        });
      });
      expect(rejected).toBeGreaterThan(5);
    });

    test('a process that ends at any call leaves the older or the newer one, whole', async () => {
      const whole = makeFileSystem();
      await inFolder(async (path) => {
        await save(storeOf(path, makeFileSystem()), older);
        await save(storeOf(path, whole), newer);
      });
      const found = new Set<string>();
      for (const { index } of whole.trace) {
        await inFolder(async (path, folder) => {
          const sound = storeOf(path, makeFileSystem());
          await save(sound, older);
          const fileSystem = makeFileSystem((operation) => (operation.index === index ? 'kill' : undefined));
          await save(storeOf(path, fileSystem, true), newer).catch(() => undefined);
          await fileSystem.release();
          found.add((await verifyCheckpoint(sound)).header.uuid);
          await subject.expectClean?.(path, folder);
          await save(sound, third);
          expect((await verifyCheckpoint(sound)).header.uuid).toBe(third);
        });
      }
      expect([...found].sort()).toEqual([older, newer]);
    });

    test('a removal that fails leaves the checkpoint, whole, or none, and the next one leaves nothing', async () => {
      await sweep(async (fileSystem, failing) => {
        await inFolder(async (path, folder) => {
          const sound = storeOf(path, makeFileSystem());
          await save(sound, older);
          const store = storeOf(path, fileSystem);
          const error = await store.remove?.().then(
            () => undefined,
            (one: unknown) => one,
          );
          if (error !== undefined) expect(error, JSON.stringify(failing)).toBeInstanceOf(CheckpointError);
          expect([older, 'CHKPT_NOT_FOUND'], JSON.stringify(failing)).toContain(await foundAt(sound));
          if (error === undefined) expect(await foundAt(sound)).toBe('CHKPT_NOT_FOUND');
          fileSystem.plan = () => undefined;
          await store.remove?.();
          expect(readdirSync(folder), JSON.stringify(failing)).toEqual([]);
        });
      });
    });

    test('a process that ends in a removal leaves the checkpoint, whole, or none, and nothing that stays', async () => {
      const whole = makeFileSystem();
      await inFolder(async (path) => {
        await save(storeOf(path, makeFileSystem()), older);
        await storeOf(path, whole).remove?.();
      });
      const found = new Set<string>();
      for (const { index } of whole.trace) {
        for (const next of ['a removal', 'a save', 'a clean-up'] as const) {
          await inFolder(async (path, folder) => {
            const sound = storeOf(path, makeFileSystem());
            await save(sound, older);
            const fileSystem = makeFileSystem((operation) =>
              operation.index === index ? 'kill' : undefined,
            );
            await storeOf(path, fileSystem, true)
              .remove?.()
              .catch(() => undefined);
            await fileSystem.release();
            const left = await foundAt(sound);
            found.add(left);
            if (next === 'a removal') {
              await sound.remove?.();
              expect(readdirSync(folder), `call ${index}`).toEqual([]);
            } else if (next === 'a save') {
              await save(sound, third);
              expect(await foundAt(sound)).toBe(third);
              expect(readdirSync(folder)).toEqual(['c']);
              const kept = readdirSync(path);
              await save(sound, third);
              expect(readdirSync(path), `call ${index}`).toHaveLength(kept.length);
              await sound.remove?.();
              expect(readdirSync(folder), `call ${index}`).toEqual([]);
            } else {
              await subject.collect(folder);
              expect(await foundAt(sound)).toBe(left);
              if (left === older) return;
              // At most an empty folder.
              if (existsSync(path)) expect(readdirSync(path), `call ${index}`).toEqual([]);
              expect(readdirSync(folder).filter((entry) => entry !== 'c')).toEqual([]);
            }
          });
        }
      }
      expect([...found].sort()).toEqual([older, 'CHKPT_NOT_FOUND']);
    });

    test('a load', async () => {
      await inFolder(async (path) => {
        await save(storeOf(path, makeFileSystem()), older);
        const { root } = await verifyCheckpoint(storeOf(path, makeFileSystem()));
        await sweep(async (fileSystem, failing) => {
          const report = await verifyCheckpoint(storeOf(path, fileSystem)).catch((error: unknown) => error);
          if (report instanceof CheckpointError) expect(failing).toBeDefined();
          else expect((report as { root: string }).root).toBe(root);
        });
      });
    });
  });
}
