/** The options that every command accepts, checked. */
import { threadsMax } from '../limits.ts';
import type { ParsedLine } from './parse-line.ts';
import { usageError } from './usage-error.ts';

export type Codec = 'auto' | 'raw' | 'lz4';

export interface CommonOptions {
  readonly threads: number | undefined;
  readonly codec: Codec;
  /** Text form, not zero. */
  readonly uuid: string | undefined;
  /** Milliseconds since 1970-01-01T00:00:00Z. */
  readonly createdMs: number | undefined;
  readonly json: boolean;
  readonly quiet: boolean;
}

/** Throws `CHKPT_USAGE`. */
export function commonOptionsOf(line: ParsedLine): CommonOptions {
  return {
    threads: optional(line.last('threads'), parseThreads),
    codec: (line.last('codec') ?? 'auto') as Codec,
    uuid: optional(line.last('uuid'), parseUuidOption),
    createdMs: optional(line.last('time'), parseTime),
    json: line.has('json'),
    quiet: line.has('quiet'),
  };
}

function optional<T>(text: string | undefined, parse: (text: string) => T): T | undefined {
  return text === undefined ? undefined : parse(text);
}

function parseThreads(text: string): number {
  const threads = /^[0-9]{1,3}$/.test(text) ? Number(text) : 0;
  if (threads >= 1 && threads <= threadsMax) return threads;
  throw usageError(`--threads ${text}: a number from 1 to ${threadsMax} is expected`);
}

function parseUuidOption(text: string): string {
  const isUuid = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i.test(text);
  if (isUuid && /[1-9a-f]/i.test(text)) return text.toLowerCase();
  throw usageError(
    `--uuid ${text}: a UUID other than zero is expected, as 123e4567-e89b-12d3-a456-426614174000`,
  );
}

const isoPattern = /^\d{4}-\d\d-\d\d(T\d\d:\d\d(:\d\d(\.\d{1,3})?)?(Z|[+-]\d\d:\d\d))?$/;

/** A time of day needs its zone: without one the same command would mean different times on different machines. */
function parseTime(text: string): number {
  const milliseconds = isoPattern.test(text) ? Date.parse(text) : Number.NaN;
  // Date.parse turns a 31st that the month has not into the 1st of the next one.
  const day = text.slice(0, 10);
  const isDay = !Number.isNaN(Date.parse(day)) && new Date(day).toISOString().startsWith(day);
  if (milliseconds >= 0 && isDay) return milliseconds;
  throw usageError(`--time ${text}: an ISO 8601 time from 1970 on is expected, as 2025-01-31T12:00:00Z`);
}
