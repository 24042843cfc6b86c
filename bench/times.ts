/** Times of runs in turns, as lines of text. */
import type { Cost } from './interleave.ts';
import { summarize } from './statistics.ts';

/** Median, least and greatest, milliseconds. */
export function timesOf(costs: readonly Cost[], digits = 0): string {
  const { median, min, max } = summarize(costs.map(({ seconds }) => 1000 * seconds));
  return `${median.toFixed(digits)} ms [${min.toFixed(digits)}–${max.toFixed(digits)}]`;
}

/** Each run against the geometric mean of the baseline runs beside it. */
export function shareOf(costs: readonly Cost[], baselines: readonly Cost[]): string {
  const shares = costs.map(({ seconds }, i) => {
    const [before, after] = [baselines[i], baselines[i + 1]].map((cost) => cost?.seconds ?? 0) as [
      number,
      number,
    ];
    return seconds / Math.sqrt(before * after);
  });
  const { median, min, max } = summarize(shares);
  return `${median.toFixed(2)} × [${min.toFixed(2)}–${max.toFixed(2)}]`;
}
