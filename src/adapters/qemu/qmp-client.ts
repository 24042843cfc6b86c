/**
 * A client of QEMU's machine protocol (QMP, docs/interop/qmp-spec of QEMU): one JSON object per line, over a UNIX socket.
 *
 * Commands may overlap: answers are matched by id. What arrives is a peer's word: lines are bounded, and each way in which a peer
 * can fail is an error of its own.
 */
import { connect as connectSocket, type Socket } from 'node:net';
import { CheckpointError, fromSystemError } from '../../errors/index.ts';
import { callNative, nativeAddon } from '../../native/index.ts';
import { type Deferred, deferred } from '../../util/deferred.ts';
import { countOf, type Fields, fieldsOf, isFields, textOf } from './answer.ts';
import { LineReader } from './line-reader.ts';

export interface QmpOptions {
  /** How long to wait for the greeting and for each answer, milliseconds; default 10,000. */
  readonly timeoutMs?: number | undefined;
}

/** Something that QEMU says unasked. */
export interface QmpEvent {
  readonly event: string;
  readonly data: Fields;
}

interface Pending {
  readonly command: string;
  readonly answer: Deferred<unknown>;
}

const defaultTimeoutMs = 10_000;

export class QmpClient implements AsyncDisposable {
  readonly path: string;
  readonly timeoutMs: number;
  readonly #socket: Socket;
  readonly #lines = new LineReader();
  readonly #pending = new Map<number, Pending>();
  readonly #greeting = deferred<Fields>();
  readonly #ended = deferred<CheckpointError>();
  readonly #listeners = new Set<(event: QmpEvent) => void>();
  #end: CheckpointError | undefined;
  #lastId = 0;
  #version = '';
  #peer: number | undefined;

