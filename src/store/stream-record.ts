/**
 * What goes over a connection that carries one checkpoint (docs/transport.md has the tables): records, each with 8 bytes before it,
 *
 *   0      4               8
 *   | type | payload bytes | payload…
 *
 * so that an end is an end because it was said, and both sides can say why not.
 */
import { CheckpointError, type ErrorCode } from '../errors/index.ts';
import { parseUuid } from '../format/uuid.ts';
import { encodeRefusal } from '../transport/index.ts';
import type { ReceivedSummary } from './store.ts';

export const recordHeaderBytes = 8;

/** From the sender: `data` (bytes of the stream), `end`, `abort`. From the receiver: `accepted`, `refused`. Both: `alive`. */
export const recordTypes = { data: 1, end: 2, abort: 3, alive: 4, accepted: 16, refused: 17 } as const;
export type RecordType = keyof typeof recordTypes;

/** Most bytes of a `data` record; nobody allocates them. */
export const dataBytesMax = 1024 * 1024 * 1024;
/** uuid, root, bytes of the stream. */
export const acceptedBytes = 16 + 32 + 8;
/** u16 bytes of the code, code, text. */
const reasonBytesMax = 1024;

/** Whoever has nothing to say yet says that, so often. */
export const aliveMs = 2000;
/** Whoever says nothing for so long is gone. */
export const silentMs = 10_000;

const payloadBytesMax: Readonly<Record<RecordType, number>> = {
  ...{ data: dataBytesMax, end: 0, abort: reasonBytesMax },
  ...{ alive: 0, accepted: acceptedBytes, refused: reasonBytesMax },
};

export function encodeRecordHeader(type: RecordType, payloadBytes: number): Buffer {
  const header = Buffer.alloc(recordHeaderBytes);
  header.writeUInt32LE(recordTypes[type], 0);
  header.writeUInt32LE(payloadBytes, 4);
  return header;
}

/** Throws `CHKPT_PEER_PROTOCOL` for a record that is not one of `allowed`, or too long. */
export function decodeRecordHeader(
  header: Buffer,
  allowed: readonly RecordType[],
): { readonly type: RecordType; readonly payloadBytes: number } {
  const code = header.readUInt32LE(0);
  const payloadBytes = header.readUInt32LE(4);
  const type = allowed.find((name) => recordTypes[name] === code);
  if (type === undefined) throw recordError(`record ${code} where it may not come`);
  if (payloadBytes > payloadBytesMax[type]) throw recordError(`a record of type ${type} is too long`);
  if (type === 'data' && payloadBytes === 0) throw recordError('an empty record of data');
  return { type, payloadBytes };
}

export function encodeAccepted({ uuid, root, bytes }: ReceivedSummary): Buffer {
  const record = Buffer.concat([encodeRecordHeader('accepted', acceptedBytes), Buffer.alloc(acceptedBytes)]);
  record.set(parseUuid(uuid), recordHeaderBytes);
  record.set(Buffer.from(root, 'hex'), recordHeaderBytes + 16);
  record.writeBigUInt64LE(BigInt(bytes), recordHeaderBytes + 48);
  return record;
}

/** Why not, for the other side: of an error its code and message. `decodeRefusal` reads the payload. */
export function encodeReason(type: 'abort' | 'refused', error: unknown): Buffer {
  const code: ErrorCode = error instanceof CheckpointError ? error.code : 'CHKPT_INTERNAL';
  const payload = encodeRefusal(code, error instanceof Error ? error.message : String(error));
  return Buffer.concat([encodeRecordHeader(type, payload.length), payload]);
}

export function recordError(what: string): CheckpointError {
  return new CheckpointError('CHKPT_PEER_PROTOCOL', what);
}
