/** `loadVm` as `continue` and as `clone`: a machine goes on once, and a clone can tell that it is one. */
import { existsSync } from 'node:fs';
import { afterEach, describe, expect, test } from 'vitest';
import { SyntheticVm } from '../../src/adapters/synthetic/index.ts';
import {
  CheckpointError,
  type Claim,
  flattenCheckpoint,
  keepLast,
  type LoadVmOptions,
  loadVm,
  MemoryStoreSpace,
  openStore,
  type Store,
  type StoreClaims,
  saveVm,
  type VirtualMachine,
} from '../../src/index.ts';
import { makeFolder } from '../store/support/folders.ts';

const made: SyntheticVm[] = [];
afterEach(async () => {
  for (const vm of made.splice(0)) await vm.close();
});

async function machine(): Promise<SyntheticVm> {
  const vm = await SyntheticVm.create({ memoryBytes: 1 << 20, guestLike: true });
  made.push(vm);
  return vm;
}

const continued = { code: 'CHKPT_CONTINUED', kind: 'state' };
const goOn: LoadVmOptions = { as: 'continue' };

describe.each(['mem', 'file', 'dir'])('in %s:', (scheme) => {
  const makePlaces = (): ((name: string) => Store) => {
    const space = new MemoryStoreSpace();
    const folder = makeFolder();
    return (name) => (scheme === 'mem' ? space.store(name) : openStore(`${scheme}:${folder}/${name}`));
  };

  test('a machine goes on once: who comes second is told by whom and when, and stays as it is', async () => {
    const store = makePlaces()('a');
    const [source, first, second] = [await machine(), await machine(), await machine()];
    await saveVm(source, store);
    const report = await loadVm(first, store, goOn);
    expect(report.earlier).toBeUndefined();
    expect(await first.digest()).toBe(await source.digest());
    second.memory.write(0, Uint8Array.of(77));
    const before = await second.digest();
    const refusal = await loadVm(second, store, goOn).then(
      () => undefined,
      (error: unknown) => error,
    );
    expect(refusal).toMatchObject({ ...continued, details: { store: store.url } });
    const [, time] = /at (\S+) by machine synthetic, process \d+ on /.exec((refusal as Error).message) ?? [];
    expect(Math.abs(Date.now() - Date.parse(time ?? ''))).toBeLessThan(60_000);
    expect(await second.digest()).toBe(before);
    await second.resume();
    await second.pause();
    // Who does not ask is not refused, and force says who was first.
    await loadVm(second, store);
    const forced = await loadVm(second, store, { ...goOn, force: true });
    expect(forced.earlier?.by).toContain('machine synthetic');
    await expect(loadVm(second, store, goOn)).rejects.toMatchObject(continued);
  });

  test('of two that load at the same time one goes on, and the other must not run', async () => {
    const store = makePlaces()('a');
    const machines = [await machine(), await machine(), await machine()];
    await saveVm(machines[0] as SyntheticVm, store);
    const loads = await Promise.allSettled(machines.map((vm) => loadVm(vm, store, goOn)));
    expect(loads.filter(({ status }) => status === 'fulfilled')).toHaveLength(1);
    for (const [index, load] of loads.entries()) {
      if (load.status === 'fulfilled') continue;
      expect(load.reason).toMatchObject(continued);
      // Refused before it was touched, or never whole.
      if (machines[index]?.failure !== undefined)
        await expect(machines[index]?.resume()).rejects.toMatchObject({ code: 'CHKPT_VM_FAILED' });
    }
  });

  test('a load that fails does not use up the checkpoint, whatever fails', async () => {
    const store = makePlaces()('a');
    const [source, target] = [await machine(), await machine()];
    await saveVm(source, store);
    const failing = machineOf(target, (failure) => {
      if (failure === undefined) throw new Error('refused');
      target.endLoad(failure);
    });
    await expect(loadVm(failing, store, goOn)).rejects.toThrow('refused');
    await expect(loadVm(target, store, { ...goOn, signal: AbortSignal.abort() })).rejects.toThrow(
      CheckpointError,
    );
    await loadVm(target, store, goOn);
    await expect(loadVm(target, store, goOn)).rejects.toMatchObject(continued);
  });

  test('a lazy load claims before the guest can run', async () => {
    const store = makePlaces()('a');
    const [source, first, second] = [await machine(), await machine(), await machine()];
    await saveVm(source, store);
    const { lazy } = await loadVm(first, store, { ...goOn, lazy: true });
    await expect(loadVm(second, store, { ...goOn, lazy: true })).rejects.toMatchObject(continued);
    if (lazy.active) await lazy.load.resident;
  });

  test('a checkpoint that a save has replaced meanwhile is not continued', async () => {
    const store = makePlaces()('a');
    const [source, target] = [await machine(), await machine()];
    await saveVm(source, store);
    const { claims } = store;
    if (claims === undefined) throw new Error('no claims');
    const replaced: Store = {
      ...bound(store),
      claims: {
        ...claims,
        take: async (claim) => {
          await saveVm(source, store);
          return await claims.take(claim);
        },
      },
    };
    await expect(loadVm(target, replaced, goOn)).rejects.toMatchObject(continued);
    await expect(target.resume()).rejects.toMatchObject({ code: 'CHKPT_VM_FAILED' });
    await loadVm(target, store, goOn);
  });

  test('a new save into the same place can be continued', async () => {
    const store = makePlaces()('a');
    const [source, target] = [await machine(), await machine()];
    await saveVm(source, store);
    await loadVm(target, store, goOn);
    await saveVm(target, store);
    await loadVm(source, store, goOn);
    await expect(loadVm(target, store, goOn)).rejects.toMatchObject(continued);
  });

  test('a chain that is made whole stays continued; its members that are pruned leave nothing', async () => {
    const places = makePlaces();
    const [source, target] = [await machine(), await machine()];
    const at = (index: number): Store => places(`${index}`);
    await saveVm(source, at(0));
    await loadVm(target, at(0), goOn);
    for (const depth of [1, 2]) {
      source.memory.write(4096 * depth, Uint8Array.of(depth));
      await saveVm(source, at(depth), { parent: at(depth - 1), parents: depth === 2 ? [at(0)] : [] });
    }
    await loadVm(target, at(2), { ...goOn, parents: [at(0), at(1)] });
    const parents = [at(0), at(1)];
    await flattenCheckpoint(at(2), at(3), { parents });
    await expect(loadVm(target, at(3), goOn)).rejects.toMatchObject(continued);
    await keepLast(at(2), 1, { parents });
    await expect(loadVm(target, at(2), goOn)).rejects.toMatchObject(continued);
    await expect(loadVm(target, at(0), goOn)).rejects.toMatchObject({ code: 'CHKPT_NOT_FOUND' });
    await saveVm(source, at(0));
    await loadVm(target, at(0), goOn);
  });

  test.each(['its own', 'another'])(
    'who goes on with a checkpoint while it is made whole in %s place, and who goes on with the result, are one',
    async (which) => {
      const places = makePlaces();
      const [from, to] = [places('from'), places(which === 'another' ? 'to' : 'from')];
      const [source, target] = [await machine(), await machine()];
      for (const at of ['before', 'after'] as const) {
        const { uuid } = await saveVm(source, from);
        const outcomes: boolean[] = [];
        const attempt = async (store: Store): Promise<void> => {
          const load = loadVm(target, store, goOn);
          outcomes.push(
            await load.then(
              () => true,
              () => false,
            ),
          );
        };
        const loading = disturbed(to, at, () => attempt(from));
        await flattenCheckpoint(from, loading);
        await attempt(to);
        expect(outcomes.filter(Boolean)).toHaveLength(1);
        // Nothing of the work on it stays behind.
        if (which === 'another' && at === 'before') {
          expect(await from.claims?.find(uuid)).toBeUndefined();
          await loadVm(target, from, goOn);
        }
      }
    },
  );

  test('a checkpoint whose flatten fails is unclaimed', async () => {
    const places = makePlaces();
    const [source, target] = [await machine(), await machine()];
    await saveVm(source, places('a'));
    const failing = disturbed(places('b'), 'before', () => Promise.reject(new Error('the disk is gone')));
    await expect(flattenCheckpoint(places('a'), failing)).rejects.toThrow('commit');
    await loadVm(target, places('a'), goOn);
  });

  test('a checkpoint in a place that cannot be written is made whole elsewhere, claimed as it was', async () => {
    const places = makePlaces();
    const [source, target] = [await machine(), await machine()];
    await saveVm(source, places('a'));
    const claims = places('a').claims as StoreClaims;
    const refusal = new CheckpointError('CHKPT_PERMISSION', 'read-only');
    const found: Claim[] = [];
    const fixed: Store = {
      ...bound(places('a')),
      claims: { ...claims, find: async () => found[0], take: () => Promise.reject(refusal) },
    };
    await flattenCheckpoint(fixed, places('b'));
    await loadVm(target, places('b'), goOn);
    // Somebody who may write there goes on with it meanwhile.
    const taken = disturbed(places('c'), 'before', async () => {
      found.push({ uuid: '', by: 'somebody', timeMs: 1 });
    });
    await flattenCheckpoint(fixed, taken);
    await expect(loadVm(target, places('c'), goOn)).rejects.toMatchObject(continued);
  });
});

