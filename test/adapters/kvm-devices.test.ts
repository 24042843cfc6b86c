/** Devices of KVM machines that JavaScript serves, the serial port, and everything that goes wrong. */
import { execFileSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, describe, expect, test } from 'vitest';
import { guestOptions, Latch, whyNoKvm } from '../../bench/guests/kvm.ts';
import { type KvmAccess, type KvmDevice, KvmVm, type KvmVmOptions } from '../../src/adapters/kvm/index.ts';
import { loadVm, MemoryStoreSpace, type StatePart, saveVm, type VirtualMachine } from '../../src/index.ts';
import { buildCommandLine } from '../cli/support/dist.ts';
import { KvmStart, snapshotOf } from './support/kvm-start.ts';

const missing = await whyNoKvm();
if (missing !== undefined) console.warn(`devices of chkpt/kvm are not tested: ${missing}`);

const mebibyte = 1024 ** 2;
const space = new MemoryStoreSpace();
const made: KvmVm[] = [];
afterEach(async () => {
  for (const vm of made.splice(0)) await vm.close();
  for (const name of space.names()) space.delete(name);
});

async function create(options: KvmVmOptions): Promise<KvmVm> {
  const vm = await KvmVm.create({ memoryBytes: 8 * mebibyte, ...options });
  made.push(vm);
  return vm;
}

const wordAt = (vm: KvmVm, address: number): number => Buffer.from(vm.memory.read(address, 4)).readUInt32LE();

async function until(condition: () => boolean, what: string): Promise<void> {
  for (let tries = 0; !condition(); tries += 1) {
    if (tries === 2000) throw new Error(`${what}: in vain`);
    await sleep(5);
  }
}

/** Two bytes that never come, so that nothing stands behind them: the processor cannot go on. */
const undefinedInstruction: KvmVmOptions = {
  image: { bytes: Uint8Array.of(0x0f, 0x0b), address: 0x1000, mode: 'protected' },
};

