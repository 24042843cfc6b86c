/**
 * What gem5 has no place for, in sections of its m5.cpt that gem5 skips: `[chkpt]` and `[chkpt.0]`, `[chkpt.1]`, … one for each context.
 *
 *     [chkpt]                         [chkpt.0]
 *     version=1                       name=rtc
 *     uuid=…                          tags=1
 *     created=1700000000000           0.name=boot_20time
 *     contexts=1                      0.type=u64
 *     memory=memory                   0.bytes=8
 *     memory_at=1                     0.data=AAECAwQFBgc
 *     bases=0 4294967296
 *
 * Names are plain letters, digits, `.` and `-`; every other byte of their UTF-8 is `_` and two hexadecimal digits. Values are base64
 * without padding, 48 KiB a line: `0.data`, `0.data.1`, …
 */
import type { MemoryRegion } from '../../context/memory-frames.ts';
import { encodeName } from '../../format/names.ts';
import { faultOfValue, type ValueType, valueTypeCode } from '../../format/value.ts';
import { addressMax, contextCountMax, regionCountMax, tagCountMax, valueBytesMax } from '../../limits.ts';
import { isUuid } from '../../store/temporary-names.ts';
import type { ForeignContent, ForeignContext, ForeignTag } from '../foreign-format.ts';
import type { IniDocument, IniSection } from './ini.ts';
import { joinList, SectionReader, splitList } from './values.ts';

const root = 'chkpt';
const version = 1;
const pieceBytes = 48 * 1024;

export interface OwnContent {
  readonly uuid: string;
  readonly createdMs: number;
  readonly contexts: readonly ForeignContext[];
  /** Undefined when the checkpoint has no memory. */
  readonly memory:
    | {
        readonly name: string;
        readonly at: number;
        readonly bases: readonly bigint[];
        /** Memory stores of each region. */
        readonly stores: readonly number[];
      }
    | undefined;
}

/** True for a section of ours. */
export function isOwnSection(name: string): boolean {
  return name === root || name.startsWith(`${root}.`);
}

/** Appends our sections. `stores`: of each region. REQUIRES: the document has none. */
export function addOwnSections(
  document: IniDocument,
  content: ForeignContent,
  stores: readonly number[],
): void {
  const { uuid, createdMs, contexts, memory } = content;
  const section = document.add(root);
  section.set('version', `${version}`);
  section.set('uuid', uuid);
  section.set('created', `${createdMs}`);
  section.set('contexts', `${contexts.length}`);
  if (memory !== undefined) {
    section.set('memory', escapeName(memory.name));
    section.set('memory_at', `${memory.at}`);
    section.set('bases', joinList(memory.regions.map(({ base }: MemoryRegion) => base)));
    if (stores.some((count) => count !== 1)) section.set('stores', joinList(stores.map(BigInt)));
  }
  for (const [index, { name, tags }] of contexts.entries()) {
    const own = document.add(`${root}.${index}`);
    own.set('name', escapeName(name));
    own.set('tags', `${tags.length}`);
    for (const [at, { name: tag, type, data }] of tags.entries()) {
      own.set(`${at}.name`, escapeName(tag));
      own.set(`${at}.type`, type.replace('[]', '.list'));
      own.set(`${at}.bytes`, `${data.length}`);
      for (let piece = 0; piece * pieceBytes < data.length; piece += 1) {
        const part = data.subarray(piece * pieceBytes, (piece + 1) * pieceBytes);
        own.set(pieceKey(at, piece), toBase64(part));
      }
    }
  }
}

/** What they hold; `undefined` when there are none. Throws `CHKPT_FORMAT`. */
export function readOwnSections(
  document: IniDocument,
  details: Record<string, string>,
): OwnContent | undefined {
  const section = document.section(root);
  if (section === undefined) return undefined;
  const reader = new SectionReader(section, details);
  if (reader.count('version', 0xffff) !== version) throw reader.fault('its version is not 1');
  const uuid = reader.text('uuid');
  if (!isUuid(uuid)) throw reader.fault('uuid is no UUID');
  const budget = { tags: tagCountMax, bytes: valueBytesMax };
  const contexts: ForeignContext[] = [];
  const contextCount = reader.count('contexts', contextCountMax);
  for (let index = 0; index < contextCount; index += 1) {
    const own = document.section(`${root}.${index}`);
    if (own === undefined) throw reader.fault(`there is no section ${root}.${index}`);
    contexts.push(readContext(new SectionReader(own, details), budget));
  }
  return {
    uuid,
    createdMs: reader.count('created', Number.MAX_SAFE_INTEGER),
    contexts,
    memory: section.get('memory') === undefined ? undefined : readMemory(reader, section, contextCount),
  };
}

