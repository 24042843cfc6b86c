import { describe, expect, test } from 'vitest';
import { compareDocuments, lossMin, type Verdict } from '../../bench/compare.ts';
import { documentOf, normal, ratioRecord, uniform } from './ratio-document.ts';

const trialCount = 1000;

/** Shares of the verdicts over many pairs of runs whose ratios scatter normally by `deviation`. */
function verdictShares(slowdown: number, deviation: number, runs: number): Record<Verdict, number> {
  const next = normal(uniform(runs * 1000 + Math.round(deviation * 1e4)));
  const run = (center: number) =>
    documentOf(ratioRecord(Array.from({ length: runs }, () => center * Math.exp(deviation * next()))));
  const shares = { fine: 0, regression: 0, noisy: 0 };
  for (let trial = 0; trial < trialCount; trial += 1) {
    const [row] = compareDocuments(run(0.95), run(0.95 / slowdown)).compared;
    shares[row?.verdict ?? 'noisy'] += 1 / trialCount;
  }
  return shares;
}

describe('comparer', () => {
  test.each([
    [0.01, 5],
    [0.01, 7],
    [0.02, 7],
    [0.03, 7],
  ])('a planted slow-down by 20 %% is named when ratios scatter by %d in %d runs', (deviation, runs) => {
    expect(verdictShares(1.2, deviation, runs).regression).toBeGreaterThan(0.98);
    expect(verdictShares(1, deviation, runs).fine).toBeGreaterThan(0.98);
  });

  test.each([0.03, 0.05, 0.08, 0.12, 0.2, 0.4])(
    'a planted slow-down by 20 %% passes as fine in fewer than 3 of 100 comparisons, however noisy (%d)',
    (deviation) => {
      for (const runs of [5, 7, 9]) expect(verdictShares(1.2, deviation, runs).fine).toBeLessThan(0.03);
    },
  );

  test.each([0.03, 0.05, 0.08, 0.12, 0.2, 0.4])(
    'equal speed is called slower in fewer than 3 of 100 comparisons, however noisy (%d)',
    (deviation) => {
      for (const runs of [5, 7, 9]) expect(verdictShares(1, deviation, runs).regression).toBeLessThan(0.03);
    },
  );

  test('the same run compared with itself is fine', () => {
    const run = documentOf(ratioRecord([0.94, 0.95, 0.95, 0.96, 0.97]));
    expect(compareDocuments(run, run)).toMatchObject({ exitCode: 0, missing: [], added: [] });
  });

  test('a slow-down by 20 % is exit code 1 and names figure, baseline and parameters', () => {
    const older = documentOf(
      ratioRecord([0.94, 0.95, 0.95, 0.96, 0.95]),
      ratioRecord([0.8, 0.81, 0.8, 0.79, 0.8], { name: 'load.lz4.file', baseline: 'liblz4 decode' }),
    );
    const newer = documentOf(
      ratioRecord([0.95, 0.94, 0.95, 0.95, 0.96]),
      ratioRecord(
        [0.8, 0.81, 0.8, 0.79, 0.8].map((ratio) => ratio / 1.2),
        {
          name: 'load.lz4.file',
          baseline: 'liblz4 decode',
        },
      ),
    );
    const comparison = compareDocuments(older, newer);
    expect(comparison.exitCode).toBe(1);
    expect(
      comparison.compared.filter(({ verdict }) => verdict === 'regression').map(({ key }) => key),
    ).toEqual(['load.lz4.file liblz4 decode bytes=1024 memory=generated threads=2']);
  });

  test('a loss up to 10 % is fine, a larger one is not, when nothing scatters', () => {
    const older = documentOf(ratioRecord([1, 1, 1]));
    const verdict = (ratio: number) =>
      compareDocuments(older, documentOf(ratioRecord([ratio, ratio, ratio]))).compared[0]?.verdict;
    expect(verdict(1 - lossMin + 1e-9)).toBe('fine');
    expect(verdict(1 - lossMin - 1e-9)).toBe('regression');
  });

  test('ratios that scatter too much are exit code 4', () => {
    const noisy = documentOf(ratioRecord([0.5, 0.7, 0.95, 1.2, 1.5]));
    expect(compareDocuments(noisy, noisy).exitCode).toBe(4);
  });

  test('two runs have no spread: too noisy to say', () => {
    const short = documentOf(ratioRecord([0.95, 0.95]));
    expect(compareDocuments(short, short).exitCode).toBe(4);
  });

  test('a large loss is a regression in spite of noise, and counts more than noise elsewhere', () => {
    const scatter = [0.8, 0.9, 1, 1.1, 1.2];
    const quiet = { name: 'save.raw.null', baseline: 'memcpy' };
    const older = documentOf(ratioRecord(scatter), ratioRecord([0.5, 0.7, 0.95, 1.2, 1.5], quiet));
    const newer = documentOf(
      ratioRecord(scatter.map((ratio) => ratio / 4)),
      ratioRecord([0.5, 0.7, 0.95, 1.2, 1.5], quiet),
    );
    const { compared, exitCode } = compareDocuments(older, newer);
    expect(compared.map(({ verdict }) => verdict)).toEqual(['regression', 'noisy']);
    expect(exitCode).toBe(1);
  });

  test('what only slow runs have lost is noise: the fastest runs must be slower too', () => {
    const older = documentOf(ratioRecord([0.94, 0.95, 0.95, 0.96, 0.95]));
    const disturbed = documentOf(ratioRecord([0.7, 0.7, 0.95, 0.7, 0.7]));
    const slower = documentOf(ratioRecord([0.7, 0.7, 0.75, 0.7, 0.7]));
    expect(compareDocuments(older, disturbed).exitCode).toBe(4);
    expect(compareDocuments(older, slower).exitCode).toBe(1);
  });

  test('being faster is fine, also when it scatters', () => {
    const older = documentOf(ratioRecord([0.9, 0.95, 1, 1.05, 1.1]));
    const newer = documentOf(ratioRecord([1.8, 1.9, 2, 2.1, 2.2]));
    expect(compareDocuments(older, newer).exitCode).toBe(0);
  });

  test('ratios with other parameters are not compared but named', () => {
    const one = { parameters: { memory: 'generated', bytes: 1024, threads: 1 } };
    const older = documentOf(ratioRecord([1, 1, 1]), ratioRecord([1, 1, 1], one));
    const newer = documentOf(
      ratioRecord([1, 1, 1]),
      ratioRecord([0.1, 0.1, 0.1], { parameters: { memory: 'generated', bytes: 2048, threads: 1 } }),
    );
    expect(compareDocuments(older, newer)).toMatchObject({
      exitCode: 0,
      missing: ['save.lz4.null liblz4 bytes=1024 memory=generated threads=1'],
      added: ['save.lz4.null liblz4 bytes=2048 memory=generated threads=1'],
    });
  });
});
