/**
 * What the connections of a migration carry: records, a header of 16 bytes each (docs/migration.md, "On the wire").
 *
 *   u32 length of what follows · u16 type · u16 0 · u64 XXH3-64 of those 8 bytes, and of the payload of a control record
 *
 * The bytes of a stream are not hashed here: each of its frames has a digest of its own.
 */
import { CheckpointError } from '../../errors/index.ts';
import type { Digest64 } from '../../format/digest.ts';
import { migrationControlBytesMax, migrationDataBytesMax } from '../../limits.ts';

export const recordHeaderBytes = 16;
const digestedBytes = 8;

export const recordTypes = [
  'control',
  'streamBegin',
  'data',
  'streamEnd',
  'streamAbort',
  'alive',
  'pages',
  'probe',
] as const;
export type RecordType = (typeof recordTypes)[number];

/** Most bytes behind the header. */
const lengthMax: Readonly<Record<RecordType, number>> = {
  control: migrationControlBytesMax,
  streamBegin: 32,
  data: migrationDataBytesMax,
  streamEnd: 0,
  streamAbort: 0,
  alive: 0,
  pages: 80 * 1024,
  probe: 16,
};

export interface RecordHeader {
  readonly type: RecordType;
  /** Bytes that follow. */
  readonly length: number;
  readonly digest: bigint;
}

/** Whether the digest covers the payload. */
export function isDigested(type: RecordType): boolean {
  return type !== 'data';
}

/** The header of a record whose payload is `payload`, or of `data` with `length` bytes. Throws `RangeError` for a payload too long. */
export function encodeHeader(
  type: RecordType,
  payload: Uint8Array | number,
  digest: Digest64,
): Uint8Array<ArrayBuffer> {
  const length = typeof payload === 'number' ? payload : payload.length;
  if (length > lengthMax[type]) throw new RangeError(`a ${type} record of ${length} bytes`);
  const header = new Uint8Array(recordHeaderBytes);
  const view = new DataView(header.buffer);
  view.setUint32(0, length, true);
  view.setUint16(4, recordTypes.indexOf(type), true);
  view.setBigUint64(8, digestOf(header, typeof payload === 'number' ? undefined : payload, digest), true);
  return header;
}

/**
 * Reads a header. Throws `CHKPT_PEER_PROTOCOL` for a type or a length that cannot be, and for a wrong digest of a record
 * without digested payload.
 */
export function decodeHeader(bytes: Uint8Array, digest: Digest64): RecordHeader {
  const view = new DataView(bytes.buffer, bytes.byteOffset, recordHeaderBytes);
  const length = view.getUint32(0, true);
  const type = recordTypes[view.getUint16(4, true)];
  if (type === undefined || view.getUint16(6, true) !== 0) throw wrong('a record of an unknown type');
  if (length > lengthMax[type]) throw wrong(`a ${type} record of ${length} bytes`);
  const header = { type, length, digest: view.getBigUint64(8, true) };
  if (!isDigested(type)) checkDigest(header, bytes, undefined, digest);
  return header;
}

/** Throws `CHKPT_PEER_PROTOCOL`. `bytes`: of the header. */
export function checkDigest(
  header: RecordHeader,
  bytes: Uint8Array,
  payload: Uint8Array | undefined,
  digest: Digest64,
): void {
  if (digestOf(bytes, payload, digest) !== header.digest) throw wrong('a record whose digest is wrong');
}

function digestOf(header: Uint8Array, payload: Uint8Array | undefined, digest: Digest64): bigint {
  const head = header.subarray(0, digestedBytes);
  if (payload === undefined || payload.length === 0) return digest(head);
  const all = new Uint8Array(digestedBytes + payload.length);
  all.set(head);
  all.set(payload, digestedBytes);
  return digest(all);
}

export function wrong(what: string): CheckpointError {
  return new CheckpointError('CHKPT_PEER_PROTOCOL', `the other end of the migration sent ${what}`);
}
