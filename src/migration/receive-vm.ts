/** Receives a running machine from another host. */
import { tracingChannel } from 'node:diagnostics_channel';
import { Operation, type PhaseProgress } from '../checkpoint/operation.ts';
import { inTurn } from '../checkpoint/turns.ts';
import type { VirtualMachine } from '../checkpoint/virtual-machine.ts';
import type { IgnoredMismatch } from '../checkpoint/vm-header.ts';
import { CheckpointError } from '../errors/index.ts';
import type { Digest64 } from '../format/digest.ts';
import { pageBytes } from '../limits.ts';
import { checkpointDigest } from '../memory/digest.ts';
import {
  type Connection,
  handshakeMsDefault,
  type Listener,
  type ListenOptions,
  listen,
  type MigrationPurpose,
  type ProbePurpose,
} from '../transport/index.ts';
import { checkDescription, describeMachine, type MachineOffer, readOffer } from './description.ts';
import { Intake } from './destination/intake.ts';
import { ProbeSink } from './destination/probe-sink.ts';
import { ReceiveSession } from './destination/receive-session.ts';
import { Journal, journalFolder } from './journal.ts';
import type { ArrivingGuest, ReceiveReport } from './outcome.ts';
import { joinMs, silenceMs } from './wire/deadlines.ts';
import { decodeToDestination } from './wire/messages.ts';
import { RecordChannel } from './wire/record-channel.ts';
import { folderWitness } from './witness.ts';

export interface ReceiveVmOptions extends Omit<ListenOptions, 'idleMs' | 'signal' | 'accepts'> {
  /** Worker threads, 1 to 64; default: number of processors. */
  readonly threads?: number | undefined;
  /** Differences between the machines to accept. */
  readonly ignore?: readonly IgnoredMismatch[] | undefined;
  /** How long a source that went away before PREPARED is waited for, milliseconds; default 30 000. */
  readonly reconnectMs?: number | undefined;
  /** How long the address is kept after the guest runs, for a source that has not heard of it, milliseconds; default 60 000. */
  readonly lingerMs?: number | undefined;
  /** Folder of the journal; default `journalFolder()`. */
  readonly journal?: string | undefined;
  /** The witness that the source uses. */
  readonly witness?: string | undefined;
  /**
   * Called with what is offered before that is compared with the machine: for one that is made to measure, and has no memory until then. What
   * it throws is told to the source. Called again when a link was made anew.
   */
  readonly onOffer?: ((offer: MachineOffer) => void | Promise<void>) | undefined;
  /** Told the address, with the real port, when sources can come. */
  readonly onListening?: ((address: string) => void) | undefined;
  /** Gives up while that is possible: before the source has committed. */
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: ((progress: ReceiveProgress) => void) | undefined;
}

export interface ReceiveProgress extends PhaseProgress {
  readonly phase: 'listen' | 'receive';
  /** Streams in place so far. */
  readonly streams: number;
}

const channel = tracingChannel('chkpt:receive');
/** How long the address is kept to say that the guest will never run here. */
const refusalMs = 5000;
const lastWordsMs = 1000;
/** Data connections whose control connection was not seen yet. */
const earlyMax = 64;
/** Connections for pages. */
const dataMax = 16;

/**
 * Listens at `url` and takes the guest that a `sendVm` sends into `vm`, a paused machine of the same shape. Resolves when the guest runs
 * here.
 *
 * Rejects with `CHKPT_VM_RUNNING`, `CHKPT_ABORTED`, an error of kind `mismatch` when another machine was offered (this one is untouched), and the
 * reason when the migration came to nothing: then the machine refuses to run until another guest is loaded.
 */
export function receiveVm(
  vm: VirtualMachine,
  url: string,
  options: ReceiveVmOptions = {},
): Operation<ReceiveReport, ReceiveProgress> {
  return new Operation<ReceiveReport, ReceiveProgress>((report) => {
    const work = (): Promise<ReceiveReport> =>
      inTurn(vm, options.signal, () => receive(vm, url, options, report));
    return channel.tracePromise(work, { url, vm: vm.id });
  }, options.onProgress);
}

