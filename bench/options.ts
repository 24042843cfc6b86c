/** The command line of the benchmark. */
import { availableParallelism } from 'node:os';
import { parseArgs } from 'node:util';
import { figureNames, isSelected } from './catalog.ts';

export interface BenchOptions {
  /** Fewest repetitions of every subject. */
  readonly runs: number;
  /** Repetitions go on for at least this long, seconds: other people's work comes in bursts, and none should cover all. */
  readonly secondsMin: number;
  /** Repetitions where whole processes are started. */
  readonly commandRuns: number;
  /** Size of the generated memory, GiB. */
  readonly gib: number;
  readonly threads: readonly number[];
  /** RAM image to use beside the generated memory; `undefined` looks for the corpus. */
  readonly image: string | undefined;
  /** Figures or groups of figures; empty means all. */
  readonly only: readonly string[];
  readonly quick: boolean;
  /** Folder for checkpoints and image files, on a tmpfs. */
  readonly scratch: string;
  readonly json: string | undefined;
  readonly compare: string | undefined;
  /** Compares this document instead of measuring. */
  readonly from: string | undefined;
  readonly list: boolean;
  readonly help: boolean;
}

/** Wrong use: exit code 2. */
export class UsageError extends Error {}

export const usage = `usage: npm run bench -- [options]

  --quick          small memory, most threads only, five runs: for CI, about two minutes
  --runs N         fewest repetitions, 3 to 99; default 7, 5 with --quick
  --seconds N      least time for each comparison, 0 to 600; default 8, 4 with --quick; short runs are repeated meanwhile
  --gib N          size of the generated memory, default 1, 0.5 with --quick
  --threads LIST   thread counts, default 1,2; the most of them with --quick
  --image FILE     RAM image to measure too; default bench/corpus/data/linux-2g.ram if present, none with --quick
  --only NAMES     figures or groups of figures, separated by commas: save.lz4.null,load
  --scratch DIR    where files are written, on a tmpfs; default /dev/shm
  --json FILE      write the results, docs/performance.md tells their form
  --compare FILE   compare with an older document: exit 0 nothing slower, 1 regression, 4 too noisy to say
  --from FILE      with --compare: take this document as the new one instead of measuring
  --list           print the figures with their baselines and targets
  --help           print this

Exit codes: 0 done, 1 a figure is slower than in the --compare document, or a measurement failed, 2 wrong use, 4 too noisy.
`;

/** The smallest generated memory that still has all kinds of pages in several groups. */
const gibMin = 1 / 16;
const gibMax = 64;
const runsMin = 3;
const runsMax = 99;
const secondsMax = 600;
const commandRunsMax = 5;

export function parseOptions(args: readonly string[]): BenchOptions {
  const values = parseValues(args);
  const quick = values.quick ?? false;
  const runs = integer(values.runs ?? (quick ? '5' : '7'), runsMin, runsMax, '--runs');
  const only = (values.only ?? '').split(',').filter((name) => name !== '');
  for (const wanted of only) {
    if (!figureNames.some((name) => isSelected(name, [wanted])))
      throw new UsageError(`--only: there is no figure ${wanted}; --list prints them`);
  }
  if (values.from !== undefined && values.compare === undefined) {
    throw new UsageError('--from goes with --compare');
  }
  return {
    runs,
    secondsMin: integer(values.seconds ?? (quick ? '4' : '8'), 0, secondsMax, '--seconds'),
    commandRuns: Math.min(runs, commandRunsMax),
    gib: memoryGib(values.gib ?? (quick ? '0.5' : '1')),
    threads: threadCounts(values.threads, quick),
    image: values.image,
    only,
    quick,
    scratch: values.scratch ?? '/dev/shm',
    json: values.json,
    compare: values.compare,
    from: values.from,
    list: values.list ?? false,
    help: values.help ?? false,
  };
}

function parseValues(args: readonly string[]) {
  const text = { type: 'string' } as const;
  const flag = { type: 'boolean' } as const;
  try {
    return parseArgs({
      args: [...args],
      options: {
        quick: flag,
        runs: text,
        seconds: text,
        gib: text,
        threads: text,
        image: text,
        only: text,
        scratch: text,
        json: text,
        compare: text,
        from: text,
        list: flag,
        help: flag,
      },
    }).values;
  } catch (error) {
    throw new UsageError((error as Error).message);
  }
}

function threadCounts(list: string | undefined, quick: boolean): number[] {
  if (list !== undefined) {
    const counts = list.split(',').map((text) => integer(text, 1, 64, '--threads'));
    return [...new Set(counts)].sort((a, b) => a - b);
  }
  const most = Math.min(2, availableParallelism());
  return quick || most === 1 ? [most] : [1, most];
}

function memoryGib(text: string): number {
  const gib = Number(text);
  if (text.trim() === '' || !(gib >= gibMin && gib <= gibMax)) {
    throw new UsageError(`--gib: ${gibMin} to ${gibMax} expected, not ${text}`);
  }
  return gib;
}

function integer(text: string, least: number, most: number, name: string): number {
  const value = Number(text);
  if (text.trim() !== '' && Number.isInteger(value) && value >= least && value <= most) return value;
  throw new UsageError(`${name}: an integer from ${least} to ${most} expected, not ${text}`);
}
