/**
 * A context as text, as `textfile:` of the original writes it:
 *
 *     "[" name "]" LF, then per record: tag "=" hex LF
 *
 * Two digits a byte, lower case (either is read), all of a value on one line. What is read is exactly that: the original skips white
 * space, takes a tag for another one that it begins with, and data across lines. Pure.
 */
import { CheckpointError } from '../../errors/index.ts';
import { formatError, type Place } from '../../format/bytes.ts';
import { decodeName } from '../../format/names.ts';
import { valueBytesMax } from '../../limits.ts';
import { type PalaciosContext, type PalaciosRecord, RecordBudget } from './record.ts';

const [equals, lineEnd] = [0x3d, 0x0a];
const sectionEnd = ']\n';

export function encodeTextSection(name: string): Uint8Array {
  return Buffer.from(`[${name}${sectionEnd}`);
}

/** What stands before the digits. Throws `CHKPT_NAME` for a tag with `=`, which could not be read back. */
export function encodeTextTag(tag: string, context: string): Uint8Array {
  if (tag.includes('=')) {
    throw new CheckpointError('CHKPT_NAME', 'a tag with = cannot be written as text', {
      details: { context, tag },
    });
  }
  return Buffer.from(`${tag}=`);
}

/** A context as the pieces of its file. Throws `CHKPT_NAME`. */
export function encodeTextContext({ name, records }: PalaciosContext): Uint8Array[] {
  return [
    encodeTextSection(name),
    ...records.flatMap(({ tag, data }) => [
      encodeTextTag(tag, name),
      ...hexPieces(data),
      Buffer.from('\n', 'latin1'),
    ]),
  ];
}

/**
 * The records of the context `name` in `bytes`. Throws `CHKPT_FORMAT` for a line that is not exactly as it is written, `CHKPT_TRUNCATED`
 * when the last line does not end, `CHKPT_LIMIT`.
 */
export function decodeTextContext(
  bytes: Uint8Array,
  name: string,
  place: Place,
  budget = new RecordBudget(),
): PalaciosRecord[] {
  const section = encodeTextSection(name);
  if (Buffer.compare(bytes.subarray(0, section.length), section) !== 0) {
    throw formatError(`the first line is not [${name}]`, { ...place, offset: 0 });
  }
  const records: PalaciosRecord[] = [];
  for (let at = section.length; at < bytes.length; ) {
    const end = bytes.indexOf(lineEnd, at);
    if (end === -1) {
      throw new CheckpointError('CHKPT_TRUNCATED', 'the last line does not end', {
        details: { ...place, offset: at },
      });
    }
    budget.take(place);
    records.push(decodeLine(bytes.subarray(at, end), { ...place, offset: at }));
    at = end + 1;
  }
  return records;
}

function decodeLine(line: Uint8Array, place: Place): PalaciosRecord {
  const middle = line.indexOf(equals);
  if (middle === -1) throw formatError('a line has no =', place);
  const tag = decodeName(line.subarray(0, middle), place);
  return { tag, data: decodeHex(line.subarray(middle + 1), { ...place, tag }) };
}

/** Hexadecimal text of bytes, lower case. */
export function hexOf(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('hex');
}

/** A string cannot be as long as the digits of the longest value. */
const pieceDigits = 1024 * 1024;

function hexPieces(bytes: Uint8Array): Buffer[] {
  const pieces: Buffer[] = [];
  for (let at = 0; at < bytes.length; at += pieceDigits / 2) {
    pieces.push(Buffer.from(hexOf(bytes.subarray(at, at + pieceDigits / 2)), 'latin1'));
  }
  return pieces;
}

/** The bytes of such text, of either case. Throws `CHKPT_FORMAT` for an odd count or any other character, `CHKPT_LIMIT`. */
export function decodeHex(digits: Uint8Array, place: Place): Uint8Array {
  if (digits.length > 2 * valueBytesMax) {
    throw new CheckpointError('CHKPT_LIMIT', 'a value is longer than one may be', {
      details: { ...place, expected: 2 * valueBytesMax, actual: digits.length },
    });
  }
  const bytes = Buffer.alloc(Math.floor(digits.length / 2));
  let done = 0;
  for (let at = 0; at < digits.length; at += pieceDigits) {
    const piece = digits.subarray(at, at + pieceDigits);
    const text = Buffer.from(piece.buffer, piece.byteOffset, piece.byteLength).toString('latin1');
    // Decoding stops at the first pair that is none.
    done += bytes.write(text, at / 2, 'hex');
  }
  if (done * 2 !== digits.length) {
    throw formatError('a value is not made of pairs of hexadecimal digits', place);
  }
  return bytes;
}
