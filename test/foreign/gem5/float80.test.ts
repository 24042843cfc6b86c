import fc from 'fast-check';
import { expect, test } from 'vitest';
import { fromDoubleBits, toDoubleBits } from '../../../src/foreign/gem5/x86/float80.ts';

const bitsOf = (value: number): bigint => new BigUint64Array(Float64Array.of(value).buffer)[0] as bigint;

test('a double comes back from 80 bits as it was', () => {
  fc.assert(
    fc.property(fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }), (bits) => {
      const isNotANumber = ((bits >> 52n) & 0x7ffn) === 0x7ffn && (bits & ((1n << 52n) - 1n)) !== 0n;
      // A signalling NaN becomes a quiet one.
      expect(toDoubleBits(fromDoubleBits(bits))).toBe(isNotANumber ? bits | (1n << 51n) : bits);
    }),
    { numRuns: 2000 },
  );
});

test.each([
  [1, '00000000000000 80ff3f'],
  [-2, '00000000000000 8000c0'],
  [Number.POSITIVE_INFINITY, '00000000000000 80ff7f'],
  [Number.NaN, '00000000000000 c0ff7f'],
  [0, '00000000000000 000000'],
  [Math.PI, '35c26821a2da0f c90040'],
])('%s is what the x87 loads it from', (value, hex) => {
  expect(toDoubleBits(Buffer.from(hex.replace(' ', ''), 'hex'))).toBe(bitsOf(value));
});

test('what is between two doubles goes to the nearest, and to the even one in the middle', () => {
  fc.assert(
    fc.property(
      fc.bigInt({ min: 1n << 63n, max: (1n << 64n) - 1n }),
      fc.integer({ min: 16383 - 1100, max: 16383 + 1040 }),
      (significand, exponent) => {
        const bytes = new Uint8Array(10);
        const view = new DataView(bytes.buffer);
        view.setBigUint64(0, significand, true);
        view.setUint16(8, exponent, true);
        // The two halves are exact doubles; their sum is rounded once, unless it is subnormal: then both are exact multiples of the least.
        const high = Number(significand >> 32n) * 2 ** 32;
        const low = Number(significand & 0xffff_ffffn);
        const power = exponent - 16383 - 63;
        if (power < -1022 + 11 || power > 900) return;
        expect(toDoubleBits(bytes)).toBe(bitsOf((high + low) * 2 ** power));
      },
    ),
    { numRuns: 2000 },
  );
});

test('numbers that are too small or too large become subnormal, zero and infinite', () => {
  const of = (significand: bigint, exponent: number): bigint => {
    const bytes = new Uint8Array(10);
    const view = new DataView(bytes.buffer);
    view.setBigUint64(0, significand, true);
    view.setUint16(8, exponent, true);
    return toDoubleBits(bytes);
  };
  const bias = 16383;
  expect(of(1n << 63n, bias - 1074)).toBe(bitsOf(2 ** -1074));
  expect(of(1n << 63n, bias - 1075)).toBe(bitsOf(0));
  expect(of((1n << 63n) | 1n, bias - 1075)).toBe(bitsOf(2 ** -1074));
  expect(of((1n << 64n) - 1n, bias - 1023)).toBe(bitsOf(2 ** -1022));
  expect(of(1n << 63n, bias + 1024)).toBe(bitsOf(Number.POSITIVE_INFINITY));
  expect(of((1n << 64n) - 1n, bias + 1023)).toBe(bitsOf(Number.POSITIVE_INFINITY));
  expect(of(1n, 0)).toBe(0n);
});
