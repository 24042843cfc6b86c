/** Two saves into one folder at the same time, at every point of one of them: the last commit counts, whole, and nothing of the other stays. */
import { readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { ForeignStore } from '../../../src/foreign/foreign-store.ts';
import { Gem5Format } from '../../../src/foreign/gem5/gem5-store.ts';
import {
  collectGarbage,
  GuestMemory,
  openCheckpoint,
  PageEncoder,
  type Store,
  verifyCheckpoint,
} from '../../../src/index.ts';
import { type FileSystem, hostFileSystem } from '../../../src/store/index.ts';
import { FaultFileSystem } from '../../store/support/fault-file-system.ts';
import { makeFolder } from '../../store/support/folders.ts';
import { endedPid } from '../../store/support/hosts.ts';

const uuids = [1, 2, 3].map((index) => `0f0e0d0c-0b0a-4908-8706-00000000000${index}`) as [
  string,
  string,
  string,
];
const [first, second, third] = uuids;

const processesOf = (pid: number) => ({ pid, startedMs: 0, isAlive: (other: number) => other !== endedPid });

function storeOf(path: string, fileSystem: FileSystem = hostFileSystem, pid = process.pid): Store {
  const environment = { fileSystem, processes: processesOf(pid) };
  return new ForeignStore('test:', new Gem5Format({ environment }, path, 'test:'));
}

async function save(store: Store, uuid: string): Promise<void> {
  const memory = GuestMemory.allocate([{ base: 0, bytes: 8192 }]);
  memory.write(0, Buffer.from(uuid));
  try {
    const checkpoint = await openCheckpoint(store, { mode: 'save', uuid, createdMs: 0 });
    try {
      await checkpoint.saveMemory('memory', new PageEncoder(memory));
      await checkpoint.commit();
    } finally {
      await checkpoint.abort();
    }
  } finally {
    await memory.close();
  }
}

const uuidAt = async (path: string): Promise<string> => (await verifyCheckpoint(storeOf(path))).header.uuid;

/** Every call waits for `turn`, which is told which one it is. */
function waitingFileSystem(turn: (call: number) => Promise<void>): FileSystem {
  let calls = 0;
  const wait = async (): Promise<void> => {
    calls += 1;
    await turn(calls);
  };
  const inner = hostFileSystem;
  return {
    open: async (...parameters) => await wait().then(() => inner.open(...parameters)),
    rename: async (...parameters) => await wait().then(() => inner.rename(...parameters)),
    link: async (...parameters) => await wait().then(() => inner.link(...parameters)),
    unlink: async (...parameters) => await wait().then(() => inner.unlink(...parameters)),
    mkdir: async (...parameters) => await wait().then(() => inner.mkdir(...parameters)),
    rmdir: async (...parameters) => await wait().then(() => inner.rmdir(...parameters)),
    readdir: async (...parameters) => await wait().then(() => inner.readdir(...parameters)),
    status: async (...parameters) => await wait().then(() => inner.status(...parameters)),
    fsyncDirectory: async (...parameters) => await wait().then(() => inner.fsyncDirectory(...parameters)),
  };
}

/** How many calls a save into this place makes. */
async function callsOf(start: 'nothing' | 'an older one'): Promise<number> {
  const path = join(makeFolder(), 'c');
  if (start !== 'nothing') await save(storeOf(path), third);
  let calls = 0;
  await save(
    storeOf(
      path,
      waitingFileSystem(async (call) => {
        calls = call;
      }),
    ),
    first,
  );
  return calls;
}

test.each(['nothing', 'an older one'] as const)(
  'a whole save between two calls of another: %s',
  async (start) => {
    const count = await callsOf(start);
    expect(count).toBeGreaterThan(15);
    const found = new Set<string>();
    for (let at = 1; at <= count; at += 1) {
      const path = join(makeFolder(), 'c');
      if (start !== 'nothing') await save(storeOf(path), third);
      const fileSystem = waitingFileSystem(async (call) => {
        if (call === at) await save(storeOf(path, hostFileSystem, process.pid + 1), second);
      });
      await save(storeOf(path, fileSystem), first);
      found.add(await uuidAt(path));
      expect(readdirSync(path).length, `call ${at}: ${readdirSync(path).join()}`).toBe(3);
    }
    expect([...found].sort()).toEqual([first, second]);
  },
);

test('a save that is killed while another one is there leaves what the next clean-up finds', async () => {
  const count = await callsOf('an older one');
  const found = new Set<string>();
  for (let at = 1; at <= count; at += 3) {
    for (let killed = at; killed <= count; killed += 5) {
      const path = join(makeFolder(), 'c');
      await save(storeOf(path), third);
      let isSaved = false;
      const fileSystem = new FaultFileSystem(({ index }) => (index === killed ? 'kill' : undefined), true);
      const { link, rename } = fileSystem;
      const between = async (): Promise<void> => {
        if (isSaved || fileSystem.trace.length < at) return;
        isSaved = true;
        await save(storeOf(path, hostFileSystem, process.pid + 1), second);
      };
      fileSystem.link = async (...parameters) =>
        await between().then(() => link.apply(fileSystem, parameters));
      fileSystem.rename = async (...parameters) =>
        await between().then(() => rename.apply(fileSystem, parameters));
      await save(storeOf(path, fileSystem, endedPid), first).catch(() => undefined);
      await fileSystem.release();
      const uuid = await uuidAt(path);
      found.add(uuid);
      const environment = { fileSystem: hostFileSystem, processes: processesOf(process.pid) };
      const told = await collectGarbage(path, { environment });
      const removed = await collectGarbage(path, { environment, remove: true });
      expect(removed.leftovers).toEqual(told.leftovers);
      expect(readdirSync(path).length, `${at}, ${killed}: ${readdirSync(path).join()}`).toBe(3);
      expect(await uuidAt(path)).toBe(uuid);
    }
  }
  expect([...found].sort()).toEqual([...uuids]);
});

test('saves whose calls mix in any order', async () => {
  let state = 1;
  // Numerical Recipes' generator: the same order each time.
  const random = (): number => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state / 2 ** 32;
  };
  for (let round = 0; round < 60; round += 1) {
    const path = join(makeFolder(), 'c');
    if (round % 2 === 0) await save(storeOf(path), third);
    const sleepy = (): FileSystem =>
      waitingFileSystem(async () => {
        for (let turns = Math.floor(random() * 6); turns > 0; turns -= 1) await new Promise(setImmediate);
      });
    await Promise.all(
      [first, second].map((uuid, index) => save(storeOf(path, sleepy(), process.pid + index), uuid)),
    );
    expect([first, second]).toContain(await uuidAt(path));
    expect(readdirSync(path).length, `round ${round}: ${readdirSync(path).join()}`).toBe(3);
  }
});

