/**
 * Medians and spreads of a few repetitions, made for machines that others use too: one slow run in seven must move nothing.
 * Everything here is pure; samples are finite and not empty.
 */

export interface Summary {
  readonly median: number;
  /** Median of the absolute deviations from the median. */
  readonly mad: number;
  readonly min: number;
  readonly max: number;
}

export function median(samples: readonly number[]): number {
  if (samples.length === 0) throw new RangeError('the median of nothing');
  const sorted = [...samples].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  const upper = sorted[middle] as number;
  return sorted.length % 2 === 1 ? upper : ((sorted[middle - 1] as number) + upper) / 2;
}

export function summarize(samples: readonly number[]): Summary {
  const center = median(samples);
  return {
    median: center,
    mad: median(samples.map((sample) => Math.abs(sample - center))),
    min: Math.min(...samples),
    max: Math.max(...samples),
  };
}

/** Makes the MAD of normally distributed samples an estimate of their standard deviation. */
const madToDeviation = 1.4826;

/** What few samples make the MAD too small by, for 2 to 9 of them (Croux and Rousseeuw, 1992). */
const smallSampleFactors: readonly number[] = [1.196, 1.495, 1.363, 1.206, 1.2, 1.14, 1.129, 1.107];

/** Standard error of a median in units of the standard error of a mean. */
const medianPenalty = 1.2533;

/** Standard error of the median as a share of the median. Infinite below three samples: they have no spread to speak of. */
export function relativeErrorOfMedian(samples: readonly number[]): number {
  const count = samples.length;
  if (count < 3) return Number.POSITIVE_INFINITY;
  const { median: center, mad } = summarize(samples);
  const factor = smallSampleFactors[count - 2] ?? count / (count - 0.8);
  return (medianPenalty * madToDeviation * factor * mad) / Math.sqrt(count) / Math.abs(center);
}
