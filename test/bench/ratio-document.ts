/** Documents with ratios that are known, for tests of the comparer. */
import {
  type BenchDocument,
  documentSchema,
  documentVersion,
  type RatioRecord,
} from '../../bench/document.ts';
import { summarize } from '../../bench/statistics.ts';

export function ratioRecord(ratios: readonly number[], change: Partial<RatioRecord> = {}): RatioRecord {
  return {
    name: 'save.lz4.null',
    baseline: 'liblz4',
    parameters: { memory: 'generated', bytes: 1024, threads: 2 },
    cost: 'seconds',
    memoryBytes: 1024,
    subject: ratios.map((ratio) => 1 / ratio),
    reference: [1, ...ratios.map(() => 1)],
    ratios,
    summary: summarize(ratios),
    ...change,
  };
}

export function documentOf(...ratios: readonly RatioRecord[]): BenchDocument {
  return {
    schema: documentSchema,
    version: documentVersion,
    startedAt: '2026-01-01T00:00:00.000Z',
    elapsedSeconds: 1,
    options: { runs: 7, commandRuns: 5, gib: 1 },
    machine: { cpu: 'test' },
    memories: [],
    ratios,
    values: [],
    skipped: [],
  };
}

/** Numbers from 0 to 1, the same for the same seed (mulberry32). */
export function uniform(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** Normally distributed numbers. */
export function normal(random: () => number): () => number {
  return () => Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random());
}
