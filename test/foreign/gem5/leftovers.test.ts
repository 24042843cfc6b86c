/** What saves remove in the folder of a gem5 checkpoint, and what they must not. */
import { existsSync, linkSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { ForeignStore } from '../../../src/foreign/foreign-store.ts';
import { Gem5Folder } from '../../../src/foreign/gem5/folder.ts';
import { Gem5Format } from '../../../src/foreign/gem5/gem5-store.ts';
import {
  collectGarbage,
  GuestMemory,
  openCheckpoint,
  PageEncoder,
  verifyCheckpoint,
} from '../../../src/index.ts';
import { hostFileSystem } from '../../../src/store/index.ts';
import { makeFolder } from '../../store/support/folders.ts';
import { endedPid } from '../../store/support/hosts.ts';

const processesOf = (pid: number) => ({ pid, startedMs: 0, isAlive: (other: number) => other !== endedPid });
const environment = { fileSystem: hostFileSystem, processes: processesOf(process.pid) };
const storeOf = (path: string) => new ForeignStore('test:', new Gem5Format({ environment }, path, 'test:'));
const uuids = ['0f0e0d0c-0b0a-4908-8706-050403020100', 'ffeeddcc-bbaa-4988-8776-554433221100'] as const;
const other = '01234567-89ab-4cde-8f01-23456789abcd';

async function save(path: string, uuid: string): Promise<void> {
  const memory = GuestMemory.allocate([{ base: 0, bytes: 8192 }]);
  memory.write(0, Buffer.from(uuid));
  const checkpoint = await openCheckpoint(storeOf(path), { mode: 'save', uuid, createdMs: 0 });
  await checkpoint.saveMemory('memory', new PageEncoder(memory));
  await checkpoint.commit();
  await memory.close();
}

const uuidAt = async (path: string): Promise<string> => (await verifyCheckpoint(storeOf(path))).header.uuid;

test('an m5.cpt that names itself, or files that are no memory, takes nothing with it', async () => {
  const path = join(makeFolder(), 'c');
  await save(path, uuids[0]);
  writeFileSync(join(path, 'notes.txt'), 'mine');
  const text = readFileSync(join(path, 'm5.cpt'), 'latin1');
  const [name = ''] = /system\.physmem\.store0\S*\.pmem/.exec(text) ?? [];
  for (const file of ['m5.cpt', 'notes.txt']) {
    writeFileSync(join(path, 'm5.cpt'), text.replaceAll(name, file));
    await save(path, uuids[1]);
    expect(await uuidAt(path)).toBe(uuids[1]);
    expect(readFileSync(join(path, 'notes.txt'), 'utf8')).toBe('mine');
  }
});

test('a manifest that cannot be read is not taken for one of nobody', async () => {
  const path = join(makeFolder(), 'c');
  await save(path, uuids[0]);
  const [manifest = ''] = readdirSync(path).filter((entry) => entry.endsWith('manifest.json'));
  // Of a newer chkpt, whose save was killed before it had removed its work folder.
  const newer = readFileSync(join(path, manifest), 'latin1').replace(/"version": *\d+/, '"version": 99');
  writeFileSync(join(path, manifest), newer);
  const work = join(path, `.tmp-${uuids[0]}-${endedPid}`);
  await hostFileSystem.mkdir(work, 0o700);
  linkSync(join(path, manifest), join(work, 'manifest'));
  await collectGarbage(path, { environment, remove: true });
  expect(existsSync(join(path, manifest))).toBe(true);
});

test('what a save that runs may put back stays, until it is over', async () => {
  const path = join(makeFolder(), 'c');
  await save(path, uuids[0]);
  const before = new Map(readdirSync(path).map((entry) => [entry, readFileSync(join(path, entry))]));
  // Another process is about to replace the checkpoint, when this one does.
  const older = `.m5.cpt.${other}.${process.pid + 1}.old`;
  linkSync(join(path, 'm5.cpt'), join(path, older));
  await save(path, uuids[1]);
  const left = readdirSync(path);
  for (const entry of before.keys()) expect(left).toContain(entry);
  // Its flush fails, and the older one comes back, whole.
  await hostFileSystem.rename(join(path, older), join(path, 'm5.cpt'));
  expect(await uuidAt(path)).toBe(uuids[0]);
});

test('of a save that is over it goes, even when that was found by the next process', async () => {
  const path = join(makeFolder(), 'c');
  await save(path, uuids[0]);
  linkSync(join(path, 'm5.cpt'), join(path, `.m5.cpt.${other}.${process.pid + 1}.old`));
  await save(path, uuids[1]);
  expect(readdirSync(path).length).toBeGreaterThan(3);
  const later = { ...environment, processes: { ...environment.processes, isAlive: () => false } };
  await collectGarbage(path, { environment: later, remove: true });
  expect(readdirSync(path).length).toBe(3);
  expect(await uuidAt(path)).toBe(uuids[1]);
});

test.each([0, 200])(
  'beside an m5.cpt of which gem5 has written %i bytes nothing is removed',
  async (bytes) => {
    const path = join(makeFolder(), 'c');
    await save(path, uuids[0]);
    linkSync(join(path, 'm5.cpt'), join(path, `.m5.cpt.${other}.${endedPid}.old`));
    const text = '## checkpoint generated: now\n\n[system.physmem]\nlal_addr=\nlal_cid=\nnbr_of_stores=1\n\n';
    await hostFileSystem.unlink(join(path, 'm5.cpt'));
    writeFileSync(join(path, 'm5.cpt'), text.slice(0, bytes));
    const before = readdirSync(path);
    await new Gem5Folder(environment, path, 'test:').collect();
    expect(readdirSync(path)).toEqual(before);
  },
);
