/** What the report of a skeleton says was lost: every field of the guest is in gem5's text, or told. */
import { describe, expect, test } from 'vitest';
import * as layouts from '../../../src/adapters/kvm/layouts.ts';
import type { StructLayout } from '../../../src/adapters/kvm/struct-layout.ts';
import type { ForeignContext, ForeignTag } from '../../../src/foreign/foreign-format.ts';
import { fromDoubleBits } from '../../../src/foreign/gem5/x86/float80.ts';
import { TagList } from '../../../src/foreign/x86/tag-list.ts';
import { joinIndices } from '../../../src/foreign/x86/taken-fields.ts';
import { encodeUnknown } from '../../../src/format/value.ts';
import { encodeVmState, type MadeDevice, type MadeField } from '../qemu/state-writer.ts';
import { checkLost, fieldsOfContexts, fieldsOfQemu, fill, type GuestField } from './lost-oracle.ts';

/** Bytes that are never 0, other ones each time. */
function noise(seed: number): (byteLength: number) => Uint8Array {
  let state = seed;
  return (byteLength) =>
    Uint8Array.from({ length: byteLength }, () => {
      state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0;
      return 1 + ((state >>> 16) % 255);
    });
}

function tagsOf(layout: StructLayout, bytes: Uint8Array, prefix = ''): ForeignTag[] {
  const encoded = layout.state({ prefix, strict: false }).encode(layout.decode(bytes));
  return encoded.map(({ tag, type, data }) => ({ name: tag, type, data: Uint8Array.from(data) }));
}

const msrs = [
  0x10, 0x3b, 0x174, 0x175, 0x176, 0x1d9, 0x277, 0x2ff, 0x6e0, 0xc000_0080, 0xc000_0082, 0x4b56_4d01,
];

/** All that KVM tells of a machine with one core, full of noise, but for what decides on the rest. */
function kvmGuest(seed: number, { xsave = true } = {}): ForeignContext[] {
  const bytes = noise(seed);
  const part = (layout: StructLayout, prefix = ''): ForeignTag[] =>
    tagsOf(layout, bytes(layout.byteLength), prefix);
  const own = [part(layouts.mpStateLayout), part(layouts.regsLayout), part(layouts.sregsLayout)].flat();
  const floats = xsave ? part(layouts.xsaveLayout(4096), 'xsave.') : part(layouts.fpuLayout, 'fpu.');
  const arch = [
    part(layouts.xcrsLayout, 'xcrs.'),
    floats,
    part(layouts.debugLayout, 'debug.'),
    part(layouts.lapicLayout, 'lapic.'),
    part(layouts.msrsLayout(msrs), 'msr.'),
    part(layouts.eventsLayout, 'events.'),
  ].flat();
  const contexts = [
    { name: 'header', tags: [{ name: 'vm.id', type: 'string' as const, data: Buffer.from('a') }] },
    { name: 'core0', tags: own },
    { name: 'core0.arch', tags: arch },
    { name: 'pic0', tags: part(layouts.picLayout) },
    { name: 'pic1', tags: part(layouts.picLayout) },
    { name: 'ioapic', tags: part(layouts.ioapicLayout) },
    { name: 'pit', tags: part(layouts.pitLayout) },
    { name: 'clock', tags: part(layouts.clockLayout) },
    { name: 'serial0', tags: part(layouts.serialLayout) },
  ];
  setNumber(contexts, 'core0', 'mp_state', 'u32', 3);
  setNumber(contexts, 'core0', 'rflags', 'u64', 0x40ed7n);
  setNumber(contexts, 'core0.arch', 'xcrs.nr_xcrs', 'u32', 3);
  setNumber(contexts, 'core0.arch', 'xcrs.xcrs[1].xcr', 'u32', 0);
  dataOf(contexts, 'core0.arch', 'msr.efer').set(dataOf(contexts, 'core0', 'efer'));
  if (xsave) dataOf(contexts, 'core0.arch', 'xsave.region').set([3, 0, 0, 0, 0, 0, 0, 0], 512);
  return contexts;
}

