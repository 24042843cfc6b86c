/** Records, key frames, text, device tables and schemas: exact bytes, and typed errors for what is not exact. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { decodeDeviceTable, encodeDeviceTable } from '../../../src/foreign/palacios/device-table.ts';
import { decodeFiles, fileForm, plainForm, textForm } from '../../../src/foreign/palacios/form.ts';
import { encodeGuestInfo } from '../../../src/foreign/palacios/guest-info.ts';
import { decodeImageHead, digitsBelow, encodeImageHead } from '../../../src/foreign/palacios/image-layout.ts';
import { encodeKeyFrame, keyFrame, wireItem } from '../../../src/foreign/palacios/key-frame.ts';
import {
  decodeRecords,
  encodeRecords,
  type PalaciosContext,
  type Parser,
  parseWith,
  recordHead,
} from '../../../src/foreign/palacios/record.ts';
import * as schema from '../../../src/foreign/palacios/schema.ts';
import { decodeTextContext, encodeTextContext } from '../../../src/foreign/palacios/text.ts';
import { name as anyName } from '../../support/arbitraries.ts';
import * as dumps from './support/dumps.ts';
import {
  fileOf,
  guestInfo,
  key,
  pattern,
  plainOf,
  record,
  recordsIn,
  textOf,
  u32,
  u64,
} from './support/original.ts';

const joined = (pieces: readonly Uint8Array[]): Uint8Array => new Uint8Array(Buffer.concat(pieces));
const context = (name: string, ...records: [tag: string, data: Uint8Array][]): PalaciosContext => ({
  name,
  records: records.map(([tag, data]) => ({ tag, data })),
});

/** Gives a parser the bytes that it asks for. */
function parse<T>(parser: Parser<T>, bytes: Uint8Array): T {
  let at = 0;
  return parseWith(parser, (byteCount) => {
    at += byteCount;
    if (at > bytes.length) throw new RangeError('asks for more than there is');
    return bytes.subarray(at - byteCount, at);
  });
}

function codeOf(work: () => unknown): string {
  try {
    work();
  } catch (error) {
    return String((error as { code?: unknown }).code ?? error);
  }
  return 'no error';
}

const deviceTable = encodeDeviceTable(['8259a', 'serial']);
const header = context('header', ['header', Buffer.from(schema.headerTexts.SVM)]);

