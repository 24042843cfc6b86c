/** The core that QEMU's devices `cpu`, `cpu_common` and `apic` tell of, read value by value. */
import {
  type Activity,
  type ApicSource,
  type CoreSource,
  type DescriptorTable,
  efer,
  type FloatSource,
  type Segment,
  type SegmentName,
} from '../x86/core-state.ts';
import type { TakenFields } from '../x86/taken-fields.ts';

/** MSRs, by the field that has them. */
const fieldOfMsr: ReadonlyMap<number, string> = new Map([
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
]);

const fieldOfSegment: Readonly<Record<SegmentName, string>> = {
  es: 'env.segs[0]',
  cs: 'env.segs[1]',
  ss: 'env.segs[2]',
  ds: 'env.segs[3]',
  fs: 'env.segs[4]',
  gs: 'env.segs[5]',
  ldt: 'env.ldt',
  tr: 'env.tr',
};

interface Around {
  readonly common: TakenFields | undefined;
  readonly apic: TakenFields | undefined;
}

/** Undefined for fields of 32-bit builds of QEMU, which are others. */
export function coreOfQemu(cpu: TakenFields, around: Around, isTcg: boolean): CoreSource | undefined {
  const isOne = cpu.has('env.regs[15]') && cpu.has('env.segs[5].flags');
  return isOne ? new QemuCore(cpu, around, isTcg) : undefined;
}

class QemuCore implements CoreSource {
  readonly #cpu: TakenFields;
  readonly #around: Around;
  readonly #isTcg: boolean;

  constructor(cpu: TakenFields, around: Around, isTcg: boolean) {
    this.#cpu = cpu;
    this.#around = around;
    this.#isTcg = isTcg;
  }

  register(at: number): bigint {
    return this.#cpu.number(`env.regs[${at}]`) ?? 0n;
  }

  get rip(): bigint {
    return this.#cpu.number('env.eip') ?? 0n;
  }

  get rflags(): bigint {
    return this.#cpu.number('env.eflags') ?? 0n;
  }

