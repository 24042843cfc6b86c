/**
 * Says whether a run is slower than an older one, from ratios to baselines of the same run only: machines and their load may
 * differ between the two. Pure.
 *
 * The rule, for each ratio that both have with the same parameters (docs/performance.md, "Comparing two runs"):
 *
 *     error  = standard error of the median, from the MAD of the repetitions
 *     noise  = 3 × √(error of the old² + error of the new²)
 *     loss   = 1 − new median ÷ old median
 *     best   = the same of the ratios of the fastest run to the fastest baseline run
 *
 *     regression   loss > 10 %, loss > noise and best > 10 %
 *     fine         otherwise, when loss + noise < 16.7 %: a slow-down by 20 % in time is excluded
 *     too noisy    otherwise
 */
import { type BenchDocument, keyOf, type RatioRecord } from './document.ts';
import { median, relativeErrorOfMedian } from './statistics.ts';

/** Smallest loss that counts: differences between runs that no repetition inside a run shows stay below it. */
export const lossMin = 0.1;

/** The loss that must not go unseen: what a slow-down by 20 % in time takes off a ratio. */
export const lossSeen = 1 - 1 / 1.2;

const noiseFactor = 3;

export type Verdict = 'fine' | 'regression' | 'noisy';

export interface Compared {
  readonly key: string;
  readonly record: RatioRecord;
  readonly oldMedian: number;
  readonly newMedian: number;
  /** Share of the old median; negative when the new one is better. */
  readonly loss: number;
  readonly noise: number;
  /** Loss of the fastest runs: others on the machine make runs slower, never faster. */
  readonly bestLoss: number;
  readonly verdict: Verdict;
}

export interface Comparison {
  readonly compared: readonly Compared[];
  /** Keys that only the old document has. */
  readonly missing: readonly string[];
  /** Keys that only the new document has. */
  readonly added: readonly string[];
  /** 0 nothing is slower, 1 something is, 4 too noisy to say. */
  readonly exitCode: 0 | 1 | 4;
}

/** Compares the ratios of two documents. */
export function compareDocuments(
  older: Pick<BenchDocument, 'ratios'>,
  newer: Pick<BenchDocument, 'ratios'>,
): Comparison {
  const oldRecords = new Map(older.ratios.map((record) => [keyOf(record), record]));
  const newRecords = new Map(newer.ratios.map((record) => [keyOf(record), record]));
  const compared: Compared[] = [];
  for (const [key, record] of newRecords) {
    const old = oldRecords.get(key);
    if (old !== undefined) compared.push(compareRatio(key, old, record));
  }
  return {
    compared,
    missing: [...oldRecords.keys()].filter((key) => !newRecords.has(key)),
    added: [...newRecords.keys()].filter((key) => !oldRecords.has(key)),
    exitCode: exitCodeOf(compared),
  };
}

function compareRatio(key: string, old: RatioRecord, record: RatioRecord): Compared {
  const oldMedian = median(old.ratios);
  const newMedian = median(record.ratios);
  const noise =
    noiseFactor * Math.hypot(relativeErrorOfMedian(old.ratios), relativeErrorOfMedian(record.ratios));
  const loss = 1 - newMedian / oldMedian;
  const bestLoss = 1 - bestRatio(record) / bestRatio(old);
  const verdict = verdictOf(loss, noise, bestLoss);
  return { key, record, oldMedian, newMedian, loss, noise, bestLoss, verdict };
}

function bestRatio({ subject, reference }: RatioRecord): number {
  return Math.min(...reference) / Math.min(...subject);
}

function verdictOf(loss: number, noise: number, bestLoss: number): Verdict {
  if (loss > lossMin && loss > noise && bestLoss > lossMin) return 'regression';
  return loss + noise < lossSeen ? 'fine' : 'noisy';
}

/** A regression is one also when other ratios are too noisy to say anything. */
function exitCodeOf(compared: readonly Compared[]): 0 | 1 | 4 {
  const verdicts = new Set(compared.map(({ verdict }) => verdict));
  if (verdicts.has('regression')) return 1;
  return verdicts.has('noisy') ? 4 : 0;
}
