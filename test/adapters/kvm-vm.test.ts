/** The promises of every machine for KVM guests that check themselves: guests/self-check.S. */
import { createHash } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, describe, expect, test } from 'vitest';
import { guestOptions, Latch, whyNoKvm } from '../../bench/guests/kvm.ts';
import { KvmVm, type KvmVmOptions } from '../../src/adapters/kvm/index.ts';
import { inspectCheckpoint, loadVm, MemoryStoreSpace, saveVm } from '../../src/index.ts';
import {
  describeVirtualMachine,
  type MachineFactory,
  type TestMachine,
} from '../conformance/virtual-machine.suite.ts';
import { describeIncrements } from '../conformance/virtual-machine-increment.suite.ts';
import { KvmStart, type Snapshot, snapshotOf } from './support/kvm-start.ts';

const missing = await whyNoKvm();
if (missing !== undefined) console.warn(`chkpt/kvm is not tested: ${missing}`);

const mebibyte = 1024 ** 2;
const roundsAddress = (core: number): number => 0x30_0000 + 64 * core;
const noise = createHash('shake256', { outputLength: 4 * mebibyte }).digest();

/** A machine whose guest has said nothing wrong. */
async function selfChecking(options: KvmVmOptions = {}): Promise<TestMachine & { readonly vm: KvmVm }> {
  const start = new KvmStart();
  const guest = {
    ...guestOptions('self-check'),
    cores: 2,
    memoryBytes: 16 * mebibyte,
    devices: [new Latch()],
  };
  const vm = await KvmVm.create({ ...guest, onSerial: start.onSerial, onEnd: start.onEnd, ...options });
  vm.memory.write(9 * mebibyte, noise);
  const rounds = (core: number): number => Buffer.from(vm.memory.read(roundsAddress(core), 4)).readUInt32LE();
  const coreCount = vm.cores.length;
  return {
    vm,
    trackChanges: () => void vm.trackChanges(),
    digest: async () => {
      const hash = createHash('sha256').update(String(await vm.memory.digest()));
      for (const [tag, value] of await snapshotOf(vm)) hash.update(`${tag}=${value};`);
      return hash.digest('hex');
    },
    waitForWork: async () => {
      const goals = Array.from({ length: coreCount }, (_, core) => rounds(core) + 600);
      for (let tries = 0; goals.some((goal, core) => rounds(core) < goal); tries += 1) {
        start.check();
        if (tries === 3000) throw new Error(`the guest does not work: ${goals} ${rounds(0)} ${rounds(1)}`);
        await sleep(5);
      }
      start.check();
    },
    isOfOneMoment: async () => {
      const state = await snapshotOf(vm);
      return Array.from({ length: coreCount }, (_, core) => {
        const ahead = Number(BigInt(state.get(`core${core}/rbp`) ?? -1n)) - rounds(core);
        return ahead === 0 || ahead === 1;
      }).every(Boolean);
    },
    close: async () => {
      await vm.close();
      start.check();
    },
  };
}

const factory: MachineFactory = {
  create: () => selfChecking(),
  others: {
    id: () => selfChecking({ id: 'another' }),
    // Another stepping.
    cpu: () =>
      selfChecking({
        cpuid: (entries) => entries.map((one) => (one.function === 1 ? { ...one, eax: one.eax ^ 1 } : one)),
      }),
    regions: () => selfChecking({ memoryBytes: 32 * mebibyte }),
    cores: () => selfChecking({ cores: 3 }),
    devices: () => selfChecking({ devices: [] }),
  },
};

const space = new MemoryStoreSpace();
let count = 0;
afterEach(() => {
  for (const name of space.names()) space.delete(name);
});

