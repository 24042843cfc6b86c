/** Sends a running machine to another host. */
import { randomUUID } from 'node:crypto';
import { tracingChannel } from 'node:diagnostics_channel';
import { Operation } from '../checkpoint/operation.ts';
import { inTurn } from '../checkpoint/turns.ts';
import type { VirtualMachine } from '../checkpoint/virtual-machine.ts';
import { CheckpointError } from '../errors/index.ts';
import { pageBytes } from '../limits.ts';
import { checkpointDigest } from '../memory/digest.ts';
import type { EncodeOptions, GuestMemory } from '../memory/index.ts';
import { absoluteAddress, connect, type LinkOptions } from '../transport/index.ts';
import { Journal, journalFolder } from './journal.ts';
import { isMigrationId } from './journal-text.ts';
import { offerOf } from './offer.ts';
import {
  type Downtime,
  type InDoubt,
  MigrationInDoubtError,
  type SendProgress,
  type SendReport,
} from './outcome.ts';
import { planVm } from './plan/plan-vm.ts';
import type { MigrationPlan } from './plan/report.ts';
import type { Outcome } from './protocol/terms.ts';
import { makePace } from './source/pace.ts';
import { PageRounds } from './source/page-rounds.ts';
import { SafetyCheckpoint, type SafetyFacts, type SafetyOptions } from './source/safety-checkpoint.ts';
import { SendSession } from './source/send-session.ts';
import { openTracking } from './source/tracking.ts';
import { trackingReport } from './source/tracking-cost.ts';
import { type Marks, Transfer } from './source/transfer.ts';
import { silenceMs } from './wire/deadlines.ts';
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
   * After so long a standstill before COMMIT the guest goes on here, and the migration has failed; milliseconds; default 5000, with `safety`
   * 60,000, at least ten times the target; with `force` as long as it takes.
   */
  readonly downtimeMaxMs?: number | undefined;
  /** Most bytes per second on all connections together; default: no cap. */
  readonly bandwidth?: number | undefined;
  /**
   * Most bytes of pages that are kept as they were sent: where such a page has changed little, its difference is sent; default 64 MiB, 0: none,
   * as with `raw`.
   */
  readonly deltaCache?: number | undefined;
  /** How long pre-copy may take before `strategy` is followed, milliseconds; default 10 minutes. */
  readonly totalMaxMs?: number | undefined;
  /**
   * What becomes of a migration that does not converge: `abort` (default); `force`: the guest stands still as long as it takes; `postcopy`: it
   * goes on at the destination, which fetches the pages that it lacks. Until it has all, both hosts are needed: the loss of either is the loss of
   * the guest.
   */
  readonly strategy?: 'abort' | 'force' | 'postcopy' | undefined;
  /** With `postcopy`: rounds before the switch, 0 and more; default: as long as it gets better. */
  readonly precopyRounds?: number | undefined;
  /**
   * With `postcopy`: where a checkpoint of the guest is kept as it stood still, before it goes on at the destination. The guest stands still for it
   * as long as it takes: with `parent`, a checkpoint that was made before, only what differs from that is written. See docs/migration.md.
   */
  readonly safety?: string | SafetyOptions | undefined;
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

/** A migration that is only foretold. */
export interface PlanVmOptions extends SendVmOptions {
  /** Nothing is sent: link, writes and encoding are measured, and what would come of it is told. */
  readonly plan: true;
  /** How long the guest's writes are watched, and the link is measured (3 s at most), milliseconds, 50 to 60 000; default 1000. */
  readonly windowMs?: number | undefined;
}

const channel = tracingChannel('chkpt:send');

const deltaCacheDefault = 64 * 2 ** 20;

/** Downtime that no page causes, before anything was measured, milliseconds. */
const fixedMsGuess = 4;

/**
 * Sends `vm` to the `receiveVm` that listens at `url`, while its guest runs, and stops it at the end. When it resolves the guest runs there
 * and never here again (`resume` rejects with `CHKPT_VM_FAILED`, caused by `CHKPT_VM_MOVED`).
 *
 * Rejects with the guest running here as before with `CHKPT_ABORTED`, `CHKPT_NO_CONVERGENCE`, `CHKPT_TIMEOUT`, `CHKPT_LINK_LOST`,
 * `CHKPT_PEER_REFUSED` and its reason, and the errors of connections; and with `MigrationInDoubtError` when nobody knows. See
 * docs/migration.md.
 *
 * With `plan` nothing is sent and nothing changes: it resolves to what would come of it, and rejects where the destination would refuse.
 */