interface Budget {
  tags: number;
  bytes: number;
}

function readMemory(
  reader: SectionReader,
  section: IniSection,
  contextCount: number,
): NonNullable<OwnContent['memory']> {
  const count = splitList(reader.text('bases')).length;
  if (count === 0 || count > regionCountMax) throw reader.fault('bases are not 1 to 256');
  return {
    name: readName(reader, 'memory'),
    at: reader.count('memory_at', contextCount),
    bases: reader.unsignedList('bases', count, addressMax),
    stores:
      section.get('stores') === undefined ? new Array<number>(count).fill(1) : readCounts(reader, count),
  };
}

function readCounts(reader: SectionReader, count: number): number[] {
  const counts = reader.unsignedList('stores', count, BigInt(regionCountMax)).map(Number);
  if (counts.includes(0)) throw reader.fault('a region has no stores');
  return counts;
}

function readContext(reader: SectionReader, budget: Budget): ForeignContext {
  const name = readName(reader, 'name');
  const tagCount = reader.count('tags', budget.tags);
  budget.tags -= tagCount;
  const tags: ForeignTag[] = [];
  for (let at = 0; at < tagCount; at += 1) tags.push(readTag(reader, at, budget));
  return { name, tags };
}

function readTag(reader: SectionReader, at: number, budget: Budget): ForeignTag {
  const byteCount = reader.count(`${at}.bytes`, budget.bytes);
  budget.bytes -= byteCount;
  const pieces: Uint8Array[] = [];
  for (let piece = 0; piece * pieceBytes < byteCount; piece += 1) {
    const key = pieceKey(at, piece);
    const part = fromBase64(reader.text(key));
    if (part === undefined || part.length !== Math.min(pieceBytes, byteCount - piece * pieceBytes)) {
      throw reader.fault(`${key} is not what it should be`);
    }
    pieces.push(part);
  }
  const data = pieces.length === 1 ? (pieces[0] as Uint8Array) : Buffer.concat(pieces);
  const type = readType(reader, `${at}.type`);
  const fault = faultOfValue(type, data);
  if (fault !== undefined) throw reader.fault(fault);
  return { name: readName(reader, `${at}.name`), type, data };
}

function readType(reader: SectionReader, key: string): ValueType {
  const type = reader.text(key).replace('.list', '[]') as ValueType;
  try {
    valueTypeCode(type);
    return type;
  } catch {
    throw reader.fault(`${key} is no type`);
  }
}

function readName(reader: SectionReader, key: string): string {
  const text = reader.text(key);
  const name = unescapeName(text);
  if (name === undefined || escapeName(name) !== text) throw reader.fault(`${key} is no name`);
  try {
    encodeName(name);
    return name;
  } catch {
    throw reader.fault(`${key} is no name`);
  }
}

function pieceKey(at: number, piece: number): string {
  return piece === 0 ? `${at}.data` : `${at}.data.${piece}`;
}

export function escapeName(name: string): string {
  return name.replace(/[^A-Za-z0-9.-]+/gu, (part) =>
    [...Buffer.from(part)].map((byte) => `_${byte.toString(16).padStart(2, '0')}`).join(''),
  );
}

function unescapeName(text: string): string | undefined {
  const bytes = Buffer.from(
    text.replace(/_([0-9a-f]{2})/g, (_, hex) => String.fromCharCode(Number.parseInt(hex, 16))),
    'latin1',
  );
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    return undefined;
  }
}

function toBase64(bytes: Uint8Array): string {
  const text = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('base64');
  return text.replace(/=+$/, '');
}

/** Undefined unless it is exactly what `toBase64` makes. */
function fromBase64(text: string): Uint8Array | undefined {
  const bytes = Buffer.from(text, 'base64');
  return toBase64(bytes) === text ? bytes : undefined;
}
