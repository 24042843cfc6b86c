/** The journals of a host: which there are, what they say, and which of them are no longer needed. */
import { readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { CheckpointError, fromSystemError } from '../errors/index.ts';
import { Journal, journalFolder, journalPath, lockPath, readJournal } from './journal.ts';
import { isLocked } from './journal-lock.ts';
import { isMigrationId, type JournalContent, type JournalRole } from './journal-text.ts';
import type { DestinationRecord, SourceRecord } from './protocol/terms.ts';

/**
 * What is to be done about a migration. wait: a process that lives has it in hand. resume: `resumeMigration`. receive: the source may wait
 * for an answer, which a `receiveVm` with this folder gives. operator: only people can tell where the guest ran last. none: it is over.
 */
export type MigrationTask = 'wait' | 'resume' | 'receive' | 'operator' | 'none';

/** What a journal says. */
export interface MigrationFacts {
  /** UUID. */
  readonly migration: string;
  readonly guest: string;
  readonly role: JournalRole;
  /** The record that counts; undefined: nothing was promised. */
  readonly last: SourceRecord | DestinationRecord | undefined;
  /** Of a source: where the destination was, as far as it is known. */
  readonly url: string | undefined;
  readonly task: MigrationTask;
  readonly path: string;
  /** When it was written last. */
  readonly changed: Date;
}

const namePattern = /^([0-9a-f-]{36})\.(source|destination)$/;

/**
 * The journals in `folder` (default `journalFolder()`), oldest first; a folder that is not there has none. Files that are no journals are
 * left out. Throws `CHKPT_PERMISSION`, `CHKPT_IO`.
 */
export async function listMigrations(folder: string = journalFolder()): Promise<MigrationFacts[]> {
  const found: MigrationFacts[] = [];
  try {
    for (const name of await readdir(folder).catch(noneOf)) {
      const facts = await factsOf(join(folder, name), name);
      if (facts !== undefined) found.push(facts);
    }
  } catch (error) {
    throw fromSystemError(error, 'cannot read the folder of journals', { path: folder });
  }
  return found.sort((one, other) => one.changed.getTime() - other.changed.getTime());
}

export interface PruneMigrationsOptions {
  /** Default `journalFolder()`. */
  readonly journal?: string | undefined;
  /** Only journals that have not changed for so long, milliseconds; default a day: longer than any connection lasts that speaks of them. */
  readonly olderThanMs?: number | undefined;
}

/**
 * Removes the journals whose task is `none` and resolves to what they said. The host then no longer knows that these migrations
 * were. Throws as `listMigrations`.
 */
export async function pruneMigrations({
  journal = journalFolder(),
  olderThanMs = 86_400_000,
}: PruneMigrationsOptions = {}): Promise<MigrationFacts[]> {
  if (!(olderThanMs >= 0)) throw new RangeError('olderThanMs must be 0 or more');
  const removed: MigrationFacts[] = [];
  for (const facts of await listMigrations(journal)) {
    const isOld = Date.now() - facts.changed.getTime() >= olderThanMs;
    if (facts.task === 'none' && isOld && (await removeIf(facts.path, isOver))) removed.push(facts);
  }
  return removed;
}

/**
 * Removes the journals of one migration whatever they say: the word of an operator, who knows what became of the guest. A destination that
 * forgets that it owned it would answer a source in doubt that it never will, and the source would take it back.
 *
 * Throws `CHKPT_NOT_FOUND`, `CHKPT_JOURNAL_IN_USE`.
 */
export async function forgetMigration(migration: string, folder: string = journalFolder()): Promise<void> {
  const name = migration.toLowerCase();
  if (!isMigrationId(name)) throw new TypeError(`a migration is named by a UUID, not ${migration}`);
  let count = 0;
  for (const role of ['source', 'destination'] as const) {
    const path = journalPath(folder, name, role);
    if ((await readJournal(path)) === undefined) continue;
    await (await Journal.reopen(path)).remove();
    count += 1;
  }
  if (count > 0) return;
  throw new CheckpointError('CHKPT_NOT_FOUND', 'there is no journal of this migration', {
    details: { path: journalPath(folder, name, 'source') },
  });
}

async function factsOf(path: string, name: string): Promise<MigrationFacts | undefined> {
  const [, migration, role] = namePattern.exec(name) ?? [];
  if (migration === undefined) return undefined;
  const content = await readJournal(path).catch((error: unknown) => {
    if (error instanceof CheckpointError && error.kind !== 'io') return undefined;
    throw error;
  });
  if (content?.facts.migration !== migration || content.facts.role !== role) return undefined;
  const { facts, last } = content;
  const task = (await isLocked(lockPath(path))) ? 'wait' : taskOf(content);
  const { mtime } = await stat(path);
  return {
    migration,
    guest: facts.guest,
    role: facts.role,
    last,
    url: facts.url,
    task,
    path,
    changed: mtime,
  };
}

function taskOf(content: JournalContent): MigrationTask {
  if (isOver(content)) return 'none';
  if (content.facts.role === 'source') return 'resume';
  return content.last === 'prepared' ? 'receive' : 'operator';
}

/** Nobody can ask any more, or gets the same answer from a host that has forgotten it. */
function isOver({ last, notes }: Pick<JournalContent, 'last' | 'notes'>): boolean {
  switch (last) {
    case 'begin':
    case 'commit':
    case 'abort':
    case 'prepared':
      return false;
    // The other way to it is an operator's word or the witness: the destination may wait.
    case 'reclaim':
      return notes.has('resumed');
    case 'own':
      return notes.has('told');
    default:
      return true;
  }
}

async function removeIf(path: string, condition: (journal: Journal) => boolean): Promise<boolean> {
  let journal: Journal;
  try {
    journal = await Journal.reopen(path);
  } catch {
    // Somebody has it, or was faster.
    return false;
  }
  if (!condition(journal)) {
    await journal.close();
    return false;
  }
  await journal.remove();
  return true;
}

function noneOf(error: NodeJS.ErrnoException): string[] {
  if (error.code === 'ENOENT') return [];
  throw error;
}
