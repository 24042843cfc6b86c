/**
 * A connection as a store that is written or read once: each round of a migration is a native checkpoint stream, with the digests and
 * checks that such a stream has.
 */
import { CheckpointError } from '../../errors/index.ts';
import type { Store, StoreReader, StoreWriter } from '../../store/index.ts';
import { encodeStreamHead, type StreamHead } from './messages.ts';
import { wrong } from './record.ts';
import type { RecordChannel } from './record-channel.ts';

/** Waits until so many bytes may be sent. */
export type Pace = (bytes: number, signal: AbortSignal) => Promise<void>;

function once(what: string): never {
  throw new CheckpointError('CHKPT_UNSUPPORTED', `a stream of a migration is ${what} once`);
}

/** Sends one stream. */
export class StreamSender implements Store {
  readonly url = 'migration:stream';
  readonly #channel: RecordChannel;
  readonly #head: StreamHead;
  readonly #pace: Pace;
  readonly #signal: AbortSignal;
  bytes = 0;

  constructor(channel: RecordChannel, head: StreamHead, pace: Pace, signal: AbortSignal) {
    this.#signal = signal;
    this.#channel = channel;
    this.#head = head;
    this.#pace = pace;
  }

  async openWriter(): Promise<StoreWriter> {
    await this.#channel.send('streamBegin', encodeStreamHead(this.#head));
    const send = async (pieces: readonly Uint8Array[]): Promise<void> => {
      const bytes = pieces.reduce((sum, piece) => sum + piece.length, 0);
      await this.#pace(bytes, this.#signal);
      await this.#channel.sendData(pieces);
      this.bytes += bytes;
    };
    let isOver = false;
    const end = async (type: 'streamEnd' | 'streamAbort'): Promise<void> => {
      if (isOver) return;
      isOver = true;
      await this.#channel.send(type);
    };
    return {
      write: (bytes) => send([bytes]),
      writeAll: send,
      commit: () => end('streamEnd'),
      abort: async () => await end('streamAbort').catch(() => undefined),
    };
  }

  openReader(): Promise<StoreReader> {
    return once('written');
  }
}

/** Receives one stream, whose head was read. */
export class StreamReceiver implements Store {
  readonly url = 'migration:stream';
  readonly #channel: RecordChannel;
  /** The source has said that the rest will not come; what follows on the connection is another stream. */
  wasGivenUp = false;
  /** Of the data record that is being read. */
  #left = 0;
  #isOver = false;

  constructor(channel: RecordChannel) {
    this.#channel = channel;
  }

  async openReader(): Promise<StoreReader> {
    return {
      byteLength: undefined,
      read: (target) => this.#read(target),
      close: async () => undefined,
    };
  }

  openWriter(): Promise<StoreWriter> {
    return once('read');
  }

  /** The stream has been read; what follows has to be its end. */
  async finish(): Promise<void> {
    if (this.#isOver) return;
    const last = new Uint8Array(1);
    if ((await this.#read(last)) > 0) throw wrong('data behind the end of a stream');
  }

  async #read(target: Uint8Array): Promise<number> {
    while (this.#left === 0) {
      if (this.#isOver) return 0;
      const record = await this.#channel.next();
      if (record.type === 'data') this.#left = record.length;
      else if (record.type === 'streamEnd') this.#isOver = true;
      else if (record.type === 'streamAbort') {
        this.wasGivenUp = true;
        throw new CheckpointError('CHKPT_ABORTED', 'the source gave up this stream');
      } else if (record.type !== 'alive') throw wrong(`a ${record.type} record inside a stream`);
    }
    const bytes = await this.#channel.readData(target.subarray(0, this.#left));
    this.#left -= bytes;
    return bytes;
  }
}