async function receive(
  vm: VirtualMachine,
  url: string,
  options: ReceiveVmOptions,
  report: (progress: Omit<ReceiveProgress, 'elapsedMs'>) => void,
): Promise<ReceiveReport> {
  if (vm.running) throw new CheckpointError('CHKPT_VM_RUNNING', 'the machine runs');
  if (vm.memory === undefined && options.onOffer === undefined)
    throw new TypeError('a machine without memory is not migrated');
  const digest = await checkpointDigest();
  // What cannot be described cannot be received either.
  await describeMachine(vm, digest);
  const { tls, psk, insecure, handshakeMs, onRefusal } = options;
  let reception: Reception | undefined;
  const probe = (purpose: ProbePurpose): string | undefined =>
    reception === undefined ? 'not ready yet' : reception.admitProbe(purpose);
  const listener = await listen(url, { tls, psk, insecure, handshakeMs, onRefusal, probe, idleMs: joinMs });
  reception = new Reception(vm, listener, options, digest, report);
  options.onListening?.(listener.address);
  report({ phase: 'listen', streams: 0 });
  return await reception.run();
}

/** One migration that comes in. */
interface Opened {
  readonly session: ReceiveSession;
  readonly intake: Intake;
}

class Reception {
  readonly #vm: VirtualMachine;
  readonly #listener: Listener;
  readonly #options: ReceiveVmOptions;
  readonly #digest: Digest64;
  readonly #report: (progress: Omit<ReceiveProgress, 'elapsedMs'>) => void;
  readonly #begin = performance.now();
  readonly #stop = new AbortController();
  /** The migration that came first; others are refused. */
  #migration: string | undefined;
  #session: Promise<Opened> | undefined;
  #newestLink = '';
  readonly #early = new Map<RecordChannel, { readonly link: string; readonly index: number }>();
  /** Of migrations that a process before this one has taken part in: they are answered, and that is all. */
  readonly #aside = new Map<string, Promise<Opened>>();
  /** Who began it: nobody else goes on with it. */
  #owner = '';
  #remote = '';
  readonly #probes: ProbeSink;
  /** The journal that was open before. */
  #closing: Promise<void> = Promise.resolve();
  #fatal: (error: unknown) => void = () => undefined;

  constructor(
    vm: VirtualMachine,
    listener: Listener,
    options: ReceiveVmOptions,
    digest: Digest64,
    report: (progress: Omit<ReceiveProgress, 'elapsedMs'>) => void,
  ) {
    this.#vm = vm;
    this.#listener = listener;
    this.#options = options;
    this.#digest = digest;
    this.#report = report;
    // One that is made to measure when a guest comes takes any.
    const checkOffer = async (bytes: Uint8Array): Promise<void> => {
      if (vm.memory !== undefined) await checkDescription(bytes, vm, options.ignore ?? [], digest);
    };
    this.#probes = new ProbeSink({ digest, checkOffer });
  }

  /** A measurement of the link, while no guest comes: why not. */
  admitProbe(purpose: ProbePurpose): string | undefined {
    const isBusy = this.#migration !== undefined || this.#stop.signal.aborted;
    return isBusy ? 'a guest is on its way here' : this.#probes.admit(purpose);
  }

  async run(): Promise<ReceiveReport> {
    const { signal } = this.#options;
    const onAbort = (): void => void this.#giveUp();
    signal?.addEventListener('abort', onAbort, { once: true });
    const begun = new Promise<Opened>((resolve, reject) => {
      this.#fatal = reject;
      void this.#acceptAll(resolve);
    });
    if (signal?.aborted) onAbort();
    try {
      const { session, intake } = await begun.catch(async (error: unknown) => {
        await this.#end();
        throw error;
      });
      const outcome = await session.outcome;
      // The source may have to be told again: that it runs here, or that it never will. Of what was dropped nobody is in doubt.
      const { lingerMs = 60_000 } = this.#options;
      const refusal = session.hasPromised ? Math.min(lingerMs, refusalMs) : 0;
      void this.#linger(session, outcome === 'moved' ? lingerMs : refusal);
      if (outcome === 'moved' && session.startFailure !== undefined) {
        throw new CheckpointError('CHKPT_VM_FAILED', 'the guest is here, whole, and could not be let run', {
          cause: session.startFailure,
        });
      }
      if (outcome === 'moved') return this.#reportOf(intake, this.#arrivingGuest(session, intake));
      throw session.failure ?? new CheckpointError('CHKPT_ABORTED', 'the source kept the guest');
    } finally {
      signal?.removeEventListener('abort', onAbort);
    }
  }

