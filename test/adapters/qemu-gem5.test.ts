/**
 * A Linux in QEMU, put into a machine of gem5: what stands in the m5.cpt is what QEMU's monitor says of the same guest, register by register.
 */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { afterEach, describe, expect, test } from 'vitest';
import { LinuxQemu, whyNoQemuLinux } from '../../bench/guests/qemu.ts';
import { QemuVm } from '../../src/adapters/qemu/index.ts';
import type { ForeignContext } from '../../src/foreign/foreign-format.ts';
import { parseIni } from '../../src/foreign/gem5/ini.ts';
import { guestOfQemu } from '../../src/foreign/qemu/guest.ts';
import { type CoreSource, type CoreState, efer } from '../../src/foreign/x86/core-state.ts';
import { inspectCheckpoint, openStore, saveVm } from '../../src/index.ts';
import {
  checkLost,
  fieldsOfContexts,
  fieldsOfQemu,
  fill,
  type GuestField,
} from '../foreign/gem5/lost-oracle.ts';
import { skeletonText } from '../foreign/gem5/skeleton-text.ts';
import { snapshotOf } from '../foreign/x86/core-snapshot.ts';
import { makeFolder } from '../store/support/folders.ts';

const missing = whyNoQemuLinux();
if (missing !== undefined) console.warn(`Linux of QEMU in gem5 is not tested: ${missing}`);
const memoryBytes = 256 << 20;

const started: LinuxQemu[] = [];
afterEach(async () => {
  for (const qemu of started.splice(0)) await qemu.kill();
});

async function monitor(vm: QemuVm, command: string): Promise<string> {
  return String(await vm.qmp.execute('human-monitor-command', { 'command-line': command }));
}

/** `NAME=hexadecimal` of `info registers`. */
function registerOf(text: string, name: string): bigint {
  const digits = new RegExp(`(?:^|[\\s\\[])${name} *=\\s*([0-9a-f]+)`, 'm').exec(text)?.[1];
  if (digits === undefined) throw new Error(`no ${name} in ${text}`);
  return BigInt(`0x${digits}`);
}

const upper = ['RAX', 'RCX', 'RDX', 'RBX', 'RSP', 'RBP', 'RSI', 'RDI'];
const integerNames = [...upper, 'R8', 'R9', 'R10', 'R11', 'R12', 'R13', 'R14', 'R15'];
const segmentPlaces = {
  ES: 'es',
  CS: 'cs',
  SS: 'ss',
  DS: 'ds',
  FS: 'fs',
  GS: 'gs',
  LDT: 'ldt',
  TR: 'tr',
} as const;

/** Selector, base, limit and flags of a segment, as the monitor prints them. */
function segmentOf(text: string, name: string): bigint[] {
  const found = new RegExp(`^${name} *=([0-9a-f]{4}) ([0-9a-f]+) ([0-9a-f]+) ([0-9a-f]+)`, 'm').exec(text);
  return (found ?? []).slice(1).map((digits) => BigInt(`0x${digits}`));
}

/** The upper word of the descriptor. */
function flagsOf({ type, s, dpl, present, avl, l, db, g }: CoreState['segments']['cs']): bigint {
  return BigInt(
    (type << 8) |
      (s << 12) |
      (dpl << 13) |
      (present << 15) |
      (avl << 20) |
      (l << 21) |
      (db << 22) |
      (g << 23),
  );
}

function checkCore(core: CoreState, text: string): void {
  expect(core.registers).toEqual(integerNames.map((name) => registerOf(text, name)));
  expect(core.rip).toBe(registerOf(text, 'RIP'));
  expect(core.rflags).toBe(registerOf(text, 'RFL'));
  for (const [printed, name] of Object.entries(segmentPlaces)) {
    const segment = core.segments[name];
    const [selector, base, limit, flags = 0n] = segmentOf(text, printed);
    expect([printed, segment.selector, segment.base, segment.limit]).toEqual([
      printed,
      selector,
      base,
      limit,
    ]);
    // The monitor leaves out the second half of the limit.
    expect([printed, flagsOf(segment)]).toEqual([printed, flags & 0xf0ff00n]);
  }
  expect(core.control.get(0)).toBe(registerOf(text, 'CR0'));
  for (const at of [2, 3, 4]) expect(core.control.get(at)).toBe(registerOf(text, `CR${at}`));
  for (const at of [0, 1, 2, 3, 6, 7]) expect(core.debug.get(at)).toBe(registerOf(text, `DR${at}`));
  expect(core.msrs.get(efer)).toBe(registerOf(text, 'EFER'));
  const fxsave = Buffer.from(core.floats?.fxsave ?? []);
  expect(BigInt(fxsave.readUInt16LE(0))).toBe(registerOf(text, 'FCW'));
  expect(BigInt(fxsave.readUInt32LE(24))).toBe(registerOf(text, 'MXCSR'));
  for (let at = 0; at < 16; at += 1) {
    const name = `XMM${String(at).padStart(2, '0')}`;
    const [, high, low] = new RegExp(`^.*${name}=([0-9a-f]{16}) ?([0-9a-f]{16})`, 'm').exec(text) ?? [];
    const found = [fxsave.readBigUInt64LE(168 + 16 * at), fxsave.readBigUInt64LE(160 + 16 * at)];
    expect([name, ...found]).toEqual([name, BigInt(`0x${high}`), BigInt(`0x${low}`)]);
  }
}

