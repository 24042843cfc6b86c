/**
 * Messages of the handshake, as bytes (docs/transport.md has the tables):
 *
 *   0       8         10     12              16
 *   | magic | version | type | payload bytes | payload…
 *
 * Pure. What comes from outside is checked in this order: magic, version, length, then what the type says.
 */
import { CheckpointError, type ErrorCode, errorTable } from '../errors/index.ts';
import { handshakePayloadBytesMax } from '../limits.ts';

export const handshakeVersion = 1;
export const messageHeaderBytes = 16;
export const nonceBytes = 32;

export const messageTypes = { hello: 1, challenge: 2, proof: 3, welcome: 4, refusal: 5 } as const;
export type MessageType = keyof typeof messageTypes;

const magic = Buffer.from([0x89, 0x43, 0x4b, 0x4c, 0x0d, 0x0a, 0x1a, 0x0a]);
const codeBytesMax = 64;
const reasonBytesMax = 512;

export function encodeMessage(type: MessageType, ...parts: readonly Uint8Array[]): Buffer {
  const payload = Buffer.concat(parts);
  const header = Buffer.alloc(messageHeaderBytes);
  header.set(magic);
  header.writeUInt16LE(handshakeVersion, 8);
  header.writeUInt16LE(messageTypes[type], 10);
  header.writeUInt32LE(payload.length, 12);
  return Buffer.concat([header, payload]);
}

/** Payload length of a message of one of these types. Throws `CHKPT_PEER_PROTOCOL`. */
export function decodeMessageHeader(
  header: Buffer,
  allowed: readonly MessageType[],
): { readonly type: MessageType; readonly payloadBytes: number } {
  if (!header.subarray(0, magic.length).equals(magic)) throw protocolError('what is there is no chkpt');
  const version = header.readUInt16LE(8);
  if (version !== handshakeVersion) {
    throw protocolError(
      `the other side has version ${version} of the handshake, this one ${handshakeVersion}`,
    );
  }
  const payloadBytes = header.readUInt32LE(12);
  if (payloadBytes > handshakePayloadBytesMax) throw protocolError('a message of the handshake is too long');
  const code = header.readUInt16LE(10);
  const type = allowed.find((name) => messageTypes[name] === code);
  if (type === undefined) throw protocolError(`message ${code} of the handshake where it may not come`);
  return { type, payloadBytes };
}

/** u16 bytes of the code, code, reason. */
export function encodeRefusal(code: ErrorCode, reason: string): Buffer {
  const text = Buffer.from(reason).subarray(0, reasonBytesMax);
  const prefix = Buffer.alloc(2);
  prefix.writeUInt16LE(code.length, 0);
  return Buffer.concat([prefix, Buffer.from(code), text]);
}

/** What the other side says about why not. Its text is cut and cleaned, never believed. */
export function decodeRefusal(payload: Buffer): {
  readonly code: ErrorCode | undefined;
  readonly reason: string;
} {
  const codeBytes = payload.length >= 2 ? payload.readUInt16LE(0) : 0;
  if (codeBytes > codeBytesMax || 2 + codeBytes > payload.length)
    return { code: undefined, reason: 'no reason' };
  const name = payload.toString('latin1', 2, 2 + codeBytes);
  const text = payload.subarray(2 + codeBytes, 2 + codeBytes + reasonBytesMax).toString('utf8');
  // biome-ignore lint/suspicious/noControlCharactersInRegex: that is what goes
  const reason = text.replace(/[\u0000-\u001f\u007f-\u009f\u2028\u2029\ufffd]/g, ' ').trim() || 'no reason';
  return { code: Object.hasOwn(errorTable, name) ? (name as ErrorCode) : undefined, reason };
}

export function protocolError(what: string): CheckpointError {
  return new CheckpointError('CHKPT_PEER_PROTOCOL', what);
}
