/**
 * Names of the temporaries of one file, in the folder of that file:
 *
 *     .NAME.UUID.PID.tmp    the new content, until it is published
 *     .NAME.UUID.PID.old    a second name of the content that is being replaced, until the new one is durable
 *
 * UUID is that of the checkpoint, PID that of the process that made them.
 */
import { createHash } from 'node:crypto';

/** A UUID in text form, as part of a larger pattern. */
export const uuidText = '[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}';
/** A process number: Linux has at most 4 194 304 of them. */
export const pidText = '[1-9][0-9]{0,6}';

const uuidPattern = new RegExp(`^${uuidText}$`);
const tailPattern = new RegExp(`^(${uuidText})\\.(${pidText})\\.(tmp|old)$`);

/** Longest NAME that still leaves room for the rest in the 255 bytes of a file name. */
const stemBytesMax = 180;

export type TemporaryRole = 'tmp' | 'old';

export interface TemporaryName {
  readonly entry: string;
  readonly uuid: string;
  readonly pid: number;
  readonly role: TemporaryRole;
}

export class TemporaryNames {
  readonly #prefix: string;

  constructor(name: string) {
    this.#prefix = `.${stemOf(name)}.`;
  }

  make(uuid: string, pid: number, role: TemporaryRole): string {
    if (!isUuid(uuid)) throw new TypeError(`not a UUID: ${uuid}`);
    return `${this.#prefix}${uuid}.${pid}.${role}`;
  }

  /** Reads the name of a folder entry; `undefined` when it is no temporary of this file. */
  parse(entry: string): TemporaryName | undefined {
    if (!entry.startsWith(this.#prefix)) return undefined;
    const parts = tailPattern.exec(entry.slice(this.#prefix.length));
    if (parts === null) return undefined;
    return { entry, uuid: String(parts[1]), pid: Number(parts[2]), role: parts[3] === 'old' ? 'old' : 'tmp' };
  }
}

const anyPattern = new RegExp(`^\\.(.+)\\.${uuidText}\\.${pidText}\\.(?:tmp|old)$`);

/** Of a temporary of any file: the part of its name that stands for that file. */
export function stemIn(entry: string): string | undefined {
  return anyPattern.exec(entry)?.[1];
}

export function isUuid(text: unknown): text is string {
  return typeof text === 'string' && uuidPattern.test(text);
}

/** NAME, or a digest of it where it is so long that nothing can be appended. */
export function stemOf(name: string): string {
  return Buffer.byteLength(name) <= stemBytesMax ? name : digestOf(name);
}

function digestOf(name: string): string {
  return createHash('sha256').update(name).digest('hex').slice(0, 32);
}