const mappedDevices = ['cpu', 'cpu_common', 'apic', 'i8259', 'ioapic', 'i8254', 'serial'];

/** Bits of a descriptor's upper word that are parts of base and limit. */
const repeated = 0xff0f_00ff;

function means(name: string, bit: number): boolean {
  // Bytes are big-endian.
  if (name.endsWith('.flags')) return ((repeated >>> ((3 - (bit >> 3)) * 8 + (bit & 7))) & 1) === 0;
  // 65536 of a counter is 0.
  if (/channels\[[0-2]\]\.count$/.test(name) && bit === 8) return false;
  // Said by the tags of the context, and by the order of x87 registers, which are all zero here.
  return !['qemu/state', 'qemu/accelerator'].includes(name);
}

/** Every field of the devices that are mapped is read, or told as lost. */
function checkReport(contexts: readonly ForeignContext[]): void {
  const fields = [...fieldsOfContexts(contexts), ...fieldsOfQemu(contexts, mappedDevices)];
  const bits = ({ name, data }: GuestField): number[] => {
    if (name === 'qemu/state' || data.length === 0) return [];
    // The lowest bit of a number, and the highest one that is set.
    const first = data.findIndex((byte) => byte !== 0);
    const set = first < 0 ? [] : [8 * first + Math.floor(Math.log2(data[first] as number))];
    return [...new Set([8 * (data.length - 1), ...set])];
  };
  const others = /^device .+ of QEMU$/;
  const { set, lost } = checkLost(contexts, fields, { bits, means, others });
  expect(set).toBeGreaterThan(150);
  expect(lost).toBeGreaterThan(150);
  const { report } = fill(contexts);
  expect(report.lost).toEqual(expect.arrayContaining(['device mc146818rtc of QEMU', 'device hpet of QEMU']));
}

describe.skipIf(missing !== undefined)('a Linux guest in QEMU', () => {
  test('has the registers in gem5 that it has in QEMU', { timeout: 120_000 }, async () => {
    const folder = makeFolder();
    const qemu = await LinuxQemu.start({ folder, name: 'a', memoryBytes });
    started.push(qemu);
    await qemu.line.waitFor(/^TICK 2/);
    await using vm = await QemuVm.connect(qemu.qmpPath);
    await vm.pause();
    const text = await monitor(vm, 'info registers');

    await saveVm(vm, 'mem:registers', { skip: ['memory'] });
    await using inspection = await inspectCheckpoint('mem:registers');
    const state = await inspection.readBytes('qemu', 'state');
    const accelerator = await inspection.readBytes('qemu', 'accelerator');
    const contexts: ForeignContext[] = [
      {
        name: 'qemu',
        tags: [
          { name: 'state', type: 'bytes', data: state },
          { name: 'accelerator', type: 'string', data: accelerator },
        ],
      },
    ];
    const core = guestOfQemu(contexts)?.cores[0] as CoreSource;
    checkCore(snapshotOf(core, [efer]), text);
    checkReport(contexts);

    mkdirSync(`${folder}/skeleton`);
    writeFileSync(`${folder}/skeleton/m5.cpt`, skeletonText({ cores: 1, storeBytes: [memoryBytes] }));
    await saveVm(vm, openStore(`gem5:${folder}/cpt?skeleton=${folder}/skeleton`));
    const document = parseIni(readFileSync(`${folder}/cpt/m5.cpt`));
    const values = String(document.section('board.cpu8.isa')?.get('regVal')).split(' ').map(BigInt);
    expect(values[0]).toBe(registerOf(text, 'CR0'));
    expect(values[3]).toBe(registerOf(text, 'CR3'));
    expect(values[126 + 1]).toBe(segmentOf(text, 'CS')[0]);
    expect(values[139 + 5]).toBe(segmentOf(text, 'GS')[1]);
    const thread = document.section('board.cpu8.xc.0');
    const integers = Uint8Array.from(String(thread?.get('regs.integer')).split(' '), Number);
    const view = new DataView(integers.buffer);
    expect(integerNames.map((_, at) => view.getBigUint64(8 * at, true))).toEqual(
      integerNames.map((name) => registerOf(text, name)),
    );
    const pic = /pic0: irr=\S+ imr=(\S+) isr=\S+ hprio=\S+ irq_base=(\S+)/.exec(
      await monitor(vm, 'info pic'),
    );
    const section = document.section('board.pc.south_bridge.pic1');
    expect([section?.get('IMR'), section?.get('vectorOffset')]).toEqual(
      [pic?.[1], pic?.[2]].map((digits) => `${Number.parseInt(digits ?? '', 16)}`),
    );
    const report = JSON.parse(readFileSync(`${folder}/cpt/chkpt.report.json`, 'utf8'));
    expect(report.set).toEqual(
      expect.arrayContaining(['board.cpu8.isa', 'board.cpu8.xc.0', 'board.pc.com_1']),
    );
    expect(report.lost).toContain('device mc146818rtc of QEMU');
    expect(report.lost).not.toContain('context qemu');
  });
});
