/**
 * Memory of a process that saves or loads a large, mostly untouched guest. A process of its own, because peaks of this one would
 * hide it; the work is in footprint-child.ts.
 */
import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import type { Bench } from '../bench.ts';
import type { FigureName } from '../catalog.ts';
import { gibBytes } from '../guest.ts';

const guestBytes = 16 * gibBytes;
const residentBytes = gibBytes / 4;
const runs = 3;
const checkpointName = 'footprint';

/** What one process did; its peak memory less the guest's, bytes. */
export interface Footprint {
  readonly beyondBytes: number;
  readonly guestResidentBytes: number;
}

export type FootprintWork = 'idle' | 'save' | 'load';

export async function measureFootprint(bench: Bench): Promise<void> {
  if (!bench.wants('footprint.save', 'footprint.load')) return;
  const threads = Math.max(...bench.options.threads);
  const path = bench.scratch.path(checkpointName);
  const idle: number[] = [];
  const peaks = { save: [] as number[], load: [] as number[] };
  try {
    for (let run = 0; run <= runs; run += 1) {
      idle.push(await footprintOf('idle', path, threads));
      if (run === runs) break;
      bench.scratch.remove(checkpointName);
      peaks.save.push(await footprintOf('save', path, threads));
      peaks.load.push(await footprintOf('load', path, threads));
    }
  } finally {
    bench.scratch.remove(checkpointName);
  }
  const parameters = { memory: 'mostly untouched', bytes: guestBytes, resident: residentBytes, threads };
  for (const work of ['save', 'load'] as const) {
    const name: FigureName = `footprint.${work}`;
    if (!bench.wants(name)) continue;
    bench.ratio({ name, baseline: 'idle process', parameters, cost: 'bytes' }, peaks[work], idle);
    bench.value({ name: `${name}.bytes`, parameters, unit: 'bytes' }, peaks[work]);
  }
}

async function footprintOf(work: FootprintWork, path: string, threads: number): Promise<number> {
  const program = fileURLToPath(new URL('../footprint-child.js', import.meta.url));
  const args = [program, work, path, String(guestBytes), String(residentBytes), String(threads)];
  const { stdout } = await promisify(execFile)(process.execPath, args);
  return (JSON.parse(stdout) as Footprint).beyondBytes;
}
