/**
 * The contexts of a machine in stream order. One list drives the device table, the save and the load, so that they cannot
 * disagree.
 */
import type { SkipPart, StateContext, VirtualMachine } from './virtual-machine.ts';

export const devicesContext = 'devices';
export const memoryContext = 'memory';

/** A row of the device table. */
export interface DeviceRow {
  readonly id: string;
  readonly deviceClass: string;
  readonly contexts: readonly string[];
}

export interface VmPlan {
  /** Absent when devices are skipped. */
  readonly devices: readonly DeviceRow[] | undefined;
  /** Contexts of devices, then of cores. */
  readonly states: readonly StateContext[];
  readonly hasMemory: boolean;
}

export function planOf(vm: VirtualMachine, skip: readonly SkipPart[]): VmPlan {
  const devices = skip.includes('devices') ? [] : vm.devices;
  const states: StateContext[] = devices.flatMap(({ contexts }) => contexts);
  if (!skip.includes('cores')) {
    for (const [index, core] of vm.cores.entries()) {
      states.push({ name: `core${index}`, parts: core.independent });
      const dependent = skip.includes('archdep') ? [] : (core.dependent ?? []);
      if (dependent.length > 0) states.push({ name: `core${index}.arch`, parts: dependent });
    }
  }
  const rows = devices.map(({ id, deviceClass, contexts }) => ({
    id,
    deviceClass,
    contexts: contexts.map(({ name }) => name),
  }));
  return {
    devices: skip.includes('devices') ? undefined : rows,
    states,
    hasMemory: vm.memory !== undefined && !skip.includes('memory'),
  };
}

/** The device table as tags, `docs/format.md` section 11. */
export function tableTags(devices: readonly DeviceRow[]): [tag: string, value: string | number][] {
  const tags: [string, string | number][] = [['count', devices.length]];
  for (const [i, { id, deviceClass, contexts }] of devices.entries()) {
    tags.push(
      [`device.${i}.id`, id],
      [`device.${i}.class`, deviceClass],
      [`device.${i}.contexts`, contexts.length],
    );
    tags.push(...contexts.map((name, j): [string, string] => [`device.${i}.context.${j}`, name]));
  }
  return tags;
}
