/**
 * What every virtual machine promises together with `saveVm` and `loadVm`, as tests. Each adapter runs all of
 * them over each store: test/adapters/synthetic-vm.test.ts shows how.
 */
import { afterEach, describe, expect, test } from 'vitest';
import {
  type ErrorCode,
  loadVm,
  type Progress,
  type SkipPart,
  saveVm,
  type VirtualMachine,
} from '../../src/index.ts';
import { readAll } from '../support/altered-store.ts';
import { type Bench, fixed, type MakeStore, type TestMachine, usedMachine } from './virtual-machine-bench.ts';
import { describeDamagedLoads } from './virtual-machine-damage.suite.ts';
import { describeIncrements } from './virtual-machine-increment.suite.ts';

export type { MakeStore, TestMachine } from './virtual-machine-bench.ts';

/** Ways in which a machine can differ from the others, and what a load into it says. */
export const mismatchCodes = {
  id: 'CHKPT_VM_ID',
  cpu: 'CHKPT_VM_CPU',
  regions: 'CHKPT_VM_REGIONS',
  cores: 'CHKPT_VM_CORES',
  devices: 'CHKPT_VM_DEVICES',
} as const satisfies Readonly<Record<string, ErrorCode>>;

export type Mismatch = keyof typeof mismatchCodes;

export interface MachineFactory {
  /** A machine that has never run, paused. Two of them are equal. Several MiB of its memory are not zero. */
  create(): Promise<TestMachine>;
  /** One that differs from it in one way; absent where the adapter has no such machine. */
  readonly others: { readonly [K in Mismatch]?: () => Promise<TestMachine> };
  /** False where device state can only be loaded over the memory that it belongs to. Default true. */
  readonly loadsWithoutMemory?: boolean;
}

export function describeVirtualMachine(name: string, factory: MachineFactory, store: MakeStore): void {
  describe(`machine ${name}`, () => {
    const made: TestMachine[] = [];
    afterEach(async () => {
      for (const machine of made.splice(0)) await machine.close();
    });
    const machine = async (create = factory.create): Promise<TestMachine> => {
      const one = await create();
      made.push(one);
      return one;
    };
    const bench: Bench = { machine, store };
    describePause(bench);
    describeSave(bench);
    describeSkip(bench, factory);
    describeMismatch(bench, factory);
    describeAbort(bench);
    describeDamagedLoads(bench);
    describeIncrements(bench);
  });
}

function describePause({ machine }: Bench): void {
  test('pause stops every write, and resume lets the guest go on', async () => {
    const { vm, digest, waitForWork } = await machine();
    const atStart = await digest();
    await vm.resume();
    expect(vm.running).toBe(true);
    await waitForWork();
    await vm.pause();
    expect(vm.running).toBe(false);
    const paused = await digest();
    expect(paused).not.toBe(atStart);
    await new Promise((resolve) => setTimeout(resolve, 20));
    expect(await digest()).toBe(paused);
    await vm.resume();
    await waitForWork();
    await vm.pause();
    expect(await digest()).not.toBe(paused);
  });

  test('pause and resume may be called twice', async () => {
    const { vm } = await machine();
    await Promise.all([vm.pause(), vm.resume(), vm.resume()]);
    expect(vm.running).toBe(true);
    await Promise.all([vm.pause(), vm.pause()]);
    expect(vm.running).toBe(false);
  });
}

