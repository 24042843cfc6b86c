/**
 * The text of an m5.cpt: bytes ⇄ sections of keys and values. Pure; untrusted input.
 *
 * Two programs read this file by rules that differ: gem5 itself (`src/base/inifile.cc`) and Python's configparser, in gem5's upgrader.
 * The reader refuses whatever they read differently, or with loss; the writer makes only what both read alike. docs/gem5.md lists the
 * rules. What is not changed is written as it was read, byte for byte and in order: a document may be that of another machine's
 * gem5, whose keys mean nothing to us.
 *
 * Blank lines carry nothing: one is written before each section.
 */
import { CheckpointError, type ErrorDetails } from '../../errors/index.ts';
import { gem5LineBytesMax, gem5SectionCountMax, gem5TextBytesMax } from '../../limits.ts';

interface Entry {
  readonly value: string;
  /** As it was read; `undefined` for what we set. */
  readonly line: string | undefined;
}

/** Names and keys that we make. */
const safePattern = /^[A-Za-z0-9_.]+$/;
/** Printable ASCII, and TAB where both consumers keep it: not at an end. */
const printablePattern = /^[\t\x20-\x7e]*$/;
const blankEndPattern = /^[ \t]|[ \t]$/;

/** One `[name]` and its keys, in order. Both are unique. */
export class IniSection {
  readonly name: string;
  readonly #entries = new Map<string, Entry>();
  readonly #set = new Set<string>();

  constructor(name: string) {
    this.name = name;
  }

  get keys(): IterableIterator<string> {
    return this.#entries.keys();
  }

