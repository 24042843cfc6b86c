/**
 * Layouts of structs of KVM's binary interface: one description gives the typed tags of a checkpoint and reads and writes the
 * bytes that the kernel knows. Little-endian, as all of x86 is; padding is written as zeros and never saved.
 */
import {
  array,
  StateDefinition as Definition,
  type Field,
  type StateDefinition,
  type StateOptions,
  struct,
  u8,
  u16,
  u32,
  u64,
  vector,
} from '../../index.ts';

type ScalarName = 'u8' | 'u16' | 'u32' | 'u64';

/** A scalar, `u32[4]` for several of them as one tag, `pad:3` for bytes that mean nothing. */
export type Member = ScalarName | `${ScalarName}[${number}]` | `pad:${number}` | MemberTable | Repeated;

/** Members in the order in which they lie. */
export interface MemberTable {
  readonly [name: string]: Member;
}

interface Repeated {
  readonly count: number;
  readonly element: MemberTable;
}

/** A struct several times, each with tags of its own. */
export function repeat(count: number, element: MemberTable): Repeated {
  return { count, element };
}

/** Values of a struct by member. */
export interface StructValue {
  [name: string]: unknown;
}

const scalarBytes = { u8: 1, u16: 2, u32: 4, u64: 8 } as const;
const scalarFields = { u8, u16, u32, u64 } as const;
const vectorTypes = { u8: Uint8Array, u16: Uint16Array, u32: Uint32Array, u64: BigUint64Array } as const;

export class StructLayout {
  readonly byteLength: number;
  readonly #table: MemberTable;

  /** Throws when the members do not fill `byteLength`, the size that the kernel has. */
  constructor(table: MemberTable, byteLength: number) {
    this.#table = table;
    this.byteLength = bytesOf(table);
    if (this.byteLength !== byteLength)
      throw new RangeError(`a layout of ${this.byteLength} bytes, not ${byteLength}`);
  }

  state(options: StateOptions = {}): StateDefinition<StructValue> {
    return new Definition(fieldOf(this.#table) as Field<StructValue>, options);
  }

  decode(bytes: Uint8Array): StructValue {
    return readTable(this.#table, new Cursor(bytes));
  }

  encode(value: StructValue): Uint8Array {
    const bytes = new Uint8Array(this.byteLength);
    writeTable(this.#table, new Cursor(bytes), value);
    return bytes;
  }
}

class Cursor {
  readonly #view: DataView;
  #offset = 0;

  constructor(bytes: Uint8Array) {
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  skip(byteCount: number): void {
    this.#offset += byteCount;
  }

  read(type: ScalarName): number | bigint {
    const offset = this.#offset;
    this.#offset += scalarBytes[type];
    if (type === 'u8') return this.#view.getUint8(offset);
    if (type === 'u16') return this.#view.getUint16(offset, true);
    if (type === 'u32') return this.#view.getUint32(offset, true);
    return this.#view.getBigUint64(offset, true);
  }

  write(type: ScalarName, value: number | bigint): void {
    const offset = this.#offset;
    this.#offset += scalarBytes[type];
    if (type === 'u8') this.#view.setUint8(offset, Number(value));
    else if (type === 'u16') this.#view.setUint16(offset, Number(value), true);
    else if (type === 'u32') this.#view.setUint32(offset, Number(value), true);
    else this.#view.setBigUint64(offset, BigInt(value), true);
  }
}

/** What a member that is written as text says. */
function parse(member: string): { readonly type: ScalarName | 'pad'; readonly count: number | undefined } {
  const [, type, count, padding] = /^(u8|u16|u32|u64)(?:\[(\d+)\])?$|^pad:(\d+)$/.exec(member) ?? [];
  if (padding !== undefined) return { type: 'pad', count: Number(padding) };
  return { type: type as ScalarName, count: count === undefined ? undefined : Number(count) };
}

function isRepeated(member: MemberTable | Repeated): member is Repeated {
  return typeof member['count'] === 'number';
}

function bytesOf(member: Member): number {
  if (typeof member === 'string') {
    const { type, count } = parse(member);
    return type === 'pad' ? (count ?? 0) : scalarBytes[type] * (count ?? 1);
  }
  if (isRepeated(member)) return member.count * bytesOf(member.element);
  return Object.values(member).reduce((sum, one) => sum + bytesOf(one), 0);
}

function fieldOf(member: Member): Field<unknown> | undefined {
  if (typeof member === 'string') {
    const { type, count } = parse(member);
    if (type === 'pad') return undefined;
    return count === undefined ? scalarFields[type] : (vector(scalarFields[type], count) as Field<unknown>);
  }
  if (isRepeated(member)) return array(member.count, fieldOf(member.element) ?? struct({}));
  const fields = Object.entries(member).flatMap(([name, one]) => {
    const field = fieldOf(one);
    return field === undefined ? [] : [[name, field] as const];
  });
  return struct(Object.fromEntries(fields));
}

function readMember(member: Member, cursor: Cursor): unknown {
  if (typeof member === 'string') {
    const { type, count } = parse(member);
    if (type === 'pad') {
      cursor.skip(count ?? 0);
      return undefined;
    }
    if (count === undefined) return cursor.read(type);
    const values = new vectorTypes[type](count);
    for (let index = 0; index < count; index += 1) values[index] = cursor.read(type);
    return values;
  }
  if (isRepeated(member))
    return Array.from({ length: member.count }, () => readTable(member.element, cursor));
  return readTable(member, cursor);
}

function readTable(table: MemberTable, cursor: Cursor): StructValue {
  const value: StructValue = {};
  for (const [name, member] of Object.entries(table)) {
    const one = readMember(member, cursor);
    if (one !== undefined) value[name] = one;
  }
  return value;
}

function writeMember(member: Member, cursor: Cursor, value: unknown): void {
  if (typeof member === 'string') {
    const { type, count } = parse(member);
    const values = count === undefined ? [value] : (value as Iterable<unknown>);
    if (type === 'pad') cursor.skip(count ?? 0);
    else for (const one of values) cursor.write(type, one as number | bigint);
    return;
  }
  if (isRepeated(member)) {
    for (const one of value as StructValue[]) writeTable(member.element, cursor, one);
    return;
  }
  writeTable(member, cursor, value as StructValue);
}

function writeTable(table: MemberTable, cursor: Cursor, value: StructValue): void {
  for (const [name, member] of Object.entries(table)) writeMember(member, cursor, value[name]);
}
