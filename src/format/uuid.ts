import { uuidBytes } from './constants.ts';

const textForm = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i;

/** The 16 bytes of a UUID in the order of its text form. Throws TypeError when the text is not a UUID. */
export function parseUuid(text: string): Uint8Array {
  if (!textForm.test(text)) throw new TypeError(`not a UUID: ${text}`);
  return Uint8Array.from(Buffer.from(text.replaceAll('-', ''), 'hex'));
}

/** Text form, lower case. */
export function formatUuid(bytes: Uint8Array): string {
  if (bytes.length !== uuidBytes) throw new RangeError(`a UUID has 16 bytes, not ${bytes.length}`);
  const hex = hexOf(bytes);
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join('-');
}

/** Lower-case hexadecimal. */
export function hexOf(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('hex');
}

/** The bytes of a hexadecimal text. Throws TypeError when it is not one of `byteCount` bytes. */
export function parseHex(text: string, byteCount: number): Uint8Array {
  if (text.length !== 2 * byteCount || !/^[0-9a-f]*$/i.test(text)) {
    throw new TypeError(`not ${byteCount} bytes in hexadecimal: ${text}`);
  }
  return Uint8Array.from(Buffer.from(text, 'hex'));
}
