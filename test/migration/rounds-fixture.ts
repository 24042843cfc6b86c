/** The pages of a migration without its protocol: a source of rounds and a destination, joined by connections that break where a test says. */
import { SyntheticVm } from '../../src/adapters/synthetic/index.ts';
import { CheckpointError } from '../../src/errors/index.ts';
import { checkpointDigest } from '../../src/memory/digest.ts';
import { GuestMemory, type MemoryTracker, trackMemory } from '../../src/memory/index.ts';
import { Intake } from '../../src/migration/destination/intake.ts';
import { PageRounds, type RoundCount } from '../../src/migration/source/page-rounds.ts';
import { decodeStreamHead } from '../../src/migration/wire/messages.ts';
import { type ByteConnection, RecordChannel } from '../../src/migration/wire/record-channel.ts';

const migration = '6f6f6f6f-0000-4000-8000-000000000001';
const digest = await checkpointDigest();
export const pageBytes = 4096;

/** Where a round breaks; all that comes behind is lost. */
export interface Break {
  /** Bytes of the data connection that get through. */
  readonly afterBytes?: number;
  /** The destination takes this many streams of the round, and the receipt of the last one is lost. */
  readonly afterStreams?: number;
}

function lost(): CheckpointError {
  return new CheckpointError('CHKPT_LINK_LOST', 'the test has broken the connection');
}

/** Bytes from one end to the other, in memory. */
class Pipe {
  readonly #pieces: Uint8Array[] = [];
  #room: number;
  #error: Error | undefined;
  #wake: (() => void) | undefined;

  constructor(room: number) {
    this.#room = room;
  }

