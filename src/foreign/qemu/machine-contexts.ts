/**
 * What the context of a QEMU guest (`qemu`, with the device state that QEMU wrote) says of x86 cores and the devices of a PC, as the contexts
 * that a KVM guest has: what knows those knows a QEMU guest, too. Field names are those of QEMU's target/i386/machine.c and hw/intc, hw/timer.
 */
import type { ForeignContext } from '../foreign-format.ts';
import { type CoreState, efer, type FloatState, type Segment, segmentNames } from '../x86/core-state.ts';
import { contextsOfKvm } from '../x86/kvm-core.ts';
import { TagList, TagValues } from '../x86/tag-values.ts';
import { type DeviceState, parseVmState } from './vm-state.ts';

export const qemuContext = 'qemu';

const wanted: ReadonlySet<string> = new Set([
  'cpu',
  'cpu_common',
  'apic',
  'i8259',
  'ioapic',
  'i8254',
  'serial',
]);

export interface QemuMachine {
  /** `core0`, `core0.arch`, …, `pic0`, `pic1`, `ioapic`, `pit`, `serial0`, as far as they are there. */
  readonly contexts: readonly ForeignContext[];
  /** Devices that are in none of them. */
  readonly others: readonly string[];
}

/** Undefined when these are no contexts of an x86 guest of QEMU, or its state cannot be read. */
export function machineOfQemu(contexts: readonly ForeignContext[]): QemuMachine | undefined {
  const tags = new TagValues(contexts.find(({ name }) => name === qemuContext));
  const state = tags.bytes('state');
  const parsed = state && parseVmState(state, wanted);
  if (parsed === undefined) return undefined;
  const { devices, others } = parsed;
  const isTcg = Buffer.from(tags.bytes('accelerator') ?? [])
    .toString('latin1')
    .includes('tcg');
  const all = (name: string): DeviceState[] => devices.filter((device) => device.name === name);
  const [commons, apics] = [all('cpu_common'), all('apic')];
  const cores = all('cpu').map((cpu, index) => coreOf(cpu, commons[index], apics[index], isTcg));
  if (cores.length === 0 || cores.some((core) => core === undefined)) return undefined;
  const found = [
    ...cores.flatMap((core, index) => contextsOfKvm(core as CoreState, index)),
    ...all('i8259').slice(0, 2).map(picOf),
    ...all('ioapic').slice(0, 1).map(ioapicOf),
    ...all('i8254').slice(0, 1).map(pitOf),
    ...all('serial').slice(0, 1).map(serialOf),
  ];
  return { contexts: found, others };
}

/** MSRs, by the field that has them. */
const msrFields: readonly (readonly [msr: number, field: string])[] = [
  [0x10, 'env.tsc'],
  [0x174, 'env.sysenter_cs'],
  [0x175, 'env.sysenter_esp'],
  [0x176, 'env.sysenter_eip'],
  [0x277, 'env.pat'],
  [0x2ff, 'env.mtrr_deftype'],
  [efer, 'env.efer'],
  [0xc000_0081, 'env.star'],
  [0xc000_0082, 'env.lstar'],
  [0xc000_0083, 'env.cstar'],
  [0xc000_0084, 'env.fmask'],
  [0xc000_0102, 'env.kernelgsbase'],
  [0xc000_0103, 'env.tsc_aux'],
  ...[0x250, 0x258, 0x259, ...Array.from({ length: 8 }, (_, at) => 0x268 + at)].map(
    (msr, at) => [msr, `env.mtrr_fixed[${at}]`] as const,
  ),
  ...Array.from({ length: 8 }, (_, at) => [
    [0x200 + 2 * at, `env.mtrr_var[${at}].base`] as const,
    [0x201 + 2 * at, `env.mtrr_var[${at}].mask`] as const,
  ]).flat(),
];

