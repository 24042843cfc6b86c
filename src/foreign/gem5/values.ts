/**
 * Values of an m5.cpt: text ⇄ numbers, booleans and lists. Pure; untrusted input.
 *
 * gem5 itself reads `010` as 8, `08` as 0, `12abc` as 12 and refuses any number with an `e`: what it could take for something else is
 * `CHKPT_FORMAT` here.
 */
import { CheckpointError, type ErrorDetails } from '../../errors/index.ts';
import type { IniSection } from './ini.ts';

/** The keys of one section, with errors that say where. */
export class SectionReader {
  readonly #section: IniSection;
  readonly #details: ErrorDetails;

  constructor(section: IniSection, details: ErrorDetails) {
    this.#section = section;
    this.#details = details;
  }

  get name(): string {
    return this.#section.name;
  }

  text(key: string): string {
    const text = this.#section.get(key);
    if (text === undefined) throw this.fault(`there is no ${key}`);
    return text;
  }

  /** An unsigned integer of at most `most`. */
  unsigned(key: string, most: bigint): bigint {
    return this.#unsigned(key, this.text(key), most);
  }

  /** The same as a number. REQUIRES: `most` is a safe integer. */
  count(key: string, most: number): number {
    return Number(this.unsigned(key, BigInt(most)));
  }

  boolean(key: string): boolean {
    const text = this.text(key);
    if (text !== 'true' && text !== 'false') throw this.fault(`${key}=${text} is no boolean`);
    return text === 'true';
  }

  /** Exactly `length` unsigned integers. */
  unsignedList(key: string, length: number, most: bigint): bigint[] {
    const items = splitList(this.text(key));
    if (items.length !== length) throw this.fault(`${key} has ${items.length} values, not ${length}`);
    return items.map((item) => this.#unsigned(key, item, most));
  }

  fault(what: string): CheckpointError {
    return new CheckpointError('CHKPT_FORMAT', `m5.cpt: [${this.#section.name}]: ${what}`, {
      details: this.#details,
    });
  }

  #unsigned(key: string, text: string, most: bigint): bigint {
    // 20 digits hold every 64-bit number.
    if (!/^(?:0|[1-9][0-9]{0,19})$/.test(text) || BigInt(text) > most) {
      throw this.fault(`${key}: ${text.slice(0, 32)} is no integer from 0 to ${most}`);
    }
    return BigInt(text);
  }
}

/** Values separated by one space; nothing for the empty text. Only a space separates. */
export function splitList(text: string): string[] {
  return text === '' ? [] : text.split(' ');
}

export function joinList(items: readonly (string | number | bigint)[]): string {
  return items.join(' ');
}