describe.skipIf(missing !== undefined)('kvm', () => {
  describeVirtualMachine('KVM over mem:', factory, () => space.store(`kvm-${count++}`));

  describe('KVM with dirty rings', () => {
    const made: TestMachine[] = [];
    afterEach(async () => {
      for (const machine of made.splice(0)) await machine.close();
    });
    const machine = async (): Promise<TestMachine> => {
      const one = await selfChecking({ dirtyRing: 65_536 });
      made.push(one);
      return one;
    };
    describeIncrements({ machine, store: () => space.store(`kvm-${count++}`) });
  });

  test('a guest that checks itself finds nothing wrong over ten saves and loads from machine to machine', async () => {
    let machine = await selfChecking();
    for (let generation = 0; generation < 10; generation += 1) {
      await machine.vm.resume();
      await machine.waitForWork();
      await saveVm(machine.vm, space.store(`generation-${generation}`));
      await machine.close();
      machine = await selfChecking();
      await loadVm(machine.vm, space.store(`generation-${generation}`));
    }
    const before = (await snapshotOf(machine.vm)).get('core0/rbp') ?? '';
    await machine.vm.resume();
    await machine.waitForWork();
    await machine.vm.pause();
    expect(BigInt(before)).toBeGreaterThan(6000n);
    await machine.close();
  });

  test('the guest does notice when it gets memory of another moment', async () => {
    const source = await selfChecking();
    const target = await selfChecking();
    // The target works twice: the two must not be of one moment by chance.
    for (const { vm, waitForWork } of [target, target, source]) {
      await vm.resume();
      await waitForWork();
      await vm.pause();
    }
    await saveVm(source.vm, space.store('state'), { skip: ['memory'] });
    await loadVm(target.vm, space.store('state'), { skip: ['memory'] });
    await target.vm.resume();
    await expect(target.waitForWork()).rejects.toThrow(/BAD/);
    await expect(target.close()).rejects.toThrow(/BAD/);
    await source.close();
  });

  test('what a checkpoint holds of the machine', async () => {
    await using vm = await KvmVm.create({ cores: 2, memoryBytes: mebibyte });
    await saveVm(vm, space.store('tags'));
    await using inspection = await inspectCheckpoint(space.store('tags'));
    const names = inspection.contexts.map(({ name }) => name);
    const own = ['pic0', 'pic1', 'ioapic', 'pit', 'clock', 'serial0'];
    const cores = ['core0', 'core0.arch', 'core1', 'core1.arch'];
    expect(names).toEqual(expect.arrayContaining(['header', 'devices', ...own, ...cores]));
    const typeOf = async (context: string, tag: string): Promise<string> =>
      (await inspection.readTag(context, tag)).type;
    // Registers, modes of the processor, and what only this architecture has.
    expect(await typeOf('core0', 'rip')).toBe('u64');
    expect((await inspection.readTag('core0', 'cs.base')).value).toBe(0xffff_0000n);
    expect((await inspection.readTag('core1', 'mp_state')).value).not.toBe(0);
    for (const tag of ['msr.tsc', 'msr.star', 'msr.sysenter_esp', 'debug.dr6', 'events.flags']) {
      expect(await typeOf('core0.arch', tag)).toMatch(/^u(32|64)$/);
    }
    expect(await typeOf('core0.arch', 'lapic.regs')).toBe('u32[]');
    expect(await typeOf('core0.arch', 'xsave.region')).toBe('u32[]');
    expect(await typeOf('clock', 'clock')).toBe('u64');
    expect(await typeOf('pit', 'channels[0].count')).toBe('u32');
  });

  test('more than 4 GiB of memory, in two regions', { timeout: 60_000 }, async () => {
    const regions = [
      { base: 0, bytes: 2 ** 31 },
      { base: 2 ** 32, bytes: 3 * 2 ** 30 },
    ];
    const high = 2 ** 32 + 3 * 2 ** 30 - mebibyte;
    const source = await selfChecking({ memoryBytes: undefined, regions });
    const target = await selfChecking({ memoryBytes: undefined, regions });
    source.vm.memory.write(high, noise.subarray(0, mebibyte));
    await source.vm.resume();
    await source.waitForWork();
    await saveVm(source.vm, space.store('large'));
    await source.close();
    await loadVm(target.vm, space.store('large'));
    expect(noise.subarray(0, mebibyte).equals(target.vm.memory.read(high, mebibyte))).toBe(true);
    await target.vm.resume();
    await target.waitForWork();
    await target.close();
  });

  test('the clock of the guest stands still with it', async () => {
    const { vm, close } = await selfChecking();
    const clock = (state: Snapshot): bigint => BigInt(state.get('clock/clock') ?? 0);
    await vm.resume();
    await vm.pause();
    const paused = clock(await snapshotOf(vm));
    await sleep(400);
    await vm.resume();
    await vm.pause();
    const passed = clock(await snapshotOf(vm)) - paused;
    expect(passed).toBeGreaterThanOrEqual(0n);
    expect(passed).toBeLessThan(400_000_000n);
    await close();
  });
});
