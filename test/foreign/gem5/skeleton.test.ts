/** A guest of KVM put into a machine of gem5, and taken out of it again. */
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import type { ForeignContext } from '../../../src/foreign/foreign-format.ts';
import { Gem5Format } from '../../../src/foreign/gem5/gem5-store.ts';
import { parseIni } from '../../../src/foreign/gem5/ini.ts';
import { sha256 } from '../../../src/foreign/gem5/manifest.ts';
import type { SkeletonReport } from '../../../src/foreign/gem5/skeleton.ts';
import { fromDoubleBits } from '../../../src/foreign/gem5/x86/float80.ts';
import { type CoreState, efer, registerNames, segmentNames } from '../../../src/foreign/x86/core-state.ts';
import { contextsOfKvm } from '../../../src/foreign/x86/kvm-core.ts';
import { encodeUnknown } from '../../../src/format/value.ts';
import { GuestMemory } from '../../../src/index.ts';
import { makeFolder } from '../../store/support/folders.ts';
import { noise } from '../../store/support/sample-stream.ts';
import { kvmCore } from '../x86/core-snapshot.ts';
import { readAsConfigParser, readAsGem5 } from './consumers.ts';
import { skeletonText } from './skeleton-text.ts';
import { readStoresAsGem5 } from './store-loop.ts';

const shape = { cores: 2, storeBytes: [1 << 20, 1 << 16] };
const regions = [
  { base: 0n, bytes: 1n << 20n },
  { base: 1n << 32n, bytes: 1n << 16n },
];

/** Every value is its own, so that none can pass for another. */
function makeCore(seed: number): CoreState {
  let next = BigInt(seed) * 0x1_0000_0000n;
  const number = (): bigint => (next += 0x0123_4567n);
  const segment = (at: number): CoreState['segments']['cs'] => ({
    selector: BigInt(8 * at + seed),
    base: number(),
    limit: 0xf_0000n + BigInt(at),
    type: 8 + (at % 8),
    s: at % 2,
    dpl: at % 4,
    present: 1,
    avl: (at + 1) % 2,
    l: 0,
    db: at % 2,
    g: 1,
    unusable: 0,
  });
  const fxsave = new Uint8Array(512);
  const area = new DataView(fxsave.buffer);
  area.setUint16(0, 0x37f, true);
  area.setUint16(2, 3 << 11, true);
  area.setUint8(4, 0b1110_0000);
  area.setUint16(6, 0x123, true);
  area.setBigUint64(8, number(), true);
  area.setBigUint64(16, number(), true);
  area.setUint32(24, 0x1f80, true);
  for (let at = 0; at < 8; at += 1)
    fxsave.set(fromDoubleBits(0x3ff0_0000_0000_0000n + BigInt(at)), 32 + 16 * at);
  for (let at = 0; at < 32; at += 1) area.setBigUint64(160 + 8 * at, number(), true);
  return {
    registers: registerNames.map(number),
    rip: 0xffff_ffff_8100_0000n + BigInt(seed),
    rflags: 0x2n | 0x200n | 0x40n | 0x1n | 0x400n,
    segments: Object.fromEntries(
      segmentNames.map((name, at) => [name, segment(at)]),
    ) as CoreState['segments'],
    gdt: { base: number(), limit: 0x7fn },
    idt: { base: number(), limit: 0xfffn },
    control: new Map([0, 2, 3, 4, 8].map((cr) => [cr, number()])),
    debug: new Map([0, 1, 2, 3, 6, 7].map((dr) => [dr, number()])),
    msrs: new Map([
      [efer, 0xd01n],
      [0xc000_0082, number()],
      [0x277, 0x0007_0406_0007_0406n],
      [0x2ff, 0xc06n],
    ]),
    xcr0: 3n,
    apicBase: 0xfee0_0900n,
    apic: Uint32Array.from({ length: 64 }, (_, at) => 100 * seed + at),
    floats: { fxsave },
    activity: 'running',
  };
}

const tag = (name: string, type: 'u8' | 'u32' | 'u64[]', value: unknown): ForeignContext['tags'][number] => {
  return { name, type, data: encodeUnknown(type, value, {}) };
};

