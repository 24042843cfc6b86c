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
import type { PalaciosContext, PalaciosRecord } from './record.ts';

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
      Buffer.from(`${hexOf(data)}\n`, 'latin1'),
    ]),
  ];
}

/**
 * The records of the context `name` in `bytes`. Throws `CHKPT_FORMAT` for a line that is not exactly as it is written, `CHKPT_TRUNCATED`
 * when the last line does not end.
 */
export function decodeTextContext(bytes: Uint8Array, name: string, place: Place): PalaciosRecord[] {
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

/** The bytes of such text, of either case. Throws `CHKPT_FORMAT` for an odd count or any other character. */
export function decodeHex(digits: Uint8Array, place: Place): Uint8Array {
  const text = Buffer.from(digits.buffer, digits.byteOffset, digits.byteLength).toString('latin1');
  // Decoding stops at the first pair that is none.
  const bytes = Buffer.from(text, 'hex');
  if (bytes.length * 2 !== text.length) {
    throw formatError('a value is not made of pairs of hexadecimal digits', place);
  }
  return bytes;
}