describe('the bytes of an original', () => {
  test.each([
    ['a record', encodeRecords(context('guest_info0', ['RIP', u64(0xfff0)])), dumps.recordOfRip],
    ['the file header', encodeRecords(header), dumps.headerFile],
    ['the file devices', encodeRecords(deviceTable), dumps.devicesFile],
    ['the text of devices', encodeTextContext(deviceTable), dumps.devicesTextFile],
    ['devices without tags', plainForm.encode(deviceTable), dumps.devicesPlainFile],
    [
      'an empty device table on a connection',
      [encodeKeyFrame('devices'), ...encodeRecords(encodeDeviceTable([])), encodeKeyFrame('devices')],
      dumps.emptyDevicesOnTheWire,
    ],
    [
      'the first records of guest_info0',
      encodeRecords(context('guest_info0', ['run_state', u32(1)], ['cpu_mode', u32(3)])),
      dumps.beginOfGuestInfo,
    ],
  ])('are written: %s', (_what, pieces, expected) => {
    expect(joined(pieces)).toEqual(expected);
  });

  test('are read: records, text and values without tags give the same device table', () => {
    for (const records of [
      decodeRecords(dumps.devicesFile, {}),
      decodeTextContext(dumps.devicesTextFile, 'devices', {}),
      plainForm.decode('devices', dumps.devicesPlainFile, schema.devicesSchema(2)),
    ]) {
      expect(decodeDeviceTable(records)).toEqual(['8259a', 'serial']);
    }
  });

  test('agree with an implementation of their own for any records', () => {
    const blob = fc.tuple(
      fc.string({ minLength: 1, maxLength: 40, unit: fc.constantFrom(...'abcXYZ019_->.') }),
      fc.uint8Array(),
    );
    fc.assert(
      fc.property(fc.array(blob), (blobs) => {
        const legal = blobs.filter(([tag]) => tag !== '.' && tag !== '..');
        const written = joined(encodeRecords(context('c', ...legal)));
        expect(written).toEqual(new Uint8Array(fileOf(legal)));
        expect(recordsIn(written)).toEqual(legal);
        expect(joined(encodeTextContext(context('c', ...legal)))).toEqual(
          new Uint8Array(textOf(['c', legal])),
        );
      }),
    );
  });

  test('have the sizes of the description', () => {
    const bytes = schema.bytesOf;
    const records = (fields: schema.Schema): number =>
      fields.reduce((sum, [tag, data]) => sum + 20 + tag.length + data, 0);
    expect([
      schema.guestInfoSchema.length,
      records(schema.guestInfoSchema),
      bytes(schema.guestInfoSchema),
    ]).toEqual([54, 2311, 996]);
    expect([records(schema.vmcbSchema), bytes(schema.vmcbSchema)]).toEqual([4443, 4164]);
    expect([records(schema.vmcsSchema), bytes(schema.vmcsSchema)]).toEqual([4125, 4096]);
    expect(records(schema.headerSchema)).toBe(73);
    expect(records(schema.memoryImageSchema)).toBe(74);
    const at = (tag: string): number =>
      bytes(
        schema.guestInfoSchema.slice(
          0,
          schema.guestInfoSchema.findIndex(([name]) => name === tag),
        ),
      );
    expect(
      [
        'run_state',
        'RIP',
        'RDI',
        'CR0',
        'DR0',
        'CS',
        'STAR',
        'GUEST_CR3',
        'FP_STATE_TYPE',
        'FP_STATE_BLOB',
      ].map(at),
    ).toEqual([0, 16, 24, 152, 216, 264, 424, 456, 480, 484]);
    expect(guestInfo(0).map(([tag, data]) => [tag, data.length])).toEqual(schema.guestInfoSchema);
  });

  test('of a segment are those of the description: 64-bit code', () => {
    const values: Record<string, bigint> = {
      limit: 0xffffffffn,
      selector: 0x10n,
      type: 0xbn,
      s: 1n,
      present: 1n,
      l: 1n,
      g: 1n,
    };
    const info = encodeGuestInfo(0, (tag) => {
      if (tag === 'debug.db') return new Uint8Array(32);
      if (tag === 'xsave.region') return new Uint8Array(4096);
      return u64(tag.startsWith('cs.') ? (values[tag.slice(3)] ?? 0n) : 0n);
    });
    expect(info?.records.find(({ tag }) => tag === 'CS')?.data).toEqual(dumps.codeSegment);
  });
});

describe('devices', () => {
  test('of every kind are told by the length of their state, and no two have the same', () => {
    const sizes = schema.deviceKinds.map((kind) => schema.bytesOf(schema.schemaOfKind(kind)));
    expect(new Set(sizes).size).toBe(sizes.length);
    for (const kind of schema.deviceKinds) {
      expect(schema.kindOfBytes(schema.bytesOf(schema.schemaOfKind(kind)))?.kind).toBe(kind);
    }
    for (const apics of [1, 2, 255]) {
      expect(schema.kindOfBytes(schema.bytesOf(schema.localApicSchema(apics)))?.schema).toHaveLength(
        1 + 33 * apics,
      );
    }
    expect(schema.kindOfBytes(7)).toBe(undefined);
  });

  test.each([
    ['a count that does not fit', [u32(3), new Uint8Array(64)], 'CHKPT_FORMAT'],
    ['a count whose size wraps in 32 bits', [u32(0x8000000), new Uint8Array(0)], 'CHKPT_LIMIT'],
    ['a name that does not end', [u32(1), new Uint8Array(32).fill(0x61)], 'CHKPT_FORMAT'],
    ['an empty name', [u32(1), new Uint8Array(32)], 'CHKPT_FORMAT'],
    ['a name with a slash', [u32(1), Buffer.from('a/b'.padEnd(32, '\0'))], 'CHKPT_FORMAT'],
    ['something behind the end of a name', [u32(1), Buffer.from('a\0b'.padEnd(32, '\0'))], 'CHKPT_FORMAT'],
    ['a name twice', [u32(2), Buffer.from('a'.padEnd(32, '\0').repeat(2))], 'CHKPT_FORMAT'],
    ['no names', [u32(0)], 'CHKPT_FORMAT'],
  ])('in a damaged table are a typed error: %s', (_what, data, code) => {
    const records = data.map((one, index) => ({
      tag: ['num_devs', 'names'][index] ?? '',
      data: new Uint8Array(one),
    }));
    expect(codeOf(() => decodeDeviceTable(records))).toBe(code);
  });

  test('in a damaged table are told apart: a name that does not end', () => {
    const records = [
      { tag: 'num_devs', data: u32(1) },
      { tag: 'names', data: new Uint8Array(32).fill(0x61) },
    ];
    expect(() => decodeDeviceTable(records)).toThrow('does not end');
  });

  test('with an id of 32 bytes are refused when the table is written', () => {
    expect(codeOf(() => encodeDeviceTable(['x'.repeat(32)]))).toBe('CHKPT_NAME');
    expect(decodeDeviceTable(encodeDeviceTable(['x'.repeat(31)]).records)).toEqual(['x'.repeat(31)]);
  });
});

