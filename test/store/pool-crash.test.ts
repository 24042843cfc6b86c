/** Saves into a pool that are killed, fail, or run beside each other and beside `gc`: checkpoints stay whole, and nothing piles up. */
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { cpSync, rmSync } from 'node:fs';
import { expect, test } from 'vitest';
import { SyntheticVm } from '../../src/adapters/synthetic/index.ts';
import { collectGarbage, loadVm, openStore, saveVm, verifyCheckpoint } from '../../src/index.ts';
import { buildCommandLine } from '../cli/support/dist.ts';
import { FaultFileSystem, WorldStopped } from './support/fault-file-system.ts';
import { listTree, makeFolder, openDescriptors } from './support/folders.ts';
import { endedPid, openIn } from './support/hosts.ts';
import { isSame, load, sampleStream, save } from './support/sample-stream.ts';

const memory = [
  ['start', 'start', 64],
  ['memory', 'memory', 30_000],
  ['end', 'end', 32],
] as const;
const older = sampleStream('older', memory);
const newer = sampleStream('newer', memory);

async function prepare(): Promise<string> {
  const folder = makeFolder();
  await save(openIn('dir+pool', folder), older);
  return folder;
}

/** A copy in which files with several names keep them. */
async function copyOf(folder: string): Promise<string> {
  const copy = makeFolder();
  await new Promise<void>((resolve, reject) => {
    execFile('cp', ['-a', `${folder}/.`, copy], (error) => (error ? reject(error) : resolve()));
  });
  return copy;
}

