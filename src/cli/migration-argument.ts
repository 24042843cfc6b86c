/** Options of both ends of a migration. */
import { isMigrationId } from '../migration/journal-text.ts';
import type { ParsedLine } from './parse-line.ts';
import { usageError } from './usage-error.ts';

const streamsMax = 16;

export function streamsOf(line: ParsedLine): number {
  const text = line.last('streams') ?? '1';
  const streams = /^\d{1,2}$/.test(text) ? Number(text) : 0;
  if (streams >= 1 && streams <= streamsMax) return streams;
  throw usageError(`--streams ${text}: a number from 1 to ${streamsMax} is expected`);
}

export function migrationFoldersOf(line: ParsedLine): {
  readonly journal: string | undefined;
  readonly witness: string | undefined;
} {
  return { journal: line.last('journal'), witness: line.last('witness') };
}

/** The UUID of a migration, in lower case. */
export function migrationIdOf(text: string): string {
  const id = text.toLowerCase();
  if (isMigrationId(id)) return id;
  throw usageError(`${text}: the UUID of a migration is expected, as chkpt migrations shows it`);
}

const units = { '': 1, K: 1024, M: 1024 ** 2, G: 1024 ** 3 } as const;

/** Bytes per second; undefined for no cap. */
export function bandwidthOf(line: ParsedLine): number | undefined {
  const text = line.last('bandwidth');
  if (text === undefined) return undefined;
  const bytes = bytesOf(text);
  if (bytes !== undefined && bytes > 0) return bytes;
  throw usageError(`--bandwidth ${text}: bytes per second are expected, as 125M`);
}

/** Bytes; undefined for the default. */
export function deltaCacheOf(line: ParsedLine): number | undefined {
  const text = line.last('delta-cache');
  if (text === undefined) return undefined;
  const bytes = bytesOf(text);
  if (bytes !== undefined) return bytes;
  throw usageError(`--delta-cache ${text}: bytes are expected, as 256M, or 0`);
}

function bytesOf(text: string): number | undefined {
  const [, digits, unit = ''] = /^(0|[1-9]\d{0,8})([KMG]?)$/.exec(text) ?? [];
  return digits === undefined ? undefined : Number(digits) * units[unit as keyof typeof units];
}
