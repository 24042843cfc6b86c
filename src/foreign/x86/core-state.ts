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
  /** The upper halves of vector registers, or other state of XSAVE, is not as after a reset. */
  readonly hasMore: boolean;
}

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
  /** Executes, waits for an interrupt, or has not been started. */
  readonly activity: 'running' | 'halted' | 'waiting';
}

export const efer = 0xc000_0080;
const eferLongModeActive = 1n << 10n;

/** The core executes 64-bit code. */
export function isLongMode({ msrs, segments }: Pick<CoreState, 'msrs' | 'segments'>): boolean {
  return ((msrs.get(efer) ?? 0n) & eferLongModeActive) !== 0n && segments.cs.l === 1;
}
