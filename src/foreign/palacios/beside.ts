/**
 * What an original has no place for, beside what it knows: the context `chkpt`, and one context `chkpt.<name>` for each context of the
 * checkpoint, in order. An original asks for the contexts that it wants by name, or is gone before these come.
 *
 *     chkpt         bytes (u64) · document (JSON, so many bytes) · sha256 (of the document)
 *     chkpt.<name>  the tags of the context, in order; types and lengths are in the document
 */
import { createHash } from 'node:crypto';
import { CheckpointError } from '../../errors/index.ts';
import { formatError, type Place } from '../../format/bytes.ts';
import { decodeName, encodeName } from '../../format/names.ts';
import { faultOfValue, isValueType, type ValueType } from '../../format/value.ts';
import { addressMax, contextCountMax, regionCountMax, tagCountMax } from '../../limits.ts';
import { toRegions } from '../../memory/guest-memory.ts';
import { isUuid } from '../../store/temporary-names.ts';
import type { ForeignContent, ForeignContext, ForeignMemory } from '../foreign-format.ts';
import type { PalaciosContext, PalaciosRecord } from './record.ts';
import type { Schema } from './schema.ts';

export const besideContext = 'chkpt';
const prefix = `${besideContext}.`;
const format = 'chkpt beside palacios';
const version = 1;

export const isBeside = (name: string): boolean => name === besideContext || name.startsWith(prefix);

/** Longest document: what it takes in memory is many times as much. */
export const documentBytesMax = 64 * 1024 * 1024;

function checkDocument(bytes: number, tagCount: number): void {
  const limit = (what: string, expected: number, actual: number): CheckpointError =>
    new CheckpointError('CHKPT_LIMIT', what, { details: { context: besideContext, expected, actual } });
  if (bytes > documentBytesMax) throw limit('the document is too long', documentBytesMax, bytes);
  if (tagCount > tagCountMax) throw limit('more tags than a checkpoint may have', tagCountMax, tagCount);
}

/** What the document says. */
export interface Beside extends Pick<ForeignContent, 'uuid' | 'createdMs' | 'memory'> {
  /** `GuestMemory.digest` of memory. */
  readonly memoryDigest: bigint | undefined;
  readonly contexts: readonly {
    readonly name: string;
    readonly tags: readonly (readonly [name: string, type: ValueType, bytes: number])[];
  }[];
  /** SHA-256 of all values, one behind the other, hexadecimal. */
  readonly values: string;
}

/** `chkpt` and the contexts behind it. */
export function encodeBeside(content: ForeignContent, memoryDigest: bigint | undefined): PalaciosContext[] {
  const { uuid, createdMs, memory, contexts } = content;
  const document = Buffer.from(
    JSON.stringify({
      format,
      version,
      uuid,
      createdMs,
      memory: memory === undefined ? null : memoryJson(memory, memoryDigest ?? 0n),
      contexts: contexts.map(({ name, tags }) => ({
        name,
        tags: tags.map((tag) => [tag.name, tag.type, tag.data.length]),
      })),
      values: digestOf(contexts.flatMap(({ tags }) => tags.map(({ data }) => data))),
    }),
  );
  checkDocument(document.length, 0);
  const bytes = new Uint8Array(8);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(document.length), true);
  const sha256 = createHash('sha256').update(document).digest();
  const index: PalaciosContext = {
    name: besideContext,
    records: [
      { tag: 'bytes', data: bytes },
      { tag: 'document', data: document },
      { tag: 'sha256', data: sha256 },
    ],
  };
  const own = contexts.map(({ name, tags }) => ({
    name: besideName(name),
    records: tags.map((tag): PalaciosRecord => ({ tag: tag.name, data: tag.data })),
  }));
  return [index, ...own];
}

/** Throws `CHKPT_NAME` for a name that has no room for more. */
function besideName(name: string): string {
  const longer = `${prefix}${name}`;
  encodeName(longer, { context: name });
  return longer;
}

function memoryJson({ name, at, regions }: ForeignMemory, digest: bigint): unknown {
  const places = regions.map(({ base, bytes }) => [String(base), String(bytes)]);
  return { name, at, regions: places, digest: digest.toString(16) };
}

/** Of `chkpt`, whose document has so many bytes. */
export const besideSchema = (documentBytes: number): Schema => [
  ['bytes', 8],
  ['document', documentBytes],
  ['sha256', 32],
];

/** The schemas of the contexts that a document lists, by their names in this form. */
export function schemasOf({ contexts }: Beside): Map<string, Schema> {
  return new Map(
    contexts.map(({ name, tags }) => [
      `${prefix}${name}`,
      tags.map(([tag, , bytes]): Schema[number] => [tag, bytes]),
    ]),
  );
}

const place: Place = { context: besideContext };

/** Reads `chkpt`, whose tags were checked. The digest comes first. Throws `CHKPT_DIGEST`, `CHKPT_FORMAT`, `CHKPT_LIMIT`. */
export function decodeBeside({ records }: PalaciosContext): Beside {
  const [bytes, document, sha256] = records.map(({ data }) => data);
  if (bytes?.length !== 8 || document === undefined || sha256 === undefined) {
    throw formatError('no document', place);
  }
  checkDocument(document.length, 0);
  if (!createHash('sha256').update(document).digest().equals(sha256)) {
    throw new CheckpointError('CHKPT_DIGEST', 'the document has another digest', { details: place });
  }
  if (new DataView(bytes.buffer, bytes.byteOffset, 8).getBigUint64(0, true) !== BigInt(document.length)) {
    throw formatError('the document has another length than it says', place);
  }
  try {
    return parseDocument(JSON.parse(Buffer.from(document).toString('utf8')));
  } catch (error) {
    if (error instanceof CheckpointError) throw error;
    throw new CheckpointError('CHKPT_FORMAT', 'the document cannot be read', {
      details: place,
      cause: error,
    });
  }
}

