/** The guest of guests/stamp-pages.S, seen from outside. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { QemuVm } from '../../../src/adapters/qemu/index.ts';

const counterAddress = 0x30_0000;

/** Steps that the guest has done. */
export const counterOf = (vm: QemuVm): number =>
  Buffer.from(vm.memory.read(counterAddress, 4)).readUInt32LE();

export async function registersOf(vm: QemuVm): Promise<string> {
  return String(await vm.qmp.execute('human-monitor-command', { 'command-line': 'info registers' }));
}

/** Whether memory and processor tell the same time. */
export async function isOfOneMoment(vm: QemuVm): Promise<boolean> {
  const register = Number.parseInt(/EBP=([0-9a-f]{8})/.exec(await registersOf(vm))?.[1] ?? '', 16);
  // Between two instructions the register may be one ahead.
  return register === counterOf(vm) || register === counterOf(vm) + 1;
}

/** Resolves when the guest has done `steps`; rejects when it does not get on for 30 s. */
export async function untilSteps(vm: QemuVm, steps: number): Promise<void> {
  for (let [tries, last] = [0, -1]; counterOf(vm) < steps; tries += 1) {
    if (tries === 6000) throw new Error(`the guest does not work: ${last} of ${steps} steps`);
    if (last !== counterOf(vm)) [tries, last] = [0, counterOf(vm)];
    await sleep(5);
  }
}
