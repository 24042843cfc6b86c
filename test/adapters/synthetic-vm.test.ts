/**
 * The promises of every machine, for the synthetic one over each kind of store; and what it promises beside
 * them.
 */
import { setTimeout } from 'node:timers/promises';
import { afterEach, describe, expect, test } from 'vitest';
import { SyntheticVm, type SyntheticVmOptions } from '../../src/adapters/synthetic/index.ts';
import { loadVm, MemoryStoreSpace, openStore, saveVm } from '../../src/index.ts';
import {
  describeVirtualMachine,
  type MachineFactory,
  type TestMachine,
} from '../conformance/virtual-machine.suite.ts';
import { makeFolder } from '../store/support/folders.ts';

const mebibyte = 1024 * 1024;

const small: SyntheticVmOptions = {
  regions: [
    { base: 0, bytes: 6 * mebibyte },
    { base: 2 ** 32, bytes: 2 * mebibyte },
  ],
  guestLike: true,
  cores: 2,
  threads: 2,
  pagesPerSecond: 20_000,
};

async function testMachine(options: SyntheticVmOptions = {}): Promise<TestMachine> {
  const vm = await SyntheticVm.create({ ...small, ...options });
  return {
    vm,
    digest: () => vm.digest(),
    waitForWork: async () => {
      const begin = vm.ticks;
      while (vm.ticks < begin + 50n) await setTimeout(1);
    },
    isOfOneMoment: async () => {
      const { damaged, highestCounter } = await vm.checkStamps();
      return damaged === 0 && BigInt(highestCounter) === vm.ticks;
    },
    trackChanges: () => vm.trackChanges(),
    close: () => vm.close(),
  };
}

const factory: MachineFactory = {
  create: () => testMachine(),
  others: {
    id: () => testMachine({ id: 'another' }),
    cpu: () => testMachine({ cpu: { vendor: 'Synthetic', model: 'SVM-2' } }),
    regions: () => testMachine({ regions: [{ base: 0, bytes: 8 * mebibyte }] }),
    cores: () => testMachine({ cores: 3 }),
    devices: () => testMachine({ drives: 3 }),
  },
};

const space = new MemoryStoreSpace();
let count = 0;

describeVirtualMachine('synthetic over mem:', factory, () => space.store(`vm${count++}`));
describeVirtualMachine('synthetic over file:', factory, () => openStore(`file:${makeFolder()}/vm.chkpt`));
describeVirtualMachine('synthetic over dir:', factory, () => openStore(`dir:${makeFolder()}/vm`));

afterEach(() => {
  for (const name of space.names()) space.delete(name);
});

