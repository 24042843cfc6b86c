/**
 * State definitions: one description of an object's fields that both saves and loads it.
 *
 *   const pitState = defineState({ counter: u64, channels: array(3, { mode: u8, latch: u16 }) });
 *
 * Each leaf is one tag: `counter`, `channels[0].mode`, `channels[0].latch`, … Loading checks type and length
 * of every leaf, and in a strict definition that the context has no other tags.
 */
import { CheckpointError, type ErrorDetails } from '../errors/index.ts';
import { encodeName } from '../format/names.ts';
import { type ScalarType, type ScalarValues, scalarTypes } from '../format/scalar.ts';
import {
  elementBytes,
  encodeUnknown,
  type TypedValue,
  type ValueType,
  type VectorValues,
} from '../format/value.ts';
import { tagCountMax } from '../limits.ts';
import type { EncodedTag } from './stream-writer.ts';

// Registered, so that fields of two loaded copies of the package know each other.
const fieldKind: unique symbol = Symbol.for('chkpt.stateField');
declare const valueKind: unique symbol;

/** Describes a value of type `T`. Made by the builders of this file. */
export interface Field<T> {
  readonly [fieldKind]: 'leaf' | 'array' | 'struct';
  /** Exists in types only. */
  readonly [valueKind]?: T;
}

/** A field of one number, bigint or boolean. */
export interface ScalarField<S extends ScalarType> extends Field<ScalarValues[S]> {
  readonly type: S;
}

/** What stands for a field: a builder's result, or an object of fields, which is a struct. */
export type FieldLike = Field<unknown> | { readonly [name: string]: FieldLike };

/** Value that a field describes. */
export type ValueOfField<F> = F extends Field<infer T> ? T : { -readonly [K in keyof F]: ValueOfField<F[K]> };

interface LeafField extends Field<unknown> {
  readonly type: ValueType;
  /** Elements that it must have; bytes for `bytes`. */
  readonly length: number | undefined;
}

interface ArrayField extends Field<unknown> {
  readonly count: number;
  readonly element: Field<unknown>;
}

interface StructField extends Field<unknown> {
  readonly fields: readonly (readonly [string, Field<unknown>])[];
}

export const bool: ScalarField<'bool'> = scalar('bool');
export const u8: ScalarField<'u8'> = scalar('u8');
export const u16: ScalarField<'u16'> = scalar('u16');
export const u32: ScalarField<'u32'> = scalar('u32');
/** A bigint. */
export const u64: ScalarField<'u64'> = scalar('u64');
export const i8: ScalarField<'i8'> = scalar('i8');
export const i16: ScalarField<'i16'> = scalar('i16');
export const i32: ScalarField<'i32'> = scalar('i32');
/** A bigint. */
export const i64: ScalarField<'i64'> = scalar('i64');
/** A number that is rounded to 32 bits. */
export const f32: ScalarField<'f32'> = scalar('f32');
export const f64: ScalarField<'f64'> = scalar('f64');
export const string: Field<string> = leaf('string', undefined);

/** A Uint8Array, of exactly `length` bytes when given. */
export function bytes(length?: number): Field<Uint8Array> {
  return leaf('bytes', length);
}

/** A typed array of the scalar (booleans: an array), of exactly `length` elements when given. One tag. */
export function vector<S extends ScalarType>(
  element: ScalarField<S>,
  length?: number,
): Field<VectorValues[S]> {
  if (!scalarTypes.includes(element.type)) throw new TypeError('a vector is made of scalars');
  return leaf(`${element.type}[]`, length);
}

/** An array of exactly `count` elements, each with its own tags. */
export function array<F extends FieldLike>(count: number, element: F): Field<ValueOfField<F>[]> {
  checkLength(count);
  if (count > tagCountMax)
    throw new RangeError(`an array of ${count} fields has more tags than a checkpoint holds`);
  return { [fieldKind]: 'array', count, element: toField(element) } satisfies ArrayField as never;
}

