/** What a synthetic machine can be asked to be, checked. */
import type { RegionSpec } from '../../index.ts';
import { threadsMax } from '../../limits.ts';

/** Which pages the writers choose. `hotspot`: nine writes of ten go to a tenth of the pages. */
export type WritePattern = 'sequential' | 'random' | 'hotspot';

export interface SyntheticVmOptions {
  /** Identity of the machine; default `synthetic`. */
  readonly id?: string | undefined;
  /** Default: Synthetic, SVM-1. */
  readonly cpu?: { readonly vendor: string; readonly model: string } | undefined;
  /** Processors, default 1. They are state only: `threads` say how many threads write. */
  readonly cores?: number | undefined;
  /** Drives of the disk controller, default 2. */
  readonly drives?: number | undefined;
  /** Region table; default one region at 0 of `memoryBytes`. */
  readonly regions?: readonly RegionSpec[] | undefined;
  /** Bytes of memory when no regions are given, a multiple of 4096; default 64 MiB. */
  readonly memoryBytes?: bigint | number | undefined;
  /** Fill memory with the page mix of a booted Linux guest; default false: memory is zero. */
  readonly guestLike?: boolean | undefined;
  /** Threads that write while the machine runs, 1 to 64; default 1. */
  readonly threads?: number | undefined;
  /** Pages they write in a second, all together; 0: as many as they can. Default 10,000. */
  readonly pagesPerSecond?: number | undefined;
  /** Default `random`. */
  readonly pattern?: WritePattern | undefined;
  /** Of memory and of the writers; default 1. */
  readonly seed?: bigint | number | undefined;
  /** The pages that the writers touch, numbered through all regions; default all. */
  readonly writePages?: { readonly first: number; readonly count: number } | undefined;
}

/** Every option with its value. */
export interface SyntheticConfiguration {
  readonly id: string;
  readonly cpu: { readonly vendor: string; readonly model: string };
  readonly cores: number;
  readonly drives: number;
  readonly regions: readonly RegionSpec[];
  readonly guestLike: boolean;
  readonly threads: number;
  readonly pagesPerSecond: number;
  /** As the addon counts them. */
  readonly pattern: number;
  readonly seed: bigint;
}

const patterns: readonly WritePattern[] = ['sequential', 'random', 'hotspot'];

const coresMax = 1024;
const drivesMax = 64;

/** Throws `TypeError` and `RangeError`; regions are checked where the memory is allocated. */
export function configurationOf(options: SyntheticVmOptions): SyntheticConfiguration {
  const { id = 'synthetic', cpu = { vendor: 'Synthetic', model: 'SVM-1' }, pattern = 'random' } = options;
  if (typeof id !== 'string' || id === '') throw new TypeError('id must be a string, not empty');
  if (typeof cpu?.vendor !== 'string' || typeof cpu.model !== 'string') {
    throw new TypeError('cpu must have a vendor and a model');
  }
  if (!patterns.includes(pattern)) throw new TypeError(`unknown pattern ${String(pattern)}`);
  const { memoryBytes, regions } = options;
  if (regions !== undefined && memoryBytes !== undefined)
    throw new TypeError('regions or memoryBytes, not both');
  return {
    id,
    cpu: { vendor: cpu.vendor, model: cpu.model },
    cores: checkWhole(options.cores ?? 1, 0, coresMax, 'cores'),
    drives: checkWhole(options.drives ?? 2, 0, drivesMax, 'drives'),
    regions: regions ?? [{ base: 0n, bytes: memoryBytes ?? 64 * 1024 * 1024 }],
    guestLike: options.guestLike ?? false,
    threads: checkWhole(options.threads ?? 1, 1, threadsMax, 'threads'),
    pagesPerSecond: checkWhole(options.pagesPerSecond ?? 10_000, 0, 2 ** 31, 'pagesPerSecond'),
    pattern: patterns.indexOf(pattern),
    seed: checkSeed(options.seed ?? 1n),
  };
}

/** The pages that are written, for a memory of `pageCount` pages. Throws `RangeError`. */
export function writePagesOf(
  { writePages }: SyntheticVmOptions,
  pageCount: number,
): { firstPage: number; pageCount: number } {
  if (writePages === undefined) return { firstPage: 0, pageCount };
  const firstPage = checkWhole(writePages.first, 0, pageCount - 1, 'writePages.first');
  return { firstPage, pageCount: checkWhole(writePages.count, 1, pageCount - firstPage, 'writePages.count') };
}

function checkSeed(seed: bigint | number): bigint {
  const word = BigInt(seed);
  if (word < 0n || word >= 1n << 64n)
    throw new RangeError('seed must be an integer of 64 bits, not negative');
  return word;
}

function checkWhole(value: number, least: number, most: number, name: string): number {
  if (!Number.isInteger(value) || value < least || value > most) {
    throw new RangeError(`${name} must be a whole number from ${least} to ${most}`);
  }
  return value;
}