function describeSave(bench: Bench): void {
  test('a machine that is loaded equals the one that was saved, and runs', async () => {
    const source = await usedMachine(bench);
    const target = await bench.machine();
    const store = bench.store();
    const saved = await saveVm(source.vm, store);
    const loaded = await loadVm(target.vm, store);
    expect(loaded.root).toBe(saved.root);
    expect(target.vm.running).toBe(false);
    expect(await target.digest()).toBe(await source.digest());
    await target.vm.resume();
    await target.waitForWork();
    await target.vm.pause();
    expect(await target.digest()).not.toBe(await source.digest());
  });

  test('a running machine is paused for the save and runs again; the checkpoint is of one moment', async () => {
    const source = await bench.machine();
    const target = await bench.machine();
    const store = bench.store();
    await source.vm.resume();
    await source.waitForWork();
    const { pausedMs } = await saveVm(source.vm, store);
    expect(pausedMs).toBeGreaterThan(0);
    expect(source.vm.running).toBe(true);
    await source.waitForWork();
    await source.vm.pause();
    if (source.isOfOneMoment !== undefined) expect(await source.isOfOneMoment()).toBe(true);
    await loadVm(target.vm, store);
    if (target.isOfOneMoment !== undefined) expect(await target.isOfOneMoment()).toBe(true);
    expect(await target.digest()).not.toBe(await source.digest());
  });

  test('with copyMemory a running machine runs on while its memory is written; the checkpoint is of one moment', async () => {
    const source = await bench.machine();
    const target = await bench.machine();
    const store = bench.store();
    await source.vm.resume();
    await source.waitForWork();
    const ranInMemoryPhase: boolean[] = [];
    const onProgress = ({ phase }: Progress): void => {
      if (phase === 'memory') ranInMemoryPhase.push(source.vm.running);
    };
    const { pausedMs } = await saveVm(source.vm, store, { copyMemory: true, onProgress });
    expect(pausedMs).toBeGreaterThan(0);
    expect(ranInMemoryPhase).not.toHaveLength(0);
    expect(ranInMemoryPhase).not.toContain(false);
    await source.waitForWork();
    await source.vm.pause();
    await loadVm(target.vm, store);
    if (target.isOfOneMoment !== undefined) expect(await target.isOfOneMoment()).toBe(true);
    expect(await target.digest()).not.toBe(await source.digest());
    await target.vm.resume();
    await target.waitForWork();
  });

  test('two saves of a paused machine are equal byte for byte', async () => {
    const { vm } = await usedMachine(bench);
    const [first, second] = [bench.store(), bench.store()];
    await saveVm(vm, first, { ...fixed, threads: 1 });
    await saveVm(vm, second, { ...fixed, threads: 3 });
    expect(isEqual(await readAll(first), await readAll(second))).toBe(true);
  });

  test('saving changes nothing in the machine', async () => {
    const { vm, digest } = await usedMachine(bench);
    const before = await digest();
    await saveVm(vm, bench.store());
    expect(await digest()).toBe(before);
  });
}

function describeSkip(bench: Bench, { loadsWithoutMemory = true }: MachineFactory): void {
  const skips: readonly (readonly SkipPart[])[] = [
    ...(loadsWithoutMemory ? [['memory'] as const] : []),
    ['devices'],
    ['cores'],
    ['archdep'],
    ['memory', 'devices', 'cores', 'archdep'],
  ];
  test.each(skips.map((skip) => ({ skip })))(
    'what was not saved ($skip) cannot be loaded',
    async ({ skip }) => {
      const source = await usedMachine(bench);
      const target = await bench.machine();
      const store = bench.store();
      const before = await target.digest();
      await saveVm(source.vm, store, { skip });
      await expect(loadVm(target.vm, store)).rejects.toMatchObject({ code: 'CHKPT_SKIPPED' });
      expect(await target.digest()).toBe(before);
      await loadVm(target.vm, store, { skip });
      expect((await target.digest()) === (await source.digest())).toBe(isNothing(source.vm, skip));
    },
  );

  test.each(skips.map((skip) => ({ skip })))(
    'a load leaves alone what it skips ($skip)',
    async ({ skip }) => {
      const source = await usedMachine(bench);
      const target = await bench.machine();
      const [whole, part, rest] = [bench.store(), bench.store(), bench.store()];
      await saveVm(source.vm, whole);
      const before = await target.digest();
      await loadVm(target.vm, whole, { skip });
      if (skip.length === 4) expect(await target.digest()).toBe(before);
      // What was loaded is the source's: both give the same checkpoint of it. With the rest they are equal.
      await saveVm(target.vm, part, { ...fixed, skip });
      await saveVm(source.vm, rest, { ...fixed, skip });
      expect(isEqual(await readAll(part), await readAll(rest))).toBe(true);
      await loadVm(target.vm, whole);
      expect(await target.digest()).toBe(await source.digest());
    },
  );
}

/** True when a machine has nothing that `skip` leaves out. */
function isNothing(vm: VirtualMachine, skip: readonly SkipPart[]): boolean {
  const has: Readonly<Record<SkipPart, boolean>> = {
    memory: vm.memory !== undefined,
    devices: vm.devices.length > 0,
    cores: vm.cores.length > 0,
    archdep: vm.cores.some(({ dependent = [] }) => dependent.length > 0),
  };
  return !skip.some((part) => has[part]);
}

