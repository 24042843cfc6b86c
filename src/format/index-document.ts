/**
 * The index document: every context, tag and page group of a stream with its place (docs/format.md section
 * 9).
 *
 * Writer and reader build it with the same builder, from what they wrote and read; a reader compares the
 * bytes.
 */
import { contextCountMax, nameBytesMax, tagCountMax } from '../limits.ts';
import {
  checkEqual,
  checkLimit,
  checkZero,
  formatError,
  type Place,
  pad8,
  readCount,
  viewOf,
} from './bytes.ts';
import { type ContextKind, contextKinds } from './constants.ts';
import { decodeName } from './names.ts';
import type { PageGroup } from './page-sequence.ts';
import { isValueLength, type ValueType, valueTypeCode, valueTypeOf } from './value.ts';

export interface IndexTag {
  readonly name: string;
  readonly type: ValueType;
  /** Bytes of the value. */
  readonly dataBytes: number;
  /** Offset of the TAG frame. */
  readonly offset: number;
}

export interface IndexContext {
  readonly name: string;
  readonly kind: ContextKind;
  /** Offset of the CONTEXT_OPEN frame. */
  readonly offset: number;
  readonly tags: readonly IndexTag[];
}

export interface IndexDocument {
  readonly contexts: readonly IndexContext[];
  readonly groups: readonly PageGroup[];
}

const headBytes = 8;
const entryBytes = 24;

/** Collects the document. Memory: the document, doubled at most. */
export class IndexBuilder {
  #bytes = new Uint8Array(4096);
  #view = viewOf(this.#bytes);
  #end = headBytes;
  #contextAt = 0;
  #contextCount = 0;
  #tagCount = 0;

  /** Bytes of the document without its groups. */
  get contextBytes(): number {
    return this.#end;
  }

  openContext(offset: number, kind: ContextKind, name: Uint8Array): void {
    this.#reserve(entryBytes + pad8(name.length));
    this.#contextAt = this.#end;
    this.#contextCount += 1;
    this.#tagCount = 0;
    this.#view.setBigUint64(this.#end, BigInt(offset), true);
    this.#view.setUint32(this.#end + 8, contextKinds[kind], true);
    this.#view.setBigUint64(this.#end + 16, BigInt(name.length), true);
    this.#append(entryBytes, name);
  }

  tag(offset: number, dataBytes: number, type: ValueType, name: Uint8Array): void {
    this.#reserve(entryBytes + pad8(name.length));
    this.#tagCount += 1;
    this.#view.setUint32(this.#contextAt + 12, this.#tagCount, true);
    this.#view.setBigUint64(this.#end, BigInt(offset), true);
    this.#view.setBigUint64(this.#end + 8, BigInt(dataBytes), true);
    this.#view.setUint32(this.#end + 16, valueTypeCode(type), true);
    this.#view.setUint32(this.#end + 20, name.length, true);
    this.#append(entryBytes, name);
  }

  /** The document. A view of the builder's memory. */
  build(groups: readonly PageGroup[]): Uint8Array {
    this.#reserve(entryBytes * groups.length);
    this.#view.setUint32(0, this.#contextCount, true);
    this.#view.setUint32(4, groups.length, true);
    for (const [index, group] of groups.entries()) {
      const at = this.#end + entryBytes * index;
      this.#view.setBigUint64(at, BigInt(group.firstPage), true);
      this.#view.setBigUint64(at + 8, BigInt(group.pageCount), true);
      this.#view.setBigUint64(at + 16, BigInt(group.offset), true);
    }
    return this.#bytes.subarray(0, this.#end + entryBytes * groups.length);
  }

