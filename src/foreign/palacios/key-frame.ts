/**
 * The frame that opens and closes a context on a connection:
 *
 *     u8 name length, low 8 bits · u8 its bits 8 to 14, top bit always set · name
 *
 * An original reads the first byte as a signed number, so that names have at most 127 bytes. Records begin with `23 01`, so the
 * second byte tells the two apart. Pure.
 */
import { CheckpointError } from '../../errors/index.ts';
import { checkLimit, formatError, type Place } from '../../format/bytes.ts';
import { decodeName, encodeName } from '../../format/names.ts';
import { boundaryBytes, type Parser, type RecordHead, recordHead } from './record.ts';

/** Longest name of a context on a connection, bytes. */
export const keyBytesMax = 127;

/** The frame of a name. Throws `CHKPT_NAME` when an original cannot read it. */
export function encodeKeyFrame(name: string): Uint8Array {
  const bytes = encodeName(name, { context: name });
  if (bytes.length > keyBytesMax) {
    throw new CheckpointError('CHKPT_NAME', `a context name of more than ${keyBytesMax} bytes`, {
      details: { context: name, expected: keyBytesMax, actual: bytes.length },
    });
  }
  const frame = new Uint8Array(2 + bytes.length);
  frame[0] = bytes.length;
  frame[1] = 0x80;
  frame.set(bytes, 2);
  return frame;
}

/**
 * Parses a key frame; `begun` are its first two bytes, when they were read already. Throws `CHKPT_FORMAT` for a frame that is none or a
 * name that is none, `CHKPT_LIMIT` above 127 bytes.
 */
export function* keyFrame(place: Place, begun?: Uint8Array): Parser<string> {
  const [low = 0, high = 0] = begun ?? (yield 2);
  if ((high & 0x80) === 0) throw formatError('a context does not begin with its name', place);
  const nameBytes = low + 256 * (high & 0x7f);
  checkLimit(nameBytes, keyBytesMax, 'the length of a context name', place);
  return decodeName(yield nameBytes, place);
}

/** What comes next inside a context: a record, or the frame that closes it, whose name means nothing. */
export type WireItem = { readonly record: RecordHead } | { readonly close: Uint8Array };

/**
 * Parses what comes next inside a context. The name of a closing frame is bounded and given as it is: originals send whatever their
 * buffer holds by then. Throws as `recordHead`, and `CHKPT_LIMIT`.
 */
export function* wireItem(place: Place, dataBytesMax: number): Parser<WireItem> {
  const begun = Uint8Array.from(yield 2);
  if (begun[0] === boundaryBytes[0] && begun[1] === boundaryBytes[1]) {
    return { record: yield* recordHead(place, dataBytesMax, begun) };
  }
  const [low = 0, high = 0] = begun;
  if ((high & 0x80) === 0) throw formatError('neither a record nor the end of a context', place);
  const nameBytes = low + 256 * (high & 0x7f);
  checkLimit(nameBytes, keyBytesMax, 'the length of a context name', place);
  return { close: Uint8Array.from(yield nameBytes) };
}
