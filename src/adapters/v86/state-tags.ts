/**
 * One entry of v86's state as typed tags. v86 has no names for its values, only places: the value at `[1][0][16]` has the tag
 * `1.0.16`. The tag `shape` says how they nest: JSON of arrays, with 1 for a value and null for null.
 */
import { CheckpointError, type TypedTags, type TypedValue } from '../../index.ts';
import type { StateArray, StateNode } from './state-file.ts';

const shapeTag = 'shape';
/** v86 nests four deep. */
const depthMax = 16;
const i32Min = -(2 ** 31);
const i32Max = 2 ** 31 - 1;
/** Arrays of this length and more are memory of a device, whose size belongs to the machine's configuration. */
const fixedBytesMin = 64 * 1024;

type Shape = null | 1 | readonly Shape[];

export function encodeEntry(entry: StateNode): TypedTags {
  const tags = new Map<string, TypedValue>();
  const walk = (node: StateNode, path: string): Shape => {
    if (node === null) return null;
    if (Array.isArray(node))
      return node.map((child, index) => walk(child, path === '' ? `${index}` : `${path}.${index}`));
    tags.set(path === '' ? 'value' : path, toTyped(node as Exclude<StateNode, null | readonly StateNode[]>));
    return 1;
  };
  const shape = walk(entry, '');
  return new Map<string, TypedValue>([[shapeTag, { type: 'string', value: JSON.stringify(shape) }], ...tags]);
}

/**
 * The entry that has these tags. `current` is the same entry of the machine that is to take it: its memories keep their sizes.
 * Throws `CHKPT_VM_DEVICES`.
 */
export function decodeEntry(name: string, tags: TypedTags, current: StateNode): StateNode {
  const fault = (what: string): CheckpointError =>
    new CheckpointError(
      'CHKPT_VM_DEVICES',
      `the checkpoint was made by a v86 that is configured or built otherwise: ${what}`,
      {
        details: { context: name },
      },
    );
  const shape = parseShape(tags, fault);
  let used = 1;
  const build = (node: Shape, path: string, place: StateNode | undefined, depth: number): StateNode => {
    if (node === null) return null;
    if (Array.isArray(node) && depth < depthMax) {
      const children: readonly StateNode[] = Array.isArray(place) ? place : [];
      return node.map((child, index) =>
        build(child, path === '' ? `${index}` : `${path}.${index}`, children[index], depth + 1),
      );
    }
    const typed = node === 1 ? tags.get(path === '' ? 'value' : path) : undefined;
    const value = typed === undefined ? undefined : fromTyped(typed);
    if (value === undefined) throw fault(`no value at ${path}`);
    used += 1;
    checkLength(value, place, path, fault);
    return value;
  };
  const entry = build(shape, '', current, 0);
  if (used !== tags.size) throw fault(`${tags.size - used} values without a place`);
  // What v86 keeps in lists that come and go starts out empty.
  const counts = [entry, current].map((node) => (Array.isArray(node) ? node.length : 0));
  if (counts.every((length) => length > 0) && counts[0] !== counts[1])
    throw fault('another number of values');
  return entry;
}

function parseShape(tags: TypedTags, fault: (what: string) => CheckpointError): Shape {
  const typed = tags.get(shapeTag);
  if (typed?.type !== 'string') throw fault('no shape');
  try {
    return JSON.parse(typed.value) as Shape;
  } catch {
    throw fault('its shape is no JSON');
  }
}

function checkLength(
  value: StateNode,
  place: StateNode | undefined,
  path: string,
  fault: (what: string) => CheckpointError,
): void {
  const actual = lengthOf(value);
  const expected = lengthOf(place);
  if (Math.max(actual, expected) >= fixedBytesMin && actual !== expected) {
    throw fault(`${actual} bytes at ${path}, the machine has ${expected}`);
  }
}

function lengthOf(node: StateNode | undefined): number {
  return ArrayBuffer.isView(node) ? node.byteLength : 0;
}

function toTyped(value: boolean | number | string | StateArray): TypedValue {
  if (typeof value === 'boolean') return { type: 'bool', value };
  if (typeof value === 'string') return { type: 'string', value };
  if (typeof value === 'number') {
    const isInteger = Number.isInteger(value) && value >= i32Min && value <= i32Max && !Object.is(value, -0);
    return { type: isInteger ? 'i32' : 'f64', value };
  }
  if (value instanceof Uint8Array) return { type: 'u8[]', value };
  if (value instanceof Int8Array) return { type: 'i8[]', value };
  if (value instanceof Uint16Array) return { type: 'u16[]', value };
  if (value instanceof Int16Array) return { type: 'i16[]', value };
  if (value instanceof Uint32Array) return { type: 'u32[]', value };
  if (value instanceof Int32Array) return { type: 'i32[]', value };
  if (value instanceof Float32Array) return { type: 'f32[]', value };
  return { type: 'f64[]', value };
}

function fromTyped({ type, value }: TypedValue): StateNode | undefined {
  switch (type) {
    case 'bool':
    case 'string':
    case 'i32':
    case 'f64':
    case 'u8[]':
    case 'i8[]':
    case 'u16[]':
    case 'i16[]':
    case 'u32[]':
    case 'i32[]':
    case 'f32[]':
    case 'f64[]':
      return value;
    default:
      return undefined;
  }
}
