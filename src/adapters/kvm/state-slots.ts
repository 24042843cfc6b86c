/**
 * The pieces of state of a machine: where each is read and written, how its bytes are laid out, and in which context it is saved.
 */
import { CheckpointError, type StatePart, statePart } from '../../index.ts';
import type { NativeKvmMachine, NativeKvmSupport } from '../../native/index.ts';
import {
  clockLayout,
  debugLayout,
  eventsLayout,
  fpuLayout,
  ioapicLayout,
  lapicLayout,
  mpStateLayout,
  msrsLayout,
  picLayout,
  pitLayout,
  regsLayout,
  serialLayout,
  sregsLayout,
  xcrsLayout,
  xsaveLayout,
} from './layouts.ts';
import type { StructLayout, StructValue } from './struct-layout.ts';

/** Numbers of `VcpuPart` and `VmPart` in native/core/kvm/vcpu_state.h. */
const vcpuParts = {
  regs: 0,
  sregs: 1,
  mp_state: 2,
  fpu: 3,
  xsave: 4,
  xcrs: 5,
  debug: 6,
  lapic: 7,
  events: 8,
} as const;
const vmParts = { pic0: 0, pic1: 1, ioapic: 2, pit: 3, clock: 4 } as const;

/** Element of the APIC's registers that counts by itself. */
const lapicTimerCount = 0x39 * 4;

export interface StateSlot {
  readonly context: string;
  /** In front of its tags. */
  readonly prefix: string;
  readonly layout: StructLayout;
  read(): Uint8Array;
  write(bytes: Uint8Array): void;
  /** The value without what goes on by itself while the guest stands still. Absent where everything may. */
  still?(value: StructValue): StructValue;
  /** Throws for values that the kernel would not be asked about. */
  check?(value: StructValue): void;
}

/** Slots of a core, in the order in which they are written: what clears something else comes before it. */
export function coreSlots(machine: NativeKvmMachine, support: NativeKvmSupport, core: number): StateSlot[] {
  const own = `core${core}`;
  const arch = `core${core}.arch`;
  const slot = (
    part: keyof typeof vcpuParts,
    layout: StructLayout,
    context: string,
    prefix = '',
    still: StateSlot['still'] = (value) => value,
  ): StateSlot => ({
    context,
    prefix,
    layout,
    read: () => machine.getVcpu(core, vcpuParts[part]),
    write: (bytes) => machine.setVcpu(core, vcpuParts[part], bytes),
    still,
  });
  const { xsaveBytes } = support;
  return [
    slot('mp_state', mpStateLayout, own),
    slot('regs', regsLayout, own),
    slot('sregs', sregsLayout, own),
    ...(support.xcrs ? [slot('xcrs', xcrsLayout, arch, 'xcrs.')] : []),
    xsaveBytes > 0
      ? slot('xsave', xsaveLayout(xsaveBytes), arch, 'xsave.')
      : slot('fpu', fpuLayout, arch, 'fpu.'),
    ...(support.debugRegisters ? [slot('debug', debugLayout, arch, 'debug.')] : []),
    slot('lapic', lapicLayout, arch, 'lapic.', (value) => {
      const regs = (value['regs'] as Uint32Array).slice();
      regs[lapicTimerCount] = 0;
      return { ...value, regs };
    }),
    {
      context: arch,
      prefix: 'msr.',
      layout: msrsLayout(machine.msrs()),
      read: () => machine.getMsrs(core),
      write: (bytes) => machine.setMsrs(core, bytes),
      still: (value) => mapValues(value, (name, one) => (name.startsWith('tsc') ? 0n : one)),
    },
    slot('events', eventsLayout, arch, 'events.'),
  ];
}

function mapValues(value: StructValue, map: (name: string, one: unknown) => unknown): StructValue {
  return Object.fromEntries(Object.entries(value).map(([name, one]) => [name, map(name, one)]));
}

/** Slots of the machine. The kernel's timer goes on by itself and moves the interrupt controllers with it. */
export function machineSlots(machine: NativeKvmMachine): StateSlot[] {
  const slot = (context: keyof typeof vmParts, layout: StructLayout): StateSlot => ({
    context,
    prefix: '',
    layout,
    read: () => machine.getVm(vmParts[context]),
    write: (bytes) => machine.setVm(vmParts[context], bytes),
  });
  return [
    slot('pic0', picLayout),
    slot('pic1', picLayout),
    slot('ioapic', ioapicLayout),
    slot('pit', pitLayout),
    slot('clock', clockLayout),
    {
      context: 'serial0',
      prefix: '',
      layout: serialLayout,
      read: () => machine.getSerial(),
      write: (bytes) => machine.setSerial(bytes),
      still: (value) => value,
      check: ({ received_count: count }) => {
        if (Number(count) <= 16) return;
        throw new CheckpointError('CHKPT_VM_DEVICES', 'the serial port holds at most 16 bytes', {
          details: { context: 'serial0', tag: 'received_count', actual: Number(count) },
        });
      },
    },
  ];
}

/** What a slot and its bytes make together for a save or load. */
export function slotPart(
  slot: StateSlot,
  current: () => Uint8Array,
  replace: (bytes: Uint8Array) => void,
): StatePart<never> {
  const { layout, prefix } = slot;
  return statePart<StructValue>({
    state: layout.state({ prefix, strict: false }),
    get: () => layout.decode(current()),
    check: (value) => slot.check?.(value),
    set: (value) => replace(layout.encode(value)),
  });
}

/** Throws `CHKPT_VM_CPU` when KVM does not keep what it was given: such a guest would go on as another one. */
export function checkKept(slot: StateSlot, given: Uint8Array): void {
  const { layout, still } = slot;
  if (still === undefined) return;
  const state = layout.state();
  const tagsOf = (bytes: Uint8Array): ReturnType<typeof state.encode> =>
    state.encode(still(layout.decode(bytes)));
  const kept = tagsOf(slot.read());
  const lost = tagsOf(given).find(({ data }, index) => !isEqual(data, kept[index]?.data));
  if (lost === undefined) return;
  throw new CheckpointError('CHKPT_VM_CPU', 'the processor does not keep a value of the checkpoint', {
    details: { context: slot.context, tag: `${slot.prefix}${lost.tag}` },
  });
}

function isEqual(left: Uint8Array, right: Uint8Array | undefined): boolean {
  return right !== undefined && Buffer.compare(left, right) === 0;
}