describe('a damaged record', () => {
  const sound = record(['RIP', u64(1)]);
  const poked = (at: number, bytes: Uint8Array): Uint8Array => {
    const copy = new Uint8Array(sound);
    copy.set(bytes, at);
    return copy;
  };
  test.each([
    ['a wrong boundary', poked(0, Uint8Array.of(0x24)), 'CHKPT_FORMAT'],
    ['a negative tag length', poked(4, u64(-1)), 'CHKPT_FORMAT'],
    ['a huge tag length', poked(4, u64(256)), 'CHKPT_LIMIT'],
    ['a tag length of 2^63 - 1', poked(4, u64(2n ** 63n - 1n)), 'CHKPT_LIMIT'],
    ['an empty tag', record(['', u64(1)]), 'CHKPT_FORMAT'],
    ['a tag that climbs', record(['..', u64(1)]), 'CHKPT_FORMAT'],
    ['a tag with a NUL', record(['a\0', u64(1)]), 'CHKPT_FORMAT'],
    ['a tag that is not UTF-8', record(['\xff', u64(1)]), 'CHKPT_FORMAT'],
    ['a negative data length', poked(15, u64(-8)), 'CHKPT_FORMAT'],
    ['a huge data length', poked(15, u64(2n ** 40n)), 'CHKPT_LIMIT'],
    ['data longer than the file', poked(15, u64(9)), 'CHKPT_TRUNCATED'],
    ['an end inside the head', sound.subarray(0, 11), 'CHKPT_TRUNCATED'],
    ['an end inside the data', sound.subarray(0, 30), 'CHKPT_TRUNCATED'],
    ['a tail that is no record', Buffer.concat([sound, Uint8Array.of(0)]), 'CHKPT_TRUNCATED'],
  ])('is a typed error: %s', (_what, bytes, code) => {
    expect(codeOf(() => decodeRecords(new Uint8Array(bytes), {}))).toBe(code);
  });

  test('anywhere never gives anything else than records or a typed error', () => {
    const bytes = new Uint8Array(
      fileOf([
        ['num_devs', u32(0)],
        ['names', new Uint8Array(64)],
      ]),
    );
    fc.assert(
      fc.property(
        fc.nat(bytes.length - 1),
        fc.integer({ min: 0, max: 255 }),
        fc.nat(bytes.length),
        (at, value, cut) => {
          const copy = bytes.slice(0, cut);
          if (at < cut) copy[at] = value;
          expect(codeOf(() => decodeRecords(copy, {}))).toMatch(
            /^(no error|CHKPT_(FORMAT|LIMIT|TRUNCATED))$/,
          );
        },
      ),
      { numRuns: 500 },
    );
  });

  test.each([4, 15])('is told what is wrong: a negative length at %d', (at) => {
    expect(() => decodeRecords(poked(at, u64(-8)), {})).toThrow('is negative');
  });

  test('asks for nothing that its lengths announce before they were bounded', () => {
    const asked: number[] = [];
    const parser = recordHead({}, 1000);
    let step = parser.next();
    const bytes = poked(4, u64(2n ** 62n));
    for (let at = 0; step.done !== true; ) {
      asked.push(step.value);
      try {
        step = parser.next(bytes.subarray(at, at + step.value));
      } catch {
        break;
      }
      at += asked.at(-1) ?? 0;
    }
    expect(asked).toEqual([12]);
  });
});

