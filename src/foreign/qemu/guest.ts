/**
 * The x86 guest in the context of a QEMU guest (`qemu`, with the device state that QEMU wrote), as mappings read it. Field names are those of
 * QEMU's target/i386/machine.c and hw/intc, hw/timer, hw/char.
 */
import type { ForeignContext } from '../foreign-format.ts';
import type { CoreSource } from '../x86/core-state.ts';
import { type PcDevice, takenContexts, type X86Guest } from '../x86/guest.ts';
import { TakenFields } from '../x86/taken-fields.ts';
import { coreOfQemu } from './core-source.ts';
import { type DeviceState, parseVmState, type VmState } from './vm-state.ts';

const qemuContext = 'qemu';

const wanted: ReadonlySet<string> = new Set([
  'cpu',
  'cpu_common',
  'apic',
  'i8259',
  'ioapic',
  'i8254',
  'serial',
]);

interface DevicePlace {
  readonly device: string;
  /** Among those of its name. */
  readonly index: number;
  /** QEMU's name of a field. */
  rename(field: string): string;
}

const same = (field: string): string => field;
const serialNames: Readonly<Record<string, string>> = {
  interrupt_enable: 'ier',
  line_control: 'lcr',
  modem_control: 'mcr',
  scratch: 'scr',
};

const places: Readonly<Record<string, DevicePlace>> = {
  pic0: { device: 'i8259', index: 0, rename: same },
  pic1: { device: 'i8259', index: 1, rename: same },
  ioapic: {
    device: 'ioapic',
    index: 0,
    rename: (field) => (field === 'redirtbl' ? 'ioredtbl' : field),
  },
  pit: { device: 'i8254', index: 0, rename: same },
  serial0: { device: 'serial', index: 0, rename: (field) => `state.${serialNames[field] ?? field}` },
};

/** Undefined when these are no contexts of an x86 guest of QEMU, or its state cannot be read. */
export function guestOfQemu(contexts: readonly ForeignContext[]): X86Guest | undefined {
  const tags = contexts.find(({ name }) => name === qemuContext)?.tags;
  const state = tags?.find(({ name }) => name === 'state')?.data;
  const parsed = state && parseVmState(state, wanted);
  if (parsed === undefined) return undefined;
  const all = takenContexts(contexts);
  const own = all.get(qemuContext) as TakenFields;
  // It is told by device and field.
  own.take('state');
  const devices = numbered(parsed.devices);
  const isTcg = Buffer.from(own.take('accelerator') ?? []).includes('tcg');
  const cores: CoreSource[] = [];
  for (const cpu of devices.get('cpu') ?? []) {
    const index = cores.length;
    const around = { common: devices.get('cpu_common')?.[index], apic: devices.get('apic')?.[index] };
    const core = coreOfQemu(cpu, around, isTcg);
    if (core === undefined) return undefined;
    cores.push(core);
  }
  if (cores.length === 0) return undefined;
  return {
    cores,
    device: (name) => {
      const place = places[name];
      const fields = place && devices.get(place.device)?.[place.index];
      return fields && renamed(fields, place.rename);
    },
    get lost() {
      const ofContexts = [...all.values()].flatMap(({ lost }) => lost);
      const ofDevices = [...devices.values()].flat().flatMap(({ lost }) => lost);
      return [...ofContexts, ...ofDevices, ...linesOf(parsed)];
    },
  };
}

/** Devices by name; those of one name have numbers. */
function numbered(devices: readonly DeviceState[]): Map<string, TakenFields[]> {
  const found = new Map<string, TakenFields[]>();
  for (const device of devices) {
    const { name } = device;
    const others = found.get(name) ?? [];
    found.set(name, [...others, fieldsOf(device, others.length)]);
  }
  return found;
}

function fieldsOf(device: DeviceState, index: number): TakenFields {
  const names = [...device.names].filter((name) => device.bytes(name)?.length !== 0);
  return new TakenFields(
    `${qemuContext}/state.${device.name}[${index}].`,
    lineOf(device.name, index),
    names.map((name) => [
      name,
      { data: device.bytes(name) as Uint8Array, elementBytes: 1, number: () => device.number(name) },
    ]),
  );
}

/** Of the devices that nobody reads. */
function linesOf({ devices, others }: VmState): string[] {
  const counts = new Map<string, number>();
  const count = (name: string): number => {
    const index = counts.get(name) ?? 0;
    counts.set(name, index + 1);
    return index;
  };
  for (const { name } of devices) count(name);
  return others.map((name) => lineOf(name, count(name)));
}

function lineOf(name: string, index: number): string {
  return `device ${name}${index === 0 ? '' : `[${index}]`} of QEMU`;
}

function renamed(fields: TakenFields, rename: (field: string) => string): PcDevice {
  return {
    has: (name) => fields.has(rename(name)),
    number: (name, mask) => fields.number(rename(name), mask),
    flag: (name) => fields.flag(rename(name)),
    partly: (name, what) => fields.partly(rename(name), what),
    list: (name, count) => {
      const elements = Array.from({ length: count }, (_, at) => `${rename(name)}[${at}]`);
      return elements.every((element) => fields.peek(element) !== undefined)
        ? elements.map((element) => fields.number(element) as bigint)
        : undefined;
    },
    refuse: (reason) => fields.refuse(reason),
  };
}
