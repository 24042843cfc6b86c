/**
 * Typed values and their bytes (docs/format.md section 5).
 *
 * JavaScript side: integers of up to 32 bits and floats are numbers, 64-bit integers are bigints, vectors are
 * typed arrays of the same element (a vector of bools is an array of booleans). Encoding checks ranges
 * exactly: what does not fit is `CHKPT_VALUE_RANGE`, what is no such JavaScript value at all is a TypeError.
 */
import { isUtf8 } from 'node:buffer';
import { CheckpointError, type ErrorDetails } from '../errors/index.ts';
import { isDetached } from '../util/detached.ts';
import { formatError, type Place } from './bytes.ts';
import {
  decodeScalar,
  encodeScalar,
  type ScalarType,
  type ScalarValues,
  scalarBytes,
  scalarTypes,
  wrongValue,
} from './scalar.ts';
import { decodeUtf8, encodeUtf8 } from './utf8.ts';

export type VectorType = `${ScalarType}[]`;
export type ValueType = 'bytes' | 'string' | ScalarType | VectorType;

/** JavaScript value of a vector of each scalar type. */
export interface VectorValues {
  readonly bool: readonly boolean[];
  readonly u8: Uint8Array;
  readonly u16: Uint16Array;
  readonly u32: Uint32Array;
  readonly u64: BigUint64Array;
  readonly i8: Int8Array;
  readonly i16: Int16Array;
  readonly i32: Int32Array;
  readonly i64: BigInt64Array;
  readonly f32: Float32Array;
  readonly f64: Float64Array;
}

/** JavaScript value of a type. */
export type ValueOf<T extends ValueType> = T extends 'bytes'
  ? Uint8Array
  : T extends 'string'
    ? string
    : T extends ScalarType
      ? ScalarValues[T]
      : T extends `${infer S extends ScalarType}[]`
        ? VectorValues[S]
        : never;

/** A value with its type. */
export type TypedValue = { [T in ValueType]: { readonly type: T; readonly value: ValueOf<T> } }[ValueType];

/** Any JavaScript value that a checkpoint holds. */
export type AnyValue = TypedValue['value'];

const scalarCodeBase = 2;
const vectorBit = 0x80;

/** Typed arrays of the vectors that have one. */
export const vectorArrays = {
  u8: Uint8Array,
  u16: Uint16Array,
  u32: Uint32Array,
  u64: BigUint64Array,
  i8: Int8Array,
  i16: Int16Array,
  i32: Int32Array,
  i64: BigInt64Array,
  f32: Float32Array,
  f64: Float64Array,
} as const;
type ArrayScalar = keyof typeof vectorArrays;
type VectorArray = VectorValues[ArrayScalar];

const codeOfType: ReadonlyMap<ValueType, number> = new Map<ValueType, number>([
  ['bytes', 0],
  ['string', 1],
  ...scalarTypes.map((type, index): [ValueType, number] => [type, scalarCodeBase + index]),
  ...scalarTypes.map((type, index): [ValueType, number] => [`${type}[]`, vectorBit + scalarCodeBase + index]),
]);
const typeOfCode: ReadonlyMap<number, ValueType> = new Map(
  [...codeOfType].map(([type, code]) => [code, type]),
);

/** True for the name of a type. */
export function isValueType(type: unknown): type is ValueType {
  return codeOfType.has(type as ValueType);
}

/** Code of a type in the stream. Throws TypeError when there is no such type. */
export function valueTypeCode(type: ValueType): number {
  const code = codeOfType.get(type);
  if (code === undefined) throw new TypeError(`no value type ${String(type)}`);
  return code;
}

/** Type of a code, or `undefined`. */
export function valueTypeOf(code: number): ValueType | undefined {
  return typeOfCode.get(code);
}

/** Element type of a scalar or vector; `undefined` for bytes and strings. */
export function elementTypeOf(type: ValueType): ScalarType | undefined {
  if (type === 'bytes' || type === 'string') return undefined;
  return (type.endsWith('[]') ? type.slice(0, -2) : type) as ScalarType;
}

/** True for vectors. */
export function isVectorType(type: ValueType): type is VectorType {
  return type.endsWith('[]');
}

/** Bytes of one element; 1 for bytes and strings. */
export function elementBytes(type: ValueType): number {
  const element = elementTypeOf(type);
  return element === undefined ? 1 : scalarBytes(element);
}

/** True when a value of this type can have this many bytes. */
export function isValueLength(type: ValueType, byteLength: number): boolean {
  const element = elementTypeOf(type);
  if (element === undefined) return true;
  const width = scalarBytes(element);
  return isVectorType(type) ? byteLength % width === 0 : byteLength === width;
}