/** An object of fields. */
export function struct<F extends { readonly [name: string]: FieldLike }>(fields: F): Field<ValueOfField<F>> {
  const entries = Object.entries(fields).map(([name, field]) => [name, toField(field)] as const);
  return { [fieldKind]: 'struct', fields: entries } satisfies StructField as never;
}

export interface StateOptions {
  /** Goes in front of every tag, so that several definitions share one context: `'pci.'`. Default none. */
  readonly prefix?: string | undefined;
  /**
   * Refuse to load from a context that has tags beside these: all others, or with a prefix those that start
   * with it. Default: true without prefix, false with one.
   */
  readonly strict?: boolean | undefined;
}

/** One tag of a definition. */
export interface StateLeaf {
  readonly tag: string;
  readonly type: ValueType;
  /** Bytes it must have; `undefined` when any length is right. */
  readonly byteLength: number | undefined;
}

/** Gives the value of a leaf, or throws when it is missing or another. */
export type LeafReader = (leaf: StateLeaf) => unknown;

/** A definition that saves and loads a `T`. */
export class StateDefinition<T> {
  readonly prefix: string;
  readonly strict: boolean;
  /** All its tags, in the order in which they are saved. */
  readonly leaves: readonly StateLeaf[];
  readonly #root: Field<T>;

  /** Use `defineState()`. */
  constructor(root: Field<T>, options: StateOptions) {
    this.prefix = options.prefix ?? '';
    this.strict = options.strict ?? this.prefix === '';
    this.#root = root;
    const leaves: StateLeaf[] = [];
    collectLeaves(root, this.prefix, leaves);
    checkLeaves(leaves);
    this.leaves = leaves;
  }

