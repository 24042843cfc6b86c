/** Where gem5's x86 model keeps registers: `regVal`, in src/arch/x86/regs/misc.hh; register files, in src/arch/x86/regs. */
import { efer, type SegmentName } from '../../x86/core-state.ts';

export const regValCount = 205;
export const integerCount = 38;
export const floatCount = 48;
export const conditionCodeCount = 5;
export const firstXmm = 8;
export const apicRegisterCount = 70;

/** Indices in `regVal`. */
export const debugBase = 16;
export const rflagsIndex = 24;
export const x87Top = 191;
export const mxcsr = 192;
export const fcw = 193;
export const fsw = 194;
export const ftw = 195;
export const ftag = 196;
export const fioff = 198;
export const fooff = 200;
export const fop = 201;
export const apicBaseIndex = 202;
export const xcr0Index = 204;

/** Add the number of a segment. */
export const selectorBase = 126;
export const baseBase = 139;
export const effectiveBaseBase = 152;
export const limitBase = 165;
export const attributeBase = 178;

export const segmentNumber: Readonly<Record<SegmentName | 'gdt' | 'idt', number>> = {
  es: 0,
  cs: 1,
  ss: 2,
  ds: 3,
  fs: 4,
  gs: 5,
  ldt: 7,
  gdt: 8,
  tr: 11,
  idt: 12,
};
/** Their base counts as 0 in 64-bit mode. */
export const flatSegments: ReadonlySet<string> = new Set(['es', 'cs', 'ss', 'ds']);

/** MSR → index in `regVal`. The time stamp counter is not one: there it is an offset to a clock that is not known here. */
export const regValOfMsr: ReadonlyMap<number, number> = new Map([
  [0x174, 28],
  [0x175, 29],
  [0x176, 30],
  [0x179, 31],
  [0x17a, 32],
  [0x17b, 33],
  [0x1d9, 34],
  ...[0x1db, 0x1dc, 0x1dd, 0x1de].map((msr, at): [number, number] => [msr, 35 + at]),
  ...range(8).flatMap((at): [number, number][] => [
    [0x200 + 2 * at, 39 + at],
    [0x201 + 2 * at, 47 + at],
  ]),
  [0x250, 55],
  [0x258, 56],
  [0x259, 57],
  ...range(8).map((at): [number, number] => [0x268 + at, 58 + at]),
  [0x277, 66],
  [0x2ff, 67],
  ...range(8).flatMap((bank) =>
    range(4).map((kind): [number, number] => [0x400 + 4 * bank + kind, 68 + 8 * kind + bank]),
  ),
  [efer, 100],
  [0xc000_0081, 101],
  [0xc000_0082, 102],
  [0xc000_0083, 103],
  [0xc000_0084, 104],
  [0xc000_0102, 105],
  [0xc000_0103, 106],
  ...range(4).flatMap((at): [number, number][] => [
    [0xc001_0000 + at, 107 + at],
    [0xc001_0004 + at, 111 + at],
  ]),
  [0xc001_0010, 115],
  [0xc001_0016, 116],
  [0xc001_0018, 117],
  [0xc001_0017, 118],
  [0xc001_0019, 119],
  [0xc001_001a, 120],
  [0xc001_001d, 121],
  [0xc001_0114, 122],
  [0xc001_0115, 123],
  [0xc001_0116, 124],
  [0xc001_0117, 125],
]);

/** RFLAGS bits that gem5 keeps as condition codes: in zaps, cfof, df. */
export const zapsMask = 0xd4n;
export const cfofMask = 0x801n;
export const dfMask = 0x400n;
export const virtual8086 = 1n << 17n;

/** The local APIC of gem5: index → register number (offset / 16) in the APIC's page. */
export const apicRegisters: readonly (readonly [index: number, register: number])[] = [
  [0, 0x02],
  [1, 0x03],
  [2, 0x08],
  [3, 0x09],
  [4, 0x0a],
  [6, 0x0d],
  [7, 0x0e],
  [8, 0x0f],
  ...range(8).flatMap((at): [number, number][] => [
    [9 + at, 0x10 + at],
    [25 + at, 0x18 + at],
    [41 + at, 0x20 + at],
  ]),
  [57, 0x28],
  [58, 0x30],
  [59, 0x31],
  [60, 0x32],
  [61, 0x33],
  [62, 0x34],
  [63, 0x35],
  [64, 0x36],
  [65, 0x37],
  [66, 0x38],
  [67, 0x39],
  [68, 0x3e],
];

function range(count: number): number[] {
  return Array.from({ length: count }, (_, at) => at);
}