function guestContexts(): ForeignContext[] {
  return [
    {
      name: 'pic0',
      tags: [
        tag('irr', 'u8', 1),
        tag('isr', 'u8', 2),
        tag('imr', 'u8', 3),
        tag('irq_base', 'u8', 32),
        tag('auto_eoi', 'u8', 1),
        tag('read_reg_select', 'u8', 1),
      ],
    },
    {
      name: 'ioapic',
      tags: [
        tag('ioregsel', 'u32', 16),
        tag('id', 'u32', 4),
        tag(
          'redirtbl',
          'u64[]',
          BigUint64Array.from({ length: 24 }, (_, at) => BigInt(at) << 56n),
        ),
      ],
    },
    { name: 'pit', tags: [tag('channels[0].count', 'u32', 65_536), tag('channels[0].mode', 'u8', 2)] },
    { name: 'serial0', tags: [tag('interrupt_enable', 'u8', 5), tag('line_control', 'u8', 3)] },
    { name: 'rtc', tags: [tag('seconds', 'u8', 9)] },
    ...contextsOfKvm(makeCore(1), 0),
    ...contextsOfKvm(makeCore(2), 1),
  ];
}

/** Words that are zero, and others, below and above 4 GiB. */
function makeMemory(): GuestMemory {
  const memory = GuestMemory.allocate(regions);
  memory.write(5000, new Uint8Array([1, 2, 3]));
  memory.write(500_000, noise('below', 200_000));
  memory.write((1n << 32n) + 4093n, noise('above', 30_000));
  return memory;
}

const uuid = '0f0e0d0c-0b0a-4908-8706-050403020100';

/** Saves a guest into the machine of a skeleton; what was reported. */
async function save(
  folder: string,
  contexts: readonly ForeignContext[],
  ofShape = shape,
): Promise<SkeletonReport> {
  mkdirSync(`${folder}/skeleton`, { recursive: true });
  writeFileSync(`${folder}/skeleton/m5.cpt`, skeletonText(ofShape));
  const reports: SkeletonReport[] = [];
  const options = { skeleton: `${folder}/skeleton`, onReport: (one: SkeletonReport) => reports.push(one) };
  const format = new Gem5Format(options, `${folder}/cpt`, 'gem5:cpt');
  const memory = makeMemory();
  const writer = await format.createWriter({ uuid });
  try {
    await writer.memory('memory', memory, { signal: undefined });
    await writer.commit({
      uuid,
      createdMs: 0,
      contexts,
      memory: { name: 'memory', at: contexts.length, regions },
    });
  } catch (error) {
    await writer.abort();
    throw error;
  } finally {
    await memory.close();
  }
  expect(reports).toEqual([JSON.parse(readFileSync(`${folder}/cpt/chkpt.report.json`, 'utf8'))]);
  return reports[0] as SkeletonReport;
}

async function load(path: string): Promise<readonly ForeignContext[]> {
  const reading = await new Gem5Format({}, path, 'gem5:cpt').openReading({});
  await reading.close();
  return reading.contexts;
}

describe('a core', () => {
  test('is the same when KVM has had it', () => {
    const contexts = [...contextsOfKvm(makeCore(1), 0), ...contextsOfKvm(makeCore(2), 1)];
    const msrs = [...makeCore(1).msrs.keys()];
    expect(kvmCore(contexts, 0, msrs)).toEqual(makeCore(1));
    expect(kvmCore(contexts, 1, msrs)).toEqual(makeCore(2));
    expect(kvmCore(contexts, 2)).toBeUndefined();
  });

  test('parts of XSAVE that were never used are as after a reset, whatever the area holds', () => {
    const [own, arch] = contextsOfKvm(makeCore(1), 0) as [ForeignContext, ForeignContext];
    const area = arch.tags.find(({ name }) => name === 'xsave.region')?.data as Uint8Array;
    area[512] = 0;
    const fxsave = kvmCore([own, arch], 0)?.floats?.fxsave as Uint8Array;
    expect(Buffer.from(fxsave.subarray(0, 6)).toString('hex')).toBe('7f0300000000');
    expect(fxsave.subarray(32, 416).every((byte) => byte === 0)).toBe(true);
  });
});