  write(pieces: readonly Uint8Array[]): void {
    for (const piece of pieces) {
      if (this.#error !== undefined) throw this.#error;
      if (piece.length > 0 && this.#room > 0) this.#pieces.push(piece.slice(0, this.#room));
      this.#room -= piece.length;
      if (this.#room < 0) this.break(lost());
    }
    this.#wake?.();
  }

  /** What got through may still be read. */
  break(error: Error): void {
    this.#error ??= error;
    this.#wake?.();
  }

  async read(target: Uint8Array): Promise<number> {
    for (;;) {
      const [piece] = this.#pieces;
      if (piece !== undefined) {
        const bytes = Math.min(piece.length, target.length);
        target.set(piece.subarray(0, bytes));
        if (bytes === piece.length) this.#pieces.shift();
        else this.#pieces[0] = piece.subarray(bytes);
        return bytes;
      }
      if (this.#error !== undefined) throw this.#error;
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }
}

function endOf(pipe: Pipe): ByteConnection {
  return {
    idleMs: 0,
    bytesWritten: 0,
    closed: new Promise(() => undefined),
    writeAll: async (pieces) => pipe.write(pieces),
    read: (target) => pipe.read(target),
    end: async () => undefined,
    destroy: (error) => pipe.break(error ?? lost()),
  };
}

export interface BenchOptions {
  readonly pageCount: number;
  /** Bytes; 0: none. */
  readonly deltaCache: number;
  /** False: pages are compared with digests of what was sent. */
  readonly tracks?: boolean;
  readonly lanes?: number;
}

export class RoundsBench implements AsyncDisposable {
  readonly memory: GuestMemory;
  readonly destination: SyntheticVm;
  readonly #tracker: MemoryTracker | undefined;
  readonly #rounds: PageRounds;
  readonly #lanes: number;
  #intake: Intake;
  #session = 0;
  #round = 0;

  private constructor(options: BenchOptions, destination: SyntheticVm) {
    this.memory = GuestMemory.allocate([{ base: 0n, bytes: options.pageCount * pageBytes }]);
    this.destination = destination;
    this.#tracker = options.tracks === false ? undefined : trackMemory(this.memory, { kind: 'reported' });
    this.#lanes = options.lanes ?? 1;
    this.#rounds = new PageRounds({
      migration,
      digest,
      encode: { codec: 'lz4', threads: 1 },
      deltaCache: options.deltaCache,
      pace: async () => undefined,
      memory: () => this.memory,
      tracker: this.#tracker,
    });
    this.#intake = this.#newIntake();
  }

  static async open(options: BenchOptions): Promise<RoundsBench> {
    const memoryBytes = options.pageCount * pageBytes;
    return new RoundsBench(options, await SyntheticVm.create({ memoryBytes, pagesPerSecond: 1 }));
  }

  #newIntake(): Intake {
    const signal = new AbortController().signal;
    return new Intake(this.destination, {
      migration,
      digest,
      threads: 1,
      ignore: [],
      signal,
      onStream: () => undefined,
    });
  }

  /** The guest writes `words` (u64) into a page, at random places that `random` gives. */
  edit(page: number, words: number, random: () => number): void {
    const word = new Uint8Array(8);
    for (let i = 0; i < words; i += 1) {
      for (let at = 0; at < 8; at += 1) word[at] = Math.floor(random() * 256);
      this.memory.write(page * pageBytes + 8 * Math.floor(random() * 512), word);
    }
    this.#tracker?.mark(page, 1);
  }

  fill(page: number, bytes: Uint8Array): void {
    this.memory.write(page * pageBytes, bytes);
    this.#tracker?.mark(page, 1);
  }

  /** A destination that knows nothing: another session, with other things in its memory. */
  restart(): void {
    this.#session += 1;
    this.#intake = this.#newIntake();
    const noise = new Uint8Array(pageBytes).fill(0x77);
    for (let page = 0; page < this.memory.pageCount; page += 1) {
      this.destination.memory.write(page * pageBytes, noise);
    }
  }

  /** A link is there: anew after it was broken. */
  async begin(): Promise<void> {
    await this.#rounds.begin(this.#session);
  }

  /** Looks at what was written, and sends what is pending. Undefined: the link broke. Rejects with what the destination says. */
  async send(broken: Break = {}): Promise<RoundCount | undefined> {
    const { afterBytes = Number.MAX_SAFE_INTEGER, afterStreams } = broken;
    await this.#rounds.look();
    const stop = new AbortController();
    const pipes = Array.from({ length: this.#lanes }, () => new Pipe(afterBytes));
    let streams = 0;
    let refusal: unknown;
    const end = (error: Error): void => {
      for (const pipe of pipes) pipe.break(error);
      stop.abort(error);
    };
    const receiving = pipes.map(async (pipe) => {
      const channel = new RecordChannel(endOf(pipe), digest);
      try {
        for (;;) {
          const record = await channel.next();
          if (record.type !== 'streamBegin') throw new Error(`a ${record.type} record between streams`);
          const head = decodeStreamHead(record.payload);
          const root = await this.#intake.take(channel, head);
          streams += 1;
          if (streams === afterStreams) return end(lost());
          if (root !== undefined) this.#rounds.acknowledge(head.stream, root);
        }
      } catch (error) {
        if ((error as CheckpointError).code !== 'CHKPT_LINK_LOST') refusal ??= error;
        end(lost());
      }
    });
    const channels = pipes.map((pipe) => new RecordChannel(endOf(pipe), digest));
    let count: RoundCount | undefined;
    try {
      count = await this.#rounds.send(this.#round, this.#session, channels, stop.signal);
      this.#round += 1;
    } catch (error) {
      if ((error as CheckpointError).code !== 'CHKPT_LINK_LOST') throw error;
    }
    end(lost());
    await Promise.all(receiving);
    await this.#intake.idle();
    if (refusal !== undefined) throw refusal;
    return count;
  }

  async isEqual(): Promise<boolean> {
    return (await this.memory.digest()) === (await this.destination.memory.digest());
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#tracker?.close();
    await this.memory.close();
    await this.destination.close();
  }
}
