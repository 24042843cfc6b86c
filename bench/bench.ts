/** One run of the benchmark: its options, what was recorded so far, and how a contest becomes records. */
import { freemem } from 'node:os';
import { performance } from 'node:perf_hooks';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { nativeAddon } from '../src/native/index.ts';
import { type Baseline, type FigureName, figureOf, isSelected, limitsFor } from './catalog.ts';
import {
  bracketedRatios,
  type MemoryFacts,
  type Parameters,
  type RatioRecord,
  type Skipped,
  targetOf,
  type ValueRecord,
} from './document.ts';
import { type Contender, type Cost, interleave } from './interleave.ts';
import type { BenchOptions } from './options.ts';
import type { Scratch } from './scratch.ts';
import { summarize } from './statistics.ts';

/** What a run is about to touch for the first time, at most. */
export interface Warm {
  readonly memoryBytes?: number;
  readonly fileBytes?: number;
}

export interface ContestPlan {
  readonly parameters: Parameters & { readonly threads: number };
  /** Guest memory that each run goes through, bytes. */
  readonly memoryBytes: number;
  /** What each run takes of memory and of the scratch folder. */
  readonly warm?: Warm;
  /** Fewest repetitions. */
  readonly runs: number;
  readonly baselines: Partial<Record<Baseline, () => Promise<Cost>>>;
  readonly subjects: Partial<Record<FigureName, () => Promise<Cost>>>;
}

export class Bench {
  readonly options: BenchOptions;
  readonly scratch: Scratch;
  readonly ratios: RatioRecord[] = [];
  readonly values: ValueRecord[] = [];
  readonly skipped: Skipped[] = [];
  readonly memories: MemoryFacts[] = [];
  readonly #tell: (line: string) => void;
  readonly #collectGarbage: () => void;

  constructor(options: BenchOptions, scratch: Scratch, tell: (line: string) => void) {
    this.options = options;
    this.scratch = scratch;
    this.#tell = tell;
    setFlagsFromString('--expose-gc');
    this.#collectGarbage = runInNewContext('gc') as () => void;
  }

  /** Whether any of these figures is wanted. */
  wants(...names: readonly FigureName[]): boolean {
    return names.some((name) => isSelected(name, this.options.only));
  }

  skip(name: string, reason: string): void {
    this.#tell(`skipped ${name}: ${reason}`);
    this.skipped.push({ name, reason });
  }

  /**
   * Frees what earlier runs left behind, so that no run pays for it, and touches as much free memory as a run may take: a host
   * that takes back what its guest has freed makes the first touch several times dearer, whoever's it is.
   */
  async settle(warm: Warm = {}): Promise<void> {
    this.#collectGarbage();
    if (warm.fileBytes !== undefined) this.scratch.warm(Math.min(warm.fileBytes, freemem() / 2));
    const memoryBytes = Math.min(warm.memoryBytes ?? 0, Math.floor(freemem() / 2));
    if (memoryBytes > 0) await nativeAddon().bench.warm(memoryBytes);
  }

  /** Measures the wanted subjects beside their baselines and records the ratios. */
  async contest(plan: ContestPlan): Promise<void> {
    const subjects = contenders(plan.subjects).filter(({ name }) => this.wants(name));
    const needed = new Set(subjects.flatMap(({ name }) => Object.keys(figureOf(name).baselines)));
    const baselines = contenders(plan.baselines).filter(({ name }) => needed.has(name));
    if (subjects.length === 0 || baselines.length === 0) return;
    const begin = performance.now();
    const result = await interleave({
      baselines,
      subjects,
      runs: plan.runs,
      secondsMin: this.options.secondsMin,
      settle: () => this.settle(plan.warm),
    });
    for (const [name, costs] of result.subjects) {
      for (const [baseline, reference] of result.baselines) {
        if (baseline in figureOf(name).baselines) this.#record(name, baseline, plan, costs, reference);
      }
    }
    const seconds = (performance.now() - begin) / 1000;
    const names = subjects.map(({ name }) => name).join(', ');
    const { memory, threads } = plan.parameters;
    this.#tell(`${names}: ${memory}, threads: ${threads}, ${seconds.toFixed(0)} s`);
  }