  /** `flags` is the upper word of a descriptor: what else it has are parts of base and limit, which stand beside it whole. */
  segment(name: SegmentName): Segment {
    const field = fieldOfSegment[name];
    const number = (part: string): bigint => this.#cpu.number(`${field}.${part}`) ?? 0n;
    const flags = Number(number('flags') & 0xffff_ffffn);
    const bit = (place: number): number => (flags >>> place) & 1;
    return {
      selector: number('selector'),
      base: number('base'),
      limit: number('limit'),
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

  table(name: 'gdt' | 'idt'): DescriptorTable {
    return {
      base: this.#cpu.number(`env.${name}.base`) ?? 0n,
      limit: this.#cpu.number(`env.${name}.limit`) ?? 0n,
    };
  }

  control(cr: number): bigint | undefined {
    if (cr !== 8) return this.#cpu.number(`env.cr[${cr}]`);
    return (this.#around.apic?.number('tpr', 0xffn) ?? 0n) >> 4n;
  }

  debug(dr: number): bigint | undefined {
    return this.#cpu.number(`env.dr[${dr}]`);
  }

  msr(index: number): bigint | undefined {
    const field = fieldOfMsr.get(index);
    return field === undefined ? undefined : this.#cpu.number(field);
  }

  get xcr0(): bigint | undefined {
    return this.#cpu.number('env.xcr0');
  }

  get apicBase(): bigint | undefined {
    return this.#around.apic?.number('apicbase');
  }

  get apic(): ApicSource | undefined {
    const { apic } = this.#around;
    return (
      apic && {
        register: (at) => apicRegister(apic, at),
        timerLost: () => apic.partly('initial_count', 'when its timer fires'),
      }
    );
  }

  get floats(): FloatSource {
    return new QemuFloats(this.#cpu, this.#isTcg);
  }

  get activity(): Activity {
    const { common, apic } = this.#around;
    const state = this.#cpu.number('env.mp_state') ?? 0n;
    const waits = apic?.flag('apic_sipi/wait_for_sipi') === true;
    const halted = common?.flag('halted') === true;
    if (state > 1n && state !== 3n) this.#cpu.partly('env.mp_state', `${state}`);
    if (waits || state === 1n || state === 2n) return 'waiting';
    return halted || state === 3n ? 'halted' : 'running';
  }
}

/** TCG keeps x87 registers where the processor does, KVM as FXSAVE tells them: the top of the stack first. */
class QemuFloats implements FloatSource {
  readonly #cpu: TakenFields;
  readonly #isTcg: boolean;

  constructor(cpu: TakenFields, isTcg: boolean) {
    this.#cpu = cpu;
    this.#isTcg = isTcg;
  }

  get controlWord(): number {
    return Number(this.#cpu.number('env.fpuc', 0xffffn) ?? 0n);
  }

  get statusWord(): number {
    return Number(this.#cpu.number('env.fpus_vmstate', 0xffffn) ?? 0n);
  }

  get usedTags(): number {
    return Number(this.#cpu.number('env.fptag_vmstate', 0xffn) ?? 0n);
  }

  get opcode(): number {
    return Number(this.#cpu.number('cpu/fpop_ip_dp/env.fpop', 0xffffn) ?? 0n);
  }

  get instructionPointer(): bigint {
    return this.#cpu.number('cpu/fpop_ip_dp/env.fpip') ?? 0n;
  }

  get dataPointer(): bigint {
    return this.#cpu.number('cpu/fpop_ip_dp/env.fpdp') ?? 0n;
  }

  get mxcsr(): number {
    return Number(this.#cpu.number('env.mxcsr', 0xffff_ffffn) ?? 0n);
  }

  stack(at: number): Uint8Array {
    const found = new Uint8Array(10);
    const area = this.#cpu.area(this.#stackField(at), 10);
    if (area === undefined) return found;
    // The significand, then sign and exponent, both big-endian.
    found.set(area.bytes(0, 8).slice().reverse());
    found.set(area.bytes(8, 2).slice().reverse(), 8);
    return found;
  }

  rounded(at: number): void {
    this.#cpu.partly(this.#stackField(at), 'rounded to a double');
  }

  xmmHalf(at: number): bigint {
    return this.#cpu.number(`env.xmm_regs[0][${at >> 1}]._q_ZMMReg[${at & 1}]`) ?? 0n;
  }

  #stackField(at: number): string {
    const top = (this.statusWord >> 11) & 7;
    return `env.fpregs[${this.#isTcg ? (top + at) & 7 : at}].tmp`;
  }
}

const all = 0xffff_ffffn;
/** Registers by their place in the APIC's page: field, bits of it, and how far to the left they stand. */
const apicFields: Readonly<Record<number, readonly [field: string, mask: bigint, shift: bigint]>> = {
  2: ['id', 0xffn, 24n],
  8: ['tpr', 0xffn, 0n],
  9: ['arb_id', 0xffn, 0n],
  13: ['log_dest', 0xffn, 24n],
  14: ['dest_mode', 0xfn, 28n],
  15: ['spurious_vec', all, 0n],
  ...arrayAt(0x10, 8, 'isr'),
  ...arrayAt(0x18, 8, 'tmr'),
  ...arrayAt(0x20, 8, 'irr'),
  40: ['esr', all, 0n],
  ...arrayAt(0x30, 2, 'icr'),
  ...arrayAt(0x32, 6, 'lvt'),
  56: ['initial_count', all, 0n],
  62: ['divide_conf', all, 0n],
};

function arrayAt(first: number, count: number, field: string): Record<number, [string, bigint, bigint]> {
  const elements = Array.from({ length: count }, (_, at) => [first + at, [`${field}[${at}]`, all, 0n]]);
  return Object.fromEntries(elements) as Record<number, [string, bigint, bigint]>;
}

/** The version that QEMU tells its guests, which is no state; and bits of the destination format that are always set. */
const apicConstants: ReadonlyMap<number, bigint> = new Map([
  [0x03, 0x5_0014n],
  [0x0e, 0x0fff_ffffn],
]);

function apicRegister(apic: TakenFields, register: number): number {
  const [field, mask, shift] = apicFields[register] ?? ['', 0n, 0n];
  const value = (apic.number(field, mask) ?? 0n) << shift;
  return Number(value | (apicConstants.get(register) ?? 0n));
}
