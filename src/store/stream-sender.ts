/**
 * The sending end of a stream store. Bytes go out as they are given; the answer is listened to all the time, so that a receiver that
 * refuses half-way is heard, and not only felt.
 */
import { CheckpointError, withDetails } from '../errors/index.ts';
import { formatUuid } from '../format/uuid.ts';
import { type Connection, decodeRefusal, readExactly } from '../transport/index.ts';
import type { CommitSummary, StoreWriter } from './store.ts';
import {
  aliveMs,
  dataBytesMax,
  decodeRecordHeader,
  encodeReason,
  encodeRecordHeader,
  recordHeaderBytes,
  silentMs,
} from './stream-record.ts';

/** How long a failed write waits for the reason, which may be on its way. */
const reasonMs = 500;

type Answer =
  | { readonly kind: 'accepted'; readonly payload: Buffer }
  | { readonly kind: 'refused'; readonly error: CheckpointError }
  | { readonly kind: 'lost'; readonly error: unknown };

export class StreamSender implements StoreWriter {
  readonly #connection: Connection;
  readonly #store: string;
  readonly #signal: AbortSignal | undefined;
  readonly #answer: Promise<Answer>;
  readonly #onAbort: () => void;
  readonly #alive: NodeJS.Timeout;
  #answered: Answer | undefined;
  /** When something was sent last, and heard last. */
  #sentAt = performance.now();
  #heardAt = performance.now();
  #isWriting = false;
  #hasEnded = false;

  /** Owns the connection. */
  constructor(connection: Connection, store: string, signal: AbortSignal | undefined) {
    this.#connection = connection;
    this.#store = store;
    this.#signal = signal;
    connection.idleMs = 0;
    this.#answer = this.#listen().then((answer) => {
      this.#answered = answer;
      return answer;
    });
    this.#onAbort = () =>
      connection.destroy(new CheckpointError('CHKPT_ABORTED', 'aborted', { cause: signal?.reason }));
    if (signal?.aborted === true) this.#onAbort();
    signal?.addEventListener('abort', this.#onAbort, { once: true });
    this.#alive = setInterval(() => this.#sayAlive(), aliveMs / 2);
  }

  write(bytes: Uint8Array): Promise<void> {
    return this.writeAll([bytes]);
  }

  async writeAll(pieces: readonly Uint8Array[]): Promise<void> {
    const byteCount = pieces.reduce((sum, piece) => sum + piece.length, 0);
    if (byteCount === 0) return;
    if (byteCount > dataBytesMax) throw new RangeError('too much for one write');
    await this.#send([encodeRecordHeader('data', byteCount), ...pieces]);
  }

  async commit({ uuid, root, bytes }: CommitSummary): Promise<void> {
    // Everything but that the receiver knows it is everything.
    await this.#checkAnswer();
    this.#hasEnded = true;
    const answer = await this.#outcome();
    this.#dispose();
    if (answer.kind === 'refused') throw this.#placed(answer.error);
    if (answer.kind === 'lost') throw this.#unacknowledged(answer.error);
    const { payload } = answer;
    const found = [
      formatUuid(payload.subarray(0, 16)),
      payload.toString('hex', 16, 48),
      payload.readBigUInt64LE(48),
    ].join();
    if (found !== [uuid, root, BigInt(bytes)].join()) {
      throw this.#unacknowledged(
        new CheckpointError('CHKPT_PEER_PROTOCOL', 'the receiver has acknowledged something else'),
      );
    }
    await this.#connection.end().catch(() => undefined);
    this.#connection.destroy();
  }

  async abort(): Promise<void> {
    this.#dispose();
    if (this.#answered === undefined && !this.#hasEnded && !this.#isWriting) {
      const reason = new CheckpointError('CHKPT_ABORTED', 'the sender gave up');
      await this.#connection
        .write(encodeReason('abort', reason))
        .then(() => this.#connection.end())
        .catch(() => undefined);
    }
    this.#connection.destroy();
  }

  /** Sends the end and waits. Silence ends the waiting. */
  async #outcome(): Promise<Answer> {
    this.#heardAt = performance.now();
    const watch = setInterval(() => {
      if (performance.now() - this.#heardAt < silentMs) return;
      this.#connection.destroy(
        new CheckpointError('CHKPT_TIMEOUT', `the receiver says nothing for ${silentMs} ms`),
      );
    }, silentMs / 10);
    try {
      const sending = this.#connection.write(encodeRecordHeader('end', 0));
      const failed = sending.then(
        () => this.#answer,
        () => this.#reason(),
      );
      return await failed;
    } finally {
      clearInterval(watch);
    }
  }

  async #send(pieces: readonly Uint8Array[]): Promise<void> {
    await this.#checkAnswer();
    this.#isWriting = true;
    try {
      await this.#connection.writeAll(pieces);
    } catch (error) {
      const answer = await this.#reason();
      throw this.#placed(answer.kind === 'refused' ? answer.error : error);
    } finally {
      this.#isWriting = false;
      this.#sentAt = performance.now();
    }
  }

  /** A receiver that has answered before the end has refused, or is gone. */
  async #checkAnswer(): Promise<void> {
    const answer = this.#answered;
    if (answer === undefined) return;
    if (answer.kind === 'accepted')
      throw this.#placed(protocol('the receiver accepts what it does not have'));
    throw this.#placed(answer.error);
  }

  /** The answer, if it comes soon. */
  async #reason(): Promise<Answer> {
    const late = new Promise<Answer>((resolve) => {
      setTimeout(() => resolve({ kind: 'lost', error: undefined }), reasonMs).unref();
    });
    return await Promise.race([this.#answer, late]);
  }

  async #listen(): Promise<Answer> {
    try {
      for (;;) {
        const header = Buffer.alloc(recordHeaderBytes);
        await readExactly(this.#connection, header);
        this.#heardAt = performance.now();
        const { type, payloadBytes } = decodeRecordHeader(header, ['alive', 'accepted', 'refused']);
        const payload = Buffer.alloc(payloadBytes);
        await readExactly(this.#connection, payload);
        if (type === 'alive') continue;
        if (type === 'refused') {
          const { code, reason } = decodeRefusal(payload);
          const what = `the receiver says: ${reason}${code === undefined ? '' : ` (${code})`}`;
          return { kind: 'refused', error: new CheckpointError('CHKPT_PEER_REFUSED', what) };
        }
        if (payload.length !== 56) throw protocol('an acknowledgement of an impossible length');
        return { kind: 'accepted', payload };
      }
    } catch (error) {
      return { kind: 'lost', error };
    }
  }

  #sayAlive(): void {
    if (this.#isWriting || this.#hasEnded || performance.now() - this.#sentAt < aliveMs) return;
    this.#sentAt = performance.now();
    // Whoever writes next hears of a failure.
    void this.#connection.write(encodeRecordHeader('alive', 0)).catch(() => undefined);
  }

  #dispose(): void {
    clearInterval(this.#alive);
    this.#signal?.removeEventListener('abort', this.#onAbort);
  }

  #unacknowledged(cause: unknown): CheckpointError {
    this.#connection.destroy();
    const reason = cause instanceof Error ? cause.message : 'the connection was lost';
    const what = `everything was sent, but whether it is kept is not known: ${reason}`;
    return new CheckpointError('CHKPT_UNACKNOWLEDGED', what, { details: { store: this.#store }, cause });
  }

  #placed(error: unknown): unknown {
    return withDetails(error, { store: this.#store });
  }
}

function protocol(what: string): CheckpointError {
  return new CheckpointError('CHKPT_PEER_PROTOCOL', what);
}