  #append(fieldBytes: number, name: Uint8Array): void {
    this.#bytes.set(name, this.#end + fieldBytes);
    this.#end += fieldBytes + pad8(name.length);
  }

  #reserve(byteCount: number): void {
    if (this.#end + byteCount <= this.#bytes.length) return;
    const grown = new Uint8Array(Math.max(2 * this.#bytes.length, this.#end + byteCount));
    grown.set(this.#bytes);
    this.#bytes = grown;
    this.#view = viewOf(grown);
  }
}

/**
 * Parses a document whose digest was checked. `endOffset` is the offset of END: everything it names lies
 * before. Throws `CHKPT_FORMAT`, `CHKPT_LIMIT`.
 */
export function parseIndexDocument(bytes: Uint8Array, endOffset: number, place: Place): IndexDocument {
  const cursor = new DocumentCursor(bytes, place);
  const contextCount = cursor.u32();
  const groupCount = cursor.u32();
  checkLimit(contextCount, contextCountMax, 'the number of contexts', place);
  const contexts: IndexContext[] = [];
  let offset = 0;
  let tagTotal = 0;
  for (let index = 0; index < contextCount; index++) {
    const context = parseContext(cursor, place);
    tagTotal += context.tags.length;
    checkLimit(tagTotal, tagCountMax, 'the number of tags', place);
    for (const at of [context.offset, ...context.tags.map((tag) => tag.offset)]) {
      if (at <= offset || at >= endOffset || at % 8 !== 0)
        throw formatError('the index is not in order', place);
      offset = at;
    }
    contexts.push(context);
  }
  checkUnique(contexts, place);
  for (const context of contexts) checkUnique(context.tags, { ...place, context: context.name });
  const groups = parseGroups(cursor, groupCount, endOffset, place);
  checkEqual(cursor.rest, 0, 'length of the index', place);
  return { contexts, groups };
}

function parseContext(cursor: DocumentCursor, place: Place): IndexContext {
  const offset = cursor.count('offset of a context');
  const kindCode = cursor.u32();
  const tagCount = cursor.u32();
  const nameLength = cursor.count('a name');
  const name = cursor.name(nameLength);
  const kind = (['values', 'memory'] as const).find((candidate) => contextKinds[candidate] === kindCode);
  if (kind === undefined) throw formatError('an unknown kind of context', place, { actual: kindCode });
  if (kind === 'memory') checkEqual(tagCount, 0, 'number of tags of a memory context', place);
  const tags: IndexTag[] = [];
  for (let index = 0; index < tagCount; index++) tags.push(parseTag(cursor, place));
  return { name, kind, offset, tags };
}

function parseTag(cursor: DocumentCursor, place: Place): IndexTag {
  const offset = cursor.count('offset of a tag');
  const dataBytes = cursor.count('a value');
  const typeCode = cursor.u32();
  const name = cursor.name(cursor.u32());
  const type = valueTypeOf(typeCode);
  if (type === undefined || !isValueLength(type, dataBytes)) {
    throw formatError('an impossible value in the index', { ...place, tag: name }, { actual: typeCode });
  }
  return { name, type, dataBytes, offset };
}

function parseGroups(
  cursor: DocumentCursor,
  groupCount: number,
  endOffset: number,
  place: Place,
): PageGroup[] {
  const groups: PageGroup[] = [];
  let nextPage = 0;
  let nextOffset = 0;
  for (let index = 0; index < groupCount; index++) {
    const firstPage = cursor.count('first page of a group');
    const pageCount = cursor.count('page count of a group');
    const offset = cursor.count('offset of a group');
    if (
      firstPage < nextPage ||
      pageCount === 0 ||
      offset <= nextOffset ||
      offset >= endOffset ||
      offset % 8 !== 0
    ) {
      throw formatError('the groups of the index are not in order', place);
    }
    nextPage = firstPage + pageCount;
    nextOffset = offset;
    groups.push({ firstPage, pageCount, offset });
  }
  return groups;
}

function checkUnique(entries: readonly { readonly name: string }[], place: Place): void {
  if (new Set(entries.map(({ name }) => name)).size === entries.length) return;
  throw formatError('a name stands twice in the index', place);
}

/** Reads fields one after the other; what lies beyond the end is damage. */
class DocumentCursor {
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  readonly #place: Place;
  #at = 0;

  constructor(bytes: Uint8Array, place: Place) {
    this.#bytes = bytes;
    this.#view = viewOf(bytes);
    this.#place = place;
  }

  get rest(): number {
    return this.#bytes.length - this.#at;
  }

  u32(): number {
    return this.#view.getUint32(this.#advance(4), true);
  }

  count(what: string): number {
    return readCount(this.#view, this.#advance(8), what, this.#place);
  }

  name(byteCount: number): string {
    checkLimit(byteCount, nameBytesMax, 'a name', this.#place);
    const at = this.#advance(pad8(byteCount));
    checkZero(this.#bytes.subarray(at + byteCount, this.#at), 'padding behind a name', this.#place);
    return decodeName(this.#bytes.subarray(at, at + byteCount), this.#place);
  }

  #advance(byteCount: number): number {
    if (byteCount > this.rest) throw formatError('the index is too short', this.#place);
    this.#at += byteCount;
    return this.#at - byteCount;
  }
}
