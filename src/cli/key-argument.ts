/** Keys of encrypted checkpoints: `--key-file`, `CHKPT_KEY_FILE`, `CHKPT_KEY`, and those of what a command makes. */
import { createSecretKey, type KeyObject } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { fromSystemError } from '../errors/index.ts';
import { type KeySource, sealKeyBytes } from '../store/index.ts';
import type { ParsedLine } from './parse-line.ts';
import { usageError } from './usage-error.ts';

const fileBytesMax = 64 * 1024;
const lineFeed = 10;
const comment = 35;

/** Undefined: nothing is encrypted. Throws `CHKPT_USAGE`, and what reading the file does. */
export function keysOf(line: ParsedLine): KeySource | undefined {
  const path = line.last('key-file') ?? (process.env['CHKPT_KEY_FILE'] || undefined);
  if (path !== undefined) return keysIn(path);
  const digits = process.env['CHKPT_KEY'] || undefined;
  return digits === undefined ? undefined : keysFrom(Buffer.from(digits), 'CHKPT_KEY');
}

/** Of the checkpoint that a command makes out of another one. Throws as `keysOf`. */
export function targetKeysOf(line: ParsedLine): KeySource | undefined {
  const path = line.last('to-key-file');
  if (path !== undefined && line.has('to-plain')) {
    throw usageError('--to-key-file and --to-plain exclude each other');
  }
  if (path !== undefined) return keysIn(path);
  return line.has('to-plain') ? undefined : keysOf(line);
}

function keysIn(path: string): KeyObject[] {
  let bytes: Buffer;
  try {
    bytes = readFileSync(path);
  } catch (error) {
    throw fromSystemError(error, 'cannot read the key', { path });
  }
  return keysFrom(bytes, path);
}

/** Overwrites `bytes`. No part of a key becomes a string: those cannot be overwritten. */
function keysFrom(bytes: Buffer, place: string): KeyObject[] {
  try {
    if (bytes.length === sealKeyBytes) return [createSecretKey(bytes)];
    if (bytes.length > fileBytesMax) throw wrongKey(place);
    const keys: KeyObject[] = [];
    for (let start = 0; start < bytes.length; ) {
      const found = bytes.indexOf(lineFeed, start);
      const end = found < 0 ? bytes.length : found;
      const text = trimmed(bytes.subarray(start, end));
      if (text.length > 0 && text[0] !== comment) keys.push(keyOf(text, place));
      start = end + 1;
    }
    if (keys.length === 0) throw wrongKey(place);
    return keys;
  } finally {
    bytes.fill(0);
  }
}

function trimmed(text: Buffer): Buffer {
  let [start, end] = [0, text.length];
  while (start < end && (text[start] ?? 0) <= 32) start += 1;
  while (end > start && (text[end - 1] ?? 0) <= 32) end -= 1;
  return text.subarray(start, end);
}

function keyOf(digits: Buffer, place: string): KeyObject {
  if (digits.length !== 2 * sealKeyBytes) throw wrongKey(place);
  const key = Buffer.alloc(sealKeyBytes);
  try {
    for (const [index, digit] of digits.entries()) {
      const value = digitOf(digit);
      if (value === undefined) throw wrongKey(place);
      key[index >> 1] = ((key[index >> 1] ?? 0) << 4) | value;
    }
    return createSecretKey(key);
  } finally {
    key.fill(0);
  }
}

function digitOf(code: number): number | undefined {
  if (code >= 48 && code <= 57) return code - 48;
  const letter = (code | 32) - 97;
  return letter >= 0 && letter < 6 ? letter + 10 : undefined;
}

function wrongKey(place: string): Error {
  return usageError(
    `${place}: 32 random bytes or lines of 64 hexadecimal digits are expected: openssl rand -hex 32`,
  );
}