function parseDocument(json: unknown): Beside {
  const document = objectOf(json);
  if (document['format'] !== format) throw wrong('format');
  if (document['version'] !== version) {
    throw new CheckpointError('CHKPT_VERSION', 'another version of the document', { details: place });
  }
  const { uuid, createdMs, contexts, values } = document;
  if (!isUuid(uuid)) throw wrong('uuid');
  if (!isCount(createdMs)) throw wrong('createdMs');
  if (!Array.isArray(contexts) || contexts.length > contextCountMax) throw wrong('contexts');
  if (typeof values !== 'string') throw wrong('values');
  const own = contexts.map(parseContext);
  checkDocument(
    0,
    own.reduce((sum, { tags }) => sum + tags.length, 0),
  );
  const memory =
    document['memory'] === null ? undefined : parseMemory(objectOf(document['memory']), contexts);
  return {
    uuid,
    createdMs,
    memory: memory?.memory,
    memoryDigest: memory?.digest,
    contexts: own,
    values,
  };
}

function parseContext(json: unknown): Beside['contexts'][number] {
  const { name, tags } = objectOf(json);
  if (!Array.isArray(tags)) throw wrong('context');
  return {
    name: nameOf(name),
    tags: tags.map((tag: unknown) => {
      const [tagName, type, bytes, ...more] = Array.isArray(tag) ? (tag as unknown[]) : [];
      const isTag = typeof tagName === 'string' && isValueType(type) && isCount(bytes) && more.length === 0;
      if (!isTag) throw wrong('tag');
      return [tagName, type, bytes] as const;
    }),
  };
}

function parseMemory(
  { name, at, regions, digest }: Record<string, unknown>,
  contexts: readonly unknown[],
): { readonly memory: ForeignMemory; readonly digest: bigint } {
  if (!isCount(at) || at > contexts.length) throw wrong('memory');
  if (typeof digest !== 'string' || !/^[0-9a-f]{1,16}$/.test(digest)) throw wrong('memory.digest');
  if (!Array.isArray(regions) || regions.length === 0 || regions.length > regionCountMax) {
    throw wrong('memory.regions');
  }
  const places = regions.map((region: unknown) => {
    const [base, bytes] = Array.isArray(region) ? region.map(decimalOf) : [];
    if (base === undefined || bytes === undefined) throw wrong('memory.regions');
    return { base, bytes };
  });
  try {
    toRegions(places);
  } catch {
    throw wrong('memory.regions');
  }
  return { memory: { name: nameOf(name), at, regions: places }, digest: BigInt(`0x${digest}`) };
}

/** The content that the document and its contexts make. Throws `CHKPT_FORMAT`, `CHKPT_DIGEST`. */
export function contentBeside(
  beside: Beside,
  contexts: readonly PalaciosContext[],
): ForeignContent & { readonly memoryDigest: bigint | undefined } {
  const found = new Map(contexts.map((context) => [context.name, context.records]));
  const values: Uint8Array[] = [];
  const own = beside.contexts.map(({ name, tags }): ForeignContext => {
    const records = found.get(`${prefix}${name}`);
    const details = { context: `${prefix}${name}` };
    if (records === undefined) throw formatError('a context of the document is missing', details);
    found.delete(`${prefix}${name}`);
    if (records.length !== tags.length)
      throw formatError('another number of tags than in the document', details);
    return {
      name,
      tags: records.map(({ tag, data }, index) => {
        const [expected, type, bytes] = tags[index] ?? ['', 'bytes', 0];
        const isIt = tag === expected && data.length === bytes;
        if (!isIt) throw formatError('another tag than in the document', { ...details, tag }, { expected });
        values.push(data);
        return { name: tag, type, data };
      }),
    };
  });
  const surplus = [...found.keys()].find((name) => name !== besideContext && isBeside(name));
  if (surplus !== undefined) throw formatError('a context that is not in the document', { context: surplus });
  if (digestOf(values) !== beside.values) {
    throw new CheckpointError('CHKPT_DIGEST', 'the values have another digest', { details: place });
  }
  checkValues(own);
  const { uuid, createdMs, memory, memoryDigest } = beside;
  return { uuid, createdMs, memory, memoryDigest, contexts: own };
}

function checkValues(contexts: readonly ForeignContext[]): void {
  for (const { name, tags } of contexts) {
    for (const { name: tag, type, data } of tags) {
      const fault = faultOfValue(type, data);
      if (fault !== undefined) throw formatError(fault, { context: name, tag });
    }
  }
}

function digestOf(pieces: readonly Uint8Array[]): string {
  const hash = createHash('sha256');
  for (const piece of pieces) hash.update(piece);
  return hash.digest('hex');
}

function objectOf(json: unknown): Record<string, unknown> {
  if (typeof json !== 'object' || json === null || Array.isArray(json)) throw wrong('document');
  return json as Record<string, unknown>;
}

function nameOf(value: unknown): string {
  if (typeof value !== 'string') throw wrong('name');
  return decodeName(Buffer.from(value), place);
}

function isCount(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}

function decimalOf(value: unknown): bigint | undefined {
  if (typeof value !== 'string' || !/^[0-9]{1,20}$/.test(value)) return undefined;
  const number = BigInt(value);
  return number <= addressMax ? number : undefined;
}

function wrong(what: string): CheckpointError {
  return formatError(`${what} of the document is not valid`, place);
}