/** The store, with something else that happens before or after its commit. */
function disturbed(store: Store, at: 'before' | 'after', event: () => Promise<void>): Store {
  const openWriter: Store['openWriter'] = async (options) => {
    const writer = await store.openWriter(options);
    return {
      write: (bytes) => writer.write(bytes),
      beginSegment: async (segment) => await writer.beginSegment?.(segment),
      endSegment: async (summary) => await writer.endSegment?.(summary),
      abort: () => writer.abort(),
      commit: async (summary) => {
        if (at === 'before') await event();
        await writer.commit(summary);
        if (at === 'after') await event();
      },
    };
  };
  return {
    url: store.url,
    openWriter,
    openReader: (options) => store.openReader(options),
    claims: store.claims,
  };
}

/** The same machine with another `endLoad`, and without `setGeneration`. */
function machineOf(
  vm: SyntheticVm,
  endLoad = (failure?: Error): void => vm.endLoad(failure),
): VirtualMachine {
  return {
    id: vm.id,
    cpu: vm.cpu,
    memory: vm.memory,
    cores: vm.cores,
    devices: vm.devices,
    running: false,
    pause: () => vm.pause(),
    resume: () => vm.resume(),
    beginLoad: () => vm.beginLoad(),
    endLoad,
  };
}

test('a clone is told a generation of its own, after its state and before it may run', async () => {
  const store = new MemoryStoreSpace().store('a');
  const source = await machine();
  await saveVm(source, store);
  const generations = new Set<string>();
  for (let count = 0; count < 3; count += 1) {
    const vm = await machine();
    const states: unknown[] = [];
    const told = {
      ...machineOf(vm),
      setGeneration: async (generation: string) => {
        states.push(vm.failure !== undefined, await vm.memory.digest(), generation);
      },
    };
    const { generation = '' } = await loadVm(told, store, { as: 'clone' });
    expect(states).toEqual([true, await source.memory.digest(), generation]);
    expect(generation).toMatch(/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/);
    generations.add(generation);
    await loadVm(vm, store, { as: 'clone' });
    expect(vm.generation).toMatch(/^[0-9a-f-]{36}$/);
    await loadVm(vm, store);
    expect(vm.generation).toBeUndefined();
  }
  expect(generations.size).toBe(3);
});

