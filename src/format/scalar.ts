/** Numbers, bigints and booleans: their ranges and their little-endian bytes. */
import { CheckpointError, type ErrorDetails } from '../errors/index.ts';
import { viewOf } from './bytes.ts';

/** Element types, in the order of their codes. */
export const scalarTypes = [
  'bool',
  'u8',
  'u16',
  'u32',
  'u64',
  'i8',
  'i16',
  'i32',
  'i64',
  'f32',
  'f64',
] as const;
export type ScalarType = (typeof scalarTypes)[number];

/** JavaScript value of each scalar type. */
export interface ScalarValues {
  readonly bool: boolean;
  readonly u8: number;
  readonly u16: number;
  readonly u32: number;
  readonly u64: bigint;
  readonly i8: number;
  readonly i16: number;
  readonly i32: number;
  readonly i64: bigint;
  readonly f32: number;
  readonly f64: number;
}

interface ScalarCodec<T> {
  readonly byteCount: number;
  /** Name of the JavaScript type. */
  readonly kind: 'boolean' | 'number' | 'bigint';
  /** True when the type holds this value, which is of the right kind. */
  holds(value: T): boolean;
  read(view: DataView): T;
  write(view: DataView, value: T): void;
}

const codecs: { readonly [S in ScalarType]: ScalarCodec<ScalarValues[S]> } = {
  bool: {
    byteCount: 1,
    kind: 'boolean',
    holds: () => true,
    read: (view) => view.getUint8(0) === 1,
    write: (view, value) => view.setUint8(0, value ? 1 : 0),
  },
  u8: {
    byteCount: 1,
    kind: 'number',
    holds: isBetween(0, 0xff),
    read: (view) => view.getUint8(0),
    write: (view, value) => view.setUint8(0, value),
  },
  u16: {
    byteCount: 2,
    kind: 'number',
    holds: isBetween(0, 0xffff),
    read: (view) => view.getUint16(0, true),
    write: (view, value) => view.setUint16(0, value, true),
  },
  u32: {
    byteCount: 4,
    kind: 'number',
    holds: isBetween(0, 0xffff_ffff),
    read: (view) => view.getUint32(0, true),
    write: (view, value) => view.setUint32(0, value, true),
  },
  u64: {
    byteCount: 8,
    kind: 'bigint',
    holds: (value) => BigInt.asUintN(64, value) === value,
    read: (view) => view.getBigUint64(0, true),
    write: (view, value) => view.setBigUint64(0, value, true),
  },
  i8: {
    byteCount: 1,
    kind: 'number',
    holds: isBetween(-0x80, 0x7f),
    read: (view) => view.getInt8(0),
    write: (view, value) => view.setInt8(0, value),
  },
  i16: {
    byteCount: 2,
    kind: 'number',
    holds: isBetween(-0x8000, 0x7fff),
    read: (view) => view.getInt16(0, true),
    write: (view, value) => view.setInt16(0, value, true),
  },
  i32: {
    byteCount: 4,
    kind: 'number',
    holds: isBetween(-0x8000_0000, 0x7fff_ffff),
    read: (view) => view.getInt32(0, true),
    write: (view, value) => view.setInt32(0, value, true),
  },
  i64: {
    byteCount: 8,
    kind: 'bigint',
    holds: (value) => BigInt.asIntN(64, value) === value,
    read: (view) => view.getBigInt64(0, true),
    write: (view, value) => view.setBigInt64(0, value, true),
  },
  // A number becomes the nearest f32, as an assignment in C does; one that would become infinite does not
  // fit.
  f32: {
    byteCount: 4,
    kind: 'number',
    holds: (value) => !Number.isFinite(value) || Number.isFinite(Math.fround(value)),
    read: (view) => view.getFloat32(0, true),
    write: (view, value) => view.setFloat32(0, value, true),
  },
  f64: {
    byteCount: 8,
    kind: 'number',
    holds: () => true,
    read: (view) => view.getFloat64(0, true),
    write: (view, value) => view.setFloat64(0, value, true),
  },
};

/** Bytes of a scalar. */
export function scalarBytes(type: ScalarType): number {
  return codecs[type].byteCount;
}

/**
 * Throws `CHKPT_VALUE_RANGE` when the value does not fit, TypeError when it is of another JavaScript type.
 */
export function encodeScalar(type: ScalarType, value: unknown, details: ErrorDetails): Uint8Array {
  const codec = codecs[type] as ScalarCodec<unknown>;
  if (typeof value !== codec.kind) throw wrongValue(type, value);
  if (!codec.holds(value)) {
    throw new CheckpointError('CHKPT_VALUE_RANGE', `${String(value)} is not a value of type ${type}`, {
      details: { ...details, expected: type, actual: value as number | bigint },
    });
  }
  const bytes = new Uint8Array(codec.byteCount);
  codec.write(viewOf(bytes), value);
  return bytes;
}

/** REQUIRES: as many bytes as the type has. */
export function decodeScalar(type: ScalarType, bytes: Uint8Array): ScalarValues[ScalarType] {
  return codecs[type].read(viewOf(bytes));
}

/** The error for a JavaScript value of another kind than its type wants. */
export function wrongValue(type: string, value: unknown): TypeError {
  const found = typeof value === 'object' ? Object.prototype.toString.call(value).slice(8, -1) : typeof value;
  return new TypeError(`not a value of type ${type}: ${found}`);
}

function isBetween(least: number, greatest: number): (value: number) => boolean {
  return (value) => Number.isInteger(value) && value >= least && value <= greatest;
}
