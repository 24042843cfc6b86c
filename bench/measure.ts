/** Measures everything that was asked for and makes the document of it. */
import { existsSync, statSync } from 'node:fs';
import { basename, join } from 'node:path';
import { performance } from 'node:perf_hooks';
import { pageBytes } from '../src/limits.ts';
import { nativeAddon } from '../src/native/index.ts';
import { packageRoot } from '../src/util/package-root.ts';
import { Bench } from './bench.ts';
import { figureNames } from './catalog.ts';
import { type BenchDocument, documentSchema, documentVersion } from './document.ts';
import { type Guest, generateGuest, gibBytes, readGuest } from './guest.ts';
import { availableMemoryBytes, describeMachine } from './machine.ts';
import { type BenchOptions, UsageError } from './options.ts';
import { Scratch } from './scratch.ts';
import { measureCancel } from './stages/cancel.ts';
import { measureConvert } from './stages/convert.ts';
import { measureDelta } from './stages/delta.ts';
import { measureEncode } from './stages/encode.ts';
import { measureFiles } from './stages/files.ts';
import { measureFootprint } from './stages/footprint.ts';
import { measureGem5 } from './stages/gem5.ts';
import { measureIncrement } from './stages/increment.ts';
import { measureLazy } from './stages/lazy.ts';
import { measureLive } from './stages/live.ts';
import { measureLoad } from './stages/load.ts';
import { measureLoop } from './stages/loop.ts';
import { measureRollback } from './stages/rollback.ts';
import { measureS3 } from './stages/s3.ts';
import { measureGuestScan, measureZeroScan } from './stages/scan.ts';
import { measureSeal } from './stages/seal.ts';
import { measureTrack } from './stages/track.ts';

const extentBytes = 2 * 1024 ** 2;
/** Guest, copy in plain pages that grows by doubling, checkpoint, image and outputs on a tmpfs: never more than this at once. */
const memoryFactor = 5.5;
/** Figures that need the content of a guest. */
const guestFigures = figureNames.filter((name) => !/^footprint|^track|^live|\.s3$|zero|untouched/.test(name));
const corpusImage = ['bench', 'corpus', 'data', 'linux-2g.ram'];

export async function measure(options: BenchOptions, tell: (line: string) => void): Promise<BenchDocument> {
  const startedAt = new Date().toISOString();
  const begin = performance.now();
  const machine = await describeMachine(nativeAddon());
  const scratch = new Scratch(options.scratch);
  try {
    const bench = new Bench(options, scratch, tell);
    if (!scratch.isTmpfs) tell(`${options.scratch} is no tmpfs: figures with files are those of its disk`);
    const bytes = Math.round((options.gib * gibBytes) / extentBytes) * extentBytes;
    const threads = Math.max(...options.threads);
    checkRoom(bytes);
    const image = imageOf(bench);
    await measureFootprint(bench);
    await measureZeroScan(bench, bytes);
    await measureTrack(bench, bytes);
    await measureLive(bench, bytes);
    await measureS3(bench);
    await measureGuest(bench, () => generateGuest(bytes, threads));
    if (image !== undefined) await measureGuest(bench, () => readGuest(image, threads));
    return {
      schema: documentSchema,
      version: documentVersion,
      startedAt,
      elapsedSeconds: (performance.now() - begin) / 1000,
      options: { runs: options.runs, commandRuns: options.commandRuns, gib: options.gib },
      machine: { ...machine, scratchIsTmpfs: String(scratch.isTmpfs) },
      memories: bench.memories,
      ratios: bench.ratios,
      values: bench.values,
      skipped: bench.skipped,
    };
  } finally {
    scratch.close();
  }
}

/** Every stage that goes over the content of a guest. */
async function measureGuest(bench: Bench, make: () => Promise<Guest>): Promise<void> {
  if (!bench.wants(...guestFigures)) return;
  const guest = await make();
  bench.memories.push(guest.facts);
  try {
    for (const stage of [
      measureGuestScan,
      measureEncode,
      measureLoad,
      measureFiles,
      measureSeal,
      measureGem5,
      measureConvert,
      measureIncrement,
      measureDelta,
      measureRollback,
      measureCancel,
      measureLazy,
      measureLoop,
    ]) {
      await stage(bench, guest);
      await bench.settle();
    }
  } finally {
    await guest.memory.close();
  }
}

/** The RAM image to measure, when there is one: checked before anything is measured. */
function imageOf(bench: Bench): string | undefined {
  const { image, quick } = bench.options;
  if (image !== undefined) {
    if (!existsSync(image)) throw new UsageError(`--image: there is no ${image}`);
    const { size } = statSync(image);
    if (size === 0 || size % pageBytes !== 0)
      throw new UsageError(`--image: ${image} is not made of whole pages`);
    checkRoom(size);
    return image;
  }
  const corpus = join(packageRoot(), ...corpusImage);
  if (quick || !existsSync(corpus)) return undefined;
  const needed = statSync(corpus).size * memoryFactor;
  if (needed <= availableMemoryBytes()) return corpus;
  bench.skip(basename(corpus), `needs ${gib(needed)} of memory, ${gib(availableMemoryBytes())} are free`);
  return undefined;
}

function checkRoom(bytes: number): void {
  const needed = bytes * memoryFactor;
  const available = availableMemoryBytes();
  if (needed <= available) return;
  throw new UsageError(
    `${gib(bytes)} of guest memory need ${gib(needed)} in all, ${gib(available)} are free`,
  );
}

function gib(bytes: number): string {
  return `${(bytes / gibBytes).toFixed(1)} GiB`;
}
