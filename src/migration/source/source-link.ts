/** The connections of a source: one for control, the others for pages. They stand and fall together. */
import { randomBytes } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Digest64 } from '../../format/digest.ts';
import { aliveMs } from '../wire/deadlines.ts';
import { encodeToDestination, type ToDestination } from '../wire/messages.ts';
import { type ByteConnection, RecordChannel } from '../wire/record-channel.ts';

/** Connection `index` of `count` to the destination. */
export type ConnectOne = (index: number, count: number, signal: AbortSignal) => Promise<ByteConnection>;

/** How long the last message may take. */
const lastWordsMs = 1000;

export class SourceLink {
  readonly control: RecordChannel;
  readonly data: readonly RecordChannel[];
  readonly #alive: NodeJS.Timeout;
  isLost = false;
  /** Resolves with the reason when one of the connections is gone. */
  readonly lost: Promise<void>;

  private constructor(channels: readonly [RecordChannel, ...RecordChannel[]]) {
    const [control, ...data] = channels;
    this.control = control;
    this.data = data;
    // Also where pages go: of one that swallows them nobody would hear, as long as the others are whole.
    this.#alive = setInterval(() => {
      for (const channel of channels) void channel.send('alive').catch(() => undefined);
    }, aliveMs);
    this.lost = Promise.race(channels.map(({ connection }) => connection.closed)).then(() => this.destroy());
  }

  /** Makes all connections, the one for control first. Rejects as `connectOne`. */
  static async connect(
    connectOne: ConnectOne,
    dataCount: number,
    digest: Digest64,
    signal: AbortSignal,
  ): Promise<SourceLink> {
    const link = randomBytes(16);
    const count = dataCount + 1;
    const channels: RecordChannel[] = [];
    try {
      for (let index = 0; index < count; index += 1) {
        const channel = new RecordChannel(await connectOne(index, count, signal), digest);
        channels.push(channel);
        const join: ToDestination = { type: 'join', link, index, count: dataCount };
        await channel.send('control', encodeToDestination(join));
      }
      return new SourceLink(channels as [RecordChannel, ...RecordChannel[]]);
    } catch (error) {
      for (const channel of channels) channel.destroy();
      throw error;
    }
  }

  async send(message: ToDestination): Promise<void> {
    await this.control.send('control', encodeToDestination(message));
  }

  /** Bytes written to all connections. */
  get bytesWritten(): number {
    return [this.control, ...this.data].reduce((sum, { connection }) => sum + connection.bytesWritten, 0);
  }

  /** In good order: what was said last gets through, if anything does, and so does what the destination answers. */
  async close(): Promise<void> {
    clearInterval(this.#alive);
    const { control } = this;
    const ended = control.end().then(() => control.connection.closed);
    await Promise.race([ended.catch(() => undefined), sleep(lastWordsMs, undefined, { ref: false })]);
    this.destroy();
  }

  destroy(error?: Error): void {
    this.isLost = true;
    clearInterval(this.#alive);
    for (const channel of [this.control, ...this.data]) channel.destroy(error);
  }
}