  private constructor(path: string, socket: Socket, timeoutMs: number) {
    this.path = path;
    this.timeoutMs = timeoutMs;
    this.#socket = socket;
    this.#greeting.promise.catch(() => undefined);
    socket.on('data', (data) => this.#take(data));
    socket.on('error', (error) => this.#fail(this.#closedError(error)));
    socket.on('close', () => this.#fail(this.#closedError()));
  }

  /**
   * Connects, waits for the greeting and leaves negotiation mode.
   *
   * Rejects with `CHKPT_NOT_FOUND` or `CHKPT_IO` (nobody listens), `CHKPT_QMP_TIMEOUT`, `CHKPT_QMP_PROTOCOL`,
   * `CHKPT_QMP_CLOSED`.
   */
  static async connect(path: string, options: QmpOptions = {}): Promise<QmpClient> {
    const { timeoutMs = defaultTimeoutMs } = options;
    if (!Number.isFinite(timeoutMs) || timeoutMs <= 0) throw new RangeError('timeoutMs must be positive');
    const client = new QmpClient(path, await openSocket(path), timeoutMs);
    try {
      client.#peer = peerOf(client.#socket);
      const greeting = await client.#within(client.#greeting.promise, 'the greeting', timeoutMs);
      client.#version = versionOf(greeting);
      await client.execute('qmp_capabilities');
      return client;
    } catch (error) {
      await client.close();
      throw error;
    }
  }

  /** `major.minor.micro` of QEMU. */
  get version(): string {
    return this.#version;
  }

  /** Process id of QEMU, as far as the socket tells. */
  get processId(): number | undefined {
    return this.#peer;
  }

  /** The connection has ended. */
  get isEnded(): boolean {
    return this.#end !== undefined;
  }

  /** Resolves with the reason when the connection has ended. */
  get ended(): Promise<CheckpointError> {
    return this.#ended.promise;
  }

  /** Calls `listener` for each event; returns what takes it away again. */
  onEvent(listener: (event: QmpEvent) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /**
   * Runs a command and resolves with what QEMU returns.
   *
   * Rejects with `CHKPT_QMP_COMMAND` (QEMU refused), `CHKPT_QMP_TIMEOUT`, `CHKPT_QMP_CLOSED`, `CHKPT_QMP_PROTOCOL`.
   */
  async execute(command: string, parameters: Fields = {}, options: QmpOptions = {}): Promise<unknown> {
    if (this.#end !== undefined) throw this.#end;
    this.#lastId += 1;
    const id = this.#lastId;
    const answer = deferred<unknown>();
    answer.promise.catch(() => undefined);
    this.#pending.set(id, { command, answer });
    this.#socket.write(`${JSON.stringify({ execute: command, arguments: parameters, id })}\n`);
    try {
      return await this.#within(
        answer.promise,
        `an answer to ${command}`,
        options.timeoutMs ?? this.timeoutMs,
      );
    } finally {
      this.#pending.delete(id);
    }
  }

  /** Ends the connection; QEMU goes on. Commands under way reject with `CHKPT_QMP_CLOSED`. */
  async close(): Promise<void> {
    this.#fail(this.#closedError());
    if (this.#socket.closed) return;
    await new Promise<void>((resolve) => {
      this.#socket.once('close', () => resolve());
      this.#socket.destroy();
    });
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #within<T>(work: Promise<T>, what: string, timeoutMs: number): Promise<T> {
    const late = deferred<never>();
    const timer = setTimeout(() => {
      const text = `no sign of ${what} for ${timeoutMs} ms`;
      late.reject(new CheckpointError('CHKPT_QMP_TIMEOUT', text, { details: { path: this.path } }));
    }, timeoutMs);
    try {
      return await Promise.race([work, late.promise]);
    } finally {
      clearTimeout(timer);
    }
  }

  #take(data: Buffer): void {
    try {
      for (const line of this.#lines.push(data)) this.#handle(parse(line));
    } catch (error) {
      this.#fail(this.#protocolError(error));
    }
  }

  #handle({ QMP: greeting, event, data, id, error, return: result }: Fields): void {
    if (isFields(greeting)) {
      this.#greeting.resolve(greeting);
    } else if (typeof event === 'string') {
      const said = { event, data: isFields(data) ? data : {} };
      for (const listener of this.#listeners) listener(said);
    } else if (typeof id === 'number') {
      this.#answer(this.#pending.get(id), error, result);
    } else {
      throw new Error('a message that is no greeting, event or answer');
    }
  }

  /** An answer that nobody waits for any more came too late. */
  #answer(pending: Pending | undefined, error: unknown, result: unknown): void {
    if (pending === undefined) return;
    if (isFields(error)) {
      const { desc, class: kind } = error;
      const what = `QEMU refused ${pending.command}: ${desc ?? kind}`;
      const details = { path: this.path };
      pending.answer.reject(new CheckpointError('CHKPT_QMP_COMMAND', what, { details }));
    } else {
      pending.answer.resolve(result);
    }
  }

  #fail(error: CheckpointError): void {
    if (this.#end !== undefined) return;
    this.#end = error;
    this.#greeting.reject(error);
    for (const { answer } of this.#pending.values()) answer.reject(error);
    this.#socket.destroy();
    this.#ended.resolve(error);
  }

  #closedError(cause?: Error): CheckpointError {
    const details = { path: this.path };
    return new CheckpointError('CHKPT_QMP_CLOSED', 'the QMP connection has ended', { cause, details });
  }

  #protocolError(cause: unknown): CheckpointError {
    const what = cause instanceof Error ? cause.message : String(cause);
    const details = { path: this.path };
    return new CheckpointError('CHKPT_QMP_PROTOCOL', `no QMP: ${what}`, { cause, details });
  }
}

function parse(line: string): Fields {
  let message: unknown;
  try {
    message = JSON.parse(line);
  } catch {
    throw new Error(`a line that is no JSON: ${JSON.stringify(line.slice(0, 60))}`);
  }
  if (isFields(message)) return message;
  throw new Error('a line that is no JSON object');
}

function versionOf(greeting: Fields): string {
  const { version } = greeting;
  const { qemu } = fieldsOf(version);
  const { major, minor, micro } = fieldsOf(qemu);
  return [major, minor, micro].map((part) => countOf(part)).join('.');
}

function openSocket(path: string): Promise<Socket> {
  if (textOf(path) === '') throw new TypeError('the path of a QMP socket is empty');
  return new Promise((resolve, reject) => {
    const socket = connectSocket(path);
    socket.once('connect', () => {
      socket.removeAllListeners('error');
      resolve(socket);
    });
    socket.once('error', (error) => reject(fromSystemError(error, `cannot connect to ${path}`, { path })));
  });
}

/** Node has no documented way to the descriptor of a socket; without it the caller has to name the process. */
function peerOf(socket: Socket): number | undefined {
  const { _handle: handle } = socket as unknown as { readonly _handle?: { readonly fd?: number } };
  const descriptor = handle?.fd;
  if (descriptor === undefined || descriptor < 0) return undefined;
  const process = callNative(() => nativeAddon().peerProcess(descriptor));
  return process > 0 ? process : undefined;
}
