/** The core that the tags of `chkpt/kvm` tell of, read value by value. */
import {
  type Activity,
  type ApicSource,
  type CoreSource,
  type DescriptorTable,
  efer,
  type FloatSource,
  registerNames,
  type Segment,
  type SegmentName,
} from './core-state.ts';
import { mpStates, msrTag, segmentFlags, xstateBvOffset } from './kvm-core.ts';
import { type FieldArea, TakenFields } from './taken-fields.ts';

const segmentMasks: Partial<Record<(typeof segmentFlags)[number], bigint>> = { type: 15n, dpl: 3n };
const apicBytes = 1024;
const firstOfNext = 576;

/** `own`: `core<k>`, `arch`: `core<k>.arch`. Undefined when they are no contexts of KVM. */
export function coreOfKvm(own: TakenFields | undefined, arch = TakenFields.none()): CoreSource | undefined {
  const isOne = own?.has('rip') && own.has('cs.selector') && own.has('cr0');
  return own && isOne ? new KvmCore(own, arch) : undefined;
}

class KvmCore implements CoreSource {
  readonly #own: TakenFields;
  readonly #arch: TakenFields;

  constructor(own: TakenFields, arch: TakenFields) {
    this.#own = own;
    this.#arch = arch;
  }

  register(at: number): bigint {
    return this.#own.number(registerNames[at] as string) ?? 0n;
  }

  get rip(): bigint {
    return this.#own.number('rip') ?? 0n;
  }

  get rflags(): bigint {
    return this.#own.number('rflags') ?? 0n;
  }

  segment(name: SegmentName): Segment {
    const number = (field: string, mask?: bigint): bigint => this.#own.number(`${name}.${field}`, mask) ?? 0n;
    const flags = segmentFlags.map((field) => [field, Number(number(field, segmentMasks[field] ?? 1n))]);
    return {
      selector: number('selector'),
      base: number('base'),
      limit: number('limit'),
      ...(Object.fromEntries(flags) as Omit<Segment, 'selector' | 'base' | 'limit'>),
    };
  }

  table(name: 'gdt' | 'idt'): DescriptorTable {
    return {
      base: this.#own.number(`${name}.base`) ?? 0n,
      limit: this.#own.number(`${name}.limit`) ?? 0n,
    };
  }

  control(cr: number): bigint | undefined {
    return this.#own.number(`cr${cr}`);
  }

  debug(dr: number): bigint | undefined {
    return dr < 4 ? this.#arch.area('debug.db', 32)?.u64(8 * dr) : this.#arch.number(`debug.dr${dr}`);
  }

  msr(index: number): bigint | undefined {
    if (index !== efer) return this.#arch.number(msrTag(index));
    // EFER stands among the special registers, and again among the MSRs.
    const value = this.#own.number('efer');
    const again = value === undefined ? undefined : this.#arch.number(msrTag(efer));
    if (again !== undefined && again !== value) this.#arch.partly(msrTag(efer), `0x${again.toString(16)}`);
    return value ?? this.#arch.number(msrTag(efer));
  }

  get xcr0(): bigint | undefined {
    const count = this.#arch.peek('xcrs.nr_xcrs') ?? 0n;
    for (let at = 0; at < count && at < 16; at += 1) {
      if (this.#arch.peek(`xcrs.xcrs[${at}].xcr`) !== 0n) continue;
      for (const name of ['nr_xcrs', `xcrs[${at}].xcr`]) this.#arch.number(`xcrs.${name}`);
      return this.#arch.number(`xcrs.xcrs[${at}].value`);
    }
    return undefined;
  }

  get apicBase(): bigint | undefined {
    return this.#own.number('apic_base');
  }

  get apic(): ApicSource | undefined {
    const area = this.#arch.area('lapic.regs', apicBytes);
    return (
      area && {
        register: (at) => area.u32(16 * at),
        timerLost: () => area.partly('when its timer fires'),
      }
    );
  }

  get floats(): FloatSource | undefined {
    const area = this.#arch.area('xsave.region', { from: firstOfNext });
    if (area !== undefined) return new XsaveFloats(area);
    const [fpr, xmm] = [this.#arch.area('fpu.fpr', 128), this.#arch.area('fpu.xmm', 256)];
    return fpr && xmm && fpuFloats(this.#arch, fpr, xmm);
  }

  get activity(): Activity {
    const state = this.#own.number('mp_state') ?? mpStates.running;
    if (state === mpStates.running) return 'running';
    if (state === mpStates.halted) return 'halted';
    if (state !== mpStates.waiting) this.#own.partly('mp_state', `${state}, taken for ${mpStates.waiting}`);
    return 'waiting';
  }
}

/** XSAVE says which parts were never used: those are as after a reset, whatever the area holds. */
class XsaveFloats implements FloatSource {
  readonly #area: FieldArea;
  readonly #usesX87: boolean;
  readonly #usesSse: boolean;

  constructor(area: FieldArea) {
    this.#area = area;
    const used = area.u64(xstateBvOffset);
    this.#usesX87 = (used & 1n) !== 0n;
    this.#usesSse = (used & 2n) !== 0n;
    const others = used & ~3n;
    if (others !== 0n) area.partly(`state beyond x87 and SSE, of parts 0x${others.toString(16)}`);
    else area.skip(firstOfNext, area.byteLength - firstOfNext);
    if (!this.#usesX87) {
      area.skip(0, 24);
      area.skip(32, 128);
    }
    if (!this.#usesSse) area.skip(160, 256);
  }

  get controlWord(): number {
    return this.#usesX87 ? this.#area.u16(0) : 0x37f;
  }

  get statusWord(): number {
    return this.#usesX87 ? this.#area.u16(2) : 0;
  }

  get usedTags(): number {
    return this.#usesX87 ? this.#area.u8(4) : 0;
  }

  get opcode(): number {
    return this.#usesX87 ? this.#area.u16(6) : 0;
  }

  get instructionPointer(): bigint {
    return this.#usesX87 ? this.#area.u64(8) : 0n;
  }

  get dataPointer(): bigint {
    return this.#usesX87 ? this.#area.u64(16) : 0n;
  }

  get mxcsr(): number {
    return this.#area.u32(24);
  }

  stack(at: number): Uint8Array {
    return this.#usesX87 ? this.#area.bytes(32 + 16 * at, 10) : new Uint8Array(10);
  }

  rounded(at: number): void {
    this.#area.partly(`ST(${at}), rounded to a double`);
  }

  xmmHalf(at: number): bigint {
    return this.#usesSse ? this.#area.u64(160 + 8 * at) : 0n;
  }
}

/** Where the kernel has no XSAVE. */
function fpuFloats(arch: TakenFields, fpr: FieldArea, xmm: FieldArea): FloatSource {
  const number = (name: string): bigint => arch.number(`fpu.${name}`) ?? 0n;
  return {
    get controlWord() {
      return Number(number('fcw'));
    },
    get statusWord() {
      return Number(number('fsw'));
    },
    get usedTags() {
      return Number(number('ftwx'));
    },
    get opcode() {
      return Number(number('last_opcode'));
    },
    get instructionPointer() {
      return number('last_ip');
    },
    get dataPointer() {
      return number('last_dp');
    },
    get mxcsr() {
      return Number(number('mxcsr'));
    },
    stack: (at) => fpr.bytes(16 * at, 10),
    rounded: (at) => fpr.partly(`ST(${at}), rounded to a double`),
    xmmHalf: (at) => xmm.u64(8 * at),
  };
}