function dataOf(contexts: readonly ForeignContext[], context: string, tag: string): Uint8Array {
  const found = contexts.find(({ name }) => name === context)?.tags.find(({ name }) => name === tag);
  if (found === undefined) throw new Error(`no ${context}/${tag}`);
  return found.data;
}

function setNumber(
  contexts: readonly ForeignContext[],
  context: string,
  tag: string,
  type: 'u8' | 'u32' | 'u64',
  value: number | bigint,
): void {
  dataOf(contexts, context, tag).set(encodeUnknown(type, value, {}));
}

/** A bit of each byte; of long fields of every third byte, and some of the part of XSAVE that is empty. */
function someBits({ data }: GuestField): number[] {
  const isLong = data.length > 64;
  const bytes = [...data.keys()].filter((at) => !isLong || (at < 576 ? at % 3 === 0 : at % 256 === 1));
  return bytes.map((at) => 8 * at + ((5 * at + data.length) % 8));
}

/** What is void because of another value, or would be another kind of guest. */
function means(name: string, bit: number): boolean {
  const voids: Readonly<Record<string, boolean>> = {
    // Virtual-8086 mode, which is refused.
    'core0/rflags': bit !== 17,
    // The number of registers that follow, which names none.
    'core0.arch/xcrs.nr_xcrs': false,
  };
  if (name === 'core0.arch/xsave.region' && bit >= 8 * 576) return false;
  return voids[name] ?? true;
}

const bitsBut = (field: GuestField): number[] =>
  someBits(field).filter((bit) => field.name !== 'core0/rflags' || bit !== 17);

/** Nothing of its vectors is told in words: each of their elements has to be read, or told by its number. */
function plain(contexts: ForeignContext[], floats: string, first: number): ForeignContext[] {
  const area = dataOf(contexts, 'core0.arch', floats);
  for (let at = 0; at < 8; at += 1) {
    area.set(fromDoubleBits(0x3ff0_0000_0000_0000n + BigInt(at)), first + 16 * at);
  }
  dataOf(contexts, 'core0.arch', 'lapic.regs').fill(0, 16 * 0x38, 16 * 0x38 + 4);
  return contexts;
}