  /** The tags that hold `value`. Throws `CHKPT_VALUE_RANGE`, or TypeError when a field is missing. */
  encode(value: T, details: ErrorDetails = {}): EncodedTag[] {
    const tags: EncodedTag[] = [];
    encodeField(this.#root, value, this.prefix, details, tags);
    return tags;
  }

  /** Puts the object together from its leaves. */
  decode(read: LeafReader): T {
    return decodeField(this.#root, this.prefix, read) as T;
  }
}

/** Defines the state of an object. Throws `CHKPT_NAME` when a field cannot be a tag. */
export function defineState<F extends { readonly [name: string]: FieldLike }>(
  fields: F,
  options: StateOptions = {},
): StateDefinition<ValueOfField<F>> {
  return new StateDefinition(struct(fields), options);
}

/** Tags with their values, in the order in which they are saved. */
export type TypedTags = ReadonlyMap<string, TypedValue>;

/**
 * The state of something whose tags are only known when it is saved: all tags of a context that start with `prefix`.
 * Where the fields are known, `defineState()` checks more.
 */
export class OpenState extends StateDefinition<TypedTags> {
  /** Use `openState()`. */
  constructor(prefix: string) {
    super(struct({}) as Field<never>, { prefix, strict: false });
  }

  override encode(value: TypedTags, details: ErrorDetails = {}): EncodedTag[] {
    return Array.from(value, ([name, { type, value: content }]) => {
      const tag = `${this.prefix}${name}`;
      encodeName(tag, { ...details, tag });
      return { tag, type, data: encodeUnknown(type, content, { ...details, tag }) };
    });
  }
}

/** Defines a state of tags that are not known beforehand. Without prefix it is all that its context holds. */
export function openState(options: Pick<StateOptions, 'prefix'> = {}): OpenState {
  return new OpenState(options.prefix ?? '');
}

/** The object that a definition saves and loads. */
export type StateOf<D> = D extends StateDefinition<infer T> ? T : never;

function scalar<S extends ScalarType>(type: S): ScalarField<S> {
  return leaf(type, undefined) as Field<unknown> as ScalarField<S>;
}

function leaf<T>(type: ValueType, length: number | undefined): Field<T> {
  if (length !== undefined) checkLength(length);
  return { [fieldKind]: 'leaf', type, length } satisfies LeafField as never;
}

function checkLength(length: number): void {
  if (Number.isSafeInteger(length) && length >= 0) return;
  throw new RangeError(`a length must be a whole number, not ${length}`);
}

function toField(field: FieldLike): Field<unknown> {
  if (typeof field !== 'object' || field === null) throw new TypeError('not a field of a state definition');
  return isField(field) ? field : struct(field);
}

function isField(field: FieldLike): field is Field<unknown> {
  return fieldKind in field;
}

function isLeaf(field: Field<unknown>): field is LeafField {
  return field[fieldKind] === 'leaf';
}

function isArray(field: Field<unknown>): field is ArrayField {
  return field[fieldKind] === 'array';
}

/** Name of the tag of a member; the top level has no dot in front. */
function memberPath(path: string, prefix: boolean, name: string): string {
  return prefix ? `${path}${name}` : `${path}.${name}`;
}

/** Fields below `field` with their paths. `top`: the path is only a prefix. */
function children(
  field: Field<unknown>,
  path: string,
  top: boolean,
): (readonly [string | number, string, Field<unknown>])[] {
  if (isArray(field)) {
    return Array.from(
      { length: field.count },
      (_, index) => [index, `${path}[${index}]`, field.element] as const,
    );
  }
  const { fields } = field as StructField;
  return fields.map(([name, member]) => [name, memberPath(path, top, name), member] as const);
}

function collectLeaves(field: Field<unknown>, path: string, leaves: StateLeaf[], top = true): void {
  if (isLeaf(field)) {
    leaves.push(leafAt(field, path));
    if (leaves.length > tagCountMax)
      throw new RangeError('a state definition with more tags than a checkpoint holds');
    return;
  }
  for (const [, childPath, child] of children(field, path, top))
    collectLeaves(child, childPath, leaves, false);
}

function leafAt({ type, length }: LeafField, tag: string): StateLeaf {
  const isScalar = (scalarTypes as readonly string[]).includes(type);
  const count = isScalar ? 1 : length;
  return { tag, type, byteLength: count === undefined ? undefined : count * elementBytes(type) };
}

function checkLeaves(leaves: readonly StateLeaf[]): void {
  const tags = new Set<string>();
  for (const { tag } of leaves) {
    encodeName(tag, { tag });
    if (tags.has(tag)) throw new TypeError(`two fields of a state definition have the tag ${tag}`);
    tags.add(tag);
  }
}

function encodeField(
  field: Field<unknown>,
  value: unknown,
  path: string,
  details: ErrorDetails,
  tags: EncodedTag[],
  top = true,
): void {
  if (isLeaf(field)) {
    tags.push(encodeLeaf(leafAt(field, path), value, { ...details, tag: path }));
    return;
  }
  if (typeof value !== 'object' || value === null)
    throw new TypeError(`state ${path || 'object'} is missing`);
  if (isArray(field) && (value as ArrayLike<unknown>).length !== field.count) {
    throw new CheckpointError('CHKPT_VALUE_RANGE', `an array has not ${field.count} elements`, {
      details: { ...details, tag: path, expected: field.count, actual: (value as ArrayLike<unknown>).length },
    });
  }
  for (const [key, childPath, child] of children(field, path, top)) {
    encodeField(child, (value as Record<string | number, unknown>)[key], childPath, details, tags, false);
  }
}

function encodeLeaf({ tag, type, byteLength }: StateLeaf, value: unknown, details: ErrorDetails): EncodedTag {
  if (value === undefined) throw new TypeError(`state ${tag} is missing`);
  const data = encodeUnknown(type, value, details);
  if (byteLength === undefined || data.length === byteLength) return { tag, type, data };
  throw new CheckpointError('CHKPT_VALUE_RANGE', `${data.length} bytes, not ${byteLength}`, {
    details: { ...details, expected: byteLength, actual: data.length },
  });
}

function decodeField(field: Field<unknown>, path: string, read: LeafReader, top = true): unknown {
  if (isLeaf(field)) return read(leafAt(field, path));
  const members = children(field, path, top).map(
    ([key, childPath, child]) => [key, decodeField(child, childPath, read, false)] as const,
  );
  return isArray(field) ? members.map(([, member]) => member) : Object.fromEntries(members);
}