test('what an m5.cpt that was changed does not name any more is not taken for left behind', async () => {
  const path = join(makeFolder(), 'c');
  await save(storeOf(path), first);
  await save(storeOf(path), second);
  const text = join(path, 'm5.cpt');
  writeFileSync(text, readFileSync(text, 'latin1').replace('filename=s', 'filename=t'));
  writeFileSync(
    join(path, `chkpt.${third}.manifest.json`),
    readFileSync(join(path, readdirSync(path).find((entry) => entry.endsWith('.json')) ?? '')),
  );
  const before = readdirSync(path);
  const environment = { fileSystem: hostFileSystem, processes: processesOf(process.pid) };
  await collectGarbage(path, { environment, remove: true });
  expect(readdirSync(path)).toEqual(before);
});

test('an m5.cpt that somebody has set aside under another name keeps what it names, until it goes', async () => {
  const path = join(makeFolder(), 'c');
  const [text, aside] = [join(path, 'm5.cpt'), join(path, 'the-good-one')];
  await save(storeOf(path), first);
  renameSync(text, aside);
  const before = readdirSync(path);
  await save(storeOf(path), second);
  await save(storeOf(path), third);
  expect(readdirSync(path)).toEqual(expect.arrayContaining(before));
  renameSync(aside, text);
  expect(await uuidAt(path)).toBe(first);
  // What it stood in place of belongs to nobody now.
  const environment = { fileSystem: hostFileSystem, processes: processesOf(process.pid) };
  await collectGarbage(path, { environment, remove: true });
  expect(readdirSync(path).sort()).toEqual(
    before.map((entry) => entry.replace('the-good-one', 'm5.cpt')).sort(),
  );
  rmSync(path, { recursive: true });
});
