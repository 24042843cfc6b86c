import { describe, expect, test } from 'vitest';
import { median, relativeErrorOfMedian, summarize } from '../../bench/statistics.ts';
import { normal, uniform } from './ratio-document.ts';

describe('statistics', () => {
  test('the summary of a few samples is what one computes by hand', () => {
    expect(summarize([5, 1, 3, 2, 100])).toEqual({ median: 3, mad: 2, min: 1, max: 100 });
    expect(median([4, 1, 3, 2])).toBe(2.5);
    expect(() => median([])).toThrow(RangeError);
  });

  test('one wild sample moves neither the median nor its error', () => {
    const calm = [1, 1.01, 0.99, 1.02, 0.98, 1.01, 0.99];
    const wild = [1, 1.01, 0.99, 1.02, 0.98, 1.01, 50];
    expect(Math.abs(median(wild) - median(calm))).toBeLessThan(0.011);
    expect(relativeErrorOfMedian(wild)).toBeLessThan(2 * relativeErrorOfMedian(calm) + 0.01);
  });

  test.each([3, 5, 7, 9, 15])('the error of the median of %d samples is what medians scatter by', (count) => {
    const next = normal(uniform(count));
    const trials = Array.from({ length: 4000 }, () => {
      const samples = Array.from({ length: count }, () => 1 + 0.02 * next());
      return { median: median(samples), error: relativeErrorOfMedian(samples) };
    });
    const mean = (values: readonly number[]) => values.reduce((sum, value) => sum + value, 0) / values.length;
    const center = mean(trials.map((trial) => trial.median));
    const scatter = Math.sqrt(mean(trials.map((trial) => (trial.median - center) ** 2)));
    const claimed = mean(trials.map((trial) => trial.error));
    expect(claimed / scatter).toBeGreaterThan(0.85);
    expect(claimed / scatter).toBeLessThan(1.25);
  });

  test('fewer than three samples have an unknown error', () => {
    expect(relativeErrorOfMedian([1])).toBe(Number.POSITIVE_INFINITY);
    expect(relativeErrorOfMedian([1, 1])).toBe(Number.POSITIVE_INFINITY);
  });
});
