/**
 * The rule by which a plain JavaScript value gets its type when none is given. It depends on the value alone,
 * and what is loaded equals what was saved, including -0, NaN and the kind of typed array:
 *
 * | value                               | type             | loaded as    |
 * |-------------------------------------|------------------|--------------|
 * | boolean                             | bool             | boolean      |
 * | string                              | string           | string       |
 * | number, whole, 0 to 2^32 - 1        | u32              | number       |
 * | number, whole, -2^31 to -1          | i32              | number       |
 * | any other number, also -0           | f64              | number       |
 * | bigint, 0 to 2^64 - 1               | u64              | bigint       |
 * | bigint, -2^63 to -1                 | i64              | bigint       |
 * | Uint8Array, Buffer                  | bytes            | Uint8Array   |
 * | other typed array                   | vector           | same class   |
 * | `{ type, value }`                   | `type`           | as the type  |
 *
 * Everything else is a TypeError; a bigint beyond 64 bits is `CHKPT_VALUE_RANGE`.
 */
import type { ErrorDetails } from '../errors/index.ts';
import {
  encodeUnknown,
  type TypedValue,
  type ValueType,
  valueTypeCode,
  vectorArrays,
} from '../format/value.ts';
import type { EncodedTag } from './stream-writer.ts';

/** A value whose type follows from itself. */
export type AutoValue =
  | boolean
  | string
  | number
  | bigint
  | Uint8Array
  | Uint16Array
  | Uint32Array
  | BigUint64Array
  | Int8Array
  | Int16Array
  | Int32Array
  | BigInt64Array
  | Float32Array
  | Float64Array;

/** What `save(tag, value)` takes. */
export type SavableValue = AutoValue | TypedValue;

/** Encodes a value under the type that it says or that the rule gives it. */
export function encodeTag(tag: string, value: SavableValue, details: ErrorDetails): EncodedTag {
  const typed = isTypedValue(value) ? value : { type: autoTypeOf(value, tag), value };
  return { tag, type: typed.type, data: encodeUnknown(typed.type, typed.value, { ...details, tag }) };
}

/** Type of a plain value by the rule. Throws TypeError. */
export function autoTypeOf(value: unknown, tag: string): ValueType {
  switch (typeof value) {
    case 'boolean':
      return 'bool';
    case 'string':
      return 'string';
    case 'bigint':
      return value < 0n ? 'i64' : 'u64';
    case 'number':
      return numberType(value);
    default:
      return arrayType(value, tag);
  }
}

function numberType(value: number): ValueType {
  if (value >>> 0 === value && !Object.is(value, -0)) return 'u32';
  return (value | 0) === value && !Object.is(value, -0) ? 'i32' : 'f64';
}

function arrayType(value: unknown, tag: string): ValueType {
  if (value instanceof Uint8Array) return 'bytes';
  for (const [scalar, array] of Object.entries(vectorArrays)) {
    if (value instanceof array) return `${scalar as keyof typeof vectorArrays}[]`;
  }
  throw new TypeError(
    `tag ${tag}: a value of this kind needs a type: save { type, value }, or define its state`,
  );
}

function isTypedValue(value: SavableValue): value is TypedValue {
  if (typeof value !== 'object' || ArrayBuffer.isView(value)) return false;
  if (value === null || !('type' in value) || !('value' in value)) return false;
  valueTypeCode(value.type);
  return true;
}
