/** Tags of contexts as numbers, by name: what a mapping reads, and what it makes. */
import { decodeValue, encodeUnknown, faultOfValue, type ValueType } from '../../format/value.ts';
import type { ForeignContext, ForeignTag } from '../foreign-format.ts';

export class TagValues {
  readonly #tags = new Map<string, ForeignTag>();

  constructor(context: ForeignContext | undefined) {
    for (const tag of context?.tags ?? []) this.#tags.set(tag.name, tag);
  }

  get names(): IterableIterator<string> {
    return this.#tags.keys();
  }

  has(name: string): boolean {
    return this.#tags.has(name);
  }

  /** Undefined when there is no such tag, or it is no number. */
  number(name: string): bigint | undefined {
    const value = this.#value(name);
    return typeof value === 'number' || typeof value === 'bigint' ? BigInt(value) : undefined;
  }

  /** The bytes of a vector of numbers, or of bytes. */
  bytes(name: string): Uint8Array | undefined {
    return this.#tags.get(name)?.data;
  }

  #value(name: string): unknown {
    const tag = this.#tags.get(name);
    if (tag === undefined || faultOfValue(tag.type, tag.data) !== undefined) return undefined;
    return decodeValue(tag.type, tag.data).value;
  }
}

/** Collects the tags of a context. */
export class TagList {
  readonly tags: ForeignTag[] = [];

  add(name: string, type: ValueType, value: unknown): void {
    this.tags.push({ name, type, data: encodeUnknown(type, value, {}) });
  }
}
