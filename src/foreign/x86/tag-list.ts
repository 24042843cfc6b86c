/** Collects the tags of a context. */
import { encodeUnknown, type ValueType } from '../../format/value.ts';
import type { ForeignTag } from '../foreign-format.ts';

export class TagList {
  readonly tags: ForeignTag[] = [];

  add(name: string, type: ValueType, value: unknown): void {
    this.tags.push({ name, type, data: encodeUnknown(type, value, {}) });
  }
}
