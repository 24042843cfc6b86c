/**
 * What a host remembers of a migration when its process is restarted: the records of the commit protocol, one to a line, each flushed
 * before anything that depends on it is done. The last whole line counts.
 */
import { type FileHandle, mkdir, open, readFile } from 'node:fs/promises';
import { homedir } from 'node:os';
import { dirname, join } from 'node:path';
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
  readonly #file: FileHandle;
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
    try {
      await mkdir(folder, { recursive: true, mode: 0o700 });
      const lines = await linesOf(path);
      const file = await open(path, 'a', 0o600);
      const head = [magic, facts.role, facts.migration, encodeURIComponent(facts.guest)].join(' ');
      if (lines.length === 0) {
        await file.appendFile(`${head}\n`);
        await file.datasync();
        await syncFolder(dirname(path));
        return new Journal(path, facts, file, undefined);
      }
      const known: readonly string[] = recordsOf[facts.role];
      const records = lines.slice(1).filter((line) => known.includes(line));
      // What was being written when the host stopped is the beginning of a record.
      const isTorn = (line: string): boolean => known.some((record) => record.startsWith(line));
      if (lines[0] !== head || !lines.slice(1).every(isTorn)) {
        await file.close();
        throw new CheckpointError('CHKPT_FORMAT', 'this is no journal of that migration', {
          details: { path },
        });
      }
      // A line that was cut short would swallow the next one.
      await file.appendFile('\n');
      return new Journal(path, facts, file, records.at(-1));
    } catch (error) {
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
      await this.#file.appendFile(`${record}\n`);
      await this.#file.datasync();
      this.#last = record;
    } catch (error) {
      throw fromSystemError(error, 'cannot write the journal of the migration', { path: this.path });
    }
  }

  async close(): Promise<void> {
    await this.#file.close().catch(() => undefined);
  }
}

/** Whole lines, without empty ones. */
async function linesOf(path: string): Promise<string[]> {
  let text: string;
  try {
    text = await readFile(path, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
    throw error;
  }
  if (text.length > journalBytesMax) {
    throw new CheckpointError('CHKPT_FORMAT', 'a journal of a migration is not that long', {
      details: { path },
    });
  }
  return text
    .slice(0, text.lastIndexOf('\n') + 1)
    .split('\n')
    .filter(Boolean);
}

async function syncFolder(path: string): Promise<void> {
  const folder = await open(path, 'r');
  try {
    await folder.sync();
  } finally {
    await folder.close();
  }
}
