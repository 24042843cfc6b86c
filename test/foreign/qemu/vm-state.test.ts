/** Device state of QEMU: what is described is read, and what is forged is refused or left out, soon and without an exception. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { guestOfQemu } from '../../../src/foreign/qemu/guest.ts';
import { parseVmState } from '../../../src/foreign/qemu/vm-state.ts';
import { snapshotOf } from '../x86/core-snapshot.ts';
import { encodeVmState, type MadeDevice, type MadeField } from './state-writer.ts';

const be = (bytes: number, value: bigint): Buffer =>
  Buffer.from(value.toString(16).padStart(2 * bytes, '0'), 'hex');
const one = (name: string, bytes: number, value: bigint): MadeField => ({
  name,
  elements: [be(bytes, value)],
});
const wanted = new Set(['cpu', 'apic']);

const sample: MadeDevice[] = [
  { name: 'timer', instance: 0, fields: [one('ticks', 8, 5n)] },
  {
    name: 'cpu',
    instance: 0,
    fields: [
      { name: 'regs', elements: [be(8, 1n), be(8, 2n)], isArray: true },
      {
        name: 'segs',
        elements: [3n, 4n].map((value) => ({
          fields: [one('selector', 4, value), one('base', 8, 10n * value)],
        })),
        isArray: true,
      },
    ],
    subsections: [{ name: 'cpu/more', fields: [one('extra', 2, 99n)] }],
  },
  { name: 'apic', instance: 0, fields: [one('id', 1, 7n)] },
];

describe('a state', () => {
  test('tells fields, elements, structures and subsections of the devices that are wanted', () => {
    const { devices = [], others } = parseVmState(encodeVmState(sample), wanted) ?? {};
    const [cpu, apic] = devices;
    expect(devices.map(({ name }) => name)).toEqual(['cpu', 'apic']);
    expect(others).toEqual(['timer']);
    const names = [
      'regs[0]',
      'regs[1]',
      'segs[0].base',
      'segs[1].selector',
      'cpu/more/extra',
      'regs[2]',
      'regs',
    ];
    expect(names.map((name) => cpu?.number(name))).toEqual([1n, 2n, 30n, 4n, 99n, undefined, undefined]);
    expect(apic?.number('id')).toBe(7n);
  });

  test('is read behind memory that looks like a device but for its end', () => {
    const cpu = sample[1] as MadeDevice;
    const other = {
      ...cpu,
      fields: [{ ...(cpu.fields[0] as MadeField), elements: [be(8, 8n), be(8, 9n)] }, ...cpu.fields.slice(1)],
    };
    const alone = encodeVmState([other]);
    const section = Buffer.from(alone.subarray(8, alone.indexOf('{"page_size"') - 5));
    section[section.length - 1] = 77; // the number of another section
    const { devices = [] } = parseVmState(encodeVmState(sample, section), wanted) ?? {};
    expect(devices.map((device) => device.number('regs[1]') ?? device.number('id'))).toEqual([2n, 7n]);
  });

  test('that is cut, changed or made up never throws, and tells nothing that is not there', () => {
    const state = encodeVmState(sample);
    for (let length = 0; length < state.length; length += 1) {
      expect(parseVmState(state.subarray(0, length), wanted)).toBeUndefined();
    }
    for (let at = 0; at < state.length; at += 1) {
      for (const bit of [0, 3, 7]) {
        const damaged = Buffer.from(state);
        damaged[at] = (damaged[at] ?? 0) ^ (1 << bit);
        parseVmState(damaged, wanted);
      }
    }
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 400 }), fc.json(), (noise, json) => {
        const text = Buffer.from(
          `{"page_size": ${json}, "devices": [${json}, {"name": "cpu", "fields": ${json}}]}`,
        );
        const length = Buffer.alloc(4);
        length.writeUInt32BE(text.length);
        const head = Buffer.concat([Buffer.from('QEVM'), Buffer.of(0, 0, 0, 3), noise, Buffer.of(6)]);
        parseVmState(Buffer.concat([head, length, text]), wanted);
      }),
    );
  });

  test.each([
    ['more elements than there are bytes', { size: 1, array_len: 0xffff_ffff }],
    ['elements of nothing', { size: 0, array_len: 0xffff_ffff }],
    ['a size beyond everything', { size: 2 ** 52 }],
    ['a size below nothing', { size: -8 }],
    ['a name that is none', { size: 8, name: 5 }],
  ])('with %s leaves that device out', (_, change) => {
    const state = encodeVmState([{ name: 'cpu', instance: 0, fields: [one('a', 8, 1n)] }]);
    const text = JSON.stringify({ ...{ name: 'a', type: 'made' }, ...change });
    const at = state.lastIndexOf('{"name":"a"');
    const json = Buffer.from(state.toString('latin1', at).replace(/\{"name":"a"[^}]*\}/, text), 'latin1');
    const start = state.indexOf('{"page_size"');
    const length = Buffer.alloc(4);
    length.writeUInt32BE(at - start + json.length);
    const forged = Buffer.concat([state.subarray(0, start - 4), length, state.subarray(start, at), json]);
    const begin = performance.now();
    expect(parseVmState(forged, wanted)).toEqual({ devices: [], others: ['cpu'] });
    expect(performance.now() - begin).toBeLessThan(5000);
  });
});

/** A processor whose x87 registers are 0 to 7, in the order in which QEMU keeps them. */
function processor(status: bigint): MadeDevice {
  const segment = {
    fields: [one('selector', 4, 0n), one('base', 8, 0n), one('limit', 4, 0n), one('flags', 4, 0n)],
  };
  return {
    name: 'cpu',
    instance: 0,
    fields: [
      { name: 'env.regs', elements: Array.from({ length: 16 }, () => be(8, 0n)), isArray: true },
      one('env.fpus_vmstate', 2, status),
      {
        name: 'env.fpregs',
        elements: Array.from({ length: 8 }, (_, at) => ({
          fields: [{ name: 'tmp', elements: [Buffer.concat([be(8, 0x100n + BigInt(at)), be(2, 0x3fffn)])] }],
        })),
        isArray: true,
      },
      { name: 'env.segs', elements: Array.from({ length: 6 }, () => segment), isArray: true },
    ],
  };
}

test.each([
  ['tcg', [3, 4, 5, 6, 7, 0, 1, 2]],
  ['kvm', [0, 1, 2, 3, 4, 5, 6, 7]],
])('x87 registers of %s, the top of the stack first', (accelerator, order) => {
  const tags = [
    { name: 'accelerator', type: 'string' as const, data: Buffer.from(accelerator) },
    { name: 'state', type: 'bytes' as const, data: encodeVmState([processor(3n << 11n)]) },
  ];
  const [core] = guestOfQemu([{ name: 'qemu', tags }])?.cores ?? [];
  const fxsave = Buffer.from((core && snapshotOf(core).floats?.fxsave) ?? []);
  const found = order.map((_, at) => Number(fxsave.readBigUInt64LE(32 + 16 * at)) - 0x100);
  expect(found).toEqual(order);
  expect(fxsave.readUInt16LE(40)).toBe(0x3fff);
});

test('what is no x86 guest of QEMU is none', () => {
  expect(guestOfQemu([])).toBeUndefined();
  const data = encodeVmState([{ name: 'cpu', instance: 0, fields: [one('env.regs', 8, 0n)] }]);
  expect(guestOfQemu([{ name: 'qemu', tags: [{ name: 'state', type: 'bytes', data }] }])).toBeUndefined();
});
