/** Goes on with a migration whose source was restarted: from its journal, without the guest. */
import { setTimeout as sleep } from 'node:timers/promises';
import { Operation, type PhaseProgress } from '../checkpoint/operation.ts';
import { CheckpointError } from '../errors/index.ts';
import { checkpointDigest } from '../memory/digest.ts';
import { absoluteAddress, connect, type LinkOptions } from '../transport/index.ts';
import { deferred } from '../util/deferred.ts';
import { Journal, journalFolder, journalPath, readJournal } from './journal.ts';
import { isMigrationId } from './journal-text.ts';
import { type InDoubt, MigrationInDoubtError } from './outcome.ts';
import { sayCancelled } from './source/farewell.ts';
import { OrphanSession } from './source/orphan-session.ts';
import type { ConnectOne } from './source/source-link.ts';
import { silenceMs } from './wire/deadlines.ts';

export interface ResumeMigrationOptions extends Omit<LinkOptions, 'idleMs' | 'signal'> {
  /** Folder of the journal; default `journalFolder()`. */
  readonly journal?: string | undefined;
  /** Where the destination is; default: where it was. */
  readonly url?: string | undefined;
  /** How long the destination may be silent before the migration is called in doubt, milliseconds; default 10 000. */
  readonly inDoubtMs?: number | undefined;
  /** Stops asking; the migration stays as it is, and can be gone on with again. */
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: ((progress: ResumeProgress) => void) | undefined;
}

export interface ResumeProgress extends PhaseProgress {
  readonly phase: 'connect';
}

/** What became of a migration whose source was restarted. */
export interface ResumeReport {
  /** UUID. */
  readonly migration: string;
  readonly guest: string;
  /** Of the destination, as far as it is known. */
  readonly url: string | undefined;
  /**
   * moved: the guest belongs to the destination, and was let run there. lost: it ended with the process that was sending it, and the
   * destination does not have it. stayed: the migration came to nothing, and the guest went on where it was, in a process that is no more.
   */
  readonly outcome: 'moved' | 'lost' | 'stayed';
  /** Wall time, milliseconds. */
  readonly elapsedMs: number;
}

/**
 * Goes on with the migration whose `sendVm` ended with its process: a destination that holds the whole guest is told to run it, one that
 * does not have it says so for ever. Nothing is transferred. Resolves as well when there is nothing left to do.
 *
 * Rejects with `TypeError` for what is no UUID; `CHKPT_NOT_FOUND` without a journal, `CHKPT_JOURNAL_IN_USE`, `CHKPT_FORMAT`,
 * `CHKPT_VERSION`; `CHKPT_USAGE` on the host of the destination, and when nobody says where the destination is; `CHKPT_INSECURE`;
 * `CHKPT_ABORTED`; and with `MigrationInDoubtError` when the destination does not answer or does not know. See docs/migration.md.
 */
export function resumeMigration(
  migration: string,
  options: ResumeMigrationOptions = {},
): Operation<ResumeReport, ResumeProgress> {
  return new Operation<ResumeReport, ResumeProgress>((report) => {
    report({ phase: 'connect' });
    return resume(migration, options);
  }, options.onProgress);
}

async function resume(name: string, options: ResumeMigrationOptions): Promise<ResumeReport> {
  const begin = performance.now();
  const { inDoubtMs = 10_000, signal } = options;
  if (!(Number.isFinite(inDoubtMs) && inDoubtMs >= 1)) throw new RangeError('inDoubtMs must be 1 or more');
  const journal = await openJournal(name, options.journal ?? journalFolder());
  const { migration, guest } = journal.facts;
  let url: string | undefined;
  let session: OrphanSession | undefined;
  const reportOf = (outcome: ResumeReport['outcome']): ResumeReport => {
    return { migration, guest, url, outcome, elapsedMs: performance.now() - begin };
  };
  const refused = deferred<never>();
  refused.promise.catch(() => undefined);
  try {
    url = options.url === undefined ? journal.facts.url : absoluteAddress(options.url);
    if (signal?.aborted) throw abortError(signal);
    const known = await endOf(journal);
    if (known !== undefined) return reportOf(known);
    if (url === undefined) {
      throw new CheckpointError('CHKPT_USAGE', 'this journal does not say where the destination is', {
        details: { path: journal.path },
      });
    }
    const digest = await checkpointDigest();
    const connectOne = connector(url, journal, options, refused.reject);
    if (journal.last === 'abort' || journal.last === 'reclaim') {
      const heard = sayCancelled(connectOne, inDoubtMs, digest);
      if (await Promise.race([heard, refused.promise, after(inDoubtMs, false, signal)]))
        await journal.remove();
      return reportOf('stayed');
    }
    await journal.note('resumed').catch(() => undefined);
    session = new OrphanSession(journal, connectOne, digest);
  } finally {
    // A session has it for as long as it asks.
    if (session === undefined) await journal.close();
  }
  return reportOf(await ask(session, refused.promise, { migration, url, inDoubtMs, signal }));
}

