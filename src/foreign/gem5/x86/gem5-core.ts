/** A core of gem5's x86 model: sections of a thread context and of its ISA. */
import type { ErrorDetails } from '../../../errors/index.ts';
import {
  type CoreSource,
  type CoreState,
  efer,
  type FloatSource,
  isLongMode,
  registerNames,
  type Segment,
  type SegmentName,
  segmentNames,
} from '../../x86/core-state.ts';
import { joinIndices } from '../../x86/taken-fields.ts';
import type { IniDocument, IniSection } from '../ini.ts';
import { joinList, SectionReader } from '../values.ts';
import { fromDoubleBits, toDoubleBits } from './float80.ts';
import * as gem5 from './gem5-registers.ts';

const u64Max = 2n ** 64n - 1n;

/** One core: its thread context, which holds the local APIC too, and its ISA. */
export interface CoreSections {
  readonly thread: IniSection;
  readonly isa: IniSection;
}

/** The x86 cores of a document, in the order of their names: number 10 behind number 9. */
export function coresOf(document: IniDocument, system: string | undefined): CoreSections[] {
  const found: CoreSections[] = [];
  for (const thread of document.sections) {
    const cpu = /^(.+)\.xc\.0$/.exec(thread.name)?.[1];
    if (cpu === undefined || thread.get('regs.integer') === undefined) continue;
    if (system !== undefined && !cpu.startsWith(`${system}.`)) continue;
    const isa = document.section(`${cpu}.isa`) ?? document.section(`${cpu}.isa0`);
    if (isa?.get('isaName') === 'x86' && isa.get('regVal') !== undefined) found.push({ thread, isa });
  }
  const order = new Intl.Collator('en', { numeric: true });
  return found.sort((left, right) => order.compare(left.thread.name, right.thread.name));
}

/** Puts into its sections what gem5 has a place for. Returns what of `regVal` stays as it was, by name. */
export function setCore({ thread, isa }: CoreSections, core: CoreSource, details: ErrorDetails): string[] {
  const values = new RegVal(new SectionReader(isa, details).unsignedList('regVal', gem5.regValCount, u64Max));
  const floats = registerBytes(thread, 'regs.floating_point', gem5.floatCount, details);
  const integers = registerBytes(thread, 'regs.integer', gem5.integerCount, details);
  for (const at of registerNames.keys()) integers.setBigUint64(8 * at, core.register(at), true);
  for (const cr of [0, 2, 3, 4, 8]) values.set(cr, core.control(cr));
  for (const dr of [0, 1, 2, 3, 6, 7]) values.set(gem5.debugBase + dr, core.debug(dr));
  const { rflags } = core;
  values.set(gem5.rflagsIndex, rflags & ~(gem5.zapsMask | gem5.cfofMask | gem5.dfMask));
  for (const [msr, index] of gem5.regValOfMsr) values.set(index, core.msr(msr));
  const cs = setSegments(values, core);
  values.set(gem5.xcr0Index, core.xcr0);
  values.set(gem5.apicBaseIndex, core.apicBase);
  const { floats: source } = core;
  if (source !== undefined) setFloats(values, floats, source);
  isa.set('regVal', joinList(values.numbers));
  setBytes(thread, 'regs.integer', integers);
  setBytes(thread, 'regs.floating_point', floats);
  const flags = new DataView(new ArrayBuffer(8 * gem5.conditionCodeCount));
  for (const [at, mask] of [gem5.zapsMask, gem5.cfofMask, gem5.dfMask].entries()) {
    flags.setBigUint64(8 * at, rflags & mask, true);
  }
  setBytes(thread, 'regs.condition_code', flags);
  setCounter(thread, BigInt.asUintN(64, core.rip + cs.base));
  thread.set('_status', core.activity === 'running' ? '0' : '1');
  return values.kept;
}

/** The numbers of `regVal`, and which of them were set. */
class RegVal {
  readonly numbers: bigint[];
  readonly #set = new Set<number>();

  constructor(numbers: bigint[]) {
    this.numbers = numbers;
  }

  /** Undefined: it stays as it is. */
  set(index: number, value: bigint | undefined): void {
    if (value === undefined) return;
    this.numbers[index] = value;
    this.#set.add(index);
  }