function coreOf(
  cpu: DeviceState,
  common: DeviceState | undefined,
  apic: DeviceState | undefined,
  isTcg: boolean,
): CoreState | undefined {
  const number = (field: string): bigint => cpu.number(field) ?? 0n;
  // 32-bit builds of QEMU have other fields.
  if (cpu.number('env.regs[15]') === undefined || cpu.number('env.segs[5].flags') === undefined)
    return undefined;
  const segment = (field: string): Segment => segmentOf(cpu, field);
  const table = (field: string): { base: bigint; limit: bigint } => ({
    base: number(`${field}.base`),
    limit: number(`${field}.limit`),
  });
  const names = ['env.segs[0]', 'env.segs[1]', 'env.segs[2]', 'env.segs[3]', 'env.segs[4]', 'env.segs[5]'];
  const places = [...names, 'env.ldt', 'env.tr'];
  return {
    registers: Array.from({ length: 16 }, (_, at) => number(`env.regs[${at}]`)),
    rip: number('env.eip'),
    rflags: number('env.eflags'),
    segments: Object.fromEntries(
      segmentNames.map((name, at) => [name, segment(places[at] as string)]),
    ) as CoreState['segments'],
    gdt: table('env.gdt'),
    idt: table('env.idt'),
    control: new Map([
      ...[0, 2, 3, 4].map((cr) => [cr, number(`env.cr[${cr}]`)] as const),
      [8, (apic?.number('tpr') ?? 0n) >> 4n],
    ]),
    debug: new Map([0, 1, 2, 3, 6, 7].map((dr) => [dr, number(`env.dr[${dr}]`)])),
    msrs: new Map(
      msrFields.flatMap(([msr, field]) => {
        const value = cpu.number(field);
        return value === undefined ? [] : [[msr, value] as const];
      }),
    ),
    xcr0: cpu.number('env.xcr0'),
    apicBase: apic?.number('apicbase'),
    apic: apic && apicOf(apic),
    floats: floatsOf(cpu, isTcg),
    activity: activityOf(cpu, common, apic),
  };
}

/** `flags` is the upper word of a descriptor. */
function segmentOf(cpu: DeviceState, field: string): Segment {
  const flags = Number(cpu.number(`${field}.flags`) ?? 0n);
  const bit = (place: number): number => (flags >>> place) & 1;
  return {
    selector: cpu.number(`${field}.selector`) ?? 0n,
    base: cpu.number(`${field}.base`) ?? 0n,
    limit: cpu.number(`${field}.limit`) ?? 0n,
    type: (flags >>> 8) & 15,
    s: bit(12),
    dpl: (flags >>> 13) & 3,
    present: bit(15),
    avl: bit(20),
    l: bit(21),
    db: bit(22),
    g: bit(23),
    unusable: 1 - bit(15),
  };
}

/** TCG keeps x87 registers where the processor does, KVM as FXSAVE tells them: the top of the stack first. */
function floatsOf(cpu: DeviceState, isTcg: boolean): FloatState {
  const fxsave = new Uint8Array(512);
  const view = new DataView(fxsave.buffer);
  const number = (field: string): number => Number(cpu.number(field) ?? 0n);
  const status = number('env.fpus_vmstate');
  view.setUint16(0, number('env.fpuc'), true);
  view.setUint16(2, status, true);
  view.setUint8(4, number('env.fptag_vmstate') & 0xff);
  view.setUint16(6, number('cpu/fpop_ip_dp/env.fpop'), true);
  view.setBigUint64(8, cpu.number('cpu/fpop_ip_dp/env.fpip') ?? 0n, true);
  view.setBigUint64(16, cpu.number('cpu/fpop_ip_dp/env.fpdp') ?? 0n, true);
  view.setUint32(24, number('env.mxcsr'), true);
  const top = (status >> 11) & 7;
  for (let at = 0; at < 8; at += 1) {
    const place = isTcg ? (top + at) & 7 : at;
    const bytes = cpu.bytes(`env.fpregs[${place}].tmp`);
    // The significand, then sign and exponent, both big-endian.
    if (bytes?.length === 10) {
      fxsave.set(bytes.slice(0, 8).reverse(), 32 + 16 * at);
      fxsave.set(bytes.slice(8).reverse(), 40 + 16 * at);
    }
  }
  for (let at = 0; at < 16; at += 1) {
    for (const half of [0, 1]) {
      const value = cpu.number(`env.xmm_regs[0][${at}]._q_ZMMReg[${half}]`) ?? 0n;
      view.setBigUint64(160 + 16 * at + 8 * half, value, true);
    }
  }
  const upper = Array.from({ length: 16 }, (_, at) =>
    [2, 3].map((half) => `env.xmm_regs[1][${at}]._q_ZMMReg[${half}]`),
  );
  return { fxsave, hasMore: upper.flat().some((field) => (cpu.number(field) ?? 0n) !== 0n) };
}