async function openJournal(name: string, folder: string): Promise<Journal> {
  const migration = name.toLowerCase();
  if (!isMigrationId(migration)) throw new TypeError(`a migration is named by a UUID, not ${name}`);
  const path = journalPath(folder, migration, 'source');
  if ((await readJournal(path)) !== undefined) return await Journal.reopen(path);
  const other = journalPath(folder, migration, 'destination');
  if ((await readJournal(other)) === undefined) {
    throw new CheckpointError('CHKPT_NOT_FOUND', 'there is no journal of this migration', {
      details: { path },
    });
  }
  throw new CheckpointError(
    'CHKPT_USAGE',
    'this host is the destination of the migration: it answers for it while it receives',
    { details: { path: other } },
  );
}

/** What the journal alone tells. */
async function endOf(journal: Journal): Promise<ResumeReport['outcome'] | undefined> {
  if (journal.last === 'released') return 'moved';
  if (journal.last === 'reclaim' && journal.notes.has('resumed')) return 'lost';
  if (!journal.isBlank) return undefined;
  await journal.remove();
  return 'stayed';
}

/** `refuse` is told what no second attempt can change. */
function connector(
  url: string,
  { facts: { migration, guest } }: Journal,
  { tls, psk, insecure, handshakeMs }: ResumeMigrationOptions,
  refuse: (error: unknown) => void,
): ConnectOne {
  return async (stream, streams, signal) => {
    try {
      const purpose = { kind: 'migration', migration, guest, stream, streams } as const;
      return await connect(url, purpose, { tls, psk, insecure, handshakeMs, signal, idleMs: silenceMs });
    } catch (error) {
      if (!(error instanceof CheckpointError) || error.kind === 'usage') refuse(error);
      throw error;
    }
  };
}

interface Asking {
  readonly migration: string;
  readonly url: string;
  readonly inDoubtMs: number;
  readonly signal: AbortSignal | undefined;
}

async function ask(
  session: OrphanSession,
  refused: Promise<never>,
  { migration, url, inDoubtMs, signal }: Asking,
): Promise<'moved' | 'lost'> {
  const onAbort = (): void => void session.stop(abortError(signal));
  signal?.addEventListener('abort', onAbort, { once: true });
  if (signal?.aborted) onAbort();
  void session.final.catch(() => undefined).then(() => signal?.removeEventListener('abort', onAbort));
  const known = async (): Promise<'moved' | 'lost'> => ((await session.final) === 'moved' ? 'moved' : 'lost');
  const enough = new AbortController();
  try {
    const first = await Promise.race([session.first, refused, after(inDoubtMs, 'inDoubt', enough.signal)]);
    if (first !== 'inDoubt') return await known();
  } catch (error) {
    await session.stop(error);
    throw error;
  } finally {
    enough.abort();
  }
  const inDoubt: InDoubt = {
    migrationId: migration,
    resolve: known,
    async forceLocal() {
      throw new CheckpointError(
        'CHKPT_UNSUPPORTED',
        'this process does not have the guest, and cannot take it back',
      );
    },
  };
  throw new MigrationInDoubtError(inDoubt, url, session.linkError);
}

async function after<T>(ms: number, value: T, signal: AbortSignal | undefined): Promise<T> {
  try {
    return await sleep(ms, value, { signal });
  } catch {
    throw abortError(signal);
  }
}

function abortError(signal: AbortSignal | undefined): CheckpointError {
  return new CheckpointError('CHKPT_ABORTED', 'nobody asks any more, and the migration stays as it is', {
    cause: signal?.reason,
  });
}
