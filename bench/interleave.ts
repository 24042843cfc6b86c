/**
 * Runs contenders in turns, baselines and subjects one after the other in every round, so that whatever else the machine does
 * slows all of them down. After the last round the baselines run once more: every subject run has a baseline run on each side.
 *
 * One round comes first and is thrown away: it touches memory, fills caches and compiles.
 */

import { performance } from 'node:perf_hooks';

/** Most rounds, however short they are. */
const runsMax = 99;

/** What one run cost. */
export interface Cost {
  readonly seconds: number;
  /** CPU time of all threads of this process, where the run is nothing but the work. */
  readonly cpuSeconds?: number;
  /** Bytes it produced, where that is measured. */
  readonly bytes?: number;
}

export interface Contender<Name extends string = string> {
  readonly name: Name;
  run(): Promise<Cost>;
}

export interface Contest<Baseline extends string, Subject extends string> {
  readonly baselines: readonly Contender<Baseline>[];
  readonly subjects: readonly Contender<Subject>[];
  /** Fewest rounds. */
  readonly runs: number;
  /** Rounds go on until this much time has passed: short runs are repeated more often. Default 0. */
  readonly secondsMin?: number;
  /** Before each run, not timed. */
  readonly settle?: () => void | Promise<void>;
}

export interface ContestResult<Baseline extends string, Subject extends string> {
  /** One run more than rounds. */
  readonly baselines: ReadonlyMap<Baseline, readonly Cost[]>;
  readonly subjects: ReadonlyMap<Subject, readonly Cost[]>;
}

export async function interleave<Baseline extends string, Subject extends string>(
  contest: Contest<Baseline, Subject>,
): Promise<ContestResult<Baseline, Subject>> {
  const { baselines, subjects, runs, secondsMin = 0, settle } = contest;
  const results = {
    baselines: new Map<Baseline, Cost[]>(baselines.map(({ name }) => [name, []])),
    subjects: new Map<Subject, Cost[]>(subjects.map(({ name }) => [name, []])),
  };
  const time = async (contender: Contender): Promise<Cost> => {
    await settle?.();
    return checkCost(contender.name, await contender.run());
  };
  for (const contender of [...baselines, ...subjects]) await time(contender);
  const begin = performance.now();
  for (let round = 0; ; round += 1) {
    for (const contender of baselines) results.baselines.get(contender.name)?.push(await time(contender));
    const isLong = performance.now() - begin >= 1000 * secondsMin || round === runsMax;
    if (round >= runs && isLong) return results;
    for (const contender of subjects) results.subjects.get(contender.name)?.push(await time(contender));
  }
}

function checkCost(name: string, cost: Cost): Cost {
  if (Number.isFinite(cost.seconds) && cost.seconds > 0) return cost;
  throw new Error(`${name} took ${cost.seconds} s, which cannot be`);
}
