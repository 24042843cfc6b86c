/**
 * What stands in a journal: a line that says of which migration it is, then one record or note to a line. Pure text.
 *
 *   chkpt-migration-2 source 3d0a7a0e-5a3f-4e0c-9df1-6f3f5c0e8a11 my%20guest url=tls%3A%2F%2Fhost%3A7000
 *   begin
 *   commit
 *
 * The last record counts. Version 1, which is still read, has neither facts behind the guest nor notes.
 */
import { CheckpointError } from '../errors/index.ts';
import type { DestinationRecord, SourceRecord } from './protocol/terms.ts';

export type JournalRole = 'source' | 'destination';

/** What the first line says. */
export interface JournalFacts {
  readonly migration: string;
  readonly guest: string;
  readonly role: JournalRole;
  /** Of a source: where the destination listens. Version 1 does not know. */
  readonly url?: string | undefined;
}

/**
 * What stands between the records, and decides nothing about who owns the guest. told: the source has said that it knows that the guest
 * runs on this destination. resumed: a process without the guest has gone on with the migration. postcopy: pages were missing
 * when the guest was handed over.
 */
export type JournalNote = 'told' | 'resumed' | 'postcopy';

export interface JournalContent {
  readonly facts: JournalFacts;
  /** The record that counts; undefined: nothing was promised. */
  readonly last: SourceRecord | DestinationRecord | undefined;
  readonly notes: ReadonlySet<JournalNote>;
}

const magic = 'chkpt-migration-';
const version = 2;
export const recordsOf = {
  source: ['begin', 'abort', 'commit', 'reclaim', 'released'],
  destination: ['prepared', 'own', 'aborted'],
} as const satisfies { source: readonly SourceRecord[]; destination: readonly DestinationRecord[] };
const notesOf = {
  source: ['resumed', 'postcopy'],
  destination: ['told'],
} as const satisfies Record<JournalRole, readonly JournalNote[]>;
/** A journal has at most a few dozen lines: each is a change of ownership. */
const journalCharsMax = 64 * 1024;
const uuidPattern = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

/** True for what can name a migration, and so a file. */
export function isMigrationId(text: string): boolean {
  return uuidPattern.test(text);
}

/** The first line. */
export function headOf({ role, migration, guest, url }: JournalFacts): string {
  const words = [`${magic}${version}`, role, migration, encodeURIComponent(guest)];
  if (url !== undefined) words.push(`url=${encodeURIComponent(url)}`);
  return words.join(' ');
}

/** Whole lines, without empty ones, and the bytes that whole lines take. Throws `CHKPT_FORMAT` for a file that is too long. */
export function linesOf(text: string, path: string): { readonly lines: string[]; readonly bytes: number } {
  if (text.length > journalCharsMax) throw wrong('CHKPT_FORMAT', 'a journal is not that long', path);
  const bytes = text.lastIndexOf('\n') + 1;
  return { lines: text.slice(0, bytes).split('\n').filter(Boolean), bytes };
}

/** Throws `CHKPT_FORMAT`, and `CHKPT_VERSION` for what a newer chkpt has written. */
export function parseJournal([head = '', ...rest]: readonly string[], path: string): JournalContent {
  const facts = parseHead(head, path);
  const records: readonly string[] = recordsOf[facts.role];
  const notes: readonly string[] = notesOf[facts.role];
  const known = [...records, ...notes];
  // A write that failed was begun again on the next line.
  const isTorn = (line: string): boolean => known.some((word) => word.startsWith(line));
  if (!rest.every(isTorn)) throw wrong('CHKPT_FORMAT', 'a journal has a line that is none', path);
  return {
    facts,
    last: rest.findLast((line) => records.includes(line)) as JournalContent['last'],
    notes: new Set(rest.filter((line) => notes.includes(line)) as JournalNote[]),
  };
}

function parseHead(head: string, path: string): JournalFacts {
  const [, digits, role, migration = '', guest, more] =
    /^chkpt-migration-(\d{1,3}) (source|destination) (\S+) (\S*)((?: [a-z]+=\S+)*)$/.exec(head) ?? [];
  if (digits === undefined || !isMigrationId(migration)) {
    throw wrong('CHKPT_FORMAT', 'this is no journal of a migration', path);
  }
  const facts = new Map(
    more?.split(' ').map((word): [string, string] => {
      const at = word.indexOf('=');
      return [word.slice(0, Math.max(0, at)), decode(word.slice(at + 1), path)];
    }),
  );
  facts.delete('');
  const isKnown = Number(digits) <= version && [...facts.keys()].every((key) => key === 'url');
  if (!isKnown) throw wrong('CHKPT_VERSION', 'a newer chkpt has written this journal', path);
  return {
    migration,
    guest: decode(guest ?? '', path),
    role: role as JournalRole,
    url: facts.get('url'),
  };
}

function decode(text: string, path: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    throw wrong('CHKPT_FORMAT', 'a journal has a name that is none', path);
  }
}

function wrong(code: 'CHKPT_FORMAT' | 'CHKPT_VERSION', what: string, path: string): CheckpointError {
  return new CheckpointError(code, what, { details: { path } });
}
