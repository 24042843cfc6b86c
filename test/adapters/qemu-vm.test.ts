/** The promises of every machine for QEMU guests that chkpt starts: 32-bit code that stamps pages. */
import { createHash } from 'node:crypto';
import { afterEach, describe, expect, test } from 'vitest';
import { assembleGuest } from '../../bench/guests/assembled.ts';
import { whyNoQemu } from '../../bench/guests/qemu.ts';
import { type QemuStartOptions, QemuVm } from '../../src/adapters/qemu/index.ts';
import { inspectCheckpoint, loadVm, MemoryStoreSpace, saveVm } from '../../src/index.ts';
import {
  describeVirtualMachine,
  type MachineFactory,
  type TestMachine,
} from '../conformance/virtual-machine.suite.ts';
import { counterOf, isOfOneMoment, registersOf, untilSteps } from './support/stamp-guest.ts';

const missing = whyNoQemu();
if (missing !== undefined) console.warn(`chkpt/qemu is not tested: ${missing}`);
const guest = missing === undefined ? assembleGuest('stamp-pages', 'elf') : '';

const mebibyte = 1024 ** 2;
/** The guest has written each of its pages. */
const stampedPages = 2048;

const machine = (rest: readonly string[] = []): string[] => [
  ...['-nodefaults', '-display', 'none', '-vga', 'none', '-no-reboot', '-kernel', guest],
  ...['-machine', 'pc-q35-7.2,accel=tcg', '-cpu', 'qemu64', ...rest],
];

function start(options: Partial<QemuStartOptions> = {}): Promise<QemuVm> {
  return QemuVm.start({ arguments: machine(), memoryBytes: 32 * mebibyte, ...options });
}

async function testMachine(options: Partial<QemuStartOptions> = {}): Promise<TestMachine> {
  const vm = await start(options);
  return {
    vm,
    digest: async () => {
      const hash = createHash('sha256').update(String(await vm.memory.digest()));
      return hash.update(await registersOf(vm)).digest('hex');
    },
    waitForWork: () => untilSteps(vm, Math.max(counterOf(vm), stampedPages) + 1),
    isOfOneMoment: () => isOfOneMoment(vm),
    trackChanges: () => vm.trackChanges(),
    close: () => vm.close(),
  };
}

const factory: MachineFactory = {
  create: () => testMachine(),
  others: {
    id: () => testMachine({ id: 'another' }),
    regions: () => testMachine({ memoryBytes: 64 * mebibyte }),
    cores: () => testMachine({ arguments: machine(['-smp', '2']) }),
    devices: () => testMachine({ arguments: machine(['-device', 'isa-debug-exit']) }),
  },
  loadsWithoutMemory: false,
};

const space = new MemoryStoreSpace();
let count = 0;
afterEach(() => {
  for (const name of space.names()) space.delete(name);
});