/** Registers by their place in the APIC's page. */
function apicOf(apic: DeviceState): Uint32Array {
  const registers = new Uint32Array(64);
  const number = (field: string): number => Number((apic.number(field) ?? 0n) & 0xffff_ffffn);
  registers[2] = number('id') << 24;
  registers[3] = 0x5_0014;
  registers[8] = number('tpr');
  registers[9] = number('arb_id');
  registers[0xd] = number('log_dest') << 24;
  registers[0xe] = (number('dest_mode') << 28) | 0x0fff_ffff;
  registers[0xf] = number('spurious_vec');
  for (let at = 0; at < 8; at += 1) {
    registers[0x10 + at] = number(`isr[${at}]`);
    registers[0x18 + at] = number(`tmr[${at}]`);
    registers[0x20 + at] = number(`irr[${at}]`);
  }
  registers[0x28] = number('esr');
  for (const at of [0, 1]) registers[0x30 + at] = number(`icr[${at}]`);
  for (let at = 0; at < 6; at += 1) registers[0x32 + at] = number(`lvt[${at}]`);
  registers[0x38] = number('initial_count');
  registers[0x3e] = number('divide_conf');
  return registers;
}

function activityOf(
  cpu: DeviceState,
  common: DeviceState | undefined,
  apic: DeviceState | undefined,
): CoreState['activity'] {
  const state = cpu.number('env.mp_state') ?? 0n;
  const waits = (apic?.number('apic_sipi/wait_for_sipi') ?? 0n) !== 0n;
  if (waits || state === 1n || state === 2n) return 'waiting';
  return (common?.number('halted') ?? 0n) !== 0n || state === 3n ? 'halted' : 'running';
}

function picOf(device: DeviceState, index: number): ForeignContext {
  return contextOf(`pic${index}`, device, [
    ...[
      'irr',
      'imr',
      'isr',
      'irq_base',
      'read_reg_select',
      'auto_eoi',
      'init4',
      'elcr',
      'special_mask',
      'poll',
    ],
  ]);
}

function ioapicOf(device: DeviceState): ForeignContext {
  const { name, tags } = contextOf('ioapic', device, ['id', 'ioregsel', 'irr']);
  const table = new TagList();
  table.add(
    'redirtbl',
    'u64[]',
    BigUint64Array.from({ length: 24 }, (_, at) => device.number(`ioredtbl[${at}]`) ?? 0n),
  );
  return { name, tags: [...tags, ...table.tags] };
}

function pitOf(device: DeviceState): ForeignContext {
  const names = [
    'count',
    'latched_count',
    'count_latched',
    'status_latched',
    'status',
    'read_state',
    'write_state',
  ];
  const all = [...names, 'write_latch', 'rw_mode', 'mode', 'bcd', 'gate'];
  return contextOf(
    'pit',
    device,
    [0, 1, 2].flatMap((at) => all.map((name) => `channels[${at}].${name}`)),
  );
}

function serialOf(device: DeviceState): ForeignContext {
  const tags = new TagList();
  const names = { ier: 'interrupt_enable', lcr: 'line_control', mcr: 'modem_control', scr: 'scratch' };
  for (const [field, tag] of Object.entries(names)) {
    tags.add(tag, 'u8', Number(device.number(`state.${field}`) ?? 0n));
  }
  tags.add('divisor', 'u16', Number(device.number('state.divider') ?? 0n));
  return { name: 'serial0', tags: tags.tags };
}

/** A context with fields under their own names. */
function contextOf(name: string, device: DeviceState, fields: readonly string[]): ForeignContext {
  const tags = new TagList();
  for (const field of fields) tags.add(field, 'u64', device.number(field) ?? 0n);
  return { name, tags: tags.tags };
}