describe('a key frame', () => {
  test('of any name that an original takes comes back', () => {
    fc.assert(
      fc.property(
        anyName.filter((one) => Buffer.byteLength(one) <= 127),
        (one) => {
          const frame = encodeKeyFrame(one);
          expect(parse(keyFrame({}), frame)).toBe(one);
          expect(frame[1]).toBe(0x80);
        },
      ),
    );
    expect(Buffer.from(encodeKeyFrame('x'.repeat(127)))).toEqual(key('x'.repeat(127)));
  });

  test('with a name of 128 bytes is refused: an original would read a negative length', () => {
    expect(codeOf(() => encodeKeyFrame('x'.repeat(128)))).toBe('CHKPT_NAME');
    expect(codeOf(() => parse(keyFrame({}), key('x'.repeat(128))))).toBe('CHKPT_LIMIT');
    expect(codeOf(() => parse(wireItem({}, 0), key('x'.repeat(32_767))))).toBe('CHKPT_LIMIT');
  });

  test.each([
    ['without its top bit', Uint8Array.of(7, 0, ...Buffer.from('devices'))],
    ['that is a record', record(['RIP', u64(1)])],
    ['without a name', Uint8Array.of(0, 0x80)],
    ['with a name that has a slash', key('a/b')],
  ])('%s is CHKPT_FORMAT', (_what, bytes) => {
    expect(codeOf(() => parse(keyFrame({}), new Uint8Array(bytes)))).toBe('CHKPT_FORMAT');
  });

  test('and a record are told apart by two bytes, and a frame that closes may have any name', () => {
    expect(parse(wireItem({}, 100), record(['RIP', u64(1)]))).toEqual({
      record: { tag: 'RIP', dataBytes: 8 },
    });
    for (const close of ['devices', 'BAR-5', '', '#']) {
      expect(parse(wireItem({}, 100), key(close))).toEqual({ close: new Uint8Array(Buffer.from(close)) });
    }
    expect(codeOf(() => parse(wireItem({}, 100), Uint8Array.of(0x23, 0x02)))).toBe('CHKPT_FORMAT');
  });
});

describe('text', () => {
  const of = (text: string): Uint8Array => new Uint8Array(Buffer.from(text, 'latin1'));
  test.each([
    ['a section with a prefix of the name', '[device]\n', 'CHKPT_FORMAT'],
    ['a section with more than the name', '[devices] \n', 'CHKPT_FORMAT'],
    ['no section', 'num_devs=00\n', 'CHKPT_FORMAT'],
    ['space before the section', '\n[devices]\n', 'CHKPT_FORMAT'],
    ['a line without =', '[devices]\nnum_devs\n', 'CHKPT_FORMAT'],
    ['an empty line', '[devices]\n\nnum_devs=00\n', 'CHKPT_FORMAT'],
    ['no tag', '[devices]\n=00\n', 'CHKPT_FORMAT'],
    ['= before a tag', '[devices]\n=num_devs=00\n', 'CHKPT_FORMAT'],
    ['an odd number of digits', '[devices]\nnum_devs=0\n', 'CHKPT_FORMAT'],
    ['a digit that is none', '[devices]\nnum_devs=0g\n', 'CHKPT_FORMAT'],
    ['space among the digits', '[devices]\nnum_devs=00 00\n', 'CHKPT_FORMAT'],
    ['a carriage return', '[devices]\nnum_devs=00\r\n', 'CHKPT_FORMAT'],
    ['a second section', '[devices]\na=00\n[header]\n', 'CHKPT_FORMAT'],
    ['a last line that does not end', '[devices]\nnum_devs=00', 'CHKPT_TRUNCATED'],
  ])('that is not as it is written is a typed error: %s', (_what, text, code) => {
    expect(codeOf(() => decodeTextContext(of(text), 'devices', {}))).toBe(code);
  });

  test('of any context comes back, and a tag with = is refused', () => {
    fc.assert(
      fc.property(fc.array(fc.tuple(anyName, fc.uint8Array())), (blobs) => {
        const one = context('devices', ...blobs);
        if (blobs.some(([tag]) => tag.includes('='))) {
          expect(codeOf(() => encodeTextContext(one))).toBe('CHKPT_NAME');
          return;
        }
        const back = decodeTextContext(joined(encodeTextContext(one)), 'devices', {});
        expect(back.map(({ tag, data }) => [tag, new Uint8Array(data)])).toEqual(blobs);
      }),
    );
  });

  test('has digits of either case', () => {
    expect(decodeTextContext(of('[c]\na=fF0a\n'), 'c', {})[0]?.data).toEqual(Buffer.from([255, 10]));
  });
});