describe.skipIf(missing !== undefined)('qemu', () => {
  describeVirtualMachine('QEMU over mem:', factory, () => space.store(`qemu-${count++}`));

  const others = [
    ['CPU model', 'CHKPT_VM_CPU', machine(['-cpu', 'Nehalem']), ''],
    ['CPU feature', 'CHKPT_VM_CPU', machine(['-cpu', 'qemu64,+sse4.2']), 'cpu.features'],
    ['machine type', 'CHKPT_VM_MACHINE', machine(['-machine', 'pc-q35-7.1']), 'machine'],
    ['machine family', 'CHKPT_VM_MACHINE', machine(['-machine', 'pc-i440fx-7.2']), 'machine'],
    ['name', 'CHKPT_VM_ID', machine(['-name', 'web-1']), ''],
  ] as const;
  test.each(others)('another %s is %s, and the machine is as before', async (_, code, parameters, tag) => {
    await using source = await start();
    await using target = await start({ arguments: parameters });
    await saveVm(source, space.store('other'));
    const before = await target.memory.digest();
    const refused = expect(loadVm(target, space.store('other'))).rejects;
    await refused.toMatchObject({ code, ...(tag === '' ? {} : { details: { context: 'qemu', tag } }) });
    expect(await target.memory.digest()).toBe(before);
    await target.resume();
  });

  test('the state of another version of QEMU is refused, and the machine is as before', async () => {
    await using source = await start();
    await using target = await start();
    const [device] = source.devices;
    const [part] = device?.contexts[0]?.parts ?? [];
    const get = part?.get.bind(part) as (() => Promise<object>) | undefined;
    Object.assign(part ?? {}, { get: async () => ({ ...(await get?.()), version: '6.0.0' }) });
    await saveVm(source, space.store('older'));
    const before = await target.memory.digest();
    await expect(loadVm(target, space.store('older'))).rejects.toMatchObject({
      code: 'CHKPT_VM_MACHINE',
      details: { context: 'qemu', tag: 'version', actual: '6.0.0' },
    });
    expect(await target.memory.digest()).toBe(before);
    await target.resume();
  });

  test('memory above 4 GiB is a region of its own', { timeout: 120_000 }, async () => {
    await using source = await start({ memoryBytes: 3072 * mebibyte });
    expect(source.memory.regions).toEqual([
      { base: 0n, bytes: 2048n * BigInt(mebibyte) },
      { base: 4096n * BigInt(mebibyte), bytes: 1024n * BigInt(mebibyte) },
    ]);
    // What is written at 4 GiB is at 2 GiB of the backend: QEMU itself says what the guest sees there.
    source.memory.write(4n * 1024n ** 3n, Buffer.from('chkpt'));
    const seen = { 'command-line': 'xp /5bx 0x100000000' };
    expect(await source.qmp.execute('human-monitor-command', seen)).toMatch(/0x63 0x68 0x6b 0x70 0x74/);
  });

  test('device state can be loaded over memory that was brought otherwise', async () => {
    await using source = await start();
    await using target = await start();
    await source.resume();
    await untilSteps(source, stampedPages);
    await source.pause();
    await saveVm(source, space.store('state'), { skip: ['memory'] });
    const copy = source.memory.read(0, 32 * mebibyte);
    target.memory.write(0, copy);
    await loadVm(target, space.store('state'), { skip: ['memory'] });
    expect(await registersOf(target)).toBe(await registersOf(source));
    await target.resume();
    await untilSteps(target, counterOf(source) + 1);
  });

  test('what a checkpoint says of its QEMU', async () => {
    await using vm = await start();
    await saveVm(vm, space.store('facts'));
    await using inspection = await inspectCheckpoint(space.store('facts'));
    const { value: type } = await inspection.readTag('qemu', 'machine');
    expect(type).toBe('pc-q35-7.2-machine');
    expect((await inspection.readTag('qemu', 'version')).value).toMatch(/^\d+\.\d+\.\d+$/);
    expect((await inspection.readTag('qemu', 'ram.backend')).value).toBe('ram');
    expect((await inspection.readTag('qemu', 'devices')).value).toMatch(/^ICH9-LPC$/m);
  });

  test('device state that QEMU refuses: a typed error with its words, and a sound load heals', async () => {
    await using source = await start();
    await using target = await start();
    await saveVm(source, space.store('sound'));
    const [part] = source.devices[0]?.contexts[0]?.parts ?? [];
    if (part === undefined) throw new Error('no state');
    const forged = {
      ...source,
      id: source.id,
      cpu: source.cpu,
      memory: source.memory,
      cores: [],
      running: false,
      devices: [
        {
          id: 'qemu',
          deviceClass: 'qemu',
          contexts: [
            {
              name: 'qemu',
              parts: [
                {
                  ...part,
                  get: async () => ({
                    ...(await (part.get() as Promise<object>)),
                    state: new Uint8Array(99),
                  }),
                },
              ],
            },
          ],
        },
      ],
    };
    await saveVm(forged as never, space.store('forged'));
    const load = loadVm(target, space.store('forged'));
    await expect(load).rejects.toMatchObject({ code: 'CHKPT_QEMU_STATE', message: /migration stream/ });
    await expect(target.resume()).rejects.toMatchObject({ code: 'CHKPT_VM_FAILED' });
    await loadVm(target, space.store('sound'));
    await target.resume();
    expect(target.running).toBe(true);
  });

  test('a clone gets a generation id of its own, a machine that goes on keeps the one of its arguments', async () => {
    const guid = '11111111-2222-4333-8444-555555555555';
    const parameters = machine(['-device', `vmgenid,guid=${guid},id=generation`]);
    await using source = await start({ arguments: parameters });
    await using target = await start({ arguments: parameters });
    await saveVm(source, space.store('generation'));
    const { generation } = await loadVm(target, space.store('generation'), { as: 'clone' });
    expect(generation).not.toBe(guid);
    expect(await target.qmp.execute('query-vm-generation-id')).toEqual({ guid: generation });
    await loadVm(target, space.store('generation'), { as: 'continue' });
    expect(await target.qmp.execute('query-vm-generation-id')).toEqual({ guid });
    await using mute = await start();
    await expect(loadVm(mute, space.store('generation'), { as: 'clone' })).rejects.toMatchObject({
      code: 'CHKPT_VM_DEVICES',
    });
  });

  test('a tracker that cannot see another process is refused', async () => {
    await using vm = await start();
    expect(() => vm.trackChanges({ kind: 'write-protect' as 'digest' })).toThrow(TypeError);
  });

  test('a QEMU that cannot start says why', async () => {
    const wrong = start({ arguments: ['-machine', 'no-such-machine'] });
    await expect(wrong).rejects.toMatchObject({ code: 'CHKPT_QMP_CLOSED', message: /no-such-machine/ });
    await expect(start({ command: 'no-such-command' })).rejects.toMatchObject({ code: 'CHKPT_NOT_FOUND' });
    await expect(start({ memoryBytes: 5 })).rejects.toThrow(RangeError);
  });
});