describe.skipIf(missing !== undefined)('devices of a KVM machine', () => {
  test('see each access of the guest in order, and the guest sees their answers', async () => {
    const seen: string[] = [];
    const tell = ({ space, offset, byteCount }: KvmAccess, what: string): void => {
      if (offset !== 12) seen.push(`${space} ${offset} ${byteCount} ${what}`);
    };
    const device: KvmDevice = {
      id: 'probe',
      deviceClass: 'test.probe',
      ports: { first: 0x500, count: 16 },
      mmio: { base: 0xd000_0000, bytes: 4096 },
      read: (access) => {
        tell(access, 'read');
        // More than fits into the access: the guest gets the lowest bytes.
        return 0x1122_3344_5566_7700n + BigInt(access.offset);
      },
      write: (access, value) => tell(access, value.toString(16)),
    };
    const vm = await create({ ...guestOptions('device-calls'), devices: [device] });
    await vm.resume();
    await until(() => wordAt(vm, 0x30_0000) > 10, 'reads');
    await vm.pause();
    const text = [...'chkpt'].map((letter) => `ports 4 1 ${letter.charCodeAt(0).toString(16)}`);
    expect(seen).toEqual([
      ...['ports 0 1 read', 'ports 1 2 read', 'ports 4 4 read'],
      ...['ports 4 1 11', 'ports 4 2 2211', 'ports 4 4 44332211', ...text],
      ...['ports 8 2 read', 'ports 8 2 read', 'ports 8 2 read'],
      ...['mmio 3 1 read', 'mmio 4 2 read', 'mmio 8 4 read'],
      ...['mmio 1 1 55', 'mmio 2 2 6655', 'mmio 4092 4 88776655'],
    ]);
    const results = [0, 4, 8, 12, 16, 20, 24, 32].map((offset) => wordAt(vm, 0x30_0100 + offset));
    const floating = 0xffff_ffff;
    expect(results.map((value) => value.toString(16))).toEqual(
      [0, 0x7701, 0x5566_7704, 3, 0x7704, 0x5566_7708, floating, 0x7708_7708].map((n) => n.toString(16)),
    );
  });

  test('are saved and loaded with their contexts', async () => {
    const latch = new Latch();
    const source = await create({ ...guestOptions('self-check'), devices: [latch] });
    const target = await create({ ...guestOptions('self-check'), devices: [new Latch()] });
    latch.value = 7;
    await saveVm(source, space.store('latch'));
    await loadVm(target, space.store('latch'));
    expect((await snapshotOf(target)).get('latch/value')).toBe('07000000');
  });

  test('one that throws: the guest stops and does not go on until a sound checkpoint is loaded', async () => {
    let broken = false;
    const device: KvmDevice = {
      id: 'fragile',
      deviceClass: 'test.fragile',
      ports: { first: 0x500, count: 16 },
      read: () => {
        if (broken) throw new Error('worn out');
        return 0;
      },
      write: () => undefined,
    };
    const vm = await create({ ...guestOptions('device-calls'), devices: [device] });
    await saveVm(vm, space.store('sound'));
    await vm.resume();
    await until(() => wordAt(vm, 0x30_0000) > 3, 'reads');
    broken = true;
    await until(() => !vm.running, 'a stop');
    expect(vm.failure?.message).toBe('worn out');
    await expect(vm.resume()).rejects.toMatchObject({ code: 'CHKPT_VM_FAILED' });
    await expect(saveVm(vm, space.store('broken'))).rejects.toMatchObject({ code: 'CHKPT_VM_FAILED' });
    broken = false;
    await loadVm(vm, space.store('sound'));
    const before = wordAt(vm, 0x30_0000);
    await vm.resume();
    await until(() => wordAt(vm, 0x30_0000) > before + 3, 'reads');
  });

  test.each([
    [{ ports: { first: 0x3fb, count: 4 } }],
    [{ ports: { first: 0xffff, count: 2 } }],
    [{ mmio: { base: 4 * mebibyte, bytes: 4096 } }],
    [{ mmio: { base: -1n, bytes: 4096 } }],
    [{ mmio: { base: 1n << 40n, bytes: 0 } }],
  ])('that cannot be are refused: %o', async (place) => {
    const device: KvmDevice = { id: 'd', deviceClass: 'd', read: () => 0, write: () => undefined, ...place };
    await expect(create({ devices: [device] })).rejects.toThrow(RangeError);
  });
});

describe.skipIf(missing !== undefined)('the serial port of a KVM machine', () => {
  const text = Array.from({ length: 3000 }, (_, index) => 'abcdefgh'[index % 8]).join('');
  const answer = text.replace(/./g, (letter) => String.fromCharCode(letter.charCodeAt(0) + 1));

  test('takes bytes as fast as the guest reads them', async () => {
    const start = new KvmStart();
    const vm = await create({ ...guestOptions('serial-echo'), onSerial: start.onSerial });
    await vm.resume();
    for (let at = 0; at < text.length; at += 100) vm.writeSerial(Buffer.from(text.slice(at, at + 100)));
    await until(() => start.text.length >= text.length, 'answers');
    expect(start.text).toBe(answer);
  });

  test('what it has received and the guest has not read goes into the checkpoint', async () => {
    const source = await create(guestOptions('serial-echo'));
    const start = new KvmStart();
    const target = await create({ ...guestOptions('serial-echo'), onSerial: start.onSerial });
    source.writeSerial(Buffer.from('abc'));
    await saveVm(source, space.store('serial'));
    expect((await snapshotOf(source)).get('serial0/received_count')).toBe('03');
    await loadVm(target, space.store('serial'));
    await target.resume();
    await until(() => start.text.length >= 3, 'answers');
    expect(start.text).toBe('bcd');
  });

  test('more than 1 MiB that waits is refused', async () => {
    const vm = await create(guestOptions('serial-echo'));
    vm.writeSerial(new Uint8Array(mebibyte));
    expect(() => vm.writeSerial(new Uint8Array(100))).toThrow(RangeError);
    await vm.close();
    expect(() => vm.writeSerial(new Uint8Array(1))).toThrow(
      expect.objectContaining({ code: 'CHKPT_CLOSED' }),
    );
  });
});

