/** Part of virtual-machine.suite.ts: increments of a machine at work, with its own tracker and without. */
import { expect, test } from 'vitest';
import { loadVm, type Store, saveVm } from '../../src/index.ts';
import { type Bench, type TestMachine, usedMachine } from './virtual-machine-bench.ts';

export function describeIncrements(bench: Bench): void {
  test.each([
    ['with its own tracker', true, 2],
    ['without tracker', false, 1],
  ])('increments between runs load as what was saved, %s', async (_, isTracked, depthMax) => {
    const source = await usedMachine(bench);
    if (isTracked && !track(source)) return;
    const target = await bench.machine();
    const stores = [bench.store()];
    await saveVm(source.vm, at(stores, 0));
    for (let depth = 1; depth <= depthMax; depth += 1) {
      await work(source);
      const { tracker, totals } = await saveIncrement(source, bench, stores);
      expect(tracker?.reason === 'the machine has no dirty tracker').toBe(!isTracked);
      expect(totals?.parentPages).toBeGreaterThan(0);
    }
    // It is of a machine that has changed since the base.
    await loadVm(target.vm, at(stores, 0));
    expect(await target.digest()).not.toBe(await source.digest());
    const loaded = await loadVm(target.vm, at(stores, -1), { parents: stores.slice(0, -1) });
    expect(loaded.parents).toHaveLength(depthMax);
    expect(await target.digest()).toBe(await source.digest());
    await work(target);
  });

  test('a machine that was loaded knows what has changed since', async () => {
    const source = await usedMachine(bench);
    const [target, other] = [await bench.machine(), await bench.machine()];
    if (!track(target)) return;
    const stores = [bench.store()];
    await saveVm(source.vm, at(stores, 0));
    await loadVm(target.vm, at(stores, 0));
    await work(target);
    const { tracker } = await saveIncrement(target, bench, stores);
    expect(tracker?.reason).toBe(target.vm.dirtyTracker?.reason);
    await loadVm(other.vm, at(stores, -1), { parents: stores.slice(0, -1) });
    expect(await other.digest()).toBe(await target.digest());
  });

  test('a machine has one tracker at a time, and closes it when it is closed', async () => {
    const machine = await bench.machine();
    if (!track(machine)) return;
    const tracker = machine.vm.dirtyTracker;
    expect(() => machine.trackChanges?.()).toThrow(TypeError);
    await tracker?.arm();
    await tracker?.close();
    expect(machine.vm.dirtyTracker).toBeUndefined();
    track(machine);
    const next = machine.vm.dirtyTracker;
    expect(next).not.toBe(tracker);
    await next?.arm();
    await machine.close();
    expect(machine.vm.dirtyTracker).toBeUndefined();
    await expect(next?.harvest()).rejects.toMatchObject({ code: 'CHKPT_CLOSED' });
    expect(() => machine.trackChanges?.()).toThrow(expect.objectContaining({ code: 'CHKPT_CLOSED' }));
  });
}

/** False where the adapter has no tracker. */
function track(machine: TestMachine): boolean {
  machine.trackChanges?.();
  return machine.trackChanges !== undefined;
}

async function work({ vm, waitForWork }: TestMachine): Promise<void> {
  await vm.resume();
  await waitForWork();
  await vm.pause();
}

function at(stores: readonly Store[], index: number): Store {
  const store = stores.at(index);
  if (store === undefined) throw new Error(`no store ${index}`);
  return store;
}

async function saveIncrement(
  { vm }: TestMachine,
  bench: Bench,
  stores: Store[],
): Promise<Awaited<ReturnType<typeof saveVm>>> {
  const parent = at(stores, -1);
  stores.push(bench.store());
  return await saveVm(vm, at(stores, -1), { parent, parents: stores.slice(0, -2) });
}