describe('values without tags', () => {
  const files = (name: string, bytes: Uint8Array): ReadonlyMap<string, Uint8Array> =>
    new Map([[name, bytes]]);
  test('are taken apart by the schema of their context', () => {
    const blobs = guestInfo(3);
    const [found] = decodeFiles(plainForm, files('guest_info3', plainOf(blobs)), new Map());
    expect(found?.records.map(({ tag, data }) => [tag, new Uint8Array(data)])).toEqual(blobs);
  });

  test.each([
    ['guest_info0', 995, 'CHKPT_TRUNCATED'],
    ['guest_info0', 997, 'CHKPT_TRAILING_DATA'],
    ['header', 0, 'CHKPT_TRUNCATED'],
    ['devices', 3, 'CHKPT_FORMAT'],
    ['devices', 37, 'CHKPT_FORMAT'],
    ['a device', 31, 'CHKPT_UNSUPPORTED'],
    ['chkpt', 39, 'CHKPT_TRUNCATED'],
  ])('%s of %d bytes is %s', (name, bytes, code) => {
    expect(codeOf(() => decodeFiles(plainForm, files(name, new Uint8Array(bytes)), new Map()))).toBe(code);
  });

  test('of a device that is not known are read with the schema that the caller gives', () => {
    const own = new Map([['nvram', [['a', 3] as const, ['b', 4] as const]]]);
    const [found] = decodeFiles(plainForm, files('nvram', pattern(1, 7)), own);
    expect(found?.records.map(({ tag, data }) => [tag, data.length])).toEqual([
      ['a', 3],
      ['b', 4],
    ]);
  });
});

describe('the head of memory', () => {
  test.each([
    [0n, 1, 'CHKPT_FORMAT'],
    [4095n, 1, 'CHKPT_FORMAT'],
    [4096n, 0, 'CHKPT_FORMAT'],
    [2n ** 63n, 1, 'CHKPT_LIMIT'],
    [2n ** 52n, 0xffffffff, 'CHKPT_LIMIT'],
    [2n ** 44n, 1, 'no error'],
    [134_217_728n, 33, 'no error'],
  ])('blocks of %d bytes, %d of them: %s', (blockBytes, blockCount, code) => {
    const records = [u64(blockBytes), u32(blockCount)].map((data, index) => ({ tag: `${index}`, data }));
    expect(codeOf(() => decodeImageHead(records))).toBe(code);
    if (code !== 'no error') return;
    expect(encodeImageHead(decodeImageHead(records)).map(({ data }) => data)).toEqual(
      records.map(({ data }) => data),
    );
  });

  test('numbers blocks in decimal', () => {
    for (const count of [0, 1, 9, 10, 11, 99, 100, 101, 12_345]) {
      const expected = Array.from({ length: count }, (_, index) => String(index).length).reduce(
        (sum, one) => sum + one,
        0,
      );
      expect(digitsBelow(count)).toBe(expected);
    }
  });

  test('and blocks are written as the original does', () => {
    expect(Buffer.from(fileForm.blockHead(12, 4096))).toEqual(
      record(['memory_img12', new Uint8Array(4096)]).subarray(0, 32),
    );
    expect(Buffer.from(textForm.blockHead(12, 4096)).toString()).toBe('memory_img12=');
  });
});