describe.skipIf(missing !== undefined)('a KVM machine', () => {
  test('tells of a processor that cannot go on, and can be paused, loaded and closed then', async () => {
    const start = new KvmStart();
    const vm = await create({ ...undefinedInstruction, onEnd: start.onEnd });
    await saveVm(vm, space.store('start'));
    await vm.resume();
    await until(() => start.ends.length > 0, 'an end');
    expect(start.ends).toEqual([{ core: 0, reason: expect.stringMatching(/shutdown|internal error/) }]);
    expect(vm.running).toBe(true);
    await vm.pause();
    await loadVm(vm, space.store('start'));
    await vm.resume();
    await until(() => start.ends.length > 1, 'an end');
  });

  /** A machine whose state has one tag replaced. */
  function forged(vm: KvmVm, context: string, tag: string, change: (data: Buffer) => void): VirtualMachine {
    const forge = (parts: readonly StatePart<never>[]): StatePart<never>[] =>
      parts.map((part) => ({
        ...part,
        state: Object.assign(Object.create(part.state), {
          encode: (one: never) =>
            part.state.encode(one).map((item) => {
              if (item.tag !== tag) return item;
              const data = Buffer.from(item.data);
              change(data);
              return { ...item, data };
            }),
        }),
      }));
    const { id, cpu, memory } = vm;
    const devices = vm.devices.map((device) => ({
      ...device,
      contexts: device.contexts.map(({ name, parts }) => ({
        name,
        parts: name === context ? forge(parts) : parts,
      })),
    }));
    const cores = vm.cores.map(({ independent, dependent = [] }, core) => ({
      independent: context === `core${core}` ? forge(independent) : independent,
      dependent: context === `core${core}.arch` ? forge(dependent) : dependent,
    }));
    const idle = async (): Promise<void> => undefined;
    return {
      ...{ id, cpu, memory, devices, cores, running: false, pause: idle, resume: idle },
      beginLoad: () => undefined,
      endLoad: () => undefined,
    };
  }

  test.each([
    ['core0', 'cr4', 'CHKPT_UNSUPPORTED', (data: Buffer) => data.writeBigUInt64LE(1n << 40n)],
    [
      'core0.arch',
      'msr.kernel_gs_base',
      'CHKPT_UNSUPPORTED',
      (data: Buffer) => data.writeBigUInt64LE(1n << 63n),
    ],
    // KVM takes it, and puts its own version of the controller there.
    ['core0.arch', 'lapic.regs', 'CHKPT_VM_CPU', (data: Buffer) => data.writeUInt32LE(0x7f, 0x30)],
  ])('state that KVM does not take (%s %s): a typed error, and a sound load heals', async (...place) => {
    const [context, tag, code, change] = place;
    const source = await create(guestOptions('self-check'));
    const target = await create(guestOptions('self-check'));
    await saveVm(source, space.store('sound'));
    await saveVm(forged(source, context, tag, change), space.store('forged'));
    await expect(loadVm(target, space.store('forged'))).rejects.toMatchObject({ code });
    await expect(target.resume()).rejects.toMatchObject({ code: 'CHKPT_VM_FAILED' });
    await loadVm(target, space.store('sound'));
    await target.resume();
    await until(() => wordAt(target, 0x30_0000) > 10, 'rounds');
  });

  test('more bytes than a serial port holds are refused before anything is touched', async () => {
    const vm = await create(guestOptions('self-check'));
    await saveVm(
      forged(vm, 'serial0', 'received_count', (data) => data.writeUInt8(17)),
      space.store('forged'),
    );
    await expect(loadVm(vm, space.store('forged'))).rejects.toMatchObject({
      code: 'CHKPT_VM_DEVICES',
      details: { context: 'serial0', tag: 'received_count' },
    });
    await vm.resume();
  });

  test('is closed while it runs, twice, and then does nothing', async () => {
    const vm = await create({ ...guestOptions('self-check'), devices: [new Latch()], cores: 2 });
    await vm.resume();
    await Promise.all([vm.close(), vm.close()]);
    expect(vm.running).toBe(false);
    await expect(vm.resume()).rejects.toMatchObject({ code: 'CHKPT_CLOSED' });
  });

  test('gives memory and descriptors back when it is closed', async () => {
    const held = (): { kvm: number; bytes: number } => {
      const kvm = readdirSync('/proc/self/fd').filter((fd) => {
        try {
          return readlinkSync(`/proc/self/fd/${fd}`).includes('kvm');
        } catch {
          return false;
        }
      });
      const [, kib] = /^VmSize:\s+(\d+) kB$/m.exec(readFileSync('/proc/self/status', 'utf8')) ?? [];
      return { kvm: kvm.length, bytes: Number(kib) * 1024 };
    };
    const before = held();
    const vm = await create({ ...guestOptions('self-check'), memoryBytes: 2048 * mebibyte, cores: 2 });
    await vm.resume();
    await until(() => wordAt(vm, 0x30_0000) > 10, 'rounds');
    const open = held();
    expect(open.kvm - before.kvm).toBeGreaterThanOrEqual(4);
    expect(open.bytes - before.bytes).toBeGreaterThan(2000 * mebibyte);
    await vm.close();
    const after = held();
    expect(after.kvm).toBe(before.kvm);
    expect(open.bytes - after.bytes).toBeGreaterThan(2000 * mebibyte);
    expect(() => vm.setIrqLine(5, true)).toThrow(expect.objectContaining({ code: 'CHKPT_CLOSED' }));
  });

  test.each([
    [{ id: '' }, TypeError],
    [{ cores: 0 }, RangeError],
    [{ cores: 65 }, RangeError],
    [{ memoryBytes: 4097 }, RangeError],
    [{ memoryBytes: mebibyte, regions: [] }, TypeError],
    [{ image: { bytes: new Uint8Array(1), address: 0, mode: 'long' as never } }, TypeError],
    [{ image: { bytes: new Uint8Array(1), address: 0x10_0000 } }, RangeError],
    [{ image: { bytes: new Uint8Array(9), address: 8 * mebibyte - 4, mode: 'protected' } }, RangeError],
    [{ devices: [new Latch(), new Latch()] }, TypeError],
  ] as const)('that cannot be is refused: %o', async (options, error) => {
    await expect(create(options as KvmVmOptions)).rejects.toThrow(error);
  });
});

test('without /dev/kvm the package loads, and a machine is refused by a typed error', ({ skip }) => {
  const kvm = buildCommandLine().replace('cli/main.js', 'adapters/kvm/index.js');
  const script = `import('${kvm}').then(({ KvmVm }) => KvmVm.create()).catch(({ code, message }) => console.log(code, message))`;
  const hide = existsSync('/dev/kvm') ? 'mount --bind /dev/null /dev/kvm && ' : '';
  const run = ['-m', 'sh', '-c', `${hide}exec "$0" -e "$1"`, process.execPath, script];
  let output: string;
  try {
    output = execFileSync('unshare', run, { encoding: 'utf8', stdio: 'pipe' });
  } catch (error) {
    console.warn(`a missing /dev/kvm is not tested: ${(error as { stderr?: string }).stderr}`);
    skip();
    return;
  }
  expect(output).toMatch(/^CHKPT_UNSUPPORTED no usable KVM: \/dev\/kvm/);
});
