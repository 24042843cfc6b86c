/**
 * What a host remembers of a migration when its process is restarted: the records of the commit protocol, one to a line, each flushed
 * before anything that depends on it is done. The last whole one counts. One process at a time has a journal open.
 */
import { type FileHandle, mkdir, open, readFile, unlink } from 'node:fs/promises';
import { homedir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { CheckpointError, fromSystemError } from '../errors/index.ts';
import { JournalLock } from './journal-lock.ts';
import {
  headOf,
  type JournalContent,
  type JournalFacts,
  type JournalNote,
  type JournalRole,
  linesOf,
  parseJournal,
} from './journal-text.ts';
import type { DestinationRecord, SourceRecord } from './protocol/terms.ts';

/** Where journals are unless told otherwise: `$XDG_STATE_HOME/chkpt/migrations`, or the same below `~/.local/state`. */
export function journalFolder(): string {
  const base = process.env['XDG_STATE_HOME'] || join(homedir(), '.local/state');
  return join(base, 'chkpt', 'migrations');
}

/** Where the journal of one end of a migration is. */
export function journalPath(folder: string, migration: string, role: JournalRole): string {
  return join(folder, `${migration}.${role}`);
}

export function lockPath(path: string): string {
  return `${path}.lock`;
}

export class Journal {
  readonly path: string;
  readonly facts: JournalFacts;
  readonly #lock: JournalLock;
  #file: FileHandle;
  /** What was written last may end anywhere. */
  #isTorn = false;
  #last: JournalContent['last'];
  readonly #notes: Set<JournalNote>;
  #isOpen = true;

  private constructor(path: string, content: JournalContent, file: FileHandle, lock: JournalLock) {
    this.path = path;
    this.facts = content.facts;
    this.#file = file;
    this.#lock = lock;
    this.#last = content.last;
    this.#notes = new Set(content.notes);
  }

  /**
   * Opens the journal of a migration in `folder`, or begins it. Throws `CHKPT_IO`, `CHKPT_PERMISSION`, `CHKPT_NO_SPACE`;
   * `CHKPT_JOURNAL_IN_USE` while a process has it; `CHKPT_FORMAT` for a file that is no journal of this migration, and `CHKPT_VERSION`.
   */
  static async open(folder: string, facts: JournalFacts): Promise<Journal> {
    const path = journalPath(folder, facts.migration, facts.role);
    return await withLock(path, async (lock) => {
      const { lines, bytes } = await readLines(path);
      const content =
        lines.length === 0 ? { facts, last: undefined, notes: new Set<never>() } : parseJournal(lines, path);
      const isOurs = (['migration', 'guest', 'role'] as const).every(
        (name) => content.facts[name] === facts[name],
      );
      if (!isOurs) {
        throw new CheckpointError('CHKPT_FORMAT', 'this is no journal of that migration', {
          details: { path },
        });
      }
      const file = await open(path, 'a', 0o600);
      try {
        // What was being written when the host stopped counts for nothing.
        await file.truncate(bytes);
        if (lines.length === 0) {
          await file.appendFile(`${headOf(facts)}\n`);
          await file.datasync();
          await syncFolder(dirname(path));
        }
        return new Journal(path, content, file, lock);
      } catch (error) {
        await file.close().catch(() => undefined);
        throw error;
      }
    });
  }

  /** Opens one that is there. Throws `CHKPT_NOT_FOUND`, and as `open`. */
  static async reopen(path: string): Promise<Journal> {
    const content = await readJournal(path);
    if (content === undefined) throw notFound(path);
    return await Journal.open(dirname(path), content.facts);
  }

  /** The record that counts. */
  get last(): JournalContent['last'] {
    return this.#last;
  }

  get notes(): ReadonlySet<JournalNote> {
    return this.#notes;
  }

  /** Nothing was promised, and nothing that may have reached the disk says so. */
  get isBlank(): boolean {
    return this.#last === undefined && !this.#isTorn;
  }

  /** Appends and flushes. When it rejects the record may be there all the same. */
  async append(record: SourceRecord | DestinationRecord): Promise<void> {
    await this.#write(record);
    this.#last = record;
  }

  /** As `append`, for what decides nothing. */
  async note(note: JournalNote): Promise<void> {
    if (this.#notes.has(note)) return;
    await this.#write(note);
    this.#notes.add(note);
  }

  async #write(word: string): Promise<void> {
    try {
      // A flush that failed once says nothing the next time.
      if (this.#isTorn) await this.#reopenFile();
      await this.#file.appendFile(this.#isTorn ? `\n${word}\n` : `${word}\n`);
      await this.#file.datasync();
      this.#isTorn = false;
    } catch (error) {
      this.#isTorn = true;
      throw fromSystemError(error, 'cannot write the journal of the migration', { path: this.path });
    }
  }

  async #reopenFile(): Promise<void> {
    await this.#file.close().catch(() => undefined);
    this.#file = await open(this.path, 'a', 0o600);
  }

  /** Harmless when called twice. */
  async close(): Promise<void> {
    if (!this.#isOpen) return;
    this.#isOpen = false;
    await this.#file.close().catch(() => undefined);
    await this.#lock.release();
  }

  /** Closes it, and the host forgets the migration. One that cannot be removed stays. */
  async remove(): Promise<void> {
    if (!this.#isOpen) return;
    this.#isOpen = false;
    await this.#file.close().catch(() => undefined);
    await unlink(this.path).catch(() => undefined);
    await this.#lock.release();
  }
}

/** What `work` opens has the lock from then on; when it fails the lock goes at once. */
async function withLock(path: string, work: (lock: JournalLock) => Promise<Journal>): Promise<Journal> {
  let lock: JournalLock | undefined;
  try {
    await makeFolder(dirname(path));
    lock = await JournalLock.take(lockPath(path));
    return await work(lock);
  } catch (error) {
    await lock?.release();
    if (error instanceof CheckpointError) throw error;
    throw fromSystemError(error, 'cannot open the journal of the migration', { path });
  }
}

/** Reads a journal without opening it; undefined when there is none, or only the beginning of one. Throws `CHKPT_FORMAT`, `CHKPT_VERSION`. */
export async function readJournal(path: string): Promise<JournalContent | undefined> {
  const { lines } = await readLines(path);
  return lines.length === 0 ? undefined : parseJournal(lines, path);
}

function notFound(path: string): CheckpointError {
  return new CheckpointError('CHKPT_NOT_FOUND', 'there is no journal of this migration', {
    details: { path },
  });
}

async function readLines(path: string): Promise<{ readonly lines: string[]; readonly bytes: number }> {
  try {
    return linesOf(await readFile(path, 'latin1'), path);
  } catch (error) {
    if (error instanceof CheckpointError) throw error;
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return { lines: [], bytes: 0 };
    throw fromSystemError(error, 'cannot read the journal of the migration', { path });
  }
}

/** With all folders above it, durably. */
async function makeFolder(folder: string): Promise<void> {
  const first = await mkdir(folder, { recursive: true, mode: 0o700 });
  if (first === undefined) return;
  for (let one = resolve(folder); one.length >= first.length; one = dirname(one))
    await syncFolder(dirname(one));
}

/** Flushes the names in a folder. */
export async function syncFolder(path: string): Promise<void> {
  const folder = await open(path, 'r');
  try {
    await folder.sync();
  } finally {
    await folder.close();
  }
}