  /** Nothing has begun, and nothing will. */
  async #end(): Promise<void> {
    this.#stop.abort();
    this.#probes.end();
    for (const channel of this.#early.keys()) channel.destroy();
    for (const opened of this.#aside.values()) await (await opened).session.close();
    await this.#listener.close();
  }

  #arrivingGuest(session: ReceiveSession, { arriving }: Intake): ArrivingGuest | undefined {
    if (arriving === undefined || session.fetching === undefined) return undefined;
    const { signal } = this.#options;
    const onAbort = (): void => arriving.abort();
    signal?.addEventListener('abort', onAbort, { once: true });
    if (signal?.aborted) onAbort();
    const resident = session.fetching.finally(() => signal?.removeEventListener('abort', onAbort));
    // Who does not ask learns of a failure from the machine.
    resident.catch(() => undefined);
    return {
      pages: arriving.count,
      left: () => arriving.left,
      faults: () => arriving.faults,
      waits: () => arriving.waits,
      resident,
    };
  }

  #reportOf(intake: Intake, postcopy: ArrivingGuest | undefined): ReceiveReport {
    return {
      migration: this.#migration ?? '',
      url: this.#listener.address,
      memoryBytes: (this.#vm.memory?.pageCount ?? 0) * pageBytes,
      streams: intake.streams,
      remote: this.#remote,
      postcopy,
      elapsedMs: performance.now() - this.#begin,
    };
  }