describe('every field of a guest is set, or lost and told', () => {
  test('of KVM', { timeout: 60_000 }, () => {
    const contexts = plain(kvmGuest(1), 'xsave.region', 32);
    const { set, lost, partly } = checkLost(contexts, fieldsOfContexts(contexts), { bits: bitsBut, means });
    expect(set).toBeGreaterThan(150);
    expect(lost).toBeGreaterThan(100);
    expect(partly).toBeGreaterThan(5);
  });

  test('of a KVM without XSAVE', { timeout: 60_000 }, () => {
    const contexts = plain(kvmGuest(2, { xsave: false }), 'fpu.fpr', 0);
    checkLost(contexts, fieldsOfContexts(contexts), { bits: bitsBut, means });
  });

  test('of QEMU', { timeout: 60_000 }, () => {
    const contexts = qemuGuest(3);
    const fields = [...fieldsOfContexts(contexts), ...fieldsOfQemu(contexts, mappedOfQemu)];
    const bits = (field: GuestField): number[] => {
      if (field.name === 'qemu/state') return [];
      // Virtual-8086 mode, in bytes that are big-endian.
      return someBits(field).filter((bit) => !field.name.endsWith('.eflags') || bit !== 9);
    };
    const found = checkLost(contexts, fields, { bits, means: meansOfQemu, others: /^device .+ of QEMU$/ });
    expect(found.set).toBeGreaterThan(100);
  });

  test('what gem5 has a place for is there', () => {
    const { lost } = fill(kvmGuest(1)).report;
    const told = (context: string): string[] => lost.filter((line) => line.startsWith(`${context}/`));
    expect(told('core0').filter((line) => !line.includes(': '))).toEqual(['core0/interrupt_bitmap']);
    expect(lost.filter((line) => /msr\.[^:]*$/.test(line))).toEqual(
      ['tsc', 'tsc_adjust', 'tsc_deadline', 'kvm_system_time'].map((name) => `core0.arch/msr.${name}`),
    );
    const places = {
      pic0: ['irr', 'isr', 'imr', 'irq_base', 'auto_eoi', 'init4', 'read_reg_select'],
      ioapic: ['ioregsel', 'id', 'redirtbl'],
      serial0: ['interrupt_enable', 'line_control', 'modem_control'],
    };
    for (const [context, tags] of Object.entries(places)) {
      for (const tag of tags) expect(told(context)).not.toContain(`${context}/${tag}`);
    }
    for (const tag of ['count', 'latched_count', 'mode', 'count_latched']) {
      expect(told('pit').filter((line) => line.endsWith(`].${tag}`))).toEqual([]);
    }
  });

  test('also a tag, a context and a field that nobody has thought of', () => {
    const contexts = kvmGuest(1);
    const added = new TagList();
    added.add('tomorrow', 'u64', 5n);
    added.add('later[0].x', 'u8', 0);
    added.add('later[1].x', 'u8', 0);
    const more = contexts.map(({ name, tags }) => ({ name, tags: [...tags, ...added.tags] }));
    const { report } = fill([...more, { name: 'gpu', tags: added.tags }]);
    const mapped = ['core0', 'core0.arch', 'pic0', 'pic1', 'ioapic', 'pit', 'serial0'];
    for (const name of mapped) {
      expect(report.lost).toEqual(expect.arrayContaining([`${name}/tomorrow`, `${name}/later[0-1].x`]));
    }
    expect(report.lost).toEqual(expect.arrayContaining(['context gpu', 'context clock']));
    expect(report.lost.filter((line) => /gpu|clock|header/.test(line))).toHaveLength(2);
  });
});

