/**
 * What a run leaves behind as JSON, for people's scripts and for `--compare`. Everything a comparison needs is in it.
 *
 * Versioning: `version` changes when a reader of the old one would misread the new one; fields may be added at any time.
 */
import type { Summary } from './statistics.ts';

export const documentSchema = 'chkpt-bench';
export const documentVersion = 1;

/** What a measurement depends on: two records with other parameters say nothing about each other. */
export type Parameters = Readonly<Record<string, string | number>>;

export interface Target {
  /** Met when the median is at least this. */
  readonly atLeast?: number;
  /** Met when the median is at most this. */
  readonly atMost?: number;
  readonly met: boolean;
}

/**
 * A figure beside its baseline. Both cost seconds (or bytes) for the same work, so that their ratio has no unit: 1 is as good
 * as the baseline, more is better.
 */
export interface RatioRecord {
  readonly name: string;
  readonly baseline: string;
  readonly parameters: Parameters;
  readonly cost: 'seconds' | 'bytes';
  /** Bytes of guest memory that one run goes through: makes rates of seconds. Absent for costs in bytes. */
  readonly memoryBytes?: number;
  readonly subject: readonly number[];
  /** One run more than of the subject: the runs before and after each of the subject's. */
  readonly reference: readonly number[];
  /** CPU seconds of all threads, run by run, where a run is nothing but the work. */
  readonly subjectCpu?: readonly number[];
  readonly referenceCpu?: readonly number[];
  /** One per run of the subject. */
  readonly ratios: readonly number[];
  readonly summary: Summary;
  readonly target?: Target;
}

/** A figure with a unit of its own. Shown, never compared: it depends on the machine and on who else uses it. */
export interface ValueRecord {
  readonly name: string;
  readonly parameters: Parameters;
  readonly unit: 'ms' | 'ms/GiB' | 'bytes' | 'share';
  readonly samples: readonly number[];
  readonly summary: Summary;
  readonly target?: Target;
}

export interface Skipped {
  readonly name: string;
  readonly reason: string;
}

export interface BenchDocument {
  readonly schema: typeof documentSchema;
  readonly version: typeof documentVersion;
  /** ISO 8601. */
  readonly startedAt: string;
  readonly elapsedSeconds: number;
  readonly options: Parameters;
  readonly machine: Readonly<Record<string, string | number>>;
  readonly memories: readonly MemoryFacts[];
  readonly ratios: readonly RatioRecord[];
  readonly values: readonly ValueRecord[];
  readonly skipped: readonly Skipped[];
}

/** What was saved and loaded. */
export interface MemoryFacts {
  readonly memory: string;
  readonly bytes: number;
  readonly zeroPages: number;
  readonly fillPages: number;
  readonly samePages: number;
  readonly storedPages: number;
  /** XXH3 of the content, hexadecimal. */
  readonly content: string;
}

/** The document is none of ours, or of a version that this program does not read. */
export class DocumentError extends Error {}

/** What identifies a ratio or a value: name, baseline and every parameter. */
export function keyOf(record: { name: string; baseline?: string; parameters: Parameters }): string {
  const parameters = Object.keys(record.parameters)
    .sort()
    .map((key) => `${key}=${record.parameters[key]}`);
  return [record.name, record.baseline ?? '', ...parameters].join(' ');
}

/** Ratios of a subject to its baseline, each run bracketed by the two baseline runs around it: drift cancels. */
export function bracketedRatios(subject: readonly number[], reference: readonly number[]): number[] {
  if (reference.length !== subject.length + 1) {
    throw new RangeError(`${reference.length} baseline runs do not bracket ${subject.length}`);
  }
  return subject.map((cost, run) => {
    const before = reference[run] as number;
    const after = reference[run + 1] as number;
    return Math.sqrt(before * after) / cost;
  });
}

export function targetOf(
  limits: { readonly atLeast?: number; readonly atMost?: number } | undefined,
  value: number,
): Target | undefined {
  if (limits?.atLeast === undefined && limits?.atMost === undefined) return undefined;
  const met = value >= (limits.atLeast ?? value) && value <= (limits.atMost ?? value);
  return { ...limits, met };
}

/** Reads a document. Throws `DocumentError`. */
export function parseDocument(text: string): BenchDocument {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new DocumentError(`not JSON: ${(error as Error).message}`);
  }
  if (!isObject(value) || value['schema'] !== documentSchema) {
    throw new DocumentError(`not a ${documentSchema} document`);
  }
  if (value['version'] !== documentVersion) {
    throw new DocumentError(
      `version ${String(value['version'])} of ${documentSchema}, this program reads version ${documentVersion}`,
    );
  }
  if (!isObject(value['machine']) || !Array.isArray(value['ratios'])) {
    throw new DocumentError('machine or ratios are missing');
  }
  for (const [index, ratio] of value['ratios'].entries()) checkRatio(ratio, index);
  return value as unknown as BenchDocument;
}

function checkRatio(ratio: unknown, index: number): void {
  const isSound =
    isObject(ratio) &&
    typeof ratio['name'] === 'string' &&
    typeof ratio['baseline'] === 'string' &&
    isObject(ratio['parameters']) &&
    [ratio['ratios'], ratio['subject'], ratio['reference']].every(isSamples);
  if (!isSound) throw new DocumentError(`ratio ${index} is not what it should be`);
}

function isSamples(value: unknown): boolean {
  return (
    Array.isArray(value) && value.length > 0 && value.every((sample) => Number.isFinite(sample) && sample > 0)
  );
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