  #record(
    name: FigureName,
    baseline: Baseline,
    { parameters, memoryBytes }: ContestPlan,
    subject: readonly Cost[],
    reference: readonly Cost[],
  ): void {
    const seconds = (costs: readonly Cost[]): number[] => costs.map((cost) => cost.seconds);
    const cpu = { ...cpuOf('subjectCpu', subject), ...cpuOf('referenceCpu', reference) };
    this.ratio(
      { name, baseline, parameters, cost: 'seconds', memoryBytes, ...cpu },
      seconds(subject),
      seconds(reference),
    );
    const sizeName = `${name}.size` as FigureName;
    const sizes = (costs: readonly Cost[]): number[] => costs.map(({ bytes }) => bytes ?? Number.NaN);
    const hasSizes = [...sizes(subject), ...sizes(reference)].every((bytes) => bytes > 0);
    if (hasSizes && baseline in (figureOf(sizeName)?.baselines ?? {})) {
      this.ratio({ name: sizeName, baseline, parameters, cost: 'bytes' }, sizes(subject), sizes(reference));
    }
  }

  /** Records a ratio; `reference` has one sample more than `subject`. */
  ratio(
    what: Pick<RatioRecord, 'cost' | 'memoryBytes' | 'subjectCpu' | 'referenceCpu'> & {
      readonly name: FigureName;
      readonly baseline: Baseline;
      readonly parameters: ContestPlan['parameters'];
    },
    subject: readonly number[],
    reference: readonly number[],
  ): void {
    const ratios = bracketedRatios(subject, reference);
    const summary = summarize(ratios);
    const limits = limitsFor(figureOf(what.name).baselines[what.baseline], what.parameters.threads);
    const target = targetOf(limits, summary.median);
    const record = { ...what, subject, reference, ratios, summary };
    this.ratios.push(target === undefined ? record : { ...record, target });
  }

  /** Records samples with a unit. */
  value(
    what: Pick<ValueRecord, 'parameters' | 'unit'> & { name: FigureName },
    samples: readonly number[],
  ): void {
    const summary = summarize(samples);
    const target = targetOf(figureOf(what.name).limits, summary.median);
    const record = { ...what, samples, summary };
    this.values.push(target === undefined ? record : { ...record, target });
  }
}

function contenders<Name extends string>(
  runs: Partial<Record<Name, () => Promise<Cost>>>,
): Contender<Name>[] {
  return (Object.keys(runs) as Name[]).map((name) => ({ name, run: runs[name] as () => Promise<Cost> }));
}

/** CPU seconds of all runs under a name, when all of them tell. */
function cpuOf<Name extends string>(name: Name, costs: readonly Cost[]): Partial<Record<Name, number[]>> {
  const seconds = costs.flatMap(({ cpuSeconds }) => (cpuSeconds === undefined ? [] : [cpuSeconds]));
  return seconds.length === costs.length ? ({ [name]: seconds } as Record<Name, number[]>) : {};
}

/** Wall and CPU time of a piece of work. */
export async function timed(work: () => PromiseLike<unknown>): Promise<Cost> {
  const begin = performance.now();
  const { cpuSeconds } = await withCpu(async () => {
    await work();
    return { seconds: 0 };
  });
  return { seconds: (performance.now() - begin) / 1000, cpuSeconds };
}

/** Adds the CPU time to a run that tells its own wall time. */
export async function withCpu<T extends Cost>(
  work: () => PromiseLike<T>,
): Promise<T & { cpuSeconds: number }> {
  const begin = process.cpuUsage();
  const cost = await work();
  const { user, system } = process.cpuUsage(begin);
  return { ...cost, cpuSeconds: (user + system) / 1e6 };
}
