/**
 * Contexts of a KVM guest (`core0`, `core0.arch`) ⇄ state of a core. The tags are those of src/adapters/kvm/layouts.ts: the kernel's
 * names, which is why other VMMs that use them are read too.
 */
import type { ForeignContext } from '../foreign-format.ts';
import {
  type CoreState,
  type DescriptorTable,
  efer,
  type FloatState,
  registerNames,
  type Segment,
  type SegmentName,
  segmentNames,
} from './core-state.ts';
import { TagList, TagValues } from './tag-values.ts';

/** MSRs that the adapter has a name for. */
const msrByName: ReadonlyMap<string, number> = new Map([
  ['tsc', 0x10],
  ['tsc_adjust', 0x3b],
  ['ucode_rev', 0x8b],
  ['sysenter_cs', 0x174],
  ['sysenter_esp', 0x175],
  ['sysenter_eip', 0x176],
  ['misc_enable', 0x1a0],
  ['pat', 0x277],
  ['tsc_deadline', 0x6e0],
  ['efer', efer],
  ['star', 0xc000_0081],
  ['lstar', 0xc000_0082],
  ['cstar', 0xc000_0083],
  ['syscall_mask', 0xc000_0084],
  ['kernel_gs_base', 0xc000_0102],
  ['tsc_aux', 0xc000_0103],
  ['kvm_wall_clock', 0x4b56_4d00],
  ['kvm_system_time', 0x4b56_4d01],
]);
const nameByMsr = new Map([...msrByName].map(([name, index]) => [index, name]));

const msrPrefix = 'msr.';
const segmentFlags = ['type', 'present', 'dpl', 'db', 's', 'l', 'g', 'avl', 'unusable'] as const;
const mpStates = { running: 0n, waiting: 1n, halted: 3n } as const;
const fxsaveBytes = 512;
const xsaveBytes = 4096;
/** Where XSAVE says which of its parts are not as after a reset. */
const xstateBvOffset = 512;

/** The state of core `index`; `undefined` when these are not contexts of KVM. */
export function coreOfKvm(contexts: readonly ForeignContext[], index: number): CoreState | undefined {
  const own = new TagValues(contexts.find(({ name }) => name === `core${index}`));
  const arch = new TagValues(contexts.find(({ name }) => name === `core${index}.arch`));
  const number = (name: string): bigint => own.number(name) ?? 0n;
  if (!own.has('rip') || !own.has('cs.selector') || !own.has('cr0')) return undefined;
  const apic = arch.bytes('lapic.regs');
  const msrs = readMsrs(arch);
  msrs.set(efer, number('efer'));
  return {
    registers: registerNames.map(number),
    rip: number('rip'),
    rflags: number('rflags'),
    segments: Object.fromEntries(
      segmentNames.map((name) => [name, readSegment(own, name)]),
    ) as CoreState['segments'],
    gdt: readTable(own, 'gdt'),
    idt: readTable(own, 'idt'),
    control: new Map([0, 2, 3, 4, 8].map((cr) => [cr, number(`cr${cr}`)])),
    debug: readDebug(arch),
    msrs,
    xcr0: readXcr0(arch),
    apicBase: own.number('apic_base'),
    apic: apic === undefined || apic.length !== 1024 ? undefined : everyFourth(apic),
    floats: readFloats(arch),
    activity: activityOf(number('mp_state')),
  };
}

/** The contexts of a core that a KVM machine takes. */
export function contextsOfKvm(core: CoreState, index: number): ForeignContext[] {
  const own = new TagList();
  own.add('mp_state', 'u32', Number(mpStates[core.activity]));
  for (const [at, name] of registerNames.entries()) own.add(name, 'u64', core.registers[at]);
  own.add('rip', 'u64', core.rip);
  own.add('rflags', 'u64', core.rflags);
  for (const name of segmentNames) writeSegment(own, name, core.segments[name]);
  for (const [name, { base, limit }] of [['gdt', core.gdt] as const, ['idt', core.idt] as const]) {
    own.add(`${name}.base`, 'u64', base);
    own.add(`${name}.limit`, 'u16', Number(limit & 0xffffn));
  }
  for (const [cr, value] of core.control) own.add(`cr${cr}`, 'u64', value);
  own.add('efer', 'u64', core.msrs.get(efer) ?? 0n);
  own.add('apic_base', 'u64', core.apicBase ?? 0n);
  own.add('interrupt_bitmap', 'u64[]', new BigUint64Array(4));
  return [
    { name: `core${index}`, tags: own.tags },
    { name: `core${index}.arch`, tags: archTags(core) },
  ];
}

function archTags(core: CoreState): TagList['tags'] {
  const arch = new TagList();
  if (core.xcr0 !== undefined) {
    arch.add('xcrs.nr_xcrs', 'u32', 1);
    arch.add('xcrs.flags', 'u32', 0);
    for (let at = 0; at < 16; at += 1) {
      arch.add(`xcrs.xcrs[${at}].xcr`, 'u32', 0);
      arch.add(`xcrs.xcrs[${at}].value`, 'u64', at === 0 ? core.xcr0 : 0n);
    }
  }
  if (core.floats !== undefined) {
    const area = new Uint8Array(xsaveBytes);
    area.set(core.floats.fxsave);
    area[xstateBvOffset] = 3;
    arch.add('xsave.region', 'u32[]', new Uint32Array(area.buffer));
  }
  arch.add(
    'debug.db',
    'u64[]',
    BigUint64Array.from([0, 1, 2, 3], (at) => core.debug.get(at) ?? 0n),
  );
  arch.add('debug.dr6', 'u64', core.debug.get(6) ?? 0n);
  arch.add('debug.dr7', 'u64', core.debug.get(7) ?? 0n);
  arch.add('debug.flags', 'u64', 0n);
  if (core.apic !== undefined) {
    const regs = new Uint32Array(256);
    for (const [at, value] of core.apic.entries()) regs[4 * at] = value;
    arch.add('lapic.regs', 'u32[]', regs);
  }
  for (const [msr, value] of core.msrs) {
    arch.add(`${msrPrefix}${nameByMsr.get(msr) ?? `0x${msr.toString(16)}`}`, 'u64', value);
  }
  return arch.tags;
}