describe('the synthetic machine', () => {
  const made: SyntheticVm[] = [];
  afterEach(async () => {
    for (const vm of made.splice(0)) await vm.close();
  });
  const create = async (options: SyntheticVmOptions = {}): Promise<SyntheticVm> => {
    const vm = await SyntheticVm.create({ memoryBytes: 4 * mebibyte, pagesPerSecond: 0, ...options });
    made.push(vm);
    return vm;
  };
  const run = async (vm: SyntheticVm, ticks: bigint): Promise<void> => {
    const end = vm.ticks + ticks;
    await vm.resume();
    while (vm.ticks < end) await setTimeout(1);
    await vm.pause();
  };

  test('its clock goes on after a load, and so do the stamps in memory', async () => {
    const source = await create();
    await run(source, 500n);
    const store = space.store('clock');
    await saveVm(source, store);
    const target = await create();
    await loadVm(target, store);
    expect(target.ticks).toBe(source.ticks);
    expect(target.pagesWritten).toBe(0);
    const { highestCounter } = await target.checkStamps();
    await run(target, 500n);
    expect(target.ticks - source.ticks).toBe(BigInt(target.pagesWritten));
    const check = await target.checkStamps();
    expect(check.damaged).toBe(0);
    expect(check.highestCounter).toBeGreaterThan(highestCounter);
    expect(BigInt(check.highestCounter)).toBeLessThanOrEqual(target.ticks);
  });

  test('every device and processor changes as the machine runs', async () => {
    const vm = await create({ cores: 2 });
    const snapshot = async (): Promise<Map<string, string>> => {
      const contexts = [...vm.devices.flatMap((device) => device.contexts)];
      for (const [index, core] of vm.cores.entries()) {
        contexts.push({ name: `core${index}`, parts: core.independent });
        contexts.push({ name: `core${index}.arch`, parts: core.dependent ?? [] });
      }
      const states = new Map<string, string>();
      for (const { name, parts } of contexts) {
        for (const [index, part] of parts.entries()) {
          const tags = part.state.encode((await part.get()) as never);
          states.set(
            `${name} ${index}`,
            tags.map(({ tag, data }) => `${tag}=${Buffer.from(data).toString('hex')}`).join(),
          );
        }
      }
      return states;
    };
    const before = await snapshot();
    await run(vm, 1000n);
    const after = await snapshot();
    const same = [...before].filter(([name, state]) => after.get(name) === state).map(([name]) => name);
    expect(before.size).toBe(7 + 2 * 2);
    expect(same).toEqual([]);
  });

  test('the writers stay within writePages', async () => {
    const first = 100;
    const vm = await create({ writePages: { first, count: 50 }, threads: 2, pattern: 'hotspot' });
    await run(vm, 2000n);
    const { stamped, damaged } = await vm.checkStamps();
    expect(stamped).toBeGreaterThan(0);
    expect(stamped).toBeLessThanOrEqual(50);
    expect(damaged).toBe(0);
    const outside = [
      vm.memory.read(0, first * 4096),
      vm.memory.read((first + 50) * 4096, (1024 - first - 50) * 4096),
    ];
    expect(outside.every((bytes) => bytes.every((byte) => byte === 0))).toBe(true);
  });

  test('a damaged stamp is found', async () => {
    const vm = await create({ pattern: 'sequential', writePages: { first: 0, count: 8 } });
    await run(vm, 100n);
    expect(await vm.checkStamps()).toMatchObject({ stamped: 8, damaged: 0 });
    const page = vm.memory.read(5 * 4096, 4096);
    vm.memory.write(3 * 4096, page);
    expect(await vm.checkStamps()).toMatchObject({ stamped: 7, damaged: 1, firstDamaged: 3 });
  });

  test('equal options and seed give equal machines, another seed another one', async () => {
    const options = { guestLike: true, memoryBytes: 2 * mebibyte };
    const [one, same, other] = [
      await create(options),
      await create(options),
      await create({ ...options, seed: 2 }),
    ];
    expect(await one.digest()).toBe(await same.digest());
    expect(await other.digest()).not.toBe(await one.digest());
  });

  test('digest and stamps are refused while it runs', async () => {
    const vm = await create();
    await vm.resume();
    await expect(vm.digest()).rejects.toMatchObject({ code: 'CHKPT_VM_RUNNING' });
    await expect(vm.checkStamps()).rejects.toMatchObject({ code: 'CHKPT_VM_RUNNING' });
  });

  test('close stops a running machine, may be called twice, and nothing runs afterwards', async () => {
    const vm = await create();
    await vm.resume();
    await Promise.all([vm.close(), vm.close()]);
    expect(vm.running).toBe(false);
    await expect(vm.resume()).rejects.toMatchObject({ code: 'CHKPT_CLOSED' });
  });

  test.each([
    { cores: -1 },
    { threads: 0 },
    { threads: 65 },
    { pagesPerSecond: 0.5 },
    { pattern: 'zigzag' as 'random' },
    { id: '' },
    { seed: -1 },
    { seed: 1n << 64n },
    { writePages: { first: 0, count: 0 } },
    { writePages: { first: 1024, count: 1 } },
    { writePages: { first: 1, count: 1024 } },
    { memoryBytes: 4097 },
    { regions: [{ base: 0, bytes: 4096 }] },
  ])('options that cannot be are refused: %o', async (options: SyntheticVmOptions) => {
    await expect(create(options)).rejects.toThrow(/must be|unknown|whole pages|not both/);
  });
});