describe('what is told', () => {
  test('are tags without a place, elements of others, and words where a value is not what it was', () => {
    const { report } = fill(kvmGuest(1));
    expect(report.lost).toEqual(
      expect.arrayContaining([
        'core0/interrupt_bitmap',
        'core0.arch/events.nmi.pending',
        'core0.arch/debug.flags',
        'core0.arch/msr.tsc',
        'core0.arch/msr.kvm_system_time',
        'core0.arch/xcrs.xcrs[2-15].value',
        'core0.arch/xsave.region[7]',
        'core0.arch/xsave.region: ST(0), rounded to a double',
        'core0.arch/lapic.regs[161-191]',
        'core0.arch/lapic.regs: when its timer fires',
        'pic0/elcr',
        'pic0/special_mask',
        'ioapic/base_address',
        'pit/channels[0-2].gate',
        'serial0/received',
        'serial0/scratch',
        'serial0/divisor_low',
      ]),
    );
    expect(new Set(report.lost).size).toBe(report.lost.length);
  });

  test('an x87 register is lost in part only where no double is the same number', () => {
    const contexts = plain(kvmGuest(1), 'xsave.region', 32);
    const area = dataOf(contexts, 'core0.arch', 'xsave.region');
    const rounded = (): string[] => fill(contexts).report.lost.filter((line) => line.includes('rounded'));
    expect(rounded()).toEqual([]);
    area[32 + 16 * 5] = 1;
    expect(rounded()).toEqual(['core0.arch/xsave.region: ST(5), rounded to a double']);
  });

  test('state of XSAVE that the processor says is in use is told, and what lies behind unused parts is none', () => {
    const contexts = kvmGuest(1);
    const area = dataOf(contexts, 'core0.arch', 'xsave.region');
    const behind = (): string[] =>
      fill(contexts).report.lost.filter((line) => /region(\[130|.*parts)/.test(line));
    expect(behind()).toEqual(['core0.arch/xsave.region[130-143]']);
    area[512] = 7;
    expect(behind()).toEqual([
      'core0.arch/xsave.region[130-1023]',
      'core0.arch/xsave.region: state beyond x87 and SSE, of parts 0x4',
    ]);
  });

  test('a value that stands in two tags is lost where they differ', () => {
    const contexts = kvmGuest(1);
    expect(fill(contexts).report.lost.filter((line) => line.includes('efer'))).toEqual([]);
    setNumber(contexts, 'core0.arch', 'msr.efer', 'u64', 5n);
    expect(fill(contexts).report.lost).toContain('core0.arch/msr.efer: 0x5');
  });

  test('a device that the machine does not have is one line with the reason', () => {
    const contexts = kvmGuest(1);
    const third = { name: 'pit', tags: [] };
    expect(fill([...contexts.filter(({ name }) => name !== 'pit'), third]).report.lost).not.toContain(
      'context pit',
    );
    const { report } = fill(contexts, 1, /pit\.counter/);
    expect(report.lost.filter((line) => line.includes('pit'))).toEqual([
      'context pit: the machine has no such device',
    ]);
  });

  test.each([
    [0, '0', 'true', []],
    [1, '1', 'false', []],
    [2, '1', 'false', ['core0/mp_state: 2, taken for 1']],
    [3, '1', 'true', []],
  ])(
    'a core in state %i of KVM runs in gem5, or waits for what starts it',
    (state, status, started, told) => {
      const contexts = kvmGuest(1);
      setNumber(contexts, 'core0', 'mp_state', 'u32', state);
      const { text, report } = fill(contexts);
      expect([/_status=(.)/.exec(text)?.[1], /startedUp=(.+)/.exec(text)?.[1]]).toEqual([status, started]);
      expect(report.lost.filter((line) => line.includes('mp_state'))).toEqual(told);
    },
  );

  test.each([
    // mode, count as KVM has it, count in gem5, period
    [2, 65_536, 0, 65_535],
    [3, 4772, 4772, 4771],
    [0, 1193, 1193, 1193],
    [0, 0, 0, 0],
    [5, 77, 77, 0],
    [255, 0, 0, 0],
  ])('a timer in mode %i with count %i goes on in gem5', (mode, count, there, period) => {
    const contexts = kvmGuest(1);
    setNumber(contexts, 'pit', 'channels[0].mode', 'u8', mode);
    setNumber(contexts, 'pit', 'channels[0].count', 'u32', count);
    const { text, report } = fill(contexts);
    const value = (key: string): string | undefined =>
      new RegExp(`pit\\.counter0\\.${key}=(.*)`).exec(text)?.[1];
    expect(value('initial_count')).toBe(`${there}`);
    expect(value('mode')).toBe(`${mode}`);
    expect(value('period')).toBe(`${period}`);
    expect(value('event_tick_offset')).toBe(`${period * 838_096}`);
    const told = report.lost.includes('pit/channels[0].mode: in which gem5 lets no timer run');
    expect(told).toBe(mode > 3);
  });

  test('what stays of the skeleton is told by key, where its section is set', () => {
    const { report } = fill(kvmGuest(1));
    expect(report.kept).toEqual(
      expect.arrayContaining([
        'board.disk',
        'board.pc.south_bridge.pit/pit.counter0.output_high',
        'board.pc.south_bridge.pic1/pinStates',
        'board.pc.com_1/status',
        'board.cpu8.isa/regVal[25-27]',
      ]),
    );
    expect(report.kept.filter((line) => /board\.cpu8\.isa$|regVal$/.test(line))).toEqual([]);
  });
});

test('indices are joined from the last to the first, and runs stay apart', () => {
  const names = ['a[0][0].x', 'a[0][1].x', 'a[1][0].x', 'a[1][1].x', 'b[1]', 'c', 'b[2]', 'b[4]', 'b[04]'];
  expect(joinIndices(names)).toEqual(['a[0-1][0-1].x', 'b[1-2]', 'b[4]', 'c', 'b[04]']);
  expect(joinIndices([])).toEqual([]);
});

const mappedOfQemu = ['cpu', 'cpu_common', 'apic', 'i8259', 'ioapic', 'i8254', 'serial'];

function meansOfQemu(name: string, bit: number): boolean {
  // Bits of a descriptor's upper word that are parts of base and limit; bytes are big-endian.
  if (name.endsWith('.flags')) return ((0xff0f_00ff >>> ((3 - (bit >> 3)) * 8 + (bit & 7))) & 1) === 0;
  return !['qemu/state', 'qemu/accelerator'].includes(name);
}

function qemuGuest(seed: number): ForeignContext[] {
  const bytes = noise(seed);
  const one = (name: string, length: number): MadeField => ({ name, elements: [bytes(length)] });
  const many = (name: string, count: number, length: number): MadeField => ({
    name,
    elements: Array.from({ length: count }, () => bytes(length)),
    isArray: true,
  });
  const zero = (name: string, length: number): MadeField => ({ name, elements: [new Uint8Array(length)] });
  const segment = (): { fields: MadeField[] } => ({
    fields: [one('selector', 4), one('base', 8), one('limit', 4), one('flags', 4)],
  });
  const structs = (name: string, count: number, make: () => { fields: MadeField[] }): MadeField => ({
    name,
    elements: Array.from({ length: count }, make),
    isArray: true,
  });
  const vm86Off = Uint8Array.of(0, 0x40, 0x0e, 0xd7);
  const channel = (): { fields: MadeField[] } => ({
    fields: [
      one('count', 4),
      one('latched_count', 2),
      one('count_latched', 1),
      one('mode', 1),
      one('gate', 1),
    ],
  });
  const devices: MadeDevice[] = [
    { name: 'timer', instance: 0, fields: [one('ticks', 8)] },
    { name: 'cpu_common', instance: 0, fields: [zero('halted', 4), one('interrupt_request', 4)] },
    {
      name: 'cpu',
      instance: 0,
      fields: [
        many('env.regs', 16, 8),
        one('env.eip', 8),
        { name: 'env.eflags', elements: [vm86Off] },
        ...['env.fpuc', 'env.fpus_vmstate', 'env.fptag_vmstate'].map((name) => one(name, 2)),
        structs('env.fpregs', 8, () => ({ fields: [one('tmp', 10)] })),
        structs('env.segs', 6, segment),
        { name: 'env.ldt', elements: [segment()] },
        { name: 'env.gdt', elements: [segment()] },
        ...['env.sysenter_cs', 'env.efer', 'env.tsc', 'env.pat', 'env.msr_new'].map((name) => one(name, 8)),
        zero('env.mp_state', 4),
        one('env.mxcsr', 4),
        structs('env.mtrr_var', 8, () => ({ fields: [one('base', 8), one('mask', 8)] })),
      ],
      subsections: [{ name: 'cpu/new', fields: [one('env.umwait', 4)] }],
    },
    {
      name: 'apic',
      instance: 0,
      fields: [one('apicbase', 4), one('id', 1), one('tpr', 1), many('lvt', 6, 4)],
    },
    ...[0, 1, 2].map((instance) => ({
      name: 'i8259',
      instance,
      fields: ['irr', 'imr', 'isr', 'irq_base', 'read_reg_select', 'auto_eoi', 'elcr'].map((name) =>
        one(name, 1),
      ),
    })),
    { name: 'ioapic', instance: 0, fields: [one('id', 1), one('ioregsel', 1), many('ioredtbl', 24, 8)] },
    { name: 'i8254', instance: 0, fields: [structs('channels', 3, channel)] },
    {
      name: 'serial',
      instance: 0,
      fields: [{ name: 'state', elements: [{ fields: [one('ier', 1), one('lcr', 1), one('thr', 1)] }] }],
    },
  ];
  const tags = [
    { name: 'accelerator', type: 'string' as const, data: Buffer.from('tcg') },
    { name: 'machine', type: 'string' as const, data: Buffer.from('pc') },
    { name: 'state', type: 'bytes' as const, data: encodeVmState(devices) },
  ];
  return [{ name: 'qemu', tags }];
}