function readSegment(own: TagValues, name: SegmentName): Segment {
  const flag = (field: (typeof segmentFlags)[number]): number => Number(own.number(`${name}.${field}`) ?? 0n);
  return {
    selector: own.number(`${name}.selector`) ?? 0n,
    base: own.number(`${name}.base`) ?? 0n,
    limit: own.number(`${name}.limit`) ?? 0n,
    ...(Object.fromEntries(segmentFlags.map((field) => [field, flag(field)])) as Omit<
      Segment,
      'selector' | 'base' | 'limit'
    >),
  };
}

function writeSegment(own: TagList, name: SegmentName, segment: Segment): void {
  own.add(`${name}.base`, 'u64', segment.base);
  own.add(`${name}.limit`, 'u32', Number(segment.limit & 0xffff_ffffn));
  own.add(`${name}.selector`, 'u16', Number(segment.selector & 0xffffn));
  for (const field of segmentFlags) own.add(`${name}.${field}`, 'u8', segment[field]);
}

function readTable(own: TagValues, name: string): DescriptorTable {
  return { base: own.number(`${name}.base`) ?? 0n, limit: own.number(`${name}.limit`) ?? 0n };
}

function readDebug(arch: TagValues): Map<number, bigint> {
  const found = new Map<number, bigint>();
  const db = arch.bytes('debug.db');
  if (db?.length === 32) {
    const view = new DataView(db.buffer, db.byteOffset, db.byteLength);
    for (let at = 0; at < 4; at += 1) found.set(at, view.getBigUint64(8 * at, true));
  }
  for (const at of [6, 7]) {
    const value = arch.number(`debug.dr${at}`);
    if (value !== undefined) found.set(at, value);
  }
  return found;
}

function readMsrs(arch: TagValues): Map<number, bigint> {
  const found = new Map<number, bigint>();
  for (const tag of arch.names) {
    if (!tag.startsWith(msrPrefix)) continue;
    const name = tag.slice(msrPrefix.length);
    const index = msrByName.get(name) ?? (/^0x[0-9a-f]{1,8}$/.test(name) ? Number(name) : undefined);
    const value = arch.number(tag);
    if (index !== undefined && value !== undefined) found.set(index, value);
  }
  return found;
}

function readXcr0(arch: TagValues): bigint | undefined {
  for (let at = 0; at < Number(arch.number('xcrs.nr_xcrs') ?? 0n) && at < 16; at += 1) {
    if (arch.number(`xcrs.xcrs[${at}].xcr`) === 0n) return arch.number(`xcrs.xcrs[${at}].value`);
  }
  return undefined;
}

/** XSAVE says which parts were never used: those are as after a reset, whatever the area holds. */
function readFloats(arch: TagValues): FloatState | undefined {
  const area = arch.bytes('xsave.region');
  if (area !== undefined && area.length >= xstateBvOffset + 8) {
    const used = new DataView(area.buffer, area.byteOffset, area.byteLength).getBigUint64(
      xstateBvOffset,
      true,
    );
    const fxsave = area.slice(0, fxsaveBytes);
    if ((used & 1n) === 0n) {
      fxsave.set(resetX87());
      fxsave.fill(0, 32, 160);
    }
    if ((used & 2n) === 0n) fxsave.fill(0, 160, 416);
    return { fxsave, hasMore: (used & ~3n) !== 0n };
  }
  return readOldFloats(arch);
}

function readOldFloats(arch: TagValues): FloatState | undefined {
  const fpr = arch.bytes('fpu.fpr');
  const xmm = arch.bytes('fpu.xmm');
  if (fpr?.length !== 128 || xmm?.length !== 256) return undefined;
  const fxsave = new Uint8Array(fxsaveBytes);
  const view = new DataView(fxsave.buffer);
  const number = (name: string): number => Number(arch.number(`fpu.${name}`) ?? 0n);
  view.setUint16(0, number('fcw'), true);
  view.setUint16(2, number('fsw'), true);
  view.setUint8(4, number('ftwx'));
  view.setUint16(6, number('last_opcode'), true);
  view.setBigUint64(8, arch.number('fpu.last_ip') ?? 0n, true);
  view.setBigUint64(16, arch.number('fpu.last_dp') ?? 0n, true);
  view.setUint32(24, number('mxcsr'), true);
  fxsave.set(fpr, 32);
  fxsave.set(xmm, 160);
  return { fxsave, hasMore: false };
}

function resetX87(): Uint8Array {
  const bytes = new Uint8Array(24);
  new DataView(bytes.buffer).setUint16(0, 0x37f, true);
  return bytes;
}

function activityOf(mpState: bigint): CoreState['activity'] {
  if (mpState === mpStates.running) return 'running';
  return mpState === mpStates.halted ? 'halted' : 'waiting';
}

function everyFourth(bytes: Uint8Array): Uint32Array {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return Uint32Array.from({ length: 64 }, (_, at) => view.getUint32(16 * at, true));
}
