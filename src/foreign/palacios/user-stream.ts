/** Requests to the handler of a `user:` checkpoint, and what has to come back. */
import { CheckpointError } from '../../errors/index.ts';
import { formatError } from '../../format/bytes.ts';
import { encodeName } from '../../format/names.ts';
import { throwIfAborted } from '../../store/failure.ts';
import type { PalaciosRecord } from './record.ts';
import { decodeUserMessage, encodeUserMessage, messageTypes, type UserMessage } from './user-message.ts';

/** Answers a request with a response, both as bytes (`user-message.ts`); what it throws ends the save or load. */
export type PalaciosUserHandler = (request: Uint8Array) => Uint8Array | Promise<Uint8Array>;

export class UserStream {
  readonly #handler: PalaciosUserHandler;
  readonly #url: string;
  readonly #signal: AbortSignal | undefined;

  /** When `signal` is aborted, it waits for no answer any more, and asks for nothing: `CHKPT_ABORTED`. */
  constructor(handler: PalaciosUserHandler, url: string, signal?: AbortSignal) {
    this.#handler = handler;
    this.#url = url;
    this.#signal = signal;
  }

  under(signal: AbortSignal | undefined): UserStream {
    return new UserStream(this.#handler, this.#url, signal);
  }

  /** A handle; undefined: there is no such context. */
  async open(name: string): Promise<bigint | undefined> {
    const buffer = Buffer.concat([encodeName(name, { context: name }), Uint8Array.of(0)]);
    const request = { type: messageTypes.open, transferred: 0, handle: 0n, dataOffset: 0, buffer };
    const { handle } = await this.#ask(request, name);
    return handle === 0n ? undefined : handle;
  }

  async close(handle: bigint, name: string): Promise<void> {
    const buffer = new Uint8Array();
    await this.#ask({ type: messageTypes.close, transferred: 0, handle, dataOffset: 0, buffer }, name);
  }

  async write(handle: bigint, { tag, data }: PalaciosRecord, context: string): Promise<void> {
    const name = encodeName(tag, { context, tag });
    const buffer = Buffer.concat([name, data]);
    const request = {
      type: messageTypes.write,
      transferred: data.length,
      handle,
      dataOffset: name.length,
      buffer,
    };
    const { transferred } = await this.#ask(request, context);
    if (transferred !== data.length)
      throw this.#failed('the handler has not written a value', { context, tag });
  }

  /** The value; undefined when the handler has none. It has exactly the length that was asked for. */
  async read(
    handle: bigint,
    tag: string,
    byteCount: number,
    context: string,
  ): Promise<Uint8Array | undefined> {
    const buffer = encodeName(tag, { context, tag });
    const request = {
      type: messageTypes.read,
      transferred: byteCount,
      handle,
      dataOffset: buffer.length,
      buffer,
    };
    const response = await this.#ask(request, context);
    if (response.transferred === -1) return undefined;
    if (response.transferred === byteCount && response.buffer.length === byteCount) return response.buffer;
    throw formatError(
      'the handler gives a value of another length',
      { context, tag },
      {
        expected: byteCount,
        actual: response.buffer.length,
      },
    );
  }

  async #ask(request: UserMessage, context: string): Promise<UserMessage> {
    const place = { store: this.#url, context };
    let answer: Uint8Array;
    try {
      answer = await this.#answer(encodeUserMessage(request));
    } catch (error) {
      if (error instanceof CheckpointError) throw error;
      throw new CheckpointError('CHKPT_STORE_FAILED', 'the handler failed', { details: place, cause: error });
    }
    if (!(answer instanceof Uint8Array)) throw this.#failed('the handler gives no bytes', { context });
    const response = decodeUserMessage(answer, 'response', place);
    if (response.type !== request.type) throw formatError('an answer to something else', place);
    return response;
  }

  async #answer(request: Uint8Array): Promise<Uint8Array> {
    const signal = this.#signal;
    throwIfAborted(signal, this.#url);
    const answering = this.#handler(request);
    if (signal === undefined) return await answering;
    let onAbort = (): void => undefined;
    const aborted = new Promise<undefined>((resolve) => {
      onAbort = () => resolve(undefined);
    });
    signal.addEventListener('abort', onAbort);
    try {
      const answer = await Promise.race([answering, aborted]);
      throwIfAborted(signal, this.#url);
      return answer as Uint8Array;
    } finally {
      signal.removeEventListener('abort', onAbort);
    }
  }

  #failed(what: string, details: { readonly context: string; readonly tag?: string }): CheckpointError {
    return new CheckpointError('CHKPT_STORE_FAILED', what, { details: { store: this.#url, ...details } });
  }
}