  get kept(): string[] {
    const kept = [...this.numbers.keys()].filter((index) => !this.#set.has(index));
    return joinIndices(kept.map((index) => `regVal[${index}]`));
  }
}

/** The state of a core of gem5. Throws `CHKPT_FORMAT`. */
export function coreOfGem5({ thread, isa }: CoreSections, details: ErrorDetails): CoreState {
  const values = new SectionReader(isa, details).unsignedList('regVal', gem5.regValCount, u64Max);
  const reader = new SectionReader(thread, details);
  const integers = registerBytes(thread, 'regs.integer', gem5.integerCount, details);
  const flags = registerBytes(thread, 'regs.condition_code', gem5.conditionCodeCount, details);
  const floats = registerBytes(thread, 'regs.floating_point', gem5.floatCount, details);
  const value = (index: number): bigint => values[index] ?? 0n;
  const table = (name: 'gdt' | 'idt'): { base: bigint; limit: bigint } => ({
    base: value(gem5.baseBase + gem5.segmentNumber[name]),
    limit: value(gem5.limitBase + gem5.segmentNumber[name]),
  });
  const cs = segmentOf(values, 'cs');
  const status = reader.count('_status', 3);
  return {
    registers: registerNames.map((_, at) => integers.getBigUint64(8 * at, true)),
    rip: BigInt.asUintN(64, reader.unsigned('_pc', u64Max) - cs.base),
    rflags:
      value(gem5.rflagsIndex) |
      (flags.getBigUint64(0, true) & gem5.zapsMask) |
      (flags.getBigUint64(8, true) & gem5.cfofMask) |
      (flags.getBigUint64(16, true) & gem5.dfMask),
    segments: Object.fromEntries(
      segmentNames.map((name) => [name, segmentOf(values, name)]),
    ) as CoreState['segments'],
    gdt: table('gdt'),
    idt: table('idt'),
    control: new Map([0, 2, 3, 4, 8].map((cr) => [cr, value(cr)])),
    debug: new Map([0, 1, 2, 3, 6, 7].map((dr) => [dr, value(gem5.debugBase + dr)])),
    msrs: new Map([...gem5.regValOfMsr].map(([msr, index]) => [msr, value(index)])),
    xcr0: value(gem5.xcr0Index),
    apicBase: value(gem5.apicBaseIndex),
    apic: thread.get('regs') === undefined ? undefined : apicOf(reader),
    floats: { fxsave: fxsaveOf(values, floats) },
    activity: status === 0 ? 'running' : 'halted',
  };
}

function setCounter(thread: IniSection, pc: bigint): void {
  thread.set('_pc', `${pc}`);
  thread.set('_upc', '0');
  thread.set('_npc', `${BigInt.asUintN(64, pc + 8n)}`);
  thread.set('_nupc', '1');
  thread.set('_size', '0');
}

/** Returns CS. */
function setSegments(values: RegVal, core: CoreSource): Segment {
  const cs = core.segment('cs');
  const long = isLongMode(core.msr(efer) ?? 0n, cs);
  for (const name of segmentNames) {
    const segment = core.segment(name);
    const at = gem5.segmentNumber[name];
    values.set(gem5.selectorBase + at, segment.selector);
    values.set(gem5.baseBase + at, segment.base);
    values.set(gem5.effectiveBaseBase + at, long && gem5.flatSegments.has(name) ? 0n : segment.base);
    values.set(gem5.limitBase + at, segment.limit);
    values.set(gem5.attributeBase + at, attributesOf(segment));
  }
  for (const name of ['gdt', 'idt'] as const) {
    const { base, limit } = core.table(name);
    const at = gem5.segmentNumber[name];
    values.set(gem5.baseBase + at, base);
    values.set(gem5.effectiveBaseBase + at, base);
    values.set(gem5.limitBase + at, limit);
  }
  return cs;
}

/** Bits 12 to 14, which repeat what the type says, stay zero, as gem5's own import from KVM leaves them. */
function attributesOf(segment: Segment): bigint {
  const { dpl, unusable, db, l, avl, g, present, type, s } = segment;
  return BigInt(
    (dpl & 3) |
      (unusable << 2) |
      (db << 3) |
      (l << 4) |
      (avl << 5) |
      (g << 6) |
      (present << 7) |
      ((type & 15) << 8) |
      (s << 15),
  );
}

function segmentOf(values: readonly bigint[], name: SegmentName): Segment {
  const at = gem5.segmentNumber[name];
  const attributes = Number((values[gem5.attributeBase + at] ?? 0n) & 0xffffn);
  const bit = (place: number): number => (attributes >> place) & 1;
  return {
    selector: values[gem5.selectorBase + at] ?? 0n,
    base: values[gem5.baseBase + at] ?? 0n,
    limit: values[gem5.limitBase + at] ?? 0n,
    dpl: attributes & 3,
    unusable: bit(2),
    db: bit(3),
    l: bit(4),
    avl: bit(5),
    g: bit(6),
    present: bit(7),
    type: (attributes >> 8) & 15,
    s: bit(15),
  };
}

/** x87 registers are doubles there, at their physical number; SSE registers two numbers each. */
function setFloats(values: RegVal, floats: DataView, source: FloatSource): void {
  const { statusWord, usedTags } = source;
  const top = (statusWord >> 11) & 7;
  let tags = 0;
  for (let at = 0; at < 8; at += 1) {
    const bytes = source.stack(at);
    const bits = toDoubleBits(bytes);
    if (Buffer.compare(fromDoubleBits(bits), bytes) !== 0) source.rounded(at);
    floats.setBigUint64(8 * ((at + top) & 7), bits, true);
    // One bit for each physical register: it is in use, or empty.
    if (((usedTags >> at) & 1) === 0) tags |= 3 << (2 * at);
  }
  for (let at = 0; at < 32; at += 1) {
    floats.setBigUint64(8 * (gem5.firstXmm + at), source.xmmHalf(at), true);
  }
  values.set(gem5.x87Top, BigInt(top));
  values.set(gem5.mxcsr, BigInt(source.mxcsr));
  values.set(gem5.fcw, BigInt(source.controlWord));
  values.set(gem5.fsw, BigInt(statusWord));
  values.set(gem5.ftw, BigInt(tags));
  values.set(gem5.ftag, BigInt(tags));
  values.set(gem5.fioff, source.instructionPointer);
  values.set(gem5.fooff, source.dataPointer);
  values.set(gem5.fop, BigInt(source.opcode));
}

function fxsaveOf(values: readonly bigint[], floats: DataView): Uint8Array {
  const fxsave = new Uint8Array(512);
  const area = new DataView(fxsave.buffer);
  const value = (index: number): number => Number((values[index] ?? 0n) & 0xffff_ffffn);
  const top = value(gem5.x87Top) & 7;
  area.setUint16(0, value(gem5.fcw) & 0xffff, true);
  area.setUint16(2, (value(gem5.fsw) & ~(7 << 11) & 0xffff) | (top << 11), true);
  area.setUint16(6, value(gem5.fop) & 0xffff, true);
  area.setBigUint64(8, values[gem5.fioff] ?? 0n, true);
  area.setBigUint64(16, values[gem5.fooff] ?? 0n, true);
  area.setUint32(24, value(gem5.mxcsr), true);
  for (let at = 0; at < 8; at += 1) {
    fxsave.set(fromDoubleBits(floats.getBigUint64(8 * ((at + top) & 7), true)), 32 + 16 * at);
    if (((value(gem5.ftw) >> (2 * at)) & 3) !== 3) fxsave[4] = (fxsave[4] ?? 0) | (1 << at);
  }
  for (let at = 0; at < 32; at += 1) {
    area.setBigUint64(160 + 8 * at, floats.getBigUint64(8 * (gem5.firstXmm + at), true), true);
  }
  return fxsave;
}

function apicOf(reader: SectionReader): Uint32Array {
  const values = reader.unsignedList('regs', gem5.apicRegisterCount, 0xffff_ffffn);
  const registers = new Uint32Array(64);
  for (const [index, register] of gem5.apicRegisters) registers[register] = Number(values[index] ?? 0n);
  return registers;
}

/** Register files are bytes, as decimal numbers. */
function registerBytes(thread: IniSection, key: string, count: number, details: ErrorDetails): DataView {
  const bytes = new SectionReader(thread, details).unsignedList(key, 8 * count, 255n);
  return new DataView(Uint8Array.from(bytes, Number).buffer);
}

function setBytes(thread: IniSection, key: string, bytes: DataView): void {
  thread.set(key, joinList([...new Uint8Array(bytes.buffer)]));
}
