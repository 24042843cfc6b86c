import { availableParallelism } from 'node:os';
import { describe, expect, test } from 'vitest';
import { figureNames, isSelected, limitsFor } from '../../bench/catalog.ts';
import { parseOptions, UsageError } from '../../bench/options.ts';

describe('options of the benchmark', () => {
  test('defaults: seven runs over 1 GiB; --quick: five over half of it, most threads only', () => {
    const most = Math.min(2, availableParallelism());
    expect(parseOptions([])).toMatchObject({ runs: 7, commandRuns: 5, gib: 1, only: [], quick: false });
    expect(parseOptions(['--quick'])).toMatchObject({ runs: 5, gib: 0.5, threads: [most] });
    expect(parseOptions(['--quick', '--runs', '9', '--gib', '2'])).toMatchObject({ runs: 9, gib: 2 });
  });

  test('thread counts are sorted and stand once', () => {
    expect(parseOptions(['--threads', '4,1,4']).threads).toEqual([1, 4]);
  });

  test.each([
    [['--runs', '2']],
    [['--runs', '7.5']],
    [['--seconds', '-1']],
    [['--gib', '0']],
    [['--gib', 'much']],
    [['--threads', '0']],
    [['--threads', '1,65']],
    [['--threads', '']],
    [['--only', 'save.lz5']],
    [['--from', 'new.json']],
    [['--unknown']],
    [['stray']],
  ])('%j is wrong use', (args) => {
    expect(() => parseOptions(args)).toThrow(UsageError);
  });
});

describe('selection of figures', () => {
  test('a group selects its figures, a figure selects what it is measured with, nothing selects everything', () => {
    expect(figureNames.filter((name) => isSelected(name, ['save.raw']))).toEqual([
      'save.raw.null',
      'save.raw.file',
    ]);
    expect(figureNames.filter((name) => isSelected(name, ['save.lz4.file.size']))).toEqual([
      'save.lz4.file',
      'save.lz4.file.size',
    ]);
    expect(figureNames.filter((name) => isSelected(name, []))).toEqual(figureNames);
    expect(isSelected('save.lz4.null', ['save.lz'])).toBe(false);
  });

  test('a target for two threads says nothing about one', () => {
    expect(limitsFor({ atLeast: 0.7, threadsMin: 2 }, 1)).toBeUndefined();
    expect(limitsFor({ atLeast: 0.7, threadsMin: 2 }, 2)).toEqual({ atLeast: 0.7 });
  });
});
