/** Sends a running machine to another host. */
import { randomUUID } from 'node:crypto';
import { tracingChannel } from 'node:diagnostics_channel';
import { ChangeLog } from '../checkpoint/change-log.ts';
import { checkpointDigest } from '../checkpoint/digest.ts';
import { Operation } from '../checkpoint/operation.ts';
import { inTurn } from '../checkpoint/turns.ts';
import type { VirtualMachine } from '../checkpoint/virtual-machine.ts';
import { CheckpointError } from '../errors/index.ts';
import { pageBytes } from '../limits.ts';
import { type DirtyTracker, type EncodeOptions, type MemoryTracker, trackMemory } from '../memory/index.ts';
import { connect, type LinkOptions } from '../transport/index.ts';
import { describeMachine } from './description.ts';
import { Journal, journalFolder } from './journal.ts';
import {
  type Downtime,
  type InDoubt,
  MigrationInDoubtError,
  type SendProgress,
  type SendReport,
} from './outcome.ts';
import type { Outcome } from './protocol/terms.ts';
import { makePace } from './source/pace.ts';
import { PageRounds } from './source/page-rounds.ts';
import { SendSession } from './source/send-session.ts';
import { type Marks, Transfer } from './source/transfer.ts';
import { folderWitness } from './witness.ts';

export interface SendVmOptions
  extends Omit<LinkOptions, 'idleMs' | 'signal'>,
    Pick<EncodeOptions, 'acceleration' | 'dedup' | 'threads'> {
  /** `auto` (default) is `lz4`. */
  readonly codec?: 'auto' | 'lz4' | 'raw' | undefined;
  /** Connections for pages, 1 to 16; default 1. */
  readonly streams?: number | undefined;
  /** How long the guest may stand still, milliseconds; default 50. */
  readonly downtimeTargetMs?: number | undefined;
  /**
   * After so long a standstill before COMMIT the guest goes on here, and the migration has failed; milliseconds; default 5000, at least
   * ten times the target.
   */
  readonly downtimeMaxMs?: number | undefined;
  /** Most bytes per second on all connections together; default: no cap. */
  readonly bandwidth?: number | undefined;
  /** How long pre-copy may take before `strategy` is followed, milliseconds; default 10 minutes. */
  readonly totalMaxMs?: number | undefined;
  /** What becomes of a migration that does not converge: `abort` (default), or `force`: the guest stands still as long as it takes. */
  readonly strategy?: 'abort' | 'force' | undefined;
  /** How long a broken link is waited for while the guest runs, milliseconds; default 30 000. */
  readonly reconnectMs?: number | undefined;
  /** How long the destination may be silent after COMMIT before it is called in doubt, milliseconds; default 10 000. */
  readonly inDoubtMs?: number | undefined;
  /** Folder of the journal; default `journalFolder()`. */
  readonly journal?: string | undefined;
  /** A folder that both hosts reach, with exclusive create: decides who owns the guest when the link does not come back. */
  readonly witness?: string | undefined;
  /** UUID of the migration; default random. */
  readonly migration?: string | undefined;
  /** Cancels; after COMMIT that is refused, and does nothing. */
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: ((progress: SendProgress) => void) | undefined;
}

const channel = tracingChannel('chkpt:send');

/** Downtime that no page causes, before anything was measured, milliseconds. */
const fixedMsGuess = 4;

/**
 * Sends `vm` to the `receiveVm` that listens at `url`, while its guest runs, and stops it at the end. When it resolves the guest runs there
 * and never here again (`CHKPT_VM_MOVED`).
 *
 * Rejects with the guest running here as before with `CHKPT_ABORTED`, `CHKPT_NO_CONVERGENCE`, `CHKPT_TIMEOUT`, `CHKPT_LINK_LOST`,
 * `CHKPT_PEER_REFUSED` and its reason, and the errors of connections; and with `MigrationInDoubtError` when nobody knows. See
 * docs/migration.md.
 */
export function sendVm(
  vm: VirtualMachine,
  url: string,
  options: SendVmOptions = {},
): Operation<SendReport, SendProgress> {
  return new Operation<SendReport, SendProgress>((report) => {
    const work = (): Promise<SendReport> => inTurn(vm, options.signal, () => send(vm, url, options, report));
    return channel.tracePromise(work, { url, vm: vm.id });
  }, options.onProgress);
}

type Report = (progress: Omit<SendProgress, 'elapsedMs'>) => void;