describe('a guest in the machine of a skeleton', () => {
  test('comes back as it was from what gem5 reads of it alone', async () => {
    const folder = makeFolder();
    await save(folder, guestContexts());
    // Without our sections and the manifest the checkpoint is one of gem5.
    const path = `${folder}/cpt/m5.cpt`;
    const text = readFileSync(path, 'latin1');
    writeFileSync(path, text.slice(0, text.indexOf('\n[chkpt]')));
    rmSync(`${folder}/cpt/chkpt.manifest.json`);
    const contexts = await load(`${folder}/cpt`);
    for (const [index, seed] of [1, 2].entries()) {
      const wanted = makeCore(seed);
      const found = kvmCore(contexts, index, wanted.msrs.keys()) as CoreState;
      expect({ ...found, msrs: undefined, apic: undefined }).toEqual({
        ...wanted,
        msrs: undefined,
        apic: undefined,
      });
      for (const [msr, value] of wanted.msrs) expect(found.msrs.get(msr)).toBe(value);
      // EOI and what is unused are not kept.
      for (const register of [2, 3, 8, 0xd, 0xf, 0x10, 0x17, 0x20, 0x30, 0x32, 0x38, 0x3e]) {
        expect(found.apic?.[register]).toBe(wanted.apic?.[register]);
      }
    }
  });

  test('is what gem5 itself reads: its text for both consumers, its memory to the last byte', async () => {
    const folder = makeFolder();
    await save(folder, guestContexts());
    const bytes = readFileSync(`${folder}/cpt/m5.cpt`);
    const reading = readAsGem5(bytes.toString('latin1')) ?? {};
    expect(readAsConfigParser([bytes.toString('latin1')])).toEqual([reading]);
    // The other tests ask our own parser.
    const ours = [...parseIni(bytes).sections].map((section) => {
      return [section.name, Object.fromEntries([...section.keys].map((key) => [key, section.get(key)]))];
    });
    expect(reading).toEqual(Object.fromEntries(ours));
    expect(reading['root.globals']?.['curTick']).toBe('5000000');
    expect(reading['board.physmem']).toEqual({ lal_addr: '', lal_cid: '', nbr_of_stores: '2' });
    const stores = regions.map((_, at) => {
      const { store_id, filename, range_size } = reading[`board.physmem.store${at}`] ?? {};
      expect(store_id).toBe(`${at}`);
      return { path: `${folder}/cpt/${filename}`, rangeBytes: Number(range_size) };
    });
    await using memory = makeMemory();
    expect(readStoresAsGem5(stores)).toEqual(
      regions.map(({ base, bytes: size }) => ({ memory: sha256(memory.read(base, Number(size))) })),
    );
  });

  test('stands where the page of gem5 says', async () => {
    const folder = makeFolder();
    await save(folder, guestContexts());
    const document = parseIni(readFileSync(`${folder}/cpt/m5.cpt`));
    const core = makeCore(1);
    const [isa, thread] = [document.section('board.cpu8.isa'), document.section('board.cpu8.xc.0')];
    const values = String(isa?.get('regVal')).split(' ').map(BigInt);
    expect(values).toHaveLength(205);
    expect(values[3]).toBe(core.control.get(3));
    expect(values[24]).toBe(core.rflags & ~0xcd5n);
    expect(values[102]).toBe(core.msrs.get(0xc000_0082));
    expect(values[126 + 1]).toBe(core.segments.cs.selector);
    expect(values[139 + 7]).toBe(core.segments.ldt.base);
    expect(values[152 + 4]).toBe(core.segments.fs.base);
    expect(values[165 + 12]).toBe(0xfffn);
    expect(values[26]).toBe(1026n);
    expect(thread?.get('_pc')).toBe(`${BigInt.asUintN(64, core.rip + core.segments.cs.base)}`);
    expect(thread?.get('_nupc')).toBe('1');
    expect(thread?.get('_size')).toBe('0');
    const integers = Uint8Array.from(String(thread?.get('regs.integer')).split(' '), Number);
    expect(new DataView(integers.buffer).getBigUint64(8 * 3, true)).toBe(core.registers[3]);
    expect(integers.subarray(8 * 16).every((byte) => byte === 1)).toBe(true);
    expect(thread?.get('regs.condition_code')).toBe(
      [64, ...new Array(7).fill(0), 1, ...new Array(7).fill(0), 0, 4, ...new Array(22).fill(0)].join(' '),
    );
    expect(thread?.get('apicTimerEventScheduled')).toBe('false');
    expect(thread?.get('pendingNmi')).toBe('false');
    expect(document.section('board.pc.south_bridge.pic1')?.get('vectorOffset')).toBe('32');
    expect(document.section('board.pc.south_bridge.pic1')?.get('readIRR')).toBe('false');
    expect(document.section('board.pc.south_bridge.io_apic')?.get('id')).toBe('4');
    expect(document.section('board.pc.south_bridge.pit')?.get('pit.counter0.initial_count')).toBe('0');
    expect(document.section('board.pc.com_1')?.get('IER')).toBe('5');
    expect(document.section('board.physmem')?.get('lal_addr')).toBe('');
  });

  test('attributes of segments are packed as gem5 has them', async () => {
    const folder = makeFolder();
    const core = makeCore(1);
    const flags = { s: 1, dpl: 0, present: 1, avl: 0, l: 0, db: 0, g: 1, unusable: 0 };
    const segments = {
      ...core.segments,
      cs: { ...core.segments.cs, ...flags, type: 0xb, l: 1 },
      ss: { ...core.segments.ss, ...flags, type: 0x3, dpl: 3, db: 1 },
      gs: { ...core.segments.gs, ...flags, type: 0, s: 0, present: 0, g: 0, unusable: 1 },
      fs: { ...core.segments.fs, ...flags, type: 0x1, avl: 1 },
    };
    await save(folder, contextsOfKvm({ ...core, segments }, 0));
    const document = parseIni(readFileSync(`${folder}/cpt/m5.cpt`));
    const values = String(document.section('board.cpu8.isa')?.get('regVal')).split(' ').map(BigInt);
    // ES, CS, SS, DS, FS, GS. Type at 8, S at 15, DPL at 0, P at 7, AVL at 5, L at 4, D/B at 3, G at 6, unusable at 2.
    expect(values.slice(179, 181)).toEqual([0x8bd0n, 0x83cbn]);
    expect(values.slice(182, 184)).toEqual([0x81e0n, 0x4n]);
  });

  test('64-bit code has flat segments but for FS and GS', async () => {
    const folder = makeFolder();
    const core = makeCore(1);
    const long = { ...core, segments: { ...core.segments, cs: { ...core.segments.cs, l: 1 } } };
    await save(folder, contextsOfKvm(long, 0));
    const document = parseIni(readFileSync(`${folder}/cpt/m5.cpt`));
    const values = String(document.section('board.cpu8.isa')?.get('regVal')).split(' ').map(BigInt);
    expect(values[152 + 3]).toBe(0n);
    expect(values[152 + 4]).toBe(core.segments.fs.base);
    // The second core stays as it was.
    expect(document.section('board.cpu9.isa')?.get('regVal')).toContain('1000 1001 1002');
  });

  test('what was set, kept, cleared and lost is told, and what was kept is kept byte for byte', async () => {
    const folder = makeFolder();
    const report = await save(folder, guestContexts());
    expect(report.set).toContain('board.cpu9.isa');
    expect(report.set).toContain('board.pc.com_1');
    expect(report.kept).toContain('board.disk');
    expect(report.cleared).toEqual(
      expect.arrayContaining(['board.cpu8.mmu.dtb', 'board.cpu8.mmu.dtb.Entry1']),
    );
    expect(report.lost).toContain('context rtc');
    const text = readFileSync(`${folder}/cpt/m5.cpt`, 'latin1');
    expect(text).toContain('\n[board.disk]\nodd_key=kept = as it is  \n');
    expect(text).toContain('_size=0\nlruSeq=44\n');
    expect(text).not.toContain('Entry0');
    expect(text).toContain('curTick=5000000\nversion_tags=x86-add-tlb x86-add-xcr0\n');
  });

  test('other contexts come back from sections of their own', async () => {
    const folder = makeFolder();
    const contexts = guestContexts();
    await save(folder, contexts);
    expect((await load(`${folder}/cpt`)).map(({ name }) => name)).toEqual(contexts.map(({ name }) => name));
    expect(await load(`${folder}/cpt`)).toEqual(
      contexts.map(({ name, tags }) => ({
        name,
        tags: tags.map((one) => ({ ...one, data: expect.anything() })),
      })),
    );
  });

  test.each<[name: string, contexts: () => ForeignContext[], shape: typeof shape]>([
    ['other memory', guestContexts, { ...shape, storeBytes: [1 << 20] }],
    ['fewer cores', guestContexts, { ...shape, cores: 1 }],
    ['virtual-8086 mode', () => contextsOfKvm({ ...makeCore(1), rflags: 0x2_0002n }, 0), shape],
  ])('a machine with %s is refused, and nothing is left', async (_name, contexts, ofShape) => {
    const folder = makeFolder();
    await expect(save(folder, contexts(), ofShape)).rejects.toMatchObject({ code: 'CHKPT_UNSUPPORTED' });
    expect(readdirSync(folder)).toEqual(['skeleton']);
  });
});
