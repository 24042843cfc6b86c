/**
 * What a host remembers of a migration when its process is restarted: the records of the commit protocol, one to a line, each flushed
 * before anything that depends on it is done. The last whole line counts.
 */
import { type FileHandle, mkdir, open, readFile } from 'node:fs/promises';
import { homedir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { CheckpointError, fromSystemError } from '../errors/index.ts';
import type { DestinationRecord, SourceRecord } from './protocol/terms.ts';

export type JournalRole = 'source' | 'destination';

/** What the first line says. */
export interface JournalFacts {
  readonly migration: string;
  readonly guest: string;
  readonly role: JournalRole;
}

const magic = 'chkpt-migration-1';
const recordsOf = {
  source: ['begin', 'abort', 'commit', 'reclaim', 'released'],
  destination: ['prepared', 'own', 'aborted'],
} as const satisfies { source: readonly SourceRecord[]; destination: readonly DestinationRecord[] };
/** A journal has at most a few dozen lines: each is a change of ownership. */
const journalBytesMax = 64 * 1024;

/** Where journals are unless told otherwise: `$XDG_STATE_HOME/chkpt/migrations`, or the same below `~/.local/state`. */
export function journalFolder(): string {
  const base = process.env['XDG_STATE_HOME'] || join(homedir(), '.local/state');
  return join(base, 'chkpt', 'migrations');
}

export class Journal {
  readonly path: string;
  readonly facts: JournalFacts;
  #file: FileHandle;
  /** What was written last may end anywhere. */
  #isTorn = false;
  #last: string | undefined;

  private constructor(path: string, facts: JournalFacts, file: FileHandle, last: string | undefined) {
    this.path = path;
    this.facts = facts;
    this.#file = file;
    this.#last = last;
  }

  /**
   * Opens the journal of a migration in `folder`, or begins it. Throws `CHKPT_IO`, `CHKPT_PERMISSION`, `CHKPT_NO_SPACE`; and
   * `CHKPT_FORMAT` for a file that is no journal of this migration.
   */
  static async open(folder: string, facts: JournalFacts): Promise<Journal> {
    const path = join(folder, `${facts.migration}.${facts.role}`);
    let file: FileHandle | undefined;
    try {
      await makeFolder(folder);
      const { lines, bytes } = await linesOf(path);
      file = await open(path, 'a', 0o600);
      const head = [magic, facts.role, facts.migration, encodeURIComponent(facts.guest)].join(' ');
      // What was being written when the host stopped counts for nothing.
      await file.truncate(bytes);
      if (lines.length === 0) {
        await file.appendFile(`${head}\n`);
        await file.datasync();
        await syncFolder(dirname(path));
        return new Journal(path, facts, file, undefined);
      }
      const known: readonly string[] = recordsOf[facts.role];
      const records = lines.slice(1).filter((line) => known.includes(line));
      // A write that failed was begun again on the next line.
      const isTorn = (line: string): boolean => known.some((record) => record.startsWith(line));
      if (lines[0] !== head || !lines.slice(1).every(isTorn)) {
        throw new CheckpointError('CHKPT_FORMAT', 'this is no journal of that migration', {
          details: { path },
        });
      }
      return new Journal(path, facts, file, records.at(-1));
    } catch (error) {
      await file?.close().catch(() => undefined);
      if (error instanceof CheckpointError) throw error;
      throw fromSystemError(error, 'cannot open the journal of the migration', { path });
    }
  }

  /** The record that counts. */
  get last(): string | undefined {
    return this.#last;
  }

  /** Appends and flushes. When it rejects the record may be there all the same. */
  async append(record: SourceRecord | DestinationRecord): Promise<void> {
    try {
      // A flush that failed once says nothing the next time.
      if (this.#isTorn) await this.#reopen();
      await this.#file.appendFile(this.#isTorn ? `\n${record}\n` : `${record}\n`);
      await this.#file.datasync();
      this.#isTorn = false;
      this.#last = record;
    } catch (error) {
      this.#isTorn = true;
      throw fromSystemError(error, 'cannot write the journal of the migration', { path: this.path });
    }
  }

  async #reopen(): Promise<void> {
    await this.#file.close().catch(() => undefined);
    this.#file = await open(this.path, 'a', 0o600);
  }

  async close(): Promise<void> {
    await this.#file.close().catch(() => undefined);
  }
}

/** Whole lines, without empty ones, and the bytes that whole lines take. */
async function linesOf(path: string): Promise<{ readonly lines: string[]; readonly bytes: number }> {
  let text: string;
  try {
    text = await readFile(path, 'latin1');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return { lines: [], bytes: 0 };
    throw error;
  }
  if (text.length > journalBytesMax) {
    throw new CheckpointError('CHKPT_FORMAT', 'a journal of a migration is not that long', {
      details: { path },
    });
  }
  const bytes = text.lastIndexOf('\n') + 1;
  return { lines: text.slice(0, bytes).split('\n').filter(Boolean), bytes };
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
