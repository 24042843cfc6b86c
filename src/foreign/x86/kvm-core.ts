/**
 * State of a core as the tags that `chkpt/kvm` saves and loads. The other way, tags of a guest as a core, is kvm-core-source.ts.
 */
import type { ForeignContext } from '../foreign-format.ts';
import {
  type CoreState,
  efer,
  registerNames,
  type Segment,
  type SegmentName,
  segmentNames,
} from './core-state.ts';
import { TagList } from './tag-list.ts';

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

/** The tag of an MSR. */
export function msrTag(index: number): string {
  return `msr.${nameByMsr.get(index) ?? `0x${index.toString(16)}`}`;
}

export const segmentFlags = ['type', 'present', 'dpl', 'db', 's', 'l', 'g', 'avl', 'unusable'] as const;
export const mpStates = { running: 0n, waiting: 1n, halted: 3n } as const;
const xsaveBytes = 4096;
/** Where XSAVE says which of its parts are not as after a reset. */
export const xstateBvOffset = 512;

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
    arch.add(msrTag(msr), 'u64', value);
  }
  return arch.tags;
}

function writeSegment(own: TagList, name: SegmentName, segment: Segment): void {
  own.add(`${name}.base`, 'u64', segment.base);
  own.add(`${name}.limit`, 'u32', Number(segment.limit & 0xffff_ffffn));
  own.add(`${name}.selector`, 'u16', Number(segment.selector & 0xffffn));
  for (const field of segmentFlags) own.add(`${name}.${field}`, 'u8', segment[field]);
}