test('a machine that cannot be told its generation is not cloned unless forced, and is not touched', async () => {
  const store = new MemoryStoreSpace().store('a');
  const [source, vm] = [await machine(), await machine()];
  await saveVm(source, store);
  vm.memory.write(0, Uint8Array.of(77));
  const before = await vm.digest();
  const mute = machineOf(vm);
  await expect(loadVm(mute, store, { as: 'clone' })).rejects.toMatchObject({ code: 'CHKPT_UNSUPPORTED' });
  expect(await vm.digest()).toBe(before);
  const { generation } = await loadVm(mute, store, { as: 'clone', force: true });
  expect(generation).toMatch(/^[0-9a-f-]{36}$/);
});

test('a store that keeps no claims cannot be continued from, and the machine is not touched', async () => {
  const { url, openReader, openWriter } = bound(new MemoryStoreSpace().store('a'));
  const store: Store = { url, openReader, openWriter };
  const [source, vm] = [await machine(), await machine()];
  await saveVm(source, store);
  vm.memory.write(0, Uint8Array.of(77));
  const before = await vm.digest();
  await expect(loadVm(vm, store, goOn)).rejects.toMatchObject({ code: 'CHKPT_UNSUPPORTED' });
  expect(await vm.digest()).toBe(before);
});

test('options that are none are TypeErrors', async () => {
  const store = new MemoryStoreSpace().store('a');
  const vm = await machine();
  await expect(loadVm(vm, store, { as: 'copy' as 'clone' })).rejects.toThrow(TypeError);
  await expect(loadVm(vm, store, { as: 'clone', force: 1 as never })).rejects.toThrow(TypeError);
});

test('the claim of a file is a file beside it that says who', async () => {
  const folder = makeFolder();
  const [source, target] = [await machine(), await machine()];
  const { uuid } = await saveVm(source, `file:${folder}/vm.chkpt`);
  await loadVm(target, `file:${folder}/vm.chkpt`, goOn);
  expect(existsSync(`${folder}/vm.chkpt.${uuid}.continued`)).toBe(true);
});

function bound(store: Store): Store {
  return {
    url: store.url,
    openReader: (options) => store.openReader(options),
    openWriter: (options) => store.openWriter(options),
  };
}