async function send(
  vm: VirtualMachine,
  url: string,
  options: SendVmOptions,
  report: Report,
): Promise<SendReport> {
  const begin = performance.now();
  const settings = settingsOf(options);
  const { memory } = vm;
  if (memory === undefined) throw new TypeError('a machine without memory is not migrated: save and load it');
  if (vm.failure !== undefined) {
    throw new CheckpointError('CHKPT_VM_FAILED', 'the machine must not run', { cause: vm.failure });
  }
  const migration = options.migration ?? randomUUID();
  const digest = await checkpointDigest();
  const description = await describeMachine(vm, digest);
  const folder = options.journal ?? journalFolder();
  const journal = await Journal.open(folder, { migration, guest: vm.id, role: 'source' });
  if (journal.last !== undefined) {
    await journal.close();
    throw new CheckpointError(
      'CHKPT_USAGE',
      'this migration was begun before; each one has a UUID of its own',
    );
  }
  const over = new AbortController();
  const own = vm.dirtyTracker === undefined ? trackMemory(memory) : undefined;
  const tracker: DirtyTracker = vm.dirtyTracker ?? (own as MemoryTracker);
  if (vm.dirtyTracker !== undefined) ChangeLog.of(vm.dirtyTracker).reset();
  const { codec = 'auto', acceleration, dedup, threads } = options;
  const rounds = new PageRounds({
    migration,
    digest,
    encode: { codec: codec === 'auto' ? 'lz4' : codec, acceleration, dedup, threads },
    pace: makePace(options.bandwidth, over.signal),
    memory: () => vm.memory ?? memory,
    tracker,
  });
  const transfer = new Transfer(vm, rounds, description, settings.transfer, report);
  const session = new SendSession(
    vm,
    {
      ...settings.session,
      connectOne: (index, count, signal) =>
        connect(
          url,
          { kind: 'migration', migration, guest: vm.id, stream: index, streams: count },
          { ...linkOptionsOf(options), signal, idleMs: index === 0 ? controlIdleMs : 0 },
        ),
      witness: options.witness === undefined ? undefined : folderWitness(options.witness, migration),
    },
    journal,
    transfer,
    digest,
  );
  const finish = async (): Promise<void> => {
    over.abort();
    await transfer.release();
    await own?.close();
    if (vm.dirtyTracker !== undefined) ChangeLog.of(vm.dirtyTracker).reset();
  };
  report({
    phase: 'connect',
    round: 0,
    pagesLeft: memory.pageCount,
    bytesSent: 0,
    rate: 0,
    dirtyRate: 0,
    predictedDowntimeMs: undefined,
    roundsLeft: undefined,
  });
  const outcome = await session.run(options.signal);
  if (outcome === 'inDoubt') {
    void session.final.then(finish);
    throw new MigrationInDoubtError(inDoubt(session, migration), url, transfer.linkError ?? session.failure);
  }
  await finish();
  if (outcome !== 'moved') throw failureOf(outcome, session, url);
  return {
    migration,
    url,
    memoryBytes: memory.pageCount * pageBytes,
    rounds: transfer.rounds,
    downtime: downtimeOf(transfer.marks),
    bytesSent: transfer.bytesSent,
    tracker: { kind: tracker.kind, reason: tracker.reason },
    throttledShare: transfer.throttledShare,
    reconnects: session.reconnects,
    elapsedMs: performance.now() - begin,
  };
}

/** The other end says every second that it is there. */
const controlIdleMs = 5000;

function linkOptionsOf(options: SendVmOptions): LinkOptions {
  const { tls, psk, insecure, handshakeMs } = options;
  return { tls, psk, insecure, handshakeMs };
}

function settingsOf(options: SendVmOptions) {
  const number = (name: string, value: number | undefined, fallback: number, least: number): number => {
    const given = value ?? fallback;
    if (!(Number.isFinite(given) && given >= least)) throw new RangeError(`${name} must be ${least} or more`);
    return given;
  };
  const downtimeTargetMs = number('downtimeTargetMs', options.downtimeTargetMs, 50, 1);
  const { streams = 1, strategy = 'abort', bandwidth } = options;
  if (!Number.isInteger(streams) || streams < 1 || streams > 16)
    throw new RangeError('streams must be 1 to 16');
  if (strategy !== 'abort' && strategy !== 'force')
    throw new TypeError(`unknown strategy ${String(strategy)}`);
  if (bandwidth !== undefined) number('bandwidth', bandwidth, 0, 1024);
  const { codec = 'auto' } = options;
  if (!['auto', 'lz4', 'raw'].includes(codec)) throw new TypeError(`unknown codec ${String(codec)}`);
  return {
    transfer: {
      convergence: {
        downtimeTargetMs,
        fixedMs: Math.min(fixedMsGuess, downtimeTargetMs / 2),
        patience: 4,
        roundsMax: 1000,
      },
      totalMaxMs: number('totalMaxMs', options.totalMaxMs, 600_000, 1),
      strategy,
    },
    session: {
      connections: streams,
      reconnectMs: number('reconnectMs', options.reconnectMs, 30_000, 0),
      downtimeMaxMs: number('downtimeMaxMs', options.downtimeMaxMs, Math.max(5000, 10 * downtimeTargetMs), 1),
      inDoubtMs: number('inDoubtMs', options.inDoubtMs, 10_000, 1),
      postcopy: false,
    },
  } as const;
}

function downtimeOf({ stop = 0, stopped = 0, placed = 0, prepared = 0, running = 0 }: Marks): Downtime {
  return {
    totalMs: running - stop,
    stopMs: stopped - stop,
    pagesMs: placed - stopped,
    prepareMs: prepared - placed,
    commitMs: running - prepared,
  };
}

function failureOf(outcome: Outcome, session: SendSession, url: string): unknown {
  if (session.failure !== undefined) return session.failure;
  const what = session.reason ?? 'the destination did not want the guest';
  const code = outcome === 'lost' ? 'CHKPT_INTERNAL' : 'CHKPT_PEER_REFUSED';
  return new CheckpointError(code, what, { details: { store: url } });
}

function inDoubt(session: SendSession, migrationId: string): InDoubt {
  const known = async (): Promise<'moved' | 'stayed'> =>
    (await session.final) === 'moved' ? 'moved' : 'stayed';
  return {
    migrationId,
    resolve: known,
    forceLocal(word) {
      if (word?.fenced !== true) throw new TypeError('forceLocal needs your word: { fenced: true }');
      session.dispatch({ type: 'forceLocal' });
      return known();
    },
  };
}
