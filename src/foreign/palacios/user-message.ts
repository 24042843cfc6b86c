/**
 * Messages between an original and the user process that keeps a checkpoint for it (`user:`): a header of 48 bytes, then a buffer.
 *
 *     u64 length · s32 type, 4 bytes of padding · s64 transferred · u64 handle · u64 buffer length · u64 data offset · buffer
 *
 * Little-endian. The length of a request is the room of the kernel's buffer, which may exceed the message; that of a response is exact.
 * Pure.
 */
import { CheckpointError } from '../../errors/index.ts';
import { formatError, type Place } from '../../format/bytes.ts';
import { nameBytesMax, valueBytesMax } from '../../limits.ts';

export const messageTypes = { open: 3, close: 4, write: 5, read: 6 } as const;
export type MessageType = (typeof messageTypes)[keyof typeof messageTypes];

export const messageHeadBytes = 48;

export interface UserMessage {
  readonly type: MessageType;
  /** Bytes of data that are wanted, or were transferred; -1: none, it failed. */
  readonly transferred: number;
  /** The handler's handle of a context; 0: it could not be opened. */
  readonly handle: bigint;
  /** Where the data begins: the length of the tag. */
  readonly dataOffset: number;
  readonly buffer: Uint8Array;
}

export function encodeUserMessage({
  type,
  transferred,
  handle,
  dataOffset,
  buffer,
}: UserMessage): Uint8Array {
  const bytes = new Uint8Array(messageHeadBytes + buffer.length);
  const view = new DataView(bytes.buffer);
  view.setBigUint64(0, BigInt(bytes.length), true);
  view.setInt32(8, type, true);
  view.setBigInt64(16, BigInt(transferred), true);
  view.setBigUint64(24, handle, true);
  view.setBigUint64(32, BigInt(buffer.length), true);
  view.setBigUint64(40, BigInt(dataOffset), true);
  bytes.set(buffer, messageHeadBytes);
  return bytes;
}

/**
 * Reads a message that is there as a whole; the buffer is a view. `role`: of a request the length may exceed the message. Throws
 * `CHKPT_FORMAT` for lengths that do not fit the bytes, an unknown type, a tag beyond the buffer; `CHKPT_LIMIT` above the limits of values.
 */
export function decodeUserMessage(
  bytes: Uint8Array,
  role: 'request' | 'response',
  place: Place,
): UserMessage {
  if (bytes.length < messageHeadBytes) throw formatError('a message is shorter than its head', place);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const bufferBytes = view.getBigUint64(32, true);
  if (bufferBytes > BigInt(valueBytesMax + nameBytesMax)) {
    throw new CheckpointError('CHKPT_LIMIT', 'a message is longer than a value may be', {
      details: { ...place, actual: bufferBytes },
    });
  }
  const length = view.getBigUint64(0, true);
  const isWhole = bytes.length === messageHeadBytes + Number(bufferBytes);
  const fits = role === 'response' ? length === BigInt(bytes.length) : length >= BigInt(bytes.length);
  if (!isWhole || !fits)
    throw formatError('the lengths of a message do not fit it', place, { actual: length });
  const type = view.getInt32(8, true);
  if (!isMessageType(type)) throw formatError('a message of an unknown type', place, { actual: type });
  const transferred = view.getBigInt64(16, true);
  const dataOffset = view.getBigUint64(40, true);
  if (transferred > BigInt(valueBytesMax) || transferred < -1n) {
    throw formatError('a message transfers more than a value may be', place, { actual: transferred });
  }
  if (role === 'request' && dataOffset > bufferBytes) {
    throw formatError('the tag of a message is longer than its buffer', place, { actual: dataOffset });
  }
  return {
    type,
    transferred: Number(transferred),
    handle: view.getBigUint64(24, true),
    dataOffset: role === 'request' ? Number(dataOffset) : 0,
    buffer: bytes.subarray(messageHeadBytes),
  };
}

function isMessageType(type: number): type is MessageType {
  return Object.values(messageTypes).some((known) => known === type);
}
