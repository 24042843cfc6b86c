/** Incremental checkpoints: what is stored, what comes back, and what becomes of a chain that is not whole. */
import { mkdirSync, renameSync, rmSync, statSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import {
  CheckpointError,
  inspectCheckpoint,
  loadVm,
  MemoryStoreSpace,
  type Store,
  saveVm,
  verifyCheckpoint,
} from '../../src/index.ts';
import { makeFolder } from '../store/support/folders.ts';
import { ScribbledVm } from './support/scribbled-vm.ts';

const first = 1200;

/** A store that fails when the memory is written, as a full disk does. */
function fullStore(): Store {
  const store = new MemoryStoreSpace().store('full');
  return {
    url: store.url,
    openReader: (options) => store.openReader(options),
    async openWriter(options) {
      const writer = await store.openWriter(options);
      let inMemory = false;
      return {
        beginSegment: async ({ kind }) => {
          inMemory = kind === 'memory';
        },
        write: async (bytes) => {
          if (inMemory) throw new CheckpointError('CHKPT_NO_SPACE', 'the disk is full');
          await writer.write(bytes);
        },
        commit: (summary) => writer.commit(summary),
        abort: () => writer.abort(),
      };
    },
  };
}

async function loadedDigest(url: string | Store, parents?: readonly string[]): Promise<bigint> {
  const target = new ScribbledVm(0, false);
  target.scribble(300);
  await loadVm(target, url, { parents });
  expect(target.failure).toBeUndefined();
  return await target.memory.digest();
}

async function refused(work: PromiseLike<unknown>): Promise<CheckpointError> {
  const error = await work.then(
    () => undefined,
    (reason) => reason,
  );
  expect(error).toBeInstanceOf(CheckpointError);
  return error as CheckpointError;
}

describe.each(['file', 'dir', 'mem'])('a chain in %s:', (scheme) => {
  it.each([
    ['a tracker says what changed', true],
    ['nobody says what changed', false],
  ])('comes back at every depth, and holds little more than what changed, when %s', async (_, tracked) => {
    const folder = scheme === 'mem' ? `${scheme}:increments-${tracked}-` : `${scheme}:${makeFolder()}/`;
    const vm = new ScribbledVm(1, tracked);
    vm.scribble(first);
    const whole = await saveVm(vm, `${folder}0`);
    const digests = [await vm.memory.digest()];
    for (let depth = 1; depth <= 5; depth += 1) {
      vm.scribble(30);
      const report = await saveVm(vm, `${folder}${depth}`, { parent: `${folder}${depth - 1}` });
      expect(report.tracker?.kind).toBe(tracked ? 'reported' : 'digest');
      expect(report.checkpointBytes).toBeLessThan(whole.checkpointBytes / 8);
      digests.push(await vm.memory.digest());
    }
    for (const [depth, digest] of digests.entries()) {
      expect(await loadedDigest(`${folder}${depth}`)).toBe(digest);
      expect((await verifyCheckpoint(`${folder}${depth}`)).counts.parentPages > 0).toBe(depth > 0);
    }
  });
});

it('branches: two increments of one parent, and a whole checkpoint between increments', async () => {
  const folder = `file:${makeFolder()}/`;
  const vm = new ScribbledVm(2, true);
  vm.scribble(first);
  await saveVm(vm, `${folder}base`);
  vm.scribble(20);
  const a = await saveVm(vm, `${folder}a`, { parent: `${folder}base` });
  const atA = await vm.memory.digest();
  vm.scribble(20);
  // The tracker has watched since a, so base is compared.
  const b = await saveVm(vm, `${folder}b`, { parent: `${folder}base` });
  expect([a.tracker?.kind, b.tracker?.kind]).toEqual(['reported', 'digest']);
  expect(b.tracker?.reason).toMatch(/has not watched since/);
  const atB = await vm.memory.digest();
  vm.scribble(20);
  await saveVm(vm, `${folder}whole`);
  vm.scribble(20);
  const c = await saveVm(vm, `${folder}c`, { parent: `${folder}whole` });
  expect(c.tracker?.kind).toBe('reported');
  expect(await loadedDigest(`${folder}a`)).toBe(atA);
  expect(await loadedDigest(`${folder}b`)).toBe(atB);
  expect(await loadedDigest(`${folder}c`)).toBe(await vm.memory.digest());
});

describe('a save that comes to nothing', () => {
  it.each(['fails', 'is cancelled'])('and %s loses no change', async (how) => {
    const folder = `mem:nothing-${how}-`;
    const vm = new ScribbledVm(3, true);
    vm.scribble(first);
    await saveVm(vm, `${folder}0`, { skipEqual: true });
    for (let round = 0; round < 3; round += 1) {
      vm.scribble(25);
      const abort = new AbortController();
      const store = how === 'fails' ? fullStore() : new MemoryStoreSpace().store('lost');
      const error = await refused(
        saveVm(vm, store, {
          parent: `${folder}0`,
          skipEqual: true,
          signal: abort.signal,
          onProgress: ({ phase }) => {
            if (how !== 'fails' && phase === 'commit') abort.abort();
          },
        }),
      );
      expect(error.code).toBe(how === 'fails' ? 'CHKPT_NO_SPACE' : 'CHKPT_ABORTED');
    }
    vm.scribble(5);
    const report = await saveVm(vm, `${folder}1`, { parent: `${folder}0`, skipEqual: true });
    expect(report.tracker?.kind).toBe('reported');
    expect(await loadedDigest(`${folder}1`)).toBe(await vm.memory.digest());
  });
});

it('goes on from a checkpoint that was loaded', async () => {
  const folder = 'mem:after-load-';
  const source = new ScribbledVm(4, false);
  source.scribble(first);
  await saveVm(source, `${folder}0`);
  source.scribble(40);
  await saveVm(source, `${folder}1`, { parent: `${folder}0` });
  const vm = new ScribbledVm(5, true);
  await loadVm(vm, `${folder}1`);
  vm.scribble(10);
  const report = await saveVm(vm, `${folder}2`, { parent: `${folder}1` });
  expect(report.tracker?.kind).toBe('reported');
  expect(report.checkpointBytes).toBeLessThan(10 * 4200 + 4096);
  expect(await loadedDigest(`${folder}2`)).toBe(await vm.memory.digest());
});

it('leaves out pages that were written and hold what they held, when asked to', async () => {
  const vm = new ScribbledVm(6, true);
  vm.scribble(first);
  await saveVm(vm, 'mem:equal-0', { skipEqual: true });
  for (let page = 0; page < 200; page += 1) vm.write(page, vm.read(page));
  vm.write(77, new Uint8Array(4096).fill(0xcd));
  await saveVm(vm, 'mem:equal-1', { parent: 'mem:equal-0', skipEqual: true });
  const { counts } = await verifyCheckpoint('mem:equal-1');
  expect(counts.pages - counts.parentPages).toBe(1);
  for (let page = 0; page < 50; page += 1) vm.write(page, vm.read(page));
  await saveVm(vm, 'mem:equal-2', { parent: 'mem:equal-1' });
  const written = (await verifyCheckpoint('mem:equal-2')).counts;
  expect(written.pages - written.parentPages).toBe(50);
});

describe('saves and loads of one machine at the same time', () => {
  it('wait for each other: no change is lost, and none is in the wrong checkpoint', async () => {
    const folder = 'mem:at-once-';
    const vm = new ScribbledVm(11, true);
    vm.scribble(first);
    await saveVm(vm, `${folder}0`);
    vm.scribble(40);
    const now = await vm.memory.digest();
    const parent = `${folder}0`;
    const saves = ['a', 'b', 'c'].map((name) => saveVm(vm, folder + name, { parent }));
    const reports = await Promise.all(saves);
    // The first has the changes; for the others the tracker has begun to count anew, so the parent is compared.
    expect(reports.map(({ tracker }) => tracker?.kind)).toEqual(['reported', 'digest', 'digest']);
    for (const name of ['a', 'b', 'c']) expect(await loadedDigest(folder + name)).toBe(now);
    const loading = loadVm(vm, `${folder}0`);
    const saving = saveVm(vm, `${folder}d`, { parent });
    await loading;
    expect((await saving).totals?.storedPages).toBe(0);
    expect(await loadedDigest(`${folder}d`)).toBe(await loadedDigest(parent));
  });

  it('one that is cancelled while it waits ends at once, and those behind it go on', async () => {
    const vm = new ScribbledVm(12, true);
    vm.scribble(first);
    const abort = new AbortController();
    const slow = saveVm(vm, 'mem:turn-0');
    const waiting = saveVm(vm, 'mem:turn-1', { signal: abort.signal });
    const last = saveVm(vm, 'mem:turn-2');
    abort.abort();
    expect((await refused(waiting)).code).toBe('CHKPT_ABORTED');
    await slow;
    await last;
    expect(await loadedDigest('mem:turn-2')).toBe(await vm.memory.digest());
  });
});

describe('a chain of files', () => {
  async function makeChain(): Promise<{ folder: string; digest: bigint }> {
    const folder = makeFolder();
    const vm = new ScribbledVm(7, true);
    vm.scribble(first);
    await saveVm(vm, `file:${folder}/0`);
    for (let depth = 1; depth < 3; depth += 1) {
      vm.scribble(10);
      await saveVm(vm, `file:${folder}/${depth}`, { parent: `file:${folder}/${depth - 1}` });
    }
    return { folder, digest: await vm.memory.digest() };
  }

  it('moves as a whole', async () => {
    const { folder, digest } = await makeChain();
    renameSync(folder, `${folder}-moved`);
    try {
      expect(await loadedDigest(`file:${folder}-moved/2`)).toBe(digest);
    } finally {
      renameSync(`${folder}-moved`, folder);
    }
  });

  it('is found where the caller says', async () => {
    const { folder, digest } = await makeChain();
    mkdirSync(`${folder}/elsewhere`);
    renameSync(`${folder}/0`, `${folder}/elsewhere/x`);
    renameSync(`${folder}/1`, `${folder}/elsewhere/y`);
    const places = [`file:${folder}/elsewhere/x`, `file:${folder}/elsewhere/y`];
    expect(await loadedDigest(`file:${folder}/2`, places)).toBe(digest);
  });

  it('with a parent that is gone, is another one, or is newer, is refused by name before anything is touched', async () => {
    const { folder } = await makeChain();
    await using inspection = await inspectCheckpoint(`file:${folder}/1`);
    const wanted = inspection.header.parent?.uuid;
    const vm = new ScribbledVm(8, false);
    vm.scribble(100);
    const before = await vm.memory.digest();
    const load = (): PromiseLike<unknown> => loadVm(vm, `file:${folder}/2`);

    renameSync(`${folder}/0`, `${folder}/kept`);
    const missing = await refused(load());
    expect([missing.code, missing.details.expected]).toEqual(['CHKPT_PARENT_MISSING', wanted]);

    const stranger = new ScribbledVm(9, false);
    stranger.scribble(10);
    await saveVm(stranger, `file:${folder}/0`);
    const foreign = await refused(load());
    expect([foreign.code, foreign.details.expected]).toEqual(['CHKPT_PARENT_FOREIGN', wanted]);
    expect(foreign.message).toContain(wanted);

    rmSync(`${folder}/0`);
    const cycle = await refused(saveVm(vm, `file:${folder}/kept`, { parent: `file:${folder}/kept` }));
    expect(cycle.code).toBe('CHKPT_PARENT_CYCLE');
    expect(statSync(`${folder}/kept`).size).toBeGreaterThan(1e6);
    expect(vm.failure).toBeUndefined();
    expect(await vm.memory.digest()).toBe(before);
  });

  it('refuses a machine with other regions, and one without memory to save', async () => {
    const { folder } = await makeChain();
    const other = new ScribbledVm(1, false, [{ base: 0, bytes: 1024 ** 2 }]);
    const parent = `file:${folder}/2`;
    expect((await refused(saveVm(other, 'mem:other', { parent }))).code).toBe('CHKPT_VM_REGIONS');
    const vm = new ScribbledVm(1, false);
    await expect(saveVm(vm, 'mem:other', { parent, skip: ['memory'] })).rejects.toThrow(TypeError);
  });
});

describe('a lazy load of an increment', () => {
  it('brings every page from the newest member that has it', async () => {
    const folder = `file:${makeFolder()}/`;
    const vm = new ScribbledVm(12, true);
    vm.scribble(first);
    await saveVm(vm, `${folder}0`);
    for (let depth = 1; depth <= 4; depth += 1) {
      vm.scribble(60);
      await saveVm(vm, `${folder}${depth}`, { parent: `${folder}${depth - 1}` });
    }
    const target = new ScribbledVm(13, false);
    target.scribble(50);
    const { lazy, parents } = await loadVm(target, `${folder}4`, { lazy: true });
    expect(parents).toHaveLength(4);
    if (!lazy.active) {
      console.log(`not lazy: ${lazy.reason}`);
    } else {
      // Some pages are touched before they come by themselves.
      for (let page = 0; page < target.pageCount; page += 97)
        expect(target.read(page)).toEqual(vm.read(page));
      await lazy.load.resident;
    }
    expect(await target.memory.digest()).toBe(await vm.memory.digest());
  });
});
