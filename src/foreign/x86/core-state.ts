/** State of one x86 core as the manuals name it: what mappings of VMMs and of gem5 meet in. All numbers are unsigned. */

export const registerNames = [
  'rax',
  'rcx',
  'rdx',
  'rbx',
  'rsp',
  'rbp',
  'rsi',
  'rdi',
  'r8',
  'r9',
  'r10',
  'r11',
  'r12',
  'r13',
  'r14',
  'r15',
] as const;

export const segmentNames = ['es', 'cs', 'ss', 'ds', 'fs', 'gs', 'ldt', 'tr'] as const;
export type SegmentName = (typeof segmentNames)[number];

/** A segment register with its hidden part; flags are 0 or 1. */
export interface Segment {
  readonly selector: bigint;
  readonly base: bigint;
  readonly limit: bigint;
  readonly type: number;
  readonly s: number;
  readonly dpl: number;
  readonly present: number;
  readonly avl: number;
  readonly l: number;
  readonly db: number;
  readonly g: number;
  readonly unusable: number;
}

export interface DescriptorTable {
  readonly base: bigint;
  readonly limit: bigint;
}

/** x87 and SSE as FXSAVE stores them. */
export interface FloatState {
  /** 512 bytes, the form of 64-bit mode. */
  readonly fxsave: Uint8Array;
}

/** Executes, waits for an interrupt, or has not been started. */
export type Activity = 'running' | 'halted' | 'waiting';

export interface CoreState {
  /** In the order of `registerNames`. */
  readonly registers: readonly bigint[];
  readonly rip: bigint;
  readonly rflags: bigint;
  readonly segments: Readonly<Record<SegmentName, Segment>>;
  readonly gdt: DescriptorTable;
  readonly idt: DescriptorTable;
  /** By number: 0, 2, 3, 4, 8. */
  readonly control: ReadonlyMap<number, bigint>;
  /** By number: 0 to 3, 6, 7. */
  readonly debug: ReadonlyMap<number, bigint>;
  /** By index. */
  readonly msrs: ReadonlyMap<number, bigint>;
  readonly xcr0: bigint | undefined;
  readonly apicBase: bigint | undefined;
  /** Registers by offset in the APIC's page, 16 bytes each: number n is at 16 n. */
  readonly apic: Uint32Array | undefined;
  readonly floats: FloatState | undefined;
  readonly activity: Activity;
}

/** x87 and SSE of a core that is read value by value. */
export interface FloatSource {
  readonly controlWord: number;
  readonly statusWord: number;
  /** One bit for each physical register that is in use. */
  readonly usedTags: number;
  readonly opcode: number;
  readonly instructionPointer: bigint;
  readonly dataPointer: bigint;
  readonly mxcsr: number;
  /** ST(i): 80 bits in 10 bytes, little-endian. */
  stack(at: number): Uint8Array;
  /** What was kept of ST(i) is another number. */
  rounded(at: number): void;
  /** 64 bits: the low half of XMM register n is number 2 n, the high half 2 n + 1. */
  xmmHalf(at: number): bigint;
}

/**
 * A core of which a mapping reads what it has a place for. Reading takes the fields of the guest's state behind a value, and what nobody
 * takes is reported as lost (taken-fields.ts): read a value where it is put, and nowhere else.
 */
export interface CoreSource {
  /** In the order of `registerNames`. */
  register(at: number): bigint;
  readonly rip: bigint;
  readonly rflags: bigint;
  segment(name: SegmentName): Segment;
  table(name: 'gdt' | 'idt'): DescriptorTable;
  /** Numbers as in `CoreState`. Undefined: the state does not say. */
  control(cr: number): bigint | undefined;
  debug(dr: number): bigint | undefined;
  msr(index: number): bigint | undefined;
  readonly xcr0: bigint | undefined;
  readonly apicBase: bigint | undefined;
  readonly apic: ApicSource | undefined;
  readonly floats: FloatSource | undefined;
  readonly activity: Activity;
}

export interface ApicSource {
  /** By offset in the APIC's page, 16 bytes each. */
  register(at: number): number;
  /** The registers say that a timer runs, and not when it fires was kept. */
  timerLost(): void;
}

export const efer = 0xc000_0080;
const eferLongModeActive = 1n << 10n;

/** A core whose code segment has the flag L executes 64-bit code. `eferValue`: the MSR EFER. */
export function isLongMode(eferValue: bigint, { l }: Pick<Segment, 'l'>): boolean {
  return (eferValue & eferLongModeActive) !== 0n && l === 1;
}
