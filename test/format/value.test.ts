import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { decodeName, encodeName } from '../../src/format/names.ts';
import { scalarTypes } from '../../src/format/scalar.ts';
import {
  checkValue,
  decodeValue,
  encodeUnknown,
  encodeValue,
  swapElements,
  type ValueType,
  valueTypeCode,
  valueTypeOf,
  vectorArrays,
} from '../../src/format/value.ts';
import { typedValue } from '../support/arbitraries.ts';
import { detached, outOfBounds } from '../support/lost-memory.ts';

describe('typed values', () => {
  it('of every type come back as they were', () => {
    fc.assert(
      fc.property(typedValue, ({ type, value }) => {
        const data = encodeUnknown(type, value, {});
        checkValue(type, data, {});
        expect(decodeValue(type, data.slice())).toEqual({ type, value });
        expect(valueTypeOf(valueTypeCode(type))).toBe(type);
      }),
      { numRuns: 1000 },
    );
  });

  it('have the codes of the specification', () => {
    const codes = [...Array(256).keys()].filter((code) => valueTypeOf(code) !== undefined);
    expect(codes).toEqual([
      0,
      1,
      ...Array.from({ length: 11 }, (_, i) => 2 + i),
      ...Array.from({ length: 11 }, (_, i) => 0x82 + i),
    ]);
    expect(
      ['bytes', 'string', 'bool', 'u64', 'i8', 'f64', 'bool[]', 'f64[]'].map((type) =>
        valueTypeCode(type as ValueType),
      ),
    ).toEqual([0, 1, 2, 6, 7, 12, 0x82, 0x8c]);
  });

  it.each([
    ['bool', true, '01'],
    ['u16', 0x1234, '3412'],
    ['u32', 0xdeadbeef, 'efbeadde'],
    ['u64', 0x0102030405060708n, '0807060504030201'],
    ['i16', -2, 'feff'],
    ['i64', -2n, 'feffffffffffffff'],
    ['f32', 1.5, '0000c03f'],
    ['f64', -0, '0000000000000080'],
    ['string', 'ä', 'c3a4'],
    ['u16[]', Uint16Array.of(1, 0x0203), '01000302'],
    ['bool[]', [true, false], '0100'],
  ] as const)('%s %s is little-endian', (type, value, hex) => {
    expect(Buffer.from(encodeUnknown(type, value, {})).toString('hex')).toBe(hex);
  });

  it.each([
    ['u8', 0, 255],
    ['u16', 0, 65_535],
    ['u32', 0, 4_294_967_295],
    ['i8', -128, 127],
    ['i16', -32_768, 32_767],
    ['i32', -2_147_483_648, 2_147_483_647],
  ] as const)('%s holds exactly %d to %d', (type, least, greatest) => {
    for (const value of [least, greatest]) {
      expect(decodeValue(type, encodeValue(type, value)).value).toBe(value);
    }
    for (const value of [least - 1, greatest + 1, 0.5, Number.NaN, Number.POSITIVE_INFINITY]) {
      expect(() => encodeValue(type, value)).toThrow(expect.objectContaining({ code: 'CHKPT_VALUE_RANGE' }));
    }
    expect(() => encodeUnknown(type, 1n, {})).toThrow(TypeError);
  });

  it('64-bit integers hold exactly their range', () => {
    for (const value of [0n, 2n ** 64n - 1n])
      expect(decodeValue('u64', encodeValue('u64', value)).value).toBe(value);
    for (const value of [-(2n ** 63n), 2n ** 63n - 1n]) {
      expect(decodeValue('i64', encodeValue('i64', value)).value).toBe(value);
    }
    const range = expect.objectContaining({ code: 'CHKPT_VALUE_RANGE' });
    for (const value of [-1n, 2n ** 64n]) expect(() => encodeValue('u64', value)).toThrow(range);
    for (const value of [-(2n ** 63n) - 1n, 2n ** 63n])
      expect(() => encodeValue('i64', value)).toThrow(range);
    expect(() => encodeUnknown('u64', 1, {})).toThrow(TypeError);
  });

  it('an f32 rounds, keeps infinities, and refuses what would become infinite', () => {
    expect(decodeValue('f32', encodeValue('f32', 0.1)).value).toBe(Math.fround(0.1));
    expect(decodeValue('f32', encodeValue('f32', Number.NEGATIVE_INFINITY)).value).toBe(
      Number.NEGATIVE_INFINITY,
    );
    expect(() => encodeValue('f32', 1e39)).toThrow(expect.objectContaining({ code: 'CHKPT_VALUE_RANGE' }));
  });

  it.each([
    ['bytes', 'text'],
    ['bytes', [1, 2]],
    ['string', 5],
    ['bool', 1],
    ['u8', '5'],
    ['u8', null],
    ['u16[]', Int16Array.of(1)],
    ['u8[]', [1]],
    ['bool[]', [1]],
    ['bool[]', Uint8Array.of(1)],
    ['nothing', 1],
  ])('%s from %o is a TypeError', (type, value) => {
    expect(() => encodeUnknown(type as ValueType, value, {})).toThrow(TypeError);
  });

  it.each([
    ['bytes', Uint8Array],
    ...Object.entries(vectorArrays).map(([scalar, array]) => [`${scalar}[]`, array]),
  ] as [ValueType, typeof Uint8Array][])(
    '%s from an array that lost its memory is a TypeError',
    (type, array) => {
      for (const value of [detached(array), outOfBounds(array), outOfBounds(array, 4)]) {
        expect(() => encodeUnknown(type, value, {})).toThrow(/detached or out of bounds/);
        expect(() => encodeUnknown(type, value, {})).toThrow(TypeError);
      }
      expect(encodeUnknown(type, new array(0), {})).toHaveLength(0);
    },
  );

  it('a string with a lone surrogate is refused, not replaced', () => {
    expect(() => encodeValue('string', 'a\ud800')).toThrow(
      expect.objectContaining({ code: 'CHKPT_VALUE_RANGE' }),
    );
  });

  it('a byte order mark stays in a string', () => {
    expect(decodeValue('string', encodeValue('string', '\ufeffx')).value).toBe('\ufeffx');
  });

  it('vectors in place are views, and unaligned ones copies', () => {
    const memory = new Uint8Array(32).map((_, index) => index);
    const aligned = decodeValue('u32[]', memory.subarray(8, 16)).value as Uint32Array;
    expect(aligned.buffer).toBe(memory.buffer);
    const copied = decodeValue('u32[]', memory.subarray(9, 17)).value as Uint32Array;
    expect([...copied]).toEqual([0x0c0b0a09, 0x100f0e0d]);
  });

  it('elements are swapped within themselves for a big-endian host', () => {
    expect([...swapElements(Uint8Array.of(1, 2, 3, 4, 5, 6, 7, 8), 4)]).toEqual([4, 3, 2, 1, 8, 7, 6, 5]);
  });

  it.each([
    ...scalarTypes.map((type): [ValueType, number[]] => [type, []]),
    ...scalarTypes
      .filter((type) => !/8|bool/.test(type))
      .map((type): [ValueType, number[]] => [`${type}[]`, [0, 0, 0]]),
    ['bool', [2]],
    ['bool[]', [0, 1, 255]],
    ['string', [0x61, 0x80]],
    ['string', [0xed, 0xa0, 0x80]],
  ] as [ValueType, number[]][])('in a stream, %s of bytes %j is damage', (type, bytes) => {
    expect(() => checkValue(type, Uint8Array.from(bytes), {})).toThrow(
      expect.objectContaining({ code: 'CHKPT_FORMAT' }),
    );
  });
});

describe('names', () => {
  const longest = `${'ä'.repeat(127)}x`;

  it.each(['a', 'pci.0', '…', '...', ' ', '\ufeff', '__proto__', longest])('%j is a name', (name) => {
    expect(decodeName(encodeName(name), {})).toBe(name);
  });

  it.each(['', '.', '..', 'a/b', 'a\n', 'a\0', 'a\x7f', `${longest}y`, 'a\udc00'])(
    '%j is no name',
    (name) => {
      expect(() => encodeName(name)).toThrow(expect.objectContaining({ code: 'CHKPT_NAME' }));
    },
  );

  it.each(['', '2e', '2e2e', '612f', '1f', '7f', 'ff', 'c3', '61'.repeat(256)])(
    'bytes %s are no name',
    (hex) => {
      expect(() => decodeName(Buffer.from(hex, 'hex'), {})).toThrow(
        expect.objectContaining({ code: 'CHKPT_FORMAT' }),
      );
    },
  );
});
