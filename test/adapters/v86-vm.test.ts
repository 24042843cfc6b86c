/**
 * The promises of every machine for v86 emulators that run their BIOS. A real Linux is in v86-linux.test.ts.
 */
import { createHash } from 'node:crypto';
import { setTimeout } from 'node:timers/promises';
import { afterEach, describe, expect, test, vi } from 'vitest';
import { createGuest, type Guest, type GuestOptions, whyNoGuest } from '../../bench/guests/v86.ts';
import { captureState } from '../../src/adapters/v86/emulator.ts';
import { V86Vm } from '../../src/adapters/v86/index.ts';
import { encodeEntry } from '../../src/adapters/v86/state-tags.ts';
import { inspectCheckpoint, loadVm, MemoryStoreSpace, saveVm } from '../../src/index.ts';
import { pagesOf } from '../conformance/dirty-tracker.suite.ts';
import {
  describeVirtualMachine,
  type MachineFactory,
  type TestMachine,
} from '../conformance/virtual-machine.suite.ts';

const missing = whyNoGuest();
if (missing !== undefined) console.warn(`v86 is not tested: ${missing}`);

/** Time-stamp counter, last translated address: they differ whenever they are looked at. */
const volatileEntries = new Set([18, 43]);

async function digestOf(guest: Guest, vm: V86Vm): Promise<string> {
  const hash = createHash('sha256');
  const { entries } = await captureState(guest);
  for (const [index, entry] of entries.entries()) {
    if (volatileEntries.has(index)) continue;
    for (const [tag, { value }] of encodeEntry(entry)) {
      hash.update(`${index} ${tag} `);
      hash.update(
        ArrayBuffer.isView(value)
          ? new Uint8Array(value.buffer, value.byteOffset, value.byteLength)
          : String(value),
      );
    }
  }
  hash.update(String(await vm.memory.digest()));
  return hash.digest('hex');
}

async function testMachine(options: GuestOptions = {}, id?: string): Promise<TestMachine> {
  const guest = await createGuest({ network: 'none', linux: true, ...options });
  const vm = await V86Vm.wrap(guest, { id });
  return {
    vm,
    digest: () => digestOf(guest, vm),
    waitForWork: () => setTimeout(300),
    trackChanges: () => vm.trackChanges(),
    close: async () => {
      await vm.pause();
      await vm.close();
      await guest.destroy();
    },
  };
}

const factory: MachineFactory = {
  create: () => testMachine(),
  others: {
    id: () => testMachine({}, 'another'),
    // There is one kind of v86: what another version would say of itself.
    cpu: async () => {
      const machine = await testMachine();
      Object.defineProperty(machine.vm, 'cpu', { value: { vendor: 'v86', model: 'state format 5' } });
      return machine;
    },
    regions: () => testMachine({ memoryBytes: 160 << 20 }),
    devices: () => testMachine({ network: undefined }),
  },
};

const space = new MemoryStoreSpace();
let count = 0;
afterEach(() => {
  for (const name of space.names()) space.delete(name);
});

describe.skipIf(missing !== undefined)('v86', () => {
  describeVirtualMachine('v86 over mem:', factory, () => space.store(`v86-${count++}`));

  test('a machine with another size of video memory refuses the checkpoint before it is touched', async () => {
    const source = await testMachine();
    const target = await testMachine({ vgaBytes: 4 << 20 });
    try {
      await saveVm(source.vm, space.store('vga'));
      const before = await target.digest();
      await expect(loadVm(target.vm, space.store('vga'))).rejects.toMatchObject({
        code: 'CHKPT_VM_DEVICES',
        details: { context: 'vga' },
      });
      expect(await target.digest()).toBe(before);
      await target.vm.resume();
    } finally {
      await source.close();
      await target.close();
    }
  });

  test('values are typed tags, one context for each device', async () => {
    const { vm, close } = await testMachine();
    try {
      await saveVm(vm, space.store('tags'));
      const inspection = await inspectCheckpoint(space.store('tags'));
      const names = inspection.contexts.map(({ name }) => name);
      expect(names).toEqual(
        expect.arrayContaining(['rtc', 'pci', 'pit', 'pic', 'apic', 'uart0', 'vga', 'core0', 'core0.arch']),
      );
      expect(await inspection.readTag('pit', '0')).toMatchObject({ type: 'u8[]' });
      // The instruction pointer of a processor that was reset.
      expect(await inspection.readTag('core0', '37:value')).toEqual({ type: 'i32', value: 0xffff0 });
      await inspection.close();
    } finally {
      await close();
    }
  });

  test('a live save is the machine at the pause, and the copy goes on from there', async ({ skip }) => {
    const machine = await testMachine();
    const { vm } = machine;
    let seen: string | undefined;
    const pause = vm.pause.bind(vm);
    vm.pause = async () => {
      await pause();
      seen ??= await machine.digest();
    };
    await vm.resume();
    await setTimeout(300);
    const store = new MemoryStoreSpace().store('live');
    const { live } = await saveVm(vm, store, { live: true });
    expect(vm.running).toBe(true);
    await machine.close();
    const other = await testMachine();
    await other.vm.pause();
    await loadVm(other.vm, store);
    expect(await other.digest()).toBe(seen);
    await other.vm.resume();
    await vi.waitFor(async () => expect(await other.digest()).not.toBe(seen), { timeout: 10_000 });
    await other.close();
    // How often it wrote before its pages were encoded depends on how fast they were.
    if (live === undefined || !live.active) skip(`the save was not live: ${live?.reason}`);
  });

  test('memory that has grown is found again', async () => {
    const guest = await createGuest({ network: 'none' });
    const vm = await V86Vm.wrap(guest);
    const before = vm.memory;
    const digest = await before.digest();
    guest.v86.cpu.wasm_memory.grow(16);
    expect(vm.memory).not.toBe(before);
    expect(await vm.memory.digest()).toBe(digest);
    await vm.close();
    await guest.destroy();
  });

  test('a tracker goes on when memory has grown in place, and tells all when it lies elsewhere', async () => {
    const guest = await createGuest({ network: 'none' });
    const vm = await V86Vm.wrap(guest);
    const other = await createGuest({ network: 'none' });
    try {
      const tracker = vm.trackChanges();
      await tracker.arm();
      vm.memory.write(3 * 4096, Uint8Array.of(1));
      const before = vm.memory;
      guest.v86.cpu.wasm_memory.grow(16);
      expect(vm.memory).not.toBe(before);
      vm.memory.write(5 * 4096, Uint8Array.of(1));
      expect(pagesOf(await tracker.harvest())).toEqual([3, 5]);
      // V8 has not moved a memory here: another emulator's stands for one that it did.
      Object.defineProperty(guest.v86, 'cpu', { value: other.v86.cpu });
      vm.memory.write(7 * 4096, Uint8Array.of(1));
      expect((await tracker.harvest()).count()).toBe(vm.memory.pageCount);
      vm.memory.write(9 * 4096, Uint8Array.of(1));
      expect(pagesOf(await tracker.harvest())).toEqual([9]);
      await vm.close();
    } finally {
      await guest.destroy();
      await other.destroy();
    }
  });

  test('is refused when it is no emulator, or not ready', async () => {
    await expect(V86Vm.wrap({} as never)).rejects.toMatchObject({ code: 'CHKPT_UNSUPPORTED' });
    await expect(V86Vm.wrap(undefined as never)).rejects.toMatchObject({ code: 'CHKPT_UNSUPPORTED' });
  });
});
