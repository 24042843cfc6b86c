/** Bodies of lines of the checklist that take more than one look: what fails half-way, and state that is bound to a host or left out. */
import { existsSync, readdirSync } from 'node:fs';
import { basename } from 'node:path';
import { expect } from 'vitest';
import { whyNoKvm } from '../../../../bench/guests/kvm.ts';
import { KvmVm } from '../../../../src/adapters/kvm/index.ts';
import type { SyntheticVm } from '../../../../src/adapters/synthetic/index.ts';
import {
  encodeSkip,
  inspectCheckpoint,
  loadVm,
  openCheckpoint,
  openStore,
  PageSet,
  receiveCheckpoint,
  type Store,
  saveVm,
  sendPalacios,
} from '../../../../src/index.ts';
import { sampleOriginal } from './original.ts';
import { drain, originalListens } from './peers.ts';
import { addProbe, codeOf, fileStore, openBelow, type Subjects, setTracker } from './subjects.ts';

/** Line 11. A failure of each call to the file system is `folder-faults.ts`; allocations cannot be made to fail here: owners are scopes. */
export async function leavesNothingHalfWay({ folder, machine }: Subjects): Promise<void> {
  const path = folder.next();
  const checkpoint = await openCheckpoint(fileStore(path), { mode: 'save' });
  const context = await checkpoint.openContext('x'.repeat(255));
  await context.close();
  expect(await codeOf(checkpoint.commit())).toBe('CHKPT_NAME');
  await checkpoint.abort();
  expect(readdirSync(folder.path).filter((entry) => entry.includes(basename(path)))).toEqual([]);
  expect(openBelow(folder.path)).toEqual([]);
  const vm = await machine({ memoryBytes: 512 * 4096 });
  // Two rounds with the guest running, and a last one.
  for (const failing of ['arm 1', 'harvest 1', 'harvest 2', 'state'] as const) {
    await failsAt(vm, failing);
    expect(vm.failure).toBe(undefined);
    await vm.pause();
  }
  // Nothing of all that is in the way of the next one.
  setTracker(vm, undefined);
  const { url, result } = await originalListens(drain);
  await sendPalacios(vm, url);
  expect((await result).length).toBeGreaterThan(512 * 4096);
}

async function failsAt(vm: SyntheticVm, failing: string): Promise<void> {
  const calls: string[] = [];
  const call = (name: string): number => {
    const count = calls.filter((one) => one.startsWith(name)).length + 1;
    calls.push(`${name} ${count}`);
    if (calls.at(-1) === failing) throw new Error('planted');
    return count;
  };
  const harvest = async (): Promise<PageSet> => {
    const pages = new PageSet(512);
    if (call('harvest') === 1) pages.markRun(0, 400);
    return pages;
  };
  setTracker(vm, { arm: async () => void call('arm'), harvest });
  await vm.resume();
  const { url } = await originalListens(drain);
  const contexts = (): [] => {
    if (failing === 'state') throw new Error('planted');
    return [];
  };
  await expect(sendPalacios(vm, url, { contexts }), failing).rejects.toThrow('planted');
  expect(vm.running).toBe(true);
  if (failing !== 'state') expect(calls.at(-1)).toBe(failing);
  const links = (): string[] => process.getActiveResourcesInfo().filter((one) => one.startsWith('TCP'));
  await expect.poll(links).toEqual([]);
}

/** Line 17. */
export async function keepsHostStateApart({ folder, machine, original }: Subjects): Promise<void> {
  const path = folder.next();
  await saveVm(await machine(), fileStore(path));
  const isBlock = (name: string): boolean => /^vm[a-z]+_data/.test(name);
  expect(readdirSync(path).filter(isBlock)).toEqual([]);
  const { store } = await original(sampleOriginal());
  const vm = await machine({
    cores: 2,
    memoryBytes: 3 * 16_384,
    cpu: { vendor: 'GenuineIntel', model: 'x' },
  });
  const before = await vm.digest();
  // The vendor whose they are is told, and refused elsewhere; where that is waived there is no place for them.
  for (const [ignore, code] of [
    [['id'], 'CHKPT_VM_CPU'],
    [['id', 'cpu'], 'CHKPT_NO_CONTEXT'],
  ] as const) {
    expect(await codeOf(loadVm(vm, store, { skip: ['devices'], ignore }))).toBe(code);
    expect([await vm.digest(), vm.failure]).toEqual([before, undefined]);
  }
  // They are bytes under their own names, which no part of a machine of chkpt has, and pass through as such.
  const kept = openStore(`mem:control-blocks-${process.pid}`);
  await receiveCheckpoint(store, kept);
  const inspection = await inspectCheckpoint(kept);
  const blocks = inspection.contexts.filter(({ name }) => isBlock(name));
  expect(blocks.map(({ name }) => name)).toEqual(['vmcb_data0', 'vmcb_data1']);
  for (const { tags } of blocks) expect(new Set(tags.map(({ type }) => type))).toEqual(new Set(['bytes']));
  await inspection.close();
  await kept.remove?.();
}

