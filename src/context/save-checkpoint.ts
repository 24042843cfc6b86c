/**
 * Saving through the model: a checkpoint, its contexts, their tags. The rules are the stream writer's; here
 * calls are put in order, values get their types, and everything is disposable.
 *
 * Calls may be made without waiting for the ones before: they run one after the other, in the order they were
 * made. Values are encoded when `save` is called, but bytes and typed arrays are not copied: they must not
 * change before the promise has resolved.
 */
import { CheckpointError } from '../errors/index.ts';
import { CallQueue } from '../util/call-queue.ts';
import { encodeTag, type SavableValue } from './auto-value.ts';
import type { MemoryFrameSource } from './memory-frames.ts';
import { StateDefinition } from './state.ts';
import { checkAborted } from './store-call.ts';
import type { EncodedTag, MemoryProgress, StreamWriter, StreamWritten } from './stream-writer.ts';

export interface SaveMemoryOptions {
  readonly signal?: AbortSignal | undefined;
  /** Called after each slab that the store took. */
  readonly onProgress?: ((progress: MemoryProgress) => void) | undefined;
}

interface Session {
  readonly writer: StreamWriter;
  readonly store: string | undefined;
  readonly signal: AbortSignal | undefined;
  readonly queue: CallQueue;
  /** Stops what is under way when the checkpoint is aborted. */
  readonly stop: AbortController;
  ended: boolean;
}

/** A checkpoint that is being saved. Nothing is visible before `commit()` has resolved. */
export class SaveCheckpoint {
  readonly mode = 'save';
  readonly #session: Session;

  /** Use `openCheckpoint()`. The stream header is written. */
  constructor(writer: StreamWriter, store: string | undefined, signal: AbortSignal | undefined) {
    const stop = new AbortController();
    this.#session = { writer, store, signal, queue: new CallQueue(), stop, ended: false };
  }

  /** UUID of the checkpoint, text form. */
  get uuid(): string {
    return this.#session.writer.uuid;
  }

  /** Opens a context. Throws `CHKPT_CONTEXT_OPEN`, `CHKPT_CONTEXT_REOPENED`, `CHKPT_NAME`, `CHKPT_CLOSED`. */
  async openContext(name: string): Promise<SaveContext> {
    return await enqueue(this.#session, async ({ writer }) => {
      await writer.openContext(name);
      return new SaveContext(name, this.#session);
    });
  }

  /** Saves guest memory as a context of its own. */
  async saveMemory(name: string, source: MemoryFrameSource, options: SaveMemoryOptions = {}): Promise<void> {
    await enqueue(this.#session, async ({ writer, signal, stop }) => {
      const signals = [signal, options.signal, stop.signal].filter((one) => one !== undefined);
      await writer.memory(name, source, AbortSignal.any(signals), options.onProgress);
    });
  }

  /**
   * Completes the checkpoint and makes it visible. Throws `CHKPT_CONTEXT_OPEN`; after any other error it is
   * gone.
   */
  async commit(): Promise<StreamWritten> {
    return await enqueue(this.#session, async (session) => {
      try {
        return await session.writer.finish();
      } finally {
        // Still usable: a rule was broken before anything was written.
        session.ended = !session.writer.isUsable;
        if (session.ended) await session.writer.abort().catch(() => undefined);
      }
    });
  }

  /**
   * Drops the checkpoint. Interrupts a `saveMemory` under way. Does nothing when it was committed or dropped
   * before.
   */
  async abort(): Promise<void> {
    const { stop, queue, writer } = this.#session;
    if (!this.#session.ended) stop.abort();
    await queue.run(async () => {
      if (this.#session.ended) return;
      this.#session.ended = true;
      await writer.abort();
    });
  }

  /** Aborts unless committed. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.abort();
  }

  /** What only a checkpoint opened for loading can do. */
  protected async loadMemory(): Promise<never> {
    throw wrongMode(this.#session);
  }

  protected async finish(): Promise<never> {
    throw wrongMode(this.#session);
  }
}

/** A context that is being saved. */
export class SaveContext {
  readonly name: string;
  readonly #session: Session;
  #closed = false;

  /** Use `checkpoint.openContext()`. */
  constructor(name: string, session: Session) {
    this.name = name;
    this.#session = session;
  }

  /** Saves one value under a tag; its type is its own, or follows from the value (see `AutoValue`). */
  save(tag: string, value: SavableValue): Promise<void>;
  /** Saves every field of a state, or nothing when one does not fit. */
  save<T>(definition: StateDefinition<T>, value: T): Promise<void>;
  async save(what: string | StateDefinition<unknown>, value: unknown): Promise<void> {
    const place = { store: this.#session.store, context: this.name };
    const tags =
      what instanceof StateDefinition
        ? what.encode(value, place)
        : [encodeTag(what, value as SavableValue, place)];
    await this.#saveTags(tags);
  }

  /** Saves each property under its name, or nothing when one cannot be saved. */
  async saveAll(values: Readonly<Record<string, SavableValue>>): Promise<void> {
    const place = { store: this.#session.store, context: this.name };
    await this.#saveTags(Object.entries(values).map(([tag, value]) => encodeTag(tag, value, place)));
  }

  /** Completes the context. Does nothing when it is closed. */
  async close(): Promise<void> {
    await enqueue(this.#session, async ({ writer }) => {
      if (this.#closed) return;
      await writer.closeContext();
      this.#closed = true;
    });
  }

  /** Closes, unless the checkpoint has ended: then there is nothing to complete. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#session.queue.run(async () => {
      if (this.#closed || this.#session.ended || !this.#session.writer.isUsable) return;
      await this.#session.writer.closeContext();
      this.#closed = true;
    });
  }

  /** What only a context opened for loading can do. */
  protected async load(): Promise<never> {
    throw wrongMode(this.#session, this.name);
  }

  protected async loadAll(): Promise<never> {
    throw wrongMode(this.#session, this.name);
  }

  async #saveTags(tags: readonly EncodedTag[]): Promise<void> {
    await enqueue(this.#session, async ({ writer, store }) => {
      if (this.#closed) {
        throw new CheckpointError('CHKPT_CONTEXT_CLOSED', 'saved into a context that is closed', {
          details: { store, context: this.name, tag: tags[0]?.tag },
        });
      }
      await writer.tags(tags);
    });
  }
}

async function enqueue<T>(session: Session, action: (session: Session) => Promise<T>): Promise<T> {
  return await session.queue.run(async () => {
    if (session.ended) {
      throw new CheckpointError('CHKPT_CLOSED', 'the checkpoint was committed or aborted', {
        details: { store: session.store },
      });
    }
    checkAborted(session.signal, session.store);
    return await action(session);
  });
}

function wrongMode({ store }: Session, context?: string): CheckpointError {
  return new CheckpointError('CHKPT_MODE', 'the checkpoint was opened for saving', {
    details: { store, context },
  });
}