export function sendVm(
  vm: VirtualMachine,
  url: string,
  options: PlanVmOptions,
): Operation<MigrationPlan, SendProgress>;
export function sendVm(
  vm: VirtualMachine,
  url: string,
  options?: SendVmOptions & { readonly plan?: false | undefined },
): Operation<SendReport, SendProgress>;
export function sendVm(
  vm: VirtualMachine,
  url: string,
  options: SendVmOptions &
    Partial<Pick<PlanVmOptions, 'windowMs'>> & { readonly plan?: boolean | undefined } = {},
): Operation<SendReport | MigrationPlan, SendProgress> {
  const does = options.plan === true ? plan : send;
  return new Operation<SendReport | MigrationPlan, SendProgress>((report) => {
    const work = (): Promise<SendReport | MigrationPlan> =>
      inTurn<SendReport | MigrationPlan>(vm, options.signal, () => does(vm, url, options, report));
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
  const memory = memoryOf(vm);
  const migration = (options.migration ?? randomUUID()).toLowerCase();
  if (!isMigrationId(migration)) throw new TypeError(`a migration is named by a UUID, not ${migration}`);
  const digest = await checkpointDigest();
  const description = await offerOf(vm, digest);
  const folder = options.journal ?? journalFolder();
  const journal = await Journal.open(folder, {
    migration,
    guest: vm.id,
    role: 'source',
    url: absoluteAddress(url),
  });
  if (journal.last !== undefined) {
    await journal.close();
    throw new CheckpointError(
      'CHKPT_USAGE',
      'this migration was begun before; each one has a UUID of its own',
    );
  }
  const { codec = 'auto', acceleration, dedup, threads } = options;
  const encode = { codec: codec === 'auto' ? 'lz4' : codec, acceleration, dedup, threads } as const;
  const safety = await prepareSafety(vm, options, { migration, url, encode }).catch(
    async (error: unknown) => {
      await journal.remove();
      throw error;
    },
  );
  const tracking = openTracking(vm, memory, safety?.tracker);
  const rounds = new PageRounds({
    migration,
    digest,
    encode,
    deltaCache: settings.deltaCache,
    pace: makePace(options.bandwidth),
    memory: () => vm.memory ?? memory,
    tracker: tracking.tracker,
  });
  const transfer = new Transfer(vm, rounds, description, { ...settings.transfer, safety }, report);
  const session = new SendSession(
    vm,
    {
      ...settings.session,
      connectOne: (index, count, signal) =>
        connect(
          url,
          { kind: 'migration', migration, guest: vm.id, stream: index, streams: count },
          { ...linkOptionsOf(options), signal, idleMs: index === 0 ? silenceMs : 0 },
        ),
      witness: options.witness === undefined ? undefined : folderWitness(options.witness, migration),
    },
    journal,
    transfer,
    digest,
  );
  // What is left to clean up does not change how it ended.
  const finish = async (): Promise<void> => {
    await transfer.release().catch(() => undefined);
    await tracking.close().catch(() => undefined);
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
    // Nobody saves, loads or sends this machine before it is known whose it is.
    void inTurn(vm, undefined, async () => {
      if ((await session.final) === 'stayed') await safety?.drop();
      await finish();
    });
    throw new MigrationInDoubtError(inDoubt(session, migration), url, transfer.linkError ?? session.failure);
  }
  const tracker =
    outcome === 'moved'
      ? await trackingReport(tracking.report, tracking.tracker, rounds.tracking)
      : undefined;
  await finish();
  if (outcome === 'stayed') await safety?.drop();
  if (tracker === undefined) throw failureOf(outcome, session, transfer.linkError, url);
  return {
    migration,
    url,
    memoryBytes: memory.pageCount * pageBytes,
    rounds: transfer.rounds,
    downtime: downtimeOf(transfer.marks),
    postcopy: transfer.served.ms > 0 ? transfer.served : undefined,
    safety: safety?.report,
    bytesSent: transfer.bytesSent,
    tracker,
    throttledShare: transfer.throttledShare,
    reconnects: session.reconnects,
    elapsedMs: performance.now() - begin,
  };
}

async function prepareSafety(
  vm: VirtualMachine,
  { safety, signal }: SendVmOptions,
  facts: SafetyFacts,
): Promise<SafetyCheckpoint | undefined> {
  return safety === undefined ? undefined : await SafetyCheckpoint.prepare(vm, safety, facts, signal);
}

async function plan(
  vm: VirtualMachine,
  url: string,
  options: SendVmOptions & Partial<Pick<PlanVmOptions, 'windowMs'>>,
  report: Report,
): Promise<MigrationPlan> {
  const { session, transfer, deltaCache } = settingsOf(options);
  const { windowMs = 1000, codec = 'auto', acceleration, dedup, threads, bandwidth, signal } = options;
  if (!(windowMs >= 50 && windowMs <= 60_000)) throw new RangeError('windowMs must be 50 to 60 000');
  const settings = {
    ...{ ...transfer, downtimeMaxMs: session.downtimeMaxMs, link: linkOptionsOf(options) },
    ...{ streams: transfer.lanes, bandwidth, deltaCache, windowMs, signal },
    encode: { codec: codec === 'auto' ? 'lz4' : codec, acceleration, dedup, threads },
  } as const;
  return await planVm(vm, memoryOf(vm), url, settings, report);
}

/** Of a machine that can be sent. */
function memoryOf({ memory, failure }: VirtualMachine): GuestMemory {
  if (memory === undefined) throw new TypeError('a machine without memory is not migrated: save and load it');
  // Its pages could not be read by the thread that has to fetch them.
  memory.missingPages?.checkTouch?.();
  if (failure !== undefined) {
    throw new CheckpointError('CHKPT_VM_FAILED', 'the machine must not run', { cause: failure });
  }
  return memory;
}

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
  if (!Number.isInteger(streams) || streams < 1 || streams > (strategy === 'postcopy' ? 15 : 16))
    throw new RangeError('streams must be 1 to 16, with postcopy 15');
  if (!['abort', 'force', 'postcopy'].includes(strategy))
    throw new TypeError(`unknown strategy ${String(strategy)}`);
  if (bandwidth !== undefined) number('bandwidth', bandwidth, 0, 1024);
  const { codec = 'auto', precopyRounds } = options;
  if (precopyRounds !== undefined) {
    if (strategy !== 'postcopy') throw new TypeError('precopyRounds goes with strategy postcopy');
    if (!Number.isInteger(precopyRounds) || precopyRounds < 0)
      throw new RangeError('precopyRounds must be an integer, 0 or more');
  }
  const { safety } = options;
  if (safety !== undefined && strategy !== 'postcopy')
    throw new TypeError('safety goes with strategy postcopy');
  // What is written while the guest stands still takes its time.
  const standstillMs = safety === undefined ? 5000 : 60_000;
  if (!['auto', 'lz4', 'raw'].includes(codec)) throw new TypeError(`unknown codec ${String(codec)}`);
  return {
    deltaCache: number('deltaCache', options.deltaCache, deltaCacheDefault, 0),
    transfer: {
      convergence: {
        downtimeTargetMs,
        fixedMs: Math.min(fixedMsGuess, downtimeTargetMs / 2),
        patience: 4,
        roundsMax: 1000,
      },
      totalMaxMs: number('totalMaxMs', options.totalMaxMs, 600_000, 1),
      strategy,
      precopyRounds,
      lanes: streams,
    },
    session: {
      // Pages that the guest waits for have a connection of their own.
      connections: strategy === 'postcopy' ? streams + 1 : streams,
      reconnectMs: number('reconnectMs', options.reconnectMs, 30_000, 0),
      downtimeMaxMs:
        strategy === 'force' && options.downtimeMaxMs === undefined
          ? undefined
          : number('downtimeMaxMs', options.downtimeMaxMs, Math.max(standstillMs, 10 * downtimeTargetMs), 1),
      totalMaxMs: number('totalMaxMs', options.totalMaxMs, 600_000, 1),
      inDoubtMs: number('inDoubtMs', options.inDoubtMs, 10_000, 1),
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

function failureOf(outcome: Outcome, session: SendSession, linkError: unknown, url: string): unknown {
  if (session.failure !== undefined) return session.failure;
  const { reason } = session;
  if (reason !== undefined)
    return new CheckpointError('CHKPT_PEER_REFUSED', reason, { details: { store: url } });
  if (outcome !== 'lost' && linkError !== undefined) return linkError;
  return new CheckpointError('CHKPT_INTERNAL', `the migration ended as ${outcome}`, {
    details: { store: url },
  });
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
