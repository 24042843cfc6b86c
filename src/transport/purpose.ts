/**
 * What a connection is for. It is told in the hello and authenticated with it, so that a proof given for one guest or one
 * migration is none for another.
 */
import { guestBytesMax, streamCountMax } from '../limits.ts';

export type Purpose = CheckpointPurpose | MigrationPurpose | ProbePurpose;

/** The native stream of one checkpoint. */
export interface CheckpointPurpose {
  readonly kind: 'checkpoint';
}

/** One of the streams of a migration. */
export interface MigrationPurpose {
  readonly kind: 'migration';
  /** UUID of the migration, text form. */
  readonly migration: string;
  /** Identity of the guest: 1 to 255 bytes of UTF-8. */
  readonly guest: string;
  /** Which stream this is, from 0 on. */
  readonly stream: number;
  /** How many streams the migration has, 1 to 64. */
  readonly streams: number;
}

/**
 * One of the connections that measure the way to a listener for a migration that may come. What goes over it is thrown away, and it uses up no
 * one-time key.
 */
export interface ProbePurpose extends Omit<MigrationPurpose, 'kind'> {
  readonly kind: 'probe';
}

const uuidPattern = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;
const uuidBytes = 16;
const prefixBytes = 8 + uuidBytes;
const kinds = { checkpoint: 1, migration: 2, probe: 3 } as const;

/** Most bytes of an encoded purpose. */
export const purposeBytesMax = prefixBytes + guestBytesMax;

/** Throws `TypeError`, `RangeError` for what no purpose can be. */
export function checkPurpose(purpose: Purpose): void {
  if (purpose?.kind === 'checkpoint') return;
  if (purpose?.kind !== 'migration' && purpose?.kind !== 'probe')
    throw new TypeError('the purpose of a connection is not one');
  const { migration, guest, stream, streams } = purpose;
  if (typeof migration !== 'string' || !uuidPattern.test(migration.toLowerCase())) {
    throw new TypeError('purpose.migration is not the text form of a UUID');
  }
  if (typeof guest !== 'string') throw new TypeError('purpose.guest is not a string');
  const fault = faultOfGuest(guest) ?? faultOfStreams(stream, streams);
  if (fault !== undefined) throw new RangeError(`purpose: ${fault}`);
}

function faultOfGuest(guest: string): string | undefined {
  const byteCount = Buffer.byteLength(guest);
  if (byteCount === 0 || byteCount > guestBytesMax) return `a guest has 1 to ${guestBytesMax} bytes of name`;
  // biome-ignore lint/suspicious/noControlCharactersInRegex: that is what is refused
  if (/[\u0000-\u001f\u007f-\u009f]/.test(guest) || Buffer.from(guest).toString() !== guest)
    return 'a guest is printable text';
  return undefined;
}

function faultOfStreams(stream: number, streams: number): string | undefined {
  if (!Number.isInteger(streams) || streams < 1 || streams > streamCountMax) {
    return `a migration has 1 to ${streamCountMax} streams`;
  }
  return Number.isInteger(stream) && stream >= 0 && stream < streams ? undefined : 'there is no such stream';
}

/**
 * u16 kind, u16 stream, u16 streams, u16 bytes of the guest, UUID, guest; what a kind does not have is 0.
 * REQUIRES: `checkPurpose` took it.
 */
export function encodePurpose(purpose: Purpose): Buffer {
  const guest = Buffer.from(purpose.kind === 'checkpoint' ? '' : purpose.guest);
  const bytes = Buffer.alloc(prefixBytes + guest.length);
  bytes.writeUInt16LE(kinds[purpose.kind], 0);
  if (purpose.kind === 'checkpoint') return bytes;
  bytes.writeUInt16LE(purpose.stream, 2);
  bytes.writeUInt16LE(purpose.streams, 4);
  bytes.writeUInt16LE(guest.length, 6);
  bytes.set(Buffer.from(purpose.migration.replaceAll('-', ''), 'hex'), 8);
  bytes.set(guest, prefixBytes);
  return bytes;
}

/** The purpose that these bytes are, all of them, or why they are none. */
export function decodePurpose(bytes: Buffer): Purpose | string {
  if (bytes.length < prefixBytes || bytes.length > purposeBytesMax)
    return 'a purpose of an impossible length';
  const [kind, stream, streams, guestBytes] = [0, 2, 4, 6].map((at) => bytes.readUInt16LE(at));
  if (guestBytes !== bytes.length - prefixBytes) return 'a guest of another length';
  const uuid = bytes.subarray(8, prefixBytes);
  if (kind === kinds.checkpoint) {
    const rest =
      [stream, streams, guestBytes].every((value) => value === 0) && uuid.every((byte) => byte === 0);
    return rest ? { kind: 'checkpoint' } : 'a checkpoint with fields of a migration';
  }
  if (kind !== kinds.migration && kind !== kinds.probe) return 'an unknown purpose';
  const guest = decodeGuest(bytes.subarray(prefixBytes));
  if (guest === undefined) return 'a guest that is not UTF-8';
  const purpose = {
    kind: kind === kinds.probe ? 'probe' : 'migration',
    migration: uuidText(uuid),
    guest,
    stream,
    streams,
  } as MigrationPurpose | ProbePurpose;
  return faultOfGuest(guest) ?? faultOfStreams(purpose.stream, purpose.streams) ?? purpose;
}

function decodeGuest(bytes: Buffer): string | undefined {
  const text = bytes.toString('utf8');
  return Buffer.from(text).equals(bytes) ? text : undefined;
}

function uuidText(bytes: Buffer): string {
  return bytes.toString('hex').replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5');
}
