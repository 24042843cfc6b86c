/**
 * The state file of v86, format 6: four little-endian Int32 (magic, version, bytes of the file, bytes of the JSON), JSON
 * `{buffer_infos: [{offset, length}], state}`, then the buffers, each at a multiple of 4. `state` is nested arrays; a typed
 * array in it is `{__state_type__, buffer_id}`. Source: v86, src/state.js.
 *
 * What is parsed shares its memory with the file, which must not change any more.
 */
import { CheckpointError } from '../../index.ts';

const magic = 0x86768676 | 0;
const headBytes = 16;
const alignment = 4;

const arrayTypes = {
  Uint8Array,
  Int8Array,
  Uint16Array,
  Int16Array,
  Uint32Array,
  Int32Array,
  Float32Array,
  Float64Array,
} as const;

export type StateArray =
  | Uint8Array
  | Int8Array
  | Uint16Array
  | Int16Array
  | Uint32Array
  | Int32Array
  | Float32Array
  | Float64Array;

/** What the state is made of. */
export type StateNode = null | boolean | number | string | StateArray | readonly StateNode[];

export interface EmulatorState {
  readonly version: number;
  readonly entries: readonly StateNode[];
}

interface BufferInfo {
  readonly offset: number;
  readonly length: number;
}

/** Throws `CHKPT_UNSUPPORTED` for a file of another make. */
export function parseStateFile(file: Uint8Array): EmulatorState {
  if (file.length < headBytes) throw unknownState('its length');
  const view = new DataView(file.buffer, file.byteOffset, file.byteLength);
  const [found, version, , infoBytes] = [0, 4, 8, 12].map((offset) => view.getInt32(offset, true));
  if (found !== magic || version === undefined || infoBytes === undefined)
    throw unknownState('its magic number');
  const infoEnd = headBytes + infoBytes;
  const info: unknown = JSON.parse(Buffer.from(file.subarray(headBytes, infoEnd)).toString('utf8'));
  const { buffer_infos: buffers, state } = info as { buffer_infos: readonly BufferInfo[]; state: unknown };
  const base = Math.ceil(infoEnd / alignment) * alignment;
  const toNode = (value: unknown): StateNode => {
    if (Array.isArray(value)) return value.map(toNode);
    if (typeof value !== 'object' || value === null) return value as StateNode;
    const { __state_type__: type, buffer_id: id } = value as {
      __state_type__: keyof typeof arrayTypes;
      buffer_id: number;
    };
    const place = buffers[id];
    if (!Object.hasOwn(arrayTypes, type) || place === undefined)
      throw unknownState(`a value of type ${type}`);
    return viewOf(file, arrayTypes[type], base + place.offset, place.length);
  };
  const entries = toNode(state);
  if (!Array.isArray(entries)) throw unknownState('its root');
  return { version, entries: entries as readonly StateNode[] };
}

/** In place where it is aligned: most of the file is the memory of a few devices, and each save would copy it. */
function viewOf(
  file: Uint8Array,
  type: (typeof arrayTypes)[keyof typeof arrayTypes],
  start: number,
  byteCount: number,
): StateArray {
  const position = file.byteOffset + start;
  const isAligned = position % type.BYTES_PER_ELEMENT === 0;
  if (isAligned && start + byteCount <= file.length)
    return new type(file.buffer as ArrayBuffer, position, byteCount / type.BYTES_PER_ELEMENT);
  return new type(file.slice(start, start + byteCount).buffer);
}

export function encodeStateFile({ version, entries }: EmulatorState): ArrayBuffer {
  const infos: BufferInfo[] = [];
  const arrays: StateArray[] = [];
  let bytes = 0;
  const toJson = (node: StateNode): unknown => {
    if (Array.isArray(node)) return node.map(toJson);
    if (!ArrayBuffer.isView(node)) return node;
    const array = node as StateArray;
    infos.push({ offset: bytes, length: array.byteLength });
    arrays.push(array);
    bytes += Math.ceil(array.byteLength / alignment) * alignment;
    return { __state_type__: array.constructor.name, buffer_id: infos.length - 1 };
  };
  const state = toJson(entries);
  const info = Buffer.from(JSON.stringify({ buffer_infos: infos, state }));
  const base = Math.ceil((headBytes + info.length) / alignment) * alignment;
  const file = new Uint8Array(base + bytes);
  const view = new DataView(file.buffer);
  for (const [index, value] of [magic, version, file.length, info.length].entries()) {
    view.setInt32(index * 4, value, true);
  }
  file.set(info, headBytes);
  for (const [index, array] of arrays.entries()) {
    file.set(
      new Uint8Array(array.buffer, array.byteOffset, array.byteLength),
      base + (infos[index]?.offset ?? 0),
    );
  }
  return file.buffer;
}

function unknownState(what: string): CheckpointError {
  return new CheckpointError(
    'CHKPT_UNSUPPORTED',
    `v86 gave a state that this version of chkpt does not know: ${what}`,
  );
}