/** Packs in the pool are those of the checkpoint, and each is used. */
function expectTidy(folder: string, label: string): void {
  const entries = listTree(folder);
  expect(
    entries.filter((path) => path.includes('/.')),
    label,
  ).toEqual([]);
  const namesIn = (pattern: RegExp): string[] =>
    entries.filter((path) => pattern.test(path)).map((path) => path.replace(/.*\//, ''));
  expect(namesIn(/^chkpt-pool\/.*\.pack$/).sort(), label).toEqual(namesIn(/^vm\/.*\.pack$/).sort());
}

test('a save killed between any two calls leaves the older or the newer checkpoint, and the next one tidies up', async () => {
  const before = await prepare();
  const whole = new FaultFileSystem(undefined, true);
  await save(openIn('dir+pool', await copyOf(before), { fileSystem: whole, pid: endedPid }), newer);
  const outcomes = { older: 0, newer: 0 };
  for (let point = 0; point <= whole.trace.length; point += 1) {
    const folder = await copyOf(before);
    const world = new FaultFileSystem(({ index }) => (index === point ? 'kill' : undefined), true);
    const saving = save(openIn('dir+pool', folder, { fileSystem: world, pid: endedPid }), newer);
    await saving.catch((error: unknown) => expect(error).toHaveProperty('cause', expect.any(WorldStopped)));
    await world.release();
    const label = `killed before call ${point}: ${whole.trace[point]?.name} ${whole.trace[point]?.path}`;
    const found = await load(openIn('dir', folder));
    const isOlder = isSame(found, older.bytes);
    if (!isOlder) expect(isSame(found, newer.bytes), label).toBe(true);
    outcomes[isOlder ? 'older' : 'newer'] += 1;
    if (point % 2 === 0) {
      const environment = environmentAfter();
      const told = await collectGarbage(folder, { environment });
      expect(await collectGarbage(folder, { environment, remove: true }), label).toEqual({
        ...told,
        removed: true,
      });
    }
    expect(isSame(await load(openIn('dir', folder)), found), label).toBe(true);
    await save(openIn('dir+pool', folder), newer);
    expect(isSame(await load(openIn('dir', folder)), newer.bytes), label).toBe(true);
    await collectGarbage(folder, { remove: true });
    expectTidy(folder, label);
  }
  expect(outcomes.older).toBeGreaterThan(20);
  expect(outcomes.newer).toBeGreaterThan(2);
});

/** A host on which the killed process is not there any more. */
function environmentAfter(): NonNullable<Parameters<typeof collectGarbage>[1]>['environment'] {
  return {
    fileSystem: new FaultFileSystem(),
    processes: { pid: process.pid, startedMs: 0, isAlive: (pid) => pid !== endedPid },
  };
}

test('a save of which any call fails is a typed error that leaves the older checkpoint, or has succeeded', async () => {
  const before = await prepare();
  const whole = new FaultFileSystem(undefined, true);
  await save(openIn('dir+pool', await copyOf(before), { fileSystem: whole }), newer);
  for (const errno of ['ENOSPC', 'EIO']) {
    for (let point = 0; point < whole.trace.length; point += 1) {
      const folder = await copyOf(before);
      const world = new FaultFileSystem(({ index }) => (index === point ? { errno } : undefined), true);
      const label = `${errno} of call ${point}: ${whole.trace[point]?.name} ${whole.trace[point]?.path}`;
      const failure = await save(
        openIn('dir+pool', folder, { fileSystem: world, pid: endedPid }),
        newer,
      ).then(
        () => undefined,
        (error: unknown) => error,
      );
      if (failure !== undefined)
        expect(failure, label).toHaveProperty('code', expect.stringMatching(/^CHKPT_/));
      const expected = failure === undefined ? newer.bytes : older.bytes;
      expect(isSame(await load(openIn('dir', folder)), expected), label).toBe(true);
      expect(openDescriptors(folder), label).toEqual([]);
      await save(openIn('dir+pool', folder), newer);
      await collectGarbage(folder, { remove: true });
      expectTidy(folder, label);
      rmSync(folder, { recursive: true });
    }
  }
});

test('saves beside each other into one pool, beside gc, are all whole', async () => {
  const folder = makeFolder();
  const machines = await Promise.all(
    [1, 2, 3, 4].map((seed) =>
      SyntheticVm.create({ memoryBytes: 8 << 20, guestLike: true, seed: 1 + (seed % 2), id: `vm${seed}` }),
    ),
  );
  let isDone = false;
  const collecting = (async (): Promise<number> => {
    let count = 0;
    for (; !isDone; count += 1) await collectGarbage(folder, { remove: true });
    return count;
  })();
  for (let round = 0; round < 4; round += 1) {
    await Promise.all(
      machines.map(async (vm, index) => {
        vm.memory.write(4096 * (17 + round), Buffer.from(`${index} ${round}`));
        const url = `dir+pool:${folder}/${index}`;
        // Some go, and are saved again, while others look for what they had.
        if (round === 2 && index === 1) await openStore(url).remove?.();
        await saveVm(vm, url);
        await verifyCheckpoint(url);
      }),
    );
  }
  isDone = true;
  expect(await collecting).toBeGreaterThan(5);
  for (const [index, vm] of machines.entries()) {
    await using target = await SyntheticVm.create({ memoryBytes: 8 << 20, id: `vm${index + 1}` });
    await loadVm(target, `dir:${folder}/${index}`);
    expect(await target.digest()).toBe(await vm.digest());
    await vm.close();
  }
  for (let index = 0; index < machines.length; index += 1) {
    await openStore(`dir:${folder}/${index}`).remove?.();
  }
  await collectGarbage(folder, { remove: true });
  expect(listTree(folder)).toEqual(['chkpt-pool/', 'chkpt-pool/CHKPT-POOL']);
});

/** A process that saves the same machine again and again. */
function startSaver(url: string, seed: number, rounds: number): ChildProcess {
  const dist = buildCommandLine().replace(/cli\/main\.js$/, '');
  const script = `
    import { saveVm } from ${JSON.stringify(`${dist}index.js`)};
    import { SyntheticVm } from ${JSON.stringify(`${dist}adapters/synthetic/index.js`)};
    const vm = await SyntheticVm.create({ memoryBytes: 32 << 20, guestLike: true, seed: ${seed} });
    console.log('ready');
    for (let round = 0; round < ${rounds}; round += 1) {
      vm.memory.write(4096 * (99 + round), Buffer.from('round ' + round));
      await saveVm(vm, ${JSON.stringify(url)});
    }`;
  return spawn(process.execPath, ['--input-type=module', '-e', script], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
}

function exitOf(child: ChildProcess): Promise<number | NodeJS.Signals | null> {
  return new Promise((resolve) => child.once('exit', (code, signal) => resolve(signal ?? code)));
}

test('processes that save into one pool, some of them killed, leave whole checkpoints, and gc the rest', async () => {
  const folder = makeFolder();
  await using vm = await SyntheticVm.create({ memoryBytes: 32 << 20, guestLike: true, seed: 1 });
  await saveVm(vm, `dir+pool:${folder}/kept`);
  const children = [1, 1, 2].map((seed, index) => startSaver(`dir+pool:${folder}/${index}`, seed, 4));
  const exits = children.map(exitOf);
  const [victim] = children;
  await new Promise((resolve) => victim?.stdout?.once('data', resolve));
  // Somewhere in a save.
  await new Promise((resolve) => setTimeout(resolve, 60));
  victim?.kill('SIGKILL');
  for (let count = 0; count < 10; count += 1) await collectGarbage(folder, { remove: true });
  expect(await Promise.all(exits)).toEqual(['SIGKILL', 0, 0]);
  await collectGarbage(folder, { remove: true });
  for (const name of ['kept', '1', '2']) await verifyCheckpoint(`dir:${folder}/${name}`);
  await verifyCheckpoint(`dir:${folder}/0`).catch((error: unknown) =>
    expect(error).toMatchObject({ code: 'CHKPT_NOT_FOUND' }),
  );
  expect(listTree(folder).filter((path) => path.includes('/.'))).toEqual([]);
  for (const name of ['kept', '0', '1', '2']) rmSync(`${folder}/${name}`, { recursive: true, force: true });
  await collectGarbage(folder, { remove: true });
  expect(listTree(folder)).toEqual(['chkpt-pool/', 'chkpt-pool/CHKPT-POOL']);
}, 60_000);

test('copies of a folder with its pool are independent of it', async () => {
  const before = await prepare();
  await save(openIn('dir+pool', before), newer);
  const copy = makeFolder();
  cpSync(before, copy, { recursive: true });
  rmSync(before, { recursive: true });
  expect(isSame(await load(openIn('dir', copy)), newer.bytes)).toBe(true);
});
