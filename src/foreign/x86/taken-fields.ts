/**
 * Values of one context, or of one device of a VMM, and which of them were taken. A mapping reads what it has a place for, when it puts it
 * there; what nobody has read is lost, and so is told without anybody having thought of it: a tag that is added tomorrow is in the report.
 *
 * A field that was not taken is lost whatever its value. A field that was taken in part is lost in part: bits or elements that were left
 * and are not zero. A value in another form than the mapping knows counts as absent: nobody takes it.
 */
import { decodeValue, elementBytes, faultOfValue } from '../../format/value.ts';
import type { ForeignContext, ForeignTag } from '../foreign-format.ts';

/** What a mapping reads of a device. */
export interface Fields {
  has(name: string): boolean;
  /** An unsigned number, of which the mapping keeps the bits of `mask`; those alone are returned. Undefined when it is none, or absent. */
  number(name: string, mask?: bigint): bigint | undefined;
  /** Where the mapping keeps no more than whether it is 0. */
  flag(name: string): boolean | undefined;
  /** Something of it is lost all the same: what, in words. */
  partly(name: string, what: string): void;
  /** Exactly so many 64-bit numbers. */
  list(name: string, count: number): bigint[] | undefined;
}

interface Field {
  readonly data: Uint8Array;
  /** By which parts of it are told. */
  readonly elementBytes: number;
  readonly number: () => bigint | undefined;
}

type FieldEntry = readonly [name: string, field: Field];

export class TakenFields implements Fields {
  /** In front of the names of fields that are lost. */
  readonly #prefix: string;
  /** The line for all of it. */
  readonly #whole: string;
  readonly #fields: ReadonlyMap<string, Field>;
  readonly #taken = new Set<string>();
  readonly #areas = new Map<string, FieldArea>();
  readonly #parts = new Map<string, Set<string>>();
  #reason = '';

  constructor(prefix: string, whole: string, fields: Iterable<FieldEntry>) {
    this.#prefix = prefix;
    this.#whole = whole;
    this.#fields = new Map(fields);
  }

  static ofContext(context: ForeignContext): TakenFields {
    const { name, tags } = context;
    return new TakenFields(
      `${name}/`,
      `context ${name}`,
      tags.map((tag) => [tag.name, fieldOfTag(tag)]),
    );
  }

  static none(): TakenFields {
    return new TakenFields('', '', []);
  }

  has(name: string): boolean {
    return this.#fields.has(name);
  }

  /** The number, which stays where it is: for decisions. */
  peek(name: string): bigint | undefined {
    const value = this.#fields.get(name)?.number();
    return value === undefined || value < 0n ? undefined : value;
  }

  number(name: string, mask?: bigint): bigint | undefined {
    const value = this.peek(name);
    if (value === undefined) return undefined;
    this.#taken.add(name);
    if (mask === undefined) return value;
    const rest = value & ~mask;
    if (rest !== 0n) this.partly(name, `bits 0x${rest.toString(16)}`);
    return value & mask;
  }

  flag(name: string): boolean | undefined {
    const value = this.number(name);
    if (value !== undefined && value > 1n) this.partly(name, `${value}, taken for 1`);
    return value === undefined ? undefined : value !== 0n;
  }

  list(name: string, count: number): bigint[] | undefined {
    const area = this.area(name, 8 * count);
    return area && Array.from({ length: count }, (_, at) => area.u64(8 * at));
  }

  /** All of a field that has a form of its own. */
  take(name: string): Uint8Array | undefined {
    const field = this.#fields.get(name);
    if (field !== undefined) this.#taken.add(name);
    return field?.data;
  }

  /** The bytes of a vector, of which each that is read is taken. Undefined unless they are `byteLength`, or at least `from`. */
  area(name: string, byteLength: number | { readonly from: number }): FieldArea | undefined {
    const field = this.#fields.get(name);
    const length = field?.data.length ?? -1;
    const fits = typeof byteLength === 'number' ? length === byteLength : length >= byteLength.from;
    if (field === undefined || !fits) return undefined;
    const tell = {
      taken: () => void this.#taken.add(name),
      partly: (what: string) => this.partly(name, what),
    };
    const area = this.#areas.get(name) ?? new FieldArea(field.data, tell);
    this.#areas.set(name, area);
    return area;
  }

  /** The field is in its place but for `what`. */
  partly(name: string, what: string): void {
    const parts = this.#parts.get(name) ?? new Set();
    this.#parts.set(name, parts.add(what));
  }

  /** Why nothing of it will be taken. */
  refuse(reason: string): void {
    this.#reason = `: ${reason}`;
  }

