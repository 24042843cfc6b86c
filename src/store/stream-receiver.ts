/**
 * The receiving end of a stream store: bytes of the stream as they come, straight into the caller's memory, and one answer at the end.
 */
import { CheckpointError, withDetails } from '../errors/index.ts';
import { type Connection, decodeRefusal, readExactly } from '../transport/index.ts';
import type { ReceivedSummary, StoreReader } from './store.ts';
import {
  aliveMs,
  decodeRecordHeader,
  encodeAccepted,
  encodeReason,
  encodeRecordHeader,
  recordHeaderBytes,
  silentMs,
} from './stream-record.ts';

/** How long a refusal may take to get through. */
const refusalMs = 1000;

export class StreamReceiver implements StoreReader {
  readonly byteLength = undefined;
  readonly #connection: Connection;
  readonly #store: string;
  readonly #signal: AbortSignal | undefined;
  readonly #header = Buffer.alloc(recordHeaderBytes);
  readonly #pace = new Pace();
  readonly #onAbort: () => void;
  /** Bytes of the current record that have not come yet. */
  #rest = 0;
  #hasEnded = false;
  #isReading = false;
  #alive: NodeJS.Timeout | undefined;
  #answer: Promise<void> | undefined;

  /** Owns the connection. */
  constructor(connection: Connection, store: string, signal: AbortSignal | undefined) {
    this.#connection = connection;
    this.#store = store;
    this.#signal = signal;
    connection.idleMs = silentMs;
    this.#onAbort = () => void this.refuse(new CheckpointError('CHKPT_ABORTED', 'the receiver was stopped'));
    if (signal?.aborted === true) this.#onAbort();
    signal?.addEventListener('abort', this.#onAbort, { once: true });
  }

  async read(target: Uint8Array): Promise<number> {
    this.#isReading = true;
    try {
      while (this.#rest === 0 && !this.#hasEnded) await this.#nextRecord();
      if (this.#hasEnded) return 0;
      const byteCount = await this.#read(target.subarray(0, this.#rest));
      if (byteCount === 0) throw cut();
      this.#rest -= byteCount;
      return byteCount;
    } catch (error) {
      if (this.#signal?.aborted === true)
        throw new CheckpointError('CHKPT_ABORTED', 'aborted', { cause: error });
      throw withDetails(error, { store: this.#store });
    } finally {
      this.#isReading = false;
    }
  }

  async acknowledge(received: ReceivedSummary): Promise<void> {
    await this.#say(async () => {
      await this.#connection.write(encodeAccepted(received));
      await this.#connection.end();
    });
  }

  async refuse(error: unknown): Promise<void> {
    await this.#say(async () => {
      const timer = setTimeout(() => this.#connection.destroy(), refusalMs);
      try {
        await this.#connection.write(encodeReason('refused', error));
        await this.#connection.end();
        // What is on its way goes nowhere, but unread it would be a reset, which takes the reason with it.
        const waste = Buffer.alloc(64 * 1024);
        while (this.#isReading || (await this.#connection.read(waste)) > 0) {
          if (this.#isReading) await this.#connection.closed;
        }
      } catch {
        // Nobody is there to be told.
      } finally {
        clearTimeout(timer);
        this.#connection.destroy();
      }
    });
  }

  async close(): Promise<void> {
    const early = new CheckpointError('CHKPT_CLOSED', 'the receiver has closed before the end');
    await this.refuse(early).catch(() => undefined);
    this.#signal?.removeEventListener('abort', this.#onAbort);
    this.#connection.destroy();
  }

  /** The first answer is the only one. */
  async #say(answer: () => Promise<void>): Promise<void> {
    clearInterval(this.#alive);
    this.#answer ??= answer();
    await this.#answer;
  }

  async #nextRecord(): Promise<void> {
    await readExactly({ read: (target) => this.#read(target) }, this.#header);
    const { type, payloadBytes } = decodeRecordHeader(this.#header, ['data', 'end', 'abort', 'alive']);
    switch (type) {
      case 'data':
        this.#rest = payloadBytes;
        return;
      case 'alive':
        return this.#pace.alive();
      case 'end':
        this.#hasEnded = true;
        // Verifying and keeping may take longer than the sender would wait.
        this.#alive = setInterval(() => this.#sayAlive(), aliveMs);
        return;
      default: {
        const payload = Buffer.alloc(payloadBytes);
        await readExactly(this.#connection, payload);
        throw new CheckpointError(
          'CHKPT_PEER_REFUSED',
          `the sender has ended it: ${decodeRefusal(payload).reason}`,
        );
      }
    }
  }

  async #read(target: Uint8Array): Promise<number> {
    const begin = performance.now();
    const byteCount = await this.#connection.read(target);
    const fault = this.#pace.received(byteCount, performance.now() - begin);
    if (fault === undefined) return byteCount;
    throw new CheckpointError('CHKPT_TIMEOUT', fault);
  }

  #sayAlive(): void {
    void this.#connection.write(encodeRecordHeader('alive', 0)).catch(() => undefined);
  }
}

/**
 * The least that a sender must do: 64 KiB/s on average over 10 seconds of waiting for it, or say that it has nothing yet, but not for more
 * than ten minutes.
 */
class Pace {
  #waitedMs = 0;
  #byteCount = 0;
  #isAlive = false;
  #quietWindows = 0;

  alive(): void {
    this.#isAlive = true;
  }

  /** Why the sender is too slow. */
  received(byteCount: number, waitedMs: number): string | undefined {
    this.#byteCount += byteCount;
    this.#waitedMs += waitedMs;
    if (this.#waitedMs < windowMs) return undefined;
    const isQuiet = this.#byteCount < windowBytes;
    const isAlive = this.#isAlive;
    this.#quietWindows = isQuiet ? this.#quietWindows + 1 : 0;
    this.#waitedMs = 0;
    this.#byteCount = 0;
    this.#isAlive = false;
    if (isQuiet && !isAlive) return 'the sender sends less than 64 KiB/s';
    return this.#quietWindows > quietWindowsMax
      ? 'the sender has sent next to nothing for ten minutes'
      : undefined;
  }
}

const windowMs = 10_000;
const windowBytes = 640 * 1024;
const quietWindowsMax = 60;

function cut(): CheckpointError {
  return new CheckpointError(
    'CHKPT_LINK_LOST',
    'the sender ended the connection in the middle of the stream',
  );
}