  /** For a source that has not heard that the guest runs here. */
  async #linger(session: ReceiveSession, lingerMs: number): Promise<void> {
    // The address is free at once; what was said last gets through.
    if (lingerMs === 0 && session.fetching === undefined) await this.#listener.close();
    // Its pages come over links that may have to be made anew.
    await session.fetching?.catch(() => undefined);
    let timer: NodeJS.Timeout | undefined;
    await Promise.race([
      session.told,
      new Promise<void>((resolve) => {
        timer = setTimeout(resolve, lingerMs || lastWordsMs);
        timer.unref();
      }),
    ]);
    clearTimeout(timer);
    await session.close();
    await this.#end();
  }

  async #giveUp(): Promise<void> {
    const cause = this.#options.signal?.reason;
    const error = new CheckpointError('CHKPT_ABORTED', 'receiving was cancelled', { cause });
    const opened = await this.#session?.catch(() => undefined);
    if (opened === undefined || !opened.session.hasBegun) {
      await opened?.session.close();
      return this.#fatal(error);
    }
    opened.session.giveUp(error);
  }

  async #acceptAll(onSession: (session: Opened) => void): Promise<void> {
    for (;;) {
      let connection: Connection;
      try {
        connection = await this.#listener.accept();
      } catch (error) {
        return this.#fatal(error);
      }
      void this.#admit(connection, onSession).catch(() => connection.destroy());
    }
  }

  async #admit(connection: Connection, onSession: (session: Opened) => void): Promise<void> {
    const { purpose, peer } = connection;
    if (purpose.kind === 'probe') return await this.#probes.serve(connection);
    if (purpose.kind !== 'migration') return connection.destroy();
    const owner = `${purpose.guest} ${peer.identity?.fingerprint256 ?? peer.security}`;
    const isOther = this.#migration !== undefined && this.#migration !== purpose.migration;
    const isStolen = this.#migration === purpose.migration && this.#owner !== owner;
    if (isOther || isStolen) return connection.destroy();
    const channel = new RecordChannel(connection, this.#digest);
    const record = await channel.next();
    const join = record.type === 'control' ? decodeToDestination(record.payload) : undefined;
    const isWanted =
      join?.type === 'join' &&
      join.index === purpose.stream &&
      join.count <= dataMax &&
      !this.#stop.signal.aborted;
    if (!isWanted) return connection.destroy();
    const link = Buffer.from(join.link).toString('hex');
    if (join.index > 0) return await this.#admitData(channel, connection, link, join.index);
    // What only measures makes way.
    this.#probes.end();
    connection.idleMs = silenceMs;
    const opened = await this.#sessionOf(purpose, owner);
    this.#newestLink = link;
    this.#remote = peer.remote;
    const attached = opened.session.attach(channel, join.count);
    void opened.session.begun.then(() => onSession(opened));
    for (const [early, of] of this.#early) {
      if (of.link !== link) continue;
      this.#early.delete(early);
      early.connection.idleMs = silenceMs;
      void opened.session.attachData(early, of.index);
    }
    await attached;
    // Half a handshake is no migration, nor is a question about one that is not here: whoever comes next is welcome.
    if (opened.session.hasBegun || opened.session.hasLink) return;
    const current = await this.#session?.catch(() => undefined);
    if (current !== opened || opened.session.hasLink) return;
    if (opened.session.isIdle) this.#closing = opened.session.close();
    else this.#aside.set(purpose.migration, Promise.resolve(opened));
    this.#session = undefined;
    this.#migration = undefined;
  }

  async #admitData(
    channel: RecordChannel,
    connection: Connection,
    link: string,
    index: number,
  ): Promise<void> {
    if (link === this.#newestLink && this.#session !== undefined) {
      connection.idleMs = silenceMs;
      const { session } = await this.#session;
      return await session.attachData(channel, index);
    }
    if (this.#early.size >= earlyMax) return connection.destroy();
    this.#early.set(channel, { link, index });
    const timer = setTimeout(() => {
      if (this.#early.has(channel)) connection.destroy();
    }, joinMs);
    void connection.closed.then(() => {
      clearTimeout(timer);
      this.#early.delete(channel);
    });
  }

  async #sessionOf({ migration, guest }: MigrationPurpose, owner: string): Promise<Opened> {
    const aside = this.#aside.get(migration);
    if (aside !== undefined) return await aside;
    if (this.#session === undefined) {
      this.#migration = migration;
      this.#owner = owner;
      this.#session = this.#openSession(guest);
    }
    const opening = this.#session;
    try {
      const opened = await opening;
      if (!opened.session.isRecovered) return opened;
      this.#aside.set(migration, opening);
      this.#session = undefined;
      this.#migration = undefined;
      return opened;
    } catch (error) {
      if (this.#session === opening) {
        this.#session = undefined;
        this.#migration = undefined;
      }
      // Another process of this host answers for that migration; this one waits for its own.
      if (!(error instanceof CheckpointError && error.code === 'CHKPT_JOURNAL_IN_USE')) this.#fatal(error);
      throw error;
    }
  }

  async #openSession(guest: string): Promise<Opened> {
    const migration = this.#migration ?? '';
    const {
      journal: folder = journalFolder(),
      witness,
      threads,
      ignore = [],
      reconnectMs = 30_000,
      handshakeMs = handshakeMsDefault,
      onOffer,
    } = this.#options;
    await this.#closing;
    const journal = await Journal.open(folder, { migration, guest, role: 'destination' });
    const intake = new Intake(this.#vm, {
      migration,
      digest: this.#digest,
      threads,
      ignore,
      signal: this.#stop.signal,
      onStream: (streams) => this.#report({ phase: 'receive', streams }),
    });
    const settings = {
      digest: this.#digest,
      reconnectMs,
      dataMs: joinMs + handshakeMs,
      witness: witness === undefined ? undefined : folderWitness(witness, migration),
      checkOffer: async (bytes: Uint8Array) => {
        await onOffer?.(await readOffer(bytes, this.#digest));
        await checkDescription(bytes, this.#vm, ignore, this.#digest);
      },
    };
    return { session: new ReceiveSession(this.#vm, settings, journal, intake), intake };
  }
}
