/**
 * Strict UTF-8 in both directions: nothing is replaced, and a byte order mark is a character like any other.
 */
import { isUtf8 } from 'node:buffer';

const encoder = new TextEncoder();
const loneSurrogate = /\p{Surrogate}/u;

/** UTF-8 of the text, or `undefined` when it holds a lone surrogate, which UTF-8 cannot say. */
export function encodeUtf8(text: string): Uint8Array | undefined {
  return loneSurrogate.test(text) ? undefined : encoder.encode(text);
}

/** The text, or `undefined` when the bytes are not UTF-8. */
export function decodeUtf8(bytes: Uint8Array): string | undefined {
  if (!isUtf8(bytes)) return undefined;
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('utf8');
}
