/** A context that is being loaded: its tags are in memory, verified, until it is closed. */
import { CheckpointError, type ErrorCode, type ErrorDetails } from '../errors/index.ts';
import {
  type AnyValue,
  decodeValue,
  type TypedValue,
  type ValueOf,
  type ValueType,
} from '../format/value.ts';
import { OpenState, StateDefinition, type StateLeaf, type TypedTags } from './state.ts';

/** A value as it stands in the stream. */
export interface StoredTag {
  readonly type: ValueType;
  readonly data: Uint8Array;
}

/** What the caller knows about a value; what does not agree is an error. */
export interface LoadExpectation<T extends ValueType = ValueType> {
  readonly type?: T | undefined;
  /** Bytes of the value in the stream. */
  readonly byteLength?: number | undefined;
}

/** A tag of an open context. */
export interface TagInfo {
  readonly name: string;
  readonly type: ValueType;
  readonly byteLength: number;
}

/** The checkpoint a context belongs to. */
export interface LoadContextOwner {
  readonly store: string | undefined;
  /** Runs a call in its turn; rejects when the checkpoint has failed or is closed. */
  run<T>(action: () => Promise<T>): Promise<T>;
  close(): Promise<void>;
}

export class LoadContext {
  readonly name: string;
  readonly #owner: LoadContextOwner;
  #tags: ReadonlyMap<string, StoredTag> | undefined;

  /** Use `checkpoint.openContext()`. */
  constructor(name: string, tags: ReadonlyMap<string, StoredTag>, owner: LoadContextOwner) {
    this.name = name;
    this.#tags = tags;
    this.#owner = owner;
  }

  /** The tags of the context in the order in which they were saved. Throws `CHKPT_CONTEXT_CLOSED`. */
  get tags(): readonly TagInfo[] {
    return [...this.#openTags(undefined)].map(([name, { type, data }]) => ({
      name,
      type,
      byteLength: data.length,
    }));
  }

  /**
   * Loads a value of a type that the caller knows. Throws `CHKPT_NO_TAG`, `CHKPT_TAG_TYPE`,
   * `CHKPT_TAG_LENGTH`.
   */
  load<T extends ValueType>(
    tag: string,
    expected: LoadExpectation<T> & { readonly type: T },
  ): Promise<ValueOf<T>>;
  /** Loads a value, whatever its type. Throws `CHKPT_NO_TAG`, `CHKPT_TAG_LENGTH`. */
  load(tag: string, expected?: LoadExpectation): Promise<AnyValue>;
  /**
   * Loads a state. Throws `CHKPT_NO_TAG`, `CHKPT_TAG_TYPE`, `CHKPT_TAG_LENGTH`, and when strict
   * `CHKPT_TAG_UNKNOWN`.
   */
  load<T>(definition: StateDefinition<T>): Promise<T>;
  async load(what: string | StateDefinition<unknown>, expected: LoadExpectation = {}): Promise<unknown> {
    return await this.#owner.run(async () => {
      if (what instanceof StateDefinition) return this.#loadState(what);
      if (typeof what !== 'string') throw new TypeError('load() takes a tag or a state definition');
      return this.#value(what, expected.type, expected.byteLength).value;
    });
  }

  /** Loads a value together with its type. */
  async loadTyped(tag: string): Promise<TypedValue> {
    return await this.#owner.run(async () => this.#value(tag, undefined, undefined));
  }

  /** The bytes of a value as they stand in the stream, whatever its type. Throws `CHKPT_NO_TAG`. */
  async loadBytes(tag: string): Promise<Uint8Array> {
    return await this.#owner.run(async () => this.#stored(tag).data.slice());
  }

  /** Loads every value, as properties named by their tags. */
  async loadAll(): Promise<Record<string, AnyValue>> {
    return await this.#owner.run(async () => {
      const tags = [...this.#openTags(undefined).keys()];
      return Object.fromEntries(tags.map((tag) => [tag, this.#value(tag, undefined, undefined).value]));
    });
  }

  /** Releases the values. Does nothing when the context is closed. */
  async close(): Promise<void> {
    if (this.#tags === undefined) return;
    await this.#owner.run(() => this.#release());
  }

  /** Closes; nothing happens when the checkpoint has failed or is closed. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.close().catch(() => this.#release());
  }

  /** What only a context opened for saving can do. */
  protected async save(): Promise<never> {
    throw this.#error('CHKPT_MODE', 'the checkpoint was opened for loading', {});
  }

  protected async saveAll(): Promise<never> {
    throw this.#error('CHKPT_MODE', 'the checkpoint was opened for loading', {});
  }

  async #release(): Promise<void> {
    if (this.#tags === undefined) return;
    this.#tags = undefined;
    await this.#owner.close();
  }

  #loadState(definition: StateDefinition<unknown>): unknown {
    const tags = this.#openTags(undefined);
    if (definition instanceof OpenState) return this.#loadOpen(definition, [...tags.keys()]);
    if (definition.strict) {
      const known = new Set(definition.leaves.map((leaf) => leaf.tag));
      const unknown = [...tags.keys()].find((tag) => tag.startsWith(definition.prefix) && !known.has(tag));
      if (unknown !== undefined) {
        throw this.#error('CHKPT_TAG_UNKNOWN', 'the state definition does not know this tag', {
          tag: unknown,
        });
      }
    }
    return definition.decode(
      ({ tag, type, byteLength }: StateLeaf) => this.#value(tag, type, byteLength).value,
    );
  }

  #loadOpen({ prefix }: OpenState, tags: readonly string[]): TypedTags {
    const wanted = tags.filter((tag) => tag.startsWith(prefix));
    return new Map(
      wanted.map((tag) => [tag.slice(prefix.length), this.#value(tag, undefined, undefined)] as const),
    );
  }

  /** The value is a copy: what the caller does with it leaves the context as it is. */
  #value(tag: string, type: ValueType | undefined, byteLength: number | undefined): TypedValue {
    const stored = this.#stored(tag);
    if (type !== undefined && stored.type !== type) {
      throw this.#error('CHKPT_TAG_TYPE', 'the value has another type', {
        tag,
        expected: type,
        actual: stored.type,
      });
    }
    const actual = stored.data.length;
    if (byteLength !== undefined && actual !== byteLength) {
      throw this.#error('CHKPT_TAG_LENGTH', 'the value has another length', {
        tag,
        expected: byteLength,
        actual,
      });
    }
    return decodeValue(stored.type, stored.data.slice());
  }

  #stored(tag: string): StoredTag {
    const stored = this.#openTags(tag).get(tag);
    if (stored === undefined) throw this.#error('CHKPT_NO_TAG', 'no such tag', { tag });
    return stored;
  }

  #openTags(tag: string | undefined): ReadonlyMap<string, StoredTag> {
    if (this.#tags !== undefined) return this.#tags;
    throw this.#error('CHKPT_CONTEXT_CLOSED', 'loaded from a context that is closed', { tag });
  }

  #error(code: ErrorCode, what: string, details: ErrorDetails): CheckpointError {
    return new CheckpointError(code, what, {
      details: { store: this.#owner.store, context: this.name, ...details },
    });
  }
}