/** Line 18. */
export async function declaresDevices({ folder, machine, original }: Subjects): Promise<void> {
  const [vm, path] = [await machine(), folder.next()];
  addProbe(vm, () => {
    throw new Error('planted');
  });
  await expect(saveVm(vm, fileStore(path))).rejects.toThrow('planted');
  expect(existsSync(path)).toBe(false);
  // Waived: then the checkpoint says so, and is not taken for a whole one.
  await saveVm(vm, fileStore(path), { skip: ['devices'] });
  expect(await codeOf(loadVm(await machine(), fileStore(path)))).toBe('CHKPT_SKIPPED');
  await loadVm(await machine(), fileStore(path), { skip: ['devices'] });
  // Without state: it is in the table, and missed where it is not.
  const [stateless, other] = [await machine(), folder.next()];
  const button = { id: 'button', deviceClass: 'button', contexts: [] };
  Object.defineProperty(stateless, 'devices', { value: [...stateless.devices, button] });
  await saveVm(stateless, fileStore(other));
  await loadVm(stateless, fileStore(other));
  expect(await codeOf(loadVm(await machine(), fileStore(other)))).toBe('CHKPT_VM_DEVICES');
  const { store } = await original(sampleOriginal({ devices: [['hpet', []]] }));
  const inspection = await inspectCheckpoint(store);
  expect((await inspection.readTag('devices', 'device.0.id')).value).toBe('hpet');
  expect(inspection.contexts.find(({ name }) => name === 'hpet')?.tags).toEqual([]);
  await inspection.close();
}

/** Line 19. */
export async function tellsWhatIsThere({ folder, machine, original }: Subjects): Promise<void> {
  const names = ['core.count', 'region.bytes', 'options.skip', 'cpu.vendor', 'cpu.model'];
  const read = async (store: Store): Promise<unknown[]> => {
    const inspection = await inspectCheckpoint(store);
    const found = await Promise.all(
      names.map(async (tag) => (await inspection.readTag('header', tag)).value),
    );
    await inspection.close();
    return found.map((value) => (typeof value === 'object' ? [...(value as BigUint64Array)] : value));
  };
  const [vm, path] = [await machine({ cores: 3 }), folder.next()];
  await saveVm(vm, fileStore(path), { skip: ['devices'] });
  const { vendor, model } = vm.cpu;
  expect(await read(fileStore(path))).toEqual([3, [64n * 4096n], encodeSkip(['devices']), vendor, model]);
  const { store } = await original(sampleOriginal({ skip: ['memory', 'archdep'] }));
  const skipped = encodeSkip(['memory', 'archdep']);
  expect(await read(store)).toEqual([2, [], skipped, 'AuthenticAMD', '']);
  await keepsTimeAndInterrupts(folder.next());
}

/**
 * Of a machine that has them, with its time, pending interrupts and MSRs: there in the folder, and loaded. MTRRs are not: KVM does not list
 * them, so that no checkpoint of such a guest has them, in whatever format.
 */
async function keepsTimeAndInterrupts(path: string): Promise<void> {
  const missing = await whyNoKvm();
  if (missing !== undefined)
    return console.warn(`state of a KVM guest in Palacios is not tested: ${missing}`);
  const image = { bytes: Uint8Array.of(0xf4), address: 0x10_0000, mode: 'protected' } as const;
  await using vm = await KvmVm.create({ memoryBytes: 2 << 20, image });
  await saveVm(vm, fileStore(path));
  const inspection = await inspectCheckpoint(fileStore(path));
  const tags = inspection.contexts.flatMap((context) =>
    context.tags.map(({ name }) => `${context.name}/${name}`),
  );
  await inspection.close();
  for (const wanted of [
    'core0.arch/msr.tsc',
    'core0/interrupt_bitmap',
    'core0.arch/msr.pat',
    'core0.arch/lapic.regs',
  ]) {
    expect(tags).toContain(wanted);
  }
  expect(tags.some((tag) => tag.startsWith('core0.arch/events.'))).toBe(true);
  expect(tags.some((tag) => tag.startsWith('clock/'))).toBe(true);
  await loadVm(vm, fileStore(path));
}
