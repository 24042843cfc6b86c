/** Random content of checkpoints, for fast-check. */
import fc from 'fast-check';
import type { MemoryRegion } from '../../src/context/memory-frames.ts';
import { decodeValue, type TypedValue } from '../../src/format/value.ts';

// Any code point except surrogates; fc.string's units take seconds to set up.
const text = fc
  .array(fc.integer({ min: 0, max: 0x10_ffff - 0x800 }))
  .map((points) => String.fromCodePoint(...points.map((point) => (point < 0xd800 ? point : point + 0x800))));

const exactF32 = fc.float().map(Math.fround);

/** Any value of any type. */
export const typedValue: fc.Arbitrary<TypedValue> = fc.oneof(
  fc.record({ type: fc.constant('bytes'), value: fc.uint8Array() }),
  fc.record({ type: fc.constant('string'), value: text }),
  fc.record({ type: fc.constant('bool'), value: fc.boolean() }),
  fc.record({ type: fc.constant('u8'), value: fc.integer({ min: 0, max: 255 }) }),
  fc.record({ type: fc.constant('u16'), value: fc.integer({ min: 0, max: 65_535 }) }),
  fc.record({ type: fc.constant('u32'), value: fc.integer({ min: 0, max: 0xffff_ffff }) }),
  fc.record({ type: fc.constant('u64'), value: fc.bigInt(0n, 2n ** 64n - 1n) }),
  fc.record({ type: fc.constant('i8'), value: fc.integer({ min: -128, max: 127 }) }),
  fc.record({ type: fc.constant('i16'), value: fc.integer({ min: -32_768, max: 32_767 }) }),
  fc.record({ type: fc.constant('i32'), value: fc.integer() }),
  fc.record({ type: fc.constant('i64'), value: fc.bigInt(-(2n ** 63n), 2n ** 63n - 1n) }),
  fc.record({ type: fc.constant('f32'), value: exactF32 }),
  fc.record({ type: fc.constant('f64'), value: fc.double() }),
  fc.record({ type: fc.constant('bool[]'), value: fc.array(fc.boolean()) }),
  fc.record({ type: fc.constant('u8[]'), value: fc.uint8Array() }),
  fc.record({ type: fc.constant('u16[]'), value: fc.uint16Array() }),
  fc.record({ type: fc.constant('u32[]'), value: fc.uint32Array() }),
  fc.record({ type: fc.constant('u64[]'), value: fc.bigUint64Array() }),
  fc.record({ type: fc.constant('i8[]'), value: fc.int8Array() }),
  fc.record({ type: fc.constant('i16[]'), value: fc.int16Array() }),
  fc.record({ type: fc.constant('i32[]'), value: fc.int32Array() }),
  fc.record({ type: fc.constant('i64[]'), value: fc.bigInt64Array() }),
  fc.record({ type: fc.constant('f32[]'), value: fc.float32Array() }),
  fc.record({ type: fc.constant('f64[]'), value: fc.float64Array() }),
) as fc.Arbitrary<TypedValue>;

/** A value as it is when it was decoded, for comparing. */
export function plainValue(type: TypedValue['type'], data: Uint8Array): TypedValue {
  return decodeValue(type, data.slice());
}

/** Legal names; few enough that clashes happen unless made unique. */
export const name: fc.Arbitrary<string> = fc
  .array(fc.oneof(fc.integer({ min: 0x20, max: 0x7e }), fc.integer({ min: 0xa0, max: 0xd7ff })), {
    minLength: 1,
    maxLength: 20,
  })
  .map((points) => String.fromCodePoint(...points))
  .filter((candidate) => !candidate.includes('/') && candidate !== '.' && candidate !== '..');

/** Regions that ascend with gaps, some of them touching, of up to 40 pages each. */
export const regions: fc.Arbitrary<MemoryRegion[]> = fc
  .array(fc.tuple(fc.integer({ min: 0, max: 5 }), fc.integer({ min: 1, max: 40 })), {
    minLength: 1,
    maxLength: 4,
  })
  .map((spans) => {
    let next = 0n;
    return spans.map(([gap, pages]) => {
      const base = next + BigInt(gap) * 4096n;
      const bytes = BigInt(pages) * 4096n;
      next = base + bytes;
      return { base, bytes };
    });
  });

/** Content of a page by kind: untouched, zero, a fill, one of a few texts, noise. */
export const pageKinds: fc.Arbitrary<number[]> = fc.array(fc.integer({ min: 0, max: 9 }), {
  minLength: 160,
  maxLength: 160,
});
