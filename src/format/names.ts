/**
 * Context names and tags: 1 to 255 bytes of UTF-8 without slash and control characters, neither `.` nor `..`.
 */
import { CheckpointError, type ErrorDetails } from '../errors/index.ts';
import { nameBytesMax } from '../limits.ts';
import { formatError, type Place } from './bytes.ts';
import { decodeUtf8, encodeUtf8 } from './utf8.ts';

/** The bytes of a name to be saved. Throws `CHKPT_NAME`, or TypeError for what is no string. */
export function encodeName(name: string, details: ErrorDetails = {}): Uint8Array {
  if (typeof name !== 'string') throw new TypeError(`a name is a string, not ${typeof name}`);
  const bytes = encodeUtf8(name);
  const fault = bytes === undefined ? 'is not well-formed Unicode' : faultOf(name, bytes);
  if (bytes === undefined || fault !== undefined) {
    throw new CheckpointError('CHKPT_NAME', `name ${JSON.stringify(name)} ${fault}`, { details });
  }
  return bytes;
}

/** The name in `bytes` of a stream. Throws `CHKPT_FORMAT`. */
export function decodeName(bytes: Uint8Array, place: Place): string {
  const name = bytes.length <= nameBytesMax ? decodeUtf8(bytes) : undefined;
  const fault = name === undefined ? 'is not UTF-8 of 1 to 255 bytes' : faultOf(name, bytes);
  if (name === undefined || fault !== undefined) throw formatError(`a name ${fault}`, place);
  return name;
}

function faultOf(name: string, bytes: Uint8Array): string | undefined {
  if (bytes.length === 0 || bytes.length > nameBytesMax) return `has ${bytes.length} bytes, not 1 to 255`;
  if (bytes.some((byte) => byte < 0x20 || byte === 0x7f)) return 'has a control character';
  if (name.includes('/')) return 'has a slash';
  if (name === '.' || name === '..') return 'is . or ..';
  return undefined;
}