  /** What was not taken, in the order of the fields; one line when that is all of it. */
  get lost(): string[] {
    if (this.#fields.size === 0) return [];
    if (this.#taken.size === 0) return [`${this.#whole}${this.#reason}`];
    const whole = [...this.#fields.keys()].filter((name) => !this.#taken.has(name));
    const parts = [...this.#taken].flatMap((name) => {
      const left = this.#leftOf(name).map((range) => `${name}[${range}]`);
      return [...left, ...[...(this.#parts.get(name) ?? [])].map((what) => `${name}: ${what}`)];
    });
    return [...joinIndices(whole), ...parts].map((line) => `${this.#prefix}${line}`);
  }

  #leftOf(name: string): string[] {
    const area = this.#areas.get(name);
    return area === undefined ? [] : area.left(this.#fields.get(name)?.elementBytes ?? 1);
  }
}

interface AreaListener {
  taken(): void;
  partly(what: string): void;
}

/** Bytes of one field. Numbers are little-endian. */
export class FieldArea {
  readonly #view: DataView;
  readonly #taken: Uint8Array;
  readonly #tell: AreaListener;

  constructor(bytes: Uint8Array, tell: AreaListener) {
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.#taken = new Uint8Array(bytes.byteLength);
    this.#tell = tell;
  }

  get byteLength(): number {
    return this.#view.byteLength;
  }

  u8(at: number): number {
    return this.bytes(at, 1)[0] ?? 0;
  }

  u16(at: number): number {
    this.skip(at, 2);
    return this.#view.getUint16(at, true);
  }

  u32(at: number): number {
    this.skip(at, 4);
    return this.#view.getUint32(at, true);
  }

  u64(at: number): bigint {
    this.skip(at, 8);
    return this.#view.getBigUint64(at, true);
  }

  bytes(at: number, count: number): Uint8Array {
    this.skip(at, count);
    return new Uint8Array(this.#view.buffer, this.#view.byteOffset + at, count);
  }

  /** Bytes that mean nothing as the other ones are. */
  skip(at: number, count: number): void {
    this.#taken.fill(1, at, at + count);
    this.#tell.taken();
  }

  /** See `TakenFields.partly`. */
  partly(what: string): void {
    this.#tell.partly(what);
  }

  /** Ranges of elements of so many bytes in which something stands that was not taken; zeros in between are not worth another range. */
  left(bytes: number): string[] {
    const ranges: string[] = [];
    let [first, last] = [-1, -1];
    const end = (): void => {
      if (first >= 0) ranges.push(rangeOf(Math.floor(first / bytes), Math.floor(last / bytes)));
      first = -1;
    };
    for (let at = 0; at < this.#taken.length; at += 1) {
      if (this.#taken[at] === 1) end();
      else if (this.#view.getUint8(at) !== 0) {
        if (first < 0) first = at;
        last = at;
      }
    }
    end();
    return [...new Set(ranges)];
  }
}

function fieldOfTag({ type, data }: ForeignTag): Field {
  return {
    data,
    elementBytes: elementBytes(type),
    number: () => {
      const value = faultOfValue(type, data) === undefined ? decodeValue(type, data).value : undefined;
      return typeof value === 'bigint' || typeof value === 'number' ? BigInt(value) : undefined;
    },
  };
}

function rangeOf(first: number, last: number): string {
  return first === last ? `${first}` : `${first}-${last}`;
}

/**
 * Names that differ in one index alone, as one: `a[0].b`, `a[1].b` and `a[2].b` are `a[0-2].b`. Indices are joined from the last one in a
 * name to the first one.
 */
export function joinIndices(names: readonly string[]): string[] {
  const split = names.map((name) => name.split(/\[([0-9]+)\]/));
  const most = split.reduce((longest, { length }) => Math.max(longest, length), 0);
  let joined = split;
  for (let place = most - 1; place > 0; place -= 1) if (place % 2 === 1) joined = joinAt(joined, place);
  return joined.map((parts) => parts.map((part, at) => (at % 2 === 1 ? `[${part}]` : part)).join(''));
}

function joinAt(names: readonly string[][], place: number): string[][] {
  const groups = new Map<string, { readonly parts: string[]; readonly indices: number[] }>();
  for (const parts of names) {
    const index = Number(parts[place]);
    const key = parts.map((part, at) => (at === place ? '' : part)).join('\0');
    const isOne = `${index}` === parts[place];
    const group = isOne ? groups.get(key) : undefined;
    if (group !== undefined) group.indices.push(index);
    else groups.set(isOne ? key : parts.join('\0'), { parts, indices: isOne ? [index] : [] });
  }
  return [...groups.values()].flatMap(({ parts, indices }) => {
    const sorted = indices.sort((left, right) => left - right);
    if (sorted.length === 0) return [parts];
    return runsOf(sorted).map((run) => parts.map((part, at) => (at === place ? run : part)));
  });
}

/** REQUIRES: ascending. */
function runsOf(numbers: readonly number[]): string[] {
  const runs: string[] = [];
  let first = 0;
  for (let at = 1; at <= numbers.length; at += 1) {
    if (numbers[at] === (numbers[at - 1] as number) + 1) continue;
    runs.push(rangeOf(numbers[first] as number, numbers[at - 1] as number));
    first = at;
  }
  return runs;
}