function describeMismatch(bench: Bench, { others }: MachineFactory): void {
  const kinds = (Object.keys(others) as Mismatch[]).filter((kind) => others[kind] !== undefined);
  test.each(kinds)('a machine that differs in %s refuses the checkpoint and stays as it is', async (kind) => {
    const source = await usedMachine(bench);
    const target = await bench.machine(others[kind]);
    const store = bench.store();
    await saveVm(source.vm, store);
    const before = await target.digest();
    const refused = { code: mismatchCodes[kind], details: { store: store.url } };
    await expect(loadVm(target.vm, store)).rejects.toMatchObject(refused);
    expect(await target.digest()).toBe(before);
    await target.vm.resume();
    await target.vm.pause();
    if (kind !== 'id' && kind !== 'cpu') return;
    await loadVm(target.vm, store, { ignore: [kind] });
    expect(await target.digest()).toBe(await source.digest());
  });

  test('a running machine refuses to be loaded into and goes on running', async () => {
    const source = await usedMachine(bench);
    const target = await bench.machine();
    const store = bench.store();
    await saveVm(source.vm, store);
    await target.vm.resume();
    const refused = { code: 'CHKPT_VM_RUNNING' };
    await expect(loadVm(target.vm, store)).rejects.toMatchObject(refused);
    // Also before it looks for a checkpoint.
    await expect(loadVm(target.vm, bench.store())).rejects.toMatchObject(refused);
    expect(target.vm.running).toBe(true);
    await target.waitForWork();
  });

  test('a machine that is let run while its checkpoint is opened is not loaded into', async () => {
    const source = await usedMachine(bench);
    const target = await bench.machine();
    const store = bench.store();
    await saveVm(source.vm, store);
    const load = loadVm(target.vm, store);
    await target.vm.resume();
    await expect(load).rejects.toMatchObject({ code: 'CHKPT_VM_RUNNING' });
    await target.waitForWork();
    await target.vm.pause();
    await target.vm.resume();
  });
}

function describeAbort(bench: Bench): void {
  const phases = ['state', 'memory', 'commit'] as const;
  const moments = phases.flatMap((phase) => [[phase, 'running'] as const, [phase, 'paused'] as const]);

  test.each(moments)(
    'a save aborted in phase %s publishes nothing; a %s machine is as before',
    async (phase, mode) => {
      const source = await usedMachine(bench);
      const [store, older] = [bench.store(), bench.store()];
      await saveVm(source.vm, older);
      const olderBytes = await readAll(older);
      if (mode === 'running') await source.vm.resume();
      for (const target of [store, older]) {
        await expect(saveVm(source.vm, target, abortIn(phase))).rejects.toMatchObject({
          code: 'CHKPT_ABORTED',
        });
        expect(source.vm.running).toBe(mode === 'running');
      }
      if (mode === 'running') await source.waitForWork();
      await expect(store.openReader()).rejects.toMatchObject({ code: 'CHKPT_NOT_FOUND' });
      expect(isEqual(await readAll(older), olderBytes)).toBe(true);
    },
  );

  test('an aborted load leaves a machine that does not run until it is loaded again', async () => {
    const source = await usedMachine(bench);
    const target = await bench.machine();
    const store = bench.store();
    await saveVm(source.vm, store);
    const load = loadVm(target.vm, store, abortIn('memory'));
    await expect(load).rejects.toMatchObject({ code: 'CHKPT_ABORTED' });
    await expect(target.vm.resume()).rejects.toMatchObject({ code: 'CHKPT_VM_FAILED' });
    await loadVm(target.vm, store);
    expect(await target.digest()).toBe(await source.digest());
    await target.vm.resume();
  });

  test('a load aborted before it touched the machine leaves it as it is', async () => {
    const target = await usedMachine(bench);
    const store = bench.store();
    await saveVm(target.vm, store);
    const before = await target.digest();
    for (const options of [{ signal: AbortSignal.abort() }, abortIn('state')]) {
      await expect(loadVm(target.vm, store, options)).rejects.toMatchObject({ code: 'CHKPT_ABORTED' });
      expect(await target.digest()).toBe(before);
    }
    await target.vm.resume();
  });
}

/** Options that abort a save or load when it comes to a phase. */
function abortIn(phase: Progress['phase']): {
  signal: AbortSignal;
  onProgress: (progress: Progress) => void;
} {
  const stop = new AbortController();
  return { signal: stop.signal, onProgress: (progress) => progress.phase === phase && stop.abort() };
}

/** Equal bytes; `toEqual` would print both on failure. */
function isEqual(left: Buffer, right: Buffer): boolean {
  return left.equals(right);
}
