/**
 * Takes probes of the link at a destination that waits for a guest: one at a time, bounded in connections, bytes and time. What comes is read and
 * thrown away; neither the machine nor a journal is touched. A migration that comes ends the probe.
 */
import { CheckpointError } from '../../errors/index.ts';
import type { Digest64 } from '../../format/digest.ts';
import { probeBytesMax, probeMsMax, probeStreamsMax } from '../../limits.ts';
import type { Connection, ProbePurpose } from '../../transport/index.ts';
import { decodeToDestination, encodeToSource, type ToSource } from '../wire/messages.ts';
import { decodeMark, encodeMark } from '../wire/probe-record.ts';
import { wrong } from '../wire/record.ts';
import { RecordChannel } from '../wire/record-channel.ts';

export interface ProbeSinkOptions {
  readonly digest: Digest64;
  /** Rejects when this machine is not one for the guest that is described. It changes nothing. */
  readonly checkOffer: (description: Uint8Array) => Promise<void>;
  /** Longest probe, milliseconds. */
  readonly msMax?: number;
  /** Bytes of one probe on all of its connections. */
  readonly bytesMax?: number;
}

/** What is read at once; all connections read into the same bytes, which nobody looks at. */
const scratchBytes = 256 * 1024;
/** How long a connection may be silent: it only measures. */
const silentMs = 5000;
/** From a welcome to the connection that heard it. */
const comingMs = 1000;

interface Probe {
  /** UUID. */
  readonly name: string;
  readonly connections: Set<Connection>;
  readonly timer: NodeJS.Timeout;
  readonly begin: number;
  /** Connections that were admitted, those that come yet included. */
  admitted: number;
  bytesLeft: number;
  wasOffered: boolean;
}

export class ProbeSink {
  readonly #options: ProbeSinkOptions;
  readonly #scratch = new Uint8Array(scratchBytes);
  #probe: Probe | undefined;

  constructor(options: ProbeSinkOptions) {
    this.#options = options;
  }

  /** A connection that has authenticated: why it is not taken. When it is, its place is kept for `serve`. */
  admit({ migration, streams }: ProbePurpose): string | undefined {
    if (streams > probeStreamsMax) return `a probe has at most ${probeStreamsMax} connections`;
    const current = this.#probe;
    if (current !== undefined && current.name !== migration) {
      const isComing = current.connections.size > 0 || performance.now() - current.begin < comingMs;
      if (isComing) return 'busy with another probe';
      this.end();
    }
    const probe = this.#probe ?? this.#begin(migration);
    if (probe.admitted >= streams) return 'this probe has all of its connections';
    probe.admitted += 1;
    return undefined;
  }

  /** Reads until the other end is done. Never rejects; the connection is gone afterwards. */
  async serve(connection: Connection): Promise<void> {
    const { purpose } = connection;
    const probe = this.#probe;
    if (purpose.kind !== 'probe' || probe?.name !== purpose.migration) return connection.destroy();
    probe.connections.add(connection);
    connection.idleMs = silentMs;
    try {
      await this.#read(new RecordChannel(connection, this.#options.digest), probe);
    } catch {
      // It ends as it likes; nothing here depends on it.
    } finally {
      connection.destroy();
      // They stand and fall together.
      if (this.#probe === probe) this.end();
    }
  }

  /** Ends what is under way. */
  end(): void {
    const probe = this.#probe;
    this.#probe = undefined;
    if (probe === undefined) return;
    clearTimeout(probe.timer);
    const why = new CheckpointError('CHKPT_ABORTED', 'the probe is over');
    for (const connection of probe.connections) connection.destroy(why);
  }

  #begin(name: string): Probe {
    const { msMax = probeMsMax, bytesMax = probeBytesMax } = this.#options;
    const timer = setTimeout(() => {
      if (this.#probe?.name === name) this.end();
    }, msMax);
    const probe = {
      ...{ name, connections: new Set<Connection>(), timer, begin: performance.now() },
      ...{ admitted: 0, bytesLeft: bytesMax, wasOffered: false },
    };
    this.#probe = probe;
    return probe;
  }

  async #read(channel: RecordChannel, probe: Probe): Promise<void> {
    let bytes = 0;
    for (;;) {
      const record = await channel.next();
      if (record.type === 'data') {
        probe.bytesLeft -= record.length;
        if (probe.bytesLeft < 0) throw wrong('a probe that does not end');
        for (let left = record.length; left > 0; ) {
          left -= await channel.readData(this.#scratch.subarray(0, Math.min(left, scratchBytes)));
        }
        bytes += record.length;
      } else if (record.type === 'probe') {
        await channel.send('probe', encodeMark({ number: decodeMark(record.payload).number, bytes }));
      } else if (record.type === 'control' && !probe.wasOffered) {
        probe.wasOffered = true;
        await this.#answerOffer(channel, record.payload);
      } else throw wrong(`a ${record.type} record in a probe`);
    }
  }

  /** Whether the guest could come, in the words of a migration. */
  async #answerOffer(channel: RecordChannel, payload: Uint8Array): Promise<void> {
    const message = decodeToDestination(payload);
    if (message.type !== 'offer') throw wrong(`a message in a probe (${message.type})`);
    const say = (answer: ToSource): Promise<void> => channel.send('control', encodeToSource(answer));
    try {
      await this.#options.checkOffer(message.description);
      await say({ type: 'accept', session: 0 });
    } catch (error) {
      const code = error instanceof CheckpointError ? error.code : 'CHKPT_INTERNAL';
      const text = error instanceof CheckpointError ? error.message : 'the offer could not be read';
      await say({ type: 'reason', code, text });
      await say({ type: 'dropped', session: 0 });
    }
  }
}