  /** Keys that nobody has set since they were read. */
  get kept(): string[] {
    return [...this.#entries.keys()].filter((key) => !this.#set.has(key));
  }

  get(key: string): string | undefined {
    return this.#entries.get(key)?.value;
  }

  /** Replaces the value in its place, or appends the key. Throws RangeError for what no file of ours may hold. */
  set(key: string, value: string): void {
    if (!safePattern.test(key)) throw new RangeError(`key ${JSON.stringify(key)} is not one for m5.cpt`);
    const fault = faultOfValue(value) ?? (value.includes('%') ? 'has a %' : undefined);
    if (fault !== undefined) throw new RangeError(`the value of ${key} ${fault}`);
    if (this.get(key) !== value) this.#entries.set(key, { value, line: undefined });
    this.#set.add(key);
  }

  delete(key: string): void {
    this.#entries.delete(key);
  }

  /** For the reader: a line of a file. False when the key is there already. */
  read(key: string, value: string, line: string): boolean {
    if (this.#entries.has(key)) return false;
    this.#entries.set(key, { value, line: line === `${key}=${value}` ? undefined : line });
    return true;
  }

  *lines(): Generator<string> {
    yield `[${this.name}]`;
    for (const [key, { value, line }] of this.#entries) yield line ?? `${key}=${value}`;
  }
}

export class IniDocument {
  /** Lines before the first section, comments all. */
  readonly comments: readonly string[];
  readonly #sections = new Map<string, IniSection>();

  constructor(comments: readonly string[]) {
    this.comments = comments;
  }

  /** In order. */
  get sections(): IterableIterator<IniSection> {
    return this.#sections.values();
  }

  section(name: string): IniSection | undefined {
    return this.#sections.get(name);
  }

  /** Appends an empty section. Throws RangeError for a name that is taken, or that no file of ours may hold. */
  add(name: string): IniSection {
    if (!safePattern.test(name) || name === 'DEFAULT')
      throw new RangeError(`${name} is no name for a section`);
    const section = this.append(name);
    if (section === undefined) throw new RangeError(`section ${name} is there already`);
    return section;
  }

  remove(name: string): void {
    this.#sections.delete(name);
  }

  /** For the reader: any name; `undefined` when it is taken. */
  append(name: string): IniSection | undefined {
    if (this.#sections.has(name)) return undefined;
    const section = new IniSection(name);
    this.#sections.set(name, section);
    return section;
  }
}

/** The bytes of the file. */
export function serializeIni(document: IniDocument): Uint8Array {
  const parts: Buffer[] = [];
  const put = (lines: Iterable<string>): void => {
    for (const line of lines) parts.push(Buffer.from(`${line}\n`, 'latin1'));
  };
  put(document.comments);
  for (const section of document.sections) {
    put(['']);
    put(section.lines());
  }
  return Buffer.concat(parts);
}

/** Reads the file. Throws `CHKPT_FORMAT` with the number of the line, `CHKPT_LIMIT`. */
export function parseIni(bytes: Uint8Array, details: ErrorDetails = {}): IniDocument {
  if (bytes.length > gem5TextBytesMax) throw new IniReader(details).limit('its bytes', gem5TextBytesMax);
  const text = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const reader = new IniReader(details);
  for (let start = 0; start < text.length; ) {
    const found = text.indexOf(lineFeed, start);
    const end = found < 0 ? text.length : found;
    if (end - start > gem5LineBytesMax) throw reader.limit('a line', gem5LineBytesMax);
    reader.take(text.toString('latin1', start, end));
    start = end + 1;
  }
  return reader.finish();
}

const lineFeed = 10;

class IniReader {
  readonly #details: ErrorDetails;
  readonly #comments: string[] = [];
  #document: IniDocument | undefined;
  #section: IniSection | undefined;
  #sectionCount = 0;
  #line = 0;

  constructor(details: ErrorDetails) {
    this.#details = details;
  }

  take(line: string): void {
    this.#line += 1;
    if (line === '') return;
    if (!printablePattern.test(line)) throw this.#fault('a line is not printable ASCII');
    if (/^[ \t]/.test(line)) throw this.#fault('a line begins with a blank');
    if (line.startsWith('[')) {
      this.#begin(line);
    } else if (this.#section === undefined) {
      if (!line.startsWith('#')) throw this.#fault('a line before the first section is no comment');
      this.#comments.push(line);
    } else {
      this.#takeEntry(this.#section, line);
    }
  }

  finish(): IniDocument {
    return this.#document ?? new IniDocument(this.#comments);
  }

  limit(what: string, most: number): CheckpointError {
    return new CheckpointError('CHKPT_LIMIT', `m5.cpt: ${what} exceeds ${most}`, { details: this.#details });
  }

  #begin(line: string): void {
    const name = line.slice(1, -1);
    if (!line.endsWith(']') || name === '' || /[[\]]/.test(name) || blankEndPattern.test(name)) {
      throw this.#fault('a section header is not [name]');
    }
    // Python's configparser gives the keys of this one to all sections.
    if (name === 'DEFAULT') throw this.#fault('a section is called DEFAULT');
    this.#document ??= new IniDocument(this.#comments);
    this.#sectionCount += 1;
    if (this.#sectionCount > gem5SectionCountMax)
      throw this.limit('the number of sections', gem5SectionCountMax);
    this.#section = this.#document.append(name);
    if (this.#section === undefined) throw this.#fault(`section ${name} is there twice`);
  }

  #takeEntry(section: IniSection, line: string): void {
    if (/^[#;]/.test(line)) throw this.#fault('a section holds a comment');
    const equals = line.indexOf('=');
    if (equals < 0) throw this.#fault('a line has no =');
    const key = trimSpaces(line.slice(0, equals));
    const value = trimSpaces(line.slice(equals + 1));
    if (key === '' || key.includes(':') || blankEndPattern.test(key)) throw this.#fault('a key is not valid');
    if (key.endsWith('+')) throw this.#fault(`${key}= appends to a key`);
    if (blankEndPattern.test(value)) throw this.#fault(`the value of ${key} has a TAB at its end`);
    if (!section.read(key, value, line)) throw this.#fault(`key ${key} is there twice`);
  }

  #fault(what: string): CheckpointError {
    return new CheckpointError('CHKPT_FORMAT', `m5.cpt: line ${this.#line}: ${what}`, {
      details: this.#details,
    });
  }
}

/** Both consumers remove spaces around keys and values. */
function trimSpaces(text: string): string {
  return text.replace(/^ +| +$/g, '');
}

function faultOfValue(text: string): string | undefined {
  if (!printablePattern.test(text)) return 'has a character that is not printable ASCII';
  return blankEndPattern.test(text) ? 'begins or ends with a blank' : undefined;
}