/**
 * The bytes of a value. Bytes and vectors are views of the caller's memory where their form allows, not
 * copies. Throws `CHKPT_VALUE_RANGE`, or TypeError when `value` is no JavaScript value of the type
 * or an array that is detached or out of bounds.
 */
export function encodeValue<T extends ValueType>(
  type: T,
  value: ValueOf<T>,
  details: ErrorDetails = {},
): Uint8Array {
  return encodeUnknown(type, value, details);
}

/** The same for a value whose JavaScript type is not known yet. */
export function encodeUnknown(type: ValueType, value: unknown, details: ErrorDetails): Uint8Array {
  const element = elementTypeOf(type);
  if (type === 'bytes') {
    if (!(value instanceof Uint8Array)) throw wrongValue(type, value);
    return bytesOf(value);
  }
  if (element === undefined) return encodeString(value, details);
  if (isVectorType(type)) return encodeVector(element, value);
  return encodeScalar(element, value, details);
}

/**
 * The value in `data`, which must be one that `checkValue` accepted. Bytes, and vectors whose elements lie
 * aligned, are views of `data`.
 */
export function decodeValue(type: ValueType, data: Uint8Array): TypedValue {
  return { type, value: valueIn(type, data) } as TypedValue;
}

/** What is wrong with `data` as a value of the type, or `undefined`. */
export function faultOfValue(type: ValueType, data: Uint8Array): string | undefined {
  if (!isValueLength(type, data.length)) return `a value of type ${type} cannot have ${data.length} bytes`;
  if (elementTypeOf(type) === 'bool' && data.some((byte) => byte > 1)) return 'a bool is neither 0 nor 1';
  if (type === 'string' && !isUtf8(data)) return 'a string is not UTF-8';
  return undefined;
}

/** Throws `CHKPT_FORMAT` when `data` is not a value of the type. */
export function checkValue(type: ValueType, data: Uint8Array, place: Place): void {
  const fault = faultOfValue(type, data);
  if (fault !== undefined) throw formatError(fault, place);
}

function encodeString(value: unknown, details: ErrorDetails): Uint8Array {
  if (typeof value !== 'string') throw wrongValue('string', value);
  const bytes = encodeUtf8(value);
  if (bytes !== undefined) return bytes;
  throw new CheckpointError('CHKPT_VALUE_RANGE', 'a string is not well-formed Unicode', { details });
}

function encodeVector(element: ScalarType, value: unknown): Uint8Array {
  if (element === 'bool') {
    if (!Array.isArray(value) || !value.every((item) => typeof item === 'boolean')) {
      throw wrongValue('bool[]', value);
    }
    return Uint8Array.from(value, Number);
  }
  if (!(value instanceof vectorArrays[element])) throw wrongValue(`${element}[]`, value);
  const bytes = bytesOf(value);
  return hostIsLittleEndian ? bytes : swapElements(bytes.slice(), scalarBytes(element));
}

/** A view of the same memory. An array whose memory is gone reads as empty: saved, it would be lost in silence. */
function bytesOf(array: VectorArray): Uint8Array {
  if (isDetached(array)) throw new TypeError('a typed array is detached or out of bounds');
  return new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
}

function valueIn(type: ValueType, data: Uint8Array): unknown {
  const element = elementTypeOf(type);
  if (type === 'bytes') return data;
  if (element === undefined) return decodeUtf8(data) ?? unchecked();
  if (!isVectorType(type)) return decodeScalar(element, data);
  if (element === 'bool') return Array.from(data, (byte) => byte === 1);
  const width = scalarBytes(element);
  const inPlace = hostIsLittleEndian && data.byteOffset % width === 0;
  const own = inPlace ? data : data.slice();
  if (!hostIsLittleEndian) swapElements(own, width);
  return vectorOver(element, own, own.byteLength / width);
}

function vectorOver(element: ArrayScalar, bytes: Uint8Array, length: number): VectorArray {
  return new vectorArrays[element](bytes.buffer as ArrayBuffer, bytes.byteOffset, length);
}

/** Reverses the bytes of each element in place; what a big-endian host does around every vector. */
export function swapElements(bytes: Uint8Array, width: number): Uint8Array {
  for (let at = 0; at < bytes.length; at += width) bytes.subarray(at, at + width).reverse();
  return bytes;
}

const hostIsLittleEndian = new Uint8Array(Uint16Array.of(1).buffer)[0] === 1;

function unchecked(): never {
  throw new TypeError('the value was not checked');
}
