import { describe, expect, test } from 'vitest';
import { compareDocuments } from '../../bench/compare.ts';
import { bracketedRatios } from '../../bench/document.ts';
import { type Cost, interleave } from '../../bench/interleave.ts';
import { median } from '../../bench/statistics.ts';
import { documentOf, ratioRecord } from './ratio-document.ts';

/** A machine whose speed changes with every call: contenders take `work` times how slow it is just then. */
function machine(slowness: (call: number) => number) {
  let call = 0;
  return (work: number) => async (): Promise<Cost> => {
    call += 1;
    return { seconds: work * slowness(call) };
  };
}

async function ratiosOn(slowness: (call: number) => number, subjectWork: number): Promise<number[]> {
  const contender = machine(slowness);
  const { baselines, subjects } = await interleave({
    baselines: [{ name: 'baseline', run: contender(1) }],
    subjects: [{ name: 'subject', run: contender(subjectWork) }],
    runs: 7,
  });
  const seconds = (costs: readonly Cost[] | undefined) => (costs ?? []).map((cost) => cost.seconds);
  return bracketedRatios(seconds(subjects.get('subject')), seconds(baselines.get('baseline')));
}

describe('interleaved runs', () => {
  test('every subject run stands between two runs of each baseline, after a round that is thrown away', async () => {
    const order: string[] = [];
    const contender = (name: string) => ({
      name,
      run: async () => {
        order.push(name);
        return { seconds: order.length };
      },
    });
    const { baselines, subjects } = await interleave({
      baselines: [contender('a'), contender('b')],
      subjects: [contender('x'), contender('y')],
      runs: 2,
      settle: () => void order.push('-'),
    });
    expect(order.join('')).toBe('-a-b-x-y-a-b-x-y-a-b-x-y-a-b');
    const seconds = [...baselines, ...subjects].map(([name, costs]) => [name, costs.length]);
    expect(seconds).toEqual([
      ['a', 3],
      ['b', 3],
      ['x', 2],
      ['y', 2],
    ]);
  });

  test('a machine that gets steadily slower does not change ratios', async () => {
    const steady = await ratiosOn(() => 1, 1.25);
    const drifting = await ratiosOn((call) => 1.07 ** call, 1.25);
    for (const [run, ratio] of drifting.entries()) expect(ratio).toBeCloseTo(steady[run] as number, 10);
    expect(median(steady)).toBeCloseTo(0.8, 10);
  });

  test('a slow-down by 20 % planted in a contender is caught from measurement to verdict on a machine that drifts', async () => {
    const drift = (call: number) => 1 + 0.3 * Math.sin(call / 5);
    const older = await ratiosOn(drift, 1.1);
    const newer = await ratiosOn((call) => 2 * drift(call + 3), 1.1 * 1.2);
    const unchanged = await ratiosOn((call) => 3 * drift(call + 9), 1.1);
    expect(compareDocuments(documentOf(ratioRecord(older)), documentOf(ratioRecord(newer))).exitCode).toBe(1);
    expect(
      compareDocuments(documentOf(ratioRecord(older)), documentOf(ratioRecord(unchanged))).exitCode,
    ).toBe(0);
  });

  test('short runs are repeated until the time is over, at most 99 times', async () => {
    const contender = machine(() => 1)(1);
    const plan = {
      baselines: [{ name: 'baseline', run: contender }],
      subjects: [{ name: 'subject', run: contender }],
      runs: 3,
      secondsMin: 3600,
    };
    const { baselines, subjects } = await interleave(plan);
    expect(subjects.get('subject')).toHaveLength(99);
    expect(baselines.get('baseline')).toHaveLength(100);
  });

  test('a run that took no time is an error, not an infinite speed', async () => {
    const frozen = { name: 'frozen', run: async () => ({ seconds: 0 }) };
    await expect(interleave({ baselines: [frozen], subjects: [], runs: 1 })).rejects.toThrow(
      'frozen took 0 s',
    );
  });
});
