/** Values of a checkpoint as text, as JSON, and as the short form that a list has room for. */
import type { TypedValue } from '../index.ts';
import { printable } from './printable.ts';

const previewCharacters = 48;
const previewBytes = 16;

type Element = number | bigint | boolean;

/** The whole value for `cat`: bytes and strings as they are, numbers in decimal, each on its own line. */
export function valueContent({ type, value }: TypedValue): Uint8Array | string {
  if (type === 'bytes' || type === 'string') return value;
  return elementsOf(value as Element | Iterable<Element>)
    .map((element) => `${elementText(element)}\n`)
    .join('');
}

/** One line of bounded length, without control characters. */
export function valuePreview({ type, value }: TypedValue): string {
  if (type === 'bytes') return bytesPreview(value);
  if (type === 'string') return stringPreview(value);
  const isVector = type.endsWith('[]');
  const elements = elementsOf(value as Element | Iterable<Element>);
  if (!isVector) return elements.map(elementText).join('');
  let text = '';
  for (const [index, element] of elements.entries()) {
    const next = index === 0 ? elementText(element) : `${text} ${elementText(element)}`;
    if (next.length > previewCharacters) return `[${text} …]`;
    text = next;
  }
  return `[${text}]`;
}

/**
 * The value for JSON. Bytes are base64; 64-bit integers are decimal strings, because readers of JSON round large numbers; so are
 * the floats for which JSON has no number.
 */
export function valueJson({ type, value }: TypedValue): unknown {
  if (type === 'bytes')
    return Buffer.from(value.buffer, value.byteOffset, value.byteLength).toString('base64');
  if (type === 'string') return value;
  const elements = elementsOf(value as Element | Iterable<Element>).map(elementJson);
  return type.endsWith('[]') ? elements : elements[0];
}

function elementsOf(value: Element | Iterable<Element>): Element[] {
  return typeof value === 'object' ? Array.from(value) : [value];
}

function elementText(element: Element): string {
  return Object.is(element, -0) ? '-0' : String(element);
}

function elementJson(element: Element): boolean | number | string {
  const isExact = typeof element === 'number' && Number.isFinite(element) && !Object.is(element, -0);
  return isExact || typeof element === 'boolean' ? element : elementText(element);
}

function bytesPreview(bytes: Uint8Array): string {
  const start = Buffer.from(bytes.subarray(0, previewBytes)).toString('hex');
  return bytes.length > previewBytes ? `${start}…` : start;
}

function stringPreview(text: string): string {
  const characters = Array.from(text.slice(0, 2 * previewCharacters + 2));
  const isCut = characters.length > previewCharacters;
  return `"${printable(characters.slice(0, previewCharacters).join(''))}"${isCut ? '…' : ''}`;
}
