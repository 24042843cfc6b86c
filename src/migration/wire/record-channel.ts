/** One connection of a migration: records in both directions. */
import { CheckpointError } from '../../errors/index.ts';
import type { Digest64 } from '../../format/digest.ts';
import { migrationDataBytesMax } from '../../limits.ts';
import { readExactly } from '../../transport/index.ts';
import { CallQueue } from '../../util/call-queue.ts';
import {
  checkDigest,
  decodeHeader,
  encodeHeader,
  isDigested,
  type RecordType,
  recordHeaderBytes,
  wrong,
} from './record.ts';

/** What a connection is to a record channel: that of `src/transport`, and what tests put in its place. */
export interface ByteConnection {
  idleMs: number;
  readonly bytesWritten: number;
  readonly closed: Promise<void>;
  writeAll(pieces: readonly Uint8Array[]): Promise<void>;
  read(target: Uint8Array): Promise<number>;
  end(): Promise<void>;
  destroy(error?: Error): void;
}

export type Received =
  | { readonly type: Exclude<RecordType, 'data'>; readonly payload: Uint8Array }
  /** `length` bytes follow, to be read with `readData`. */
  | { readonly type: 'data'; readonly length: number };

export class RecordChannel {
  readonly connection: ByteConnection;
  readonly #digest: Digest64;
  readonly #writes = new CallQueue();
  readonly #header = new Uint8Array(recordHeaderBytes);

  constructor(connection: ByteConnection, digest: Digest64) {
    this.connection = connection;
    this.#digest = digest;
  }

  /** Sends one record, behind those before it. Rejects as `Connection.write`. */
  async send(type: Exclude<RecordType, 'data'>, payload: Uint8Array = new Uint8Array()): Promise<void> {
    const header = encodeHeader(type, payload, this.#digest);
    await this.#writes.run(() => this.connection.writeAll([header, payload]));
  }

  /** Sends bytes of a stream. When it resolves they are no longer read. */
  async sendData(pieces: readonly Uint8Array[]): Promise<void> {
    const length = pieces.reduce((sum, piece) => sum + piece.length, 0);
    if (length === 0) return;
    if (length <= migrationDataBytesMax) {
      const header = encodeHeader('data', length, this.#digest);
      return await this.#writes.run(() => this.connection.writeAll([header, ...pieces]));
    }
    for (const piece of pieces) {
      for (let at = 0; at < piece.length; at += migrationDataBytesMax) {
        await this.sendData([piece.subarray(at, at + migrationDataBytesMax)]);
      }
    }
  }

  /** The next record. Throws `CHKPT_PEER_PROTOCOL`, and as `Connection.read`; an end between two records is `CHKPT_LINK_LOST` too. */
  async next(): Promise<Received> {
    await readExactly(this.connection, this.#header);
    const header = decodeHeader(this.#header, this.#digest);
    if (!isDigested(header.type)) return { type: 'data', length: header.length };
    const payload = new Uint8Array(header.length);
    await readExactly(this.connection, payload);
    checkDigest(header, this.#header, payload, this.#digest);
    if (header.type === 'data') throw wrong('data where none can be');
    return { type: header.type, payload };
  }

  /** Reads bytes behind a `data` header into the start of `target`. Resolves to how many; the caller counts. */
  async readData(target: Uint8Array): Promise<number> {
    const bytes = await this.connection.read(target);
    if (bytes === 0) {
      throw new CheckpointError('CHKPT_LINK_LOST', 'the other end ended the connection inside a stream');
    }
    return bytes;
  }

  /** Resolves when all that was to be sent has been taken. */
  async drained(): Promise<void> {
    await this.#writes.run(async () => undefined);
  }

  /** Nothing follows: the other end gets all that was sent before. */
  async end(): Promise<void> {
    await this.#writes.run(() => this.connection.end());
  }

  destroy(error?: Error): void {
    this.connection.destroy(error);
  }
}
