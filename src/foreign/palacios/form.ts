/** The forms in which an original keeps contexts as files of a folder. Pure. */
import { CheckpointError } from '../../errors/index.ts';
import { formatError, type Place } from '../../format/bytes.ts';
import { besideContext, besideSchema, decodeBeside, schemasOf } from './beside.ts';
import { encodeImageHead, type ImageBlocks } from './image-layout.ts';
import {
  decodeRecords,
  encodeRecordHead,
  encodeRecords,
  type PalaciosContext,
  type PalaciosRecord,
  RecordBudget,
} from './record.ts';
import {
  blockTag,
  bytesOf,
  deviceNameBytes,
  devicesContext,
  devicesSchema,
  kindOfBytes,
  memoryImageContext,
  memoryImageSchema,
  type Schema,
  schemaOfContext,
} from './schema.ts';
import { decodeTextContext, encodeTextContext, encodeTextTag } from './text.ts';

export interface PalaciosForm {
  readonly scheme: 'palacios+file' | 'palacios+textfile' | 'palacios+dir';
  /** Mode of the folder. */
  readonly folderMode: number;
  /** Bytes of the file for each byte of a value. */
  readonly scale: 1 | 2;
  /** What is read cannot be told without the schema of the context. */
  readonly needsSchema: boolean;
  /** The file of a context, in pieces. Throws `CHKPT_NAME` for a tag that the form has no way to write. */
  encode(context: PalaciosContext): Uint8Array[];
  /** The records in a file. Throws errors of kind `damaged`. `schema` is there where it is needed. */
  decode(name: string, bytes: Uint8Array, schema: Schema, budget?: RecordBudget): PalaciosRecord[];
  /** What stands before and behind the data of a block of memory. */
  blockHead(index: number, blockBytes: number): Uint8Array;
  readonly blockEnd: Uint8Array;
}

const nothing = new Uint8Array();

export const fileForm: PalaciosForm = {
  scheme: 'palacios+file',
  folderMode: 0o700,
  scale: 1,
  needsSchema: false,
  encode: encodeRecords,
  decode: (name, bytes, _, budget) => decodeRecords(bytes, { context: name }, budget),
  blockHead: (index, blockBytes) => encodeRecordHead(blockTag(index), blockBytes),
  blockEnd: nothing,
};

export const textForm: PalaciosForm = {
  scheme: 'palacios+textfile',
  folderMode: 0o700,
  scale: 2,
  needsSchema: false,
  encode: encodeTextContext,
  decode: (name, bytes, _, budget) => decodeTextContext(bytes, name, { context: name }, budget),
  blockHead: (index) => encodeTextTag(blockTag(index), memoryImageContext),
  blockEnd: Buffer.from('\n'),
};

/** Values, one behind the other: no tags, no lengths. */
export const plainForm: PalaciosForm = {
  scheme: 'palacios+dir',
  folderMode: 0o755,
  scale: 1,
  needsSchema: true,
  encode: ({ records }) => records.map(({ data }) => data),
  decode: decodePlain,
  blockHead: () => nothing,
  blockEnd: nothing,
};

function decodePlain(name: string, bytes: Uint8Array, schema: Schema): PalaciosRecord[] {
  const expected = bytesOf(schema);
  if (bytes.length !== expected) {
    const code = bytes.length < expected ? 'CHKPT_TRUNCATED' : 'CHKPT_TRAILING_DATA';
    throw new CheckpointError(code, 'a context of another length than its schema', {
      details: { context: name, expected, actual: bytes.length },
    });
  }
  let at = 0;
  return schema.map(([tag, length]) => {
    at += length;
    return { tag, data: bytes.subarray(at - length, at) };
  });
}

/** What stands in the file of memory before the first block. */
export function encodeImagePrefix(form: PalaciosForm, blocks: ImageBlocks): Uint8Array {
  return Buffer.concat(form.encode({ name: memoryImageContext, records: encodeImageHead(blocks) }));
}

/** How long that is: the same for all memories. */
export function imagePrefixBytes(form: PalaciosForm): number {
  return encodeImagePrefix(form, { blockBytes: 4096, blockCount: 1 }).length;
}

export function decodeImagePrefix(form: PalaciosForm, bytes: Uint8Array): PalaciosRecord[] {
  return form.decode(memoryImageContext, bytes, memoryImageSchema);
}

/**
 * All contexts in `files`, by name, without memory. `devices` names the schemas of devices where a form needs them and their length does
 * not tell. Throws errors of kind `damaged`; `CHKPT_UNSUPPORTED` for a context without a schema.
 */
export function decodeFiles(
  form: PalaciosForm,
  files: ReadonlyMap<string, Uint8Array>,
  devices: ReadonlyMap<string, Schema>,
): PalaciosContext[] {
  const known = new Map(devices);
  const index = files.get(besideContext);
  if (index !== undefined && form.needsSchema) {
    const schema = besideSchema(Math.max(index.length - 40, 0));
    const records = form.decode(besideContext, index, schema);
    known.set(besideContext, schema);
    for (const [name, one] of schemasOf(decodeBeside({ name: besideContext, records }))) known.set(name, one);
  }
  const budget = new RecordBudget();
  return [...files].map(([name, bytes]) => {
    const schema = form.needsSchema ? (known.get(name) ?? plainSchema(name, bytes.length)) : [];
    return { name, records: form.decode(name, bytes, schema, budget) };
  });
}

function plainSchema(name: string, byteCount: number): Schema {
  const place: Place = { context: name };
  if (name === devicesContext) {
    const deviceCount = (byteCount - 4) / deviceNameBytes;
    if (Number.isInteger(deviceCount) && deviceCount >= 0) return devicesSchema(deviceCount);
    throw formatError('no device table has this length', place, { actual: byteCount });
  }
  const schema = schemaOfContext(name) ?? kindOfBytes(byteCount)?.schema;
  if (schema !== undefined) return schema;
  throw new CheckpointError('CHKPT_UNSUPPORTED', 'no device that is known has a state of this length', {
    details: { ...place, actual: byteCount },
  });
}
