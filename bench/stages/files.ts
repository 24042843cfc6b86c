/** Saves to a file beside the tools that people use on RAM images, and beside the framing of the original. */
import { closeSync, existsSync, openSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { saveVm } from '../../src/checkpoint/save-vm.ts';
import { GuestMemory } from '../../src/memory/index.ts';
import { nativeAddon } from '../../src/native/index.ts';
import { packageRoot } from '../../src/util/package-root.ts';
import { type Bench, timed, withCpu } from '../bench.ts';
import type { Baseline, FigureName } from '../catalog.ts';
import { commandVersion, timeCommand } from '../commands.ts';
import { type Guest, writeImage } from '../guest.ts';
import type { Cost } from '../interleave.ts';
import { machineOf } from '../memory-machine.ts';
import { fixedIdentity } from './encode.ts';

const imageName = 'image.ram';
const checkpointName = 'checkpoint';
const outputName = 'output';

const wanted: readonly FigureName[] = [
  'save.lz4.file',
  'save.lz4.image',
  'save.lz4.command',
  'save.raw.file',
];

export async function measureFiles(bench: Bench, guest: Guest): Promise<void> {
  if (!bench.wants(...wanted)) return;
  const { scratch } = bench;
  const { facts } = guest;
  // Image, one raw checkpoint or Palacios stream, one LZ4 checkpoint or lz4 file at a time.
  if (scratch.freeBytes() < 3 * facts.bytes) {
    bench.skip(
      `save to files, ${facts.memory}`,
      `less than ${3 * facts.bytes} bytes free in the scratch folder`,
    );
    return;
  }
  await writeImage(guest.memory, scratch.path(imageName));
  try {
    await measureAll(bench, guest);
  } finally {
    for (const name of [imageName, checkpointName, outputName]) scratch.remove(name);
  }
}

async function measureAll(bench: Bench, guest: Guest): Promise<void> {
  const { options, scratch } = bench;
  const { facts } = guest;
  const threads = Math.max(...options.threads);
  await using image = await GuestMemory.openFiles([{ file: scratch.path(imageName) }]);
  await bench.contest({
    parameters: { memory: facts.memory, bytes: facts.bytes, content: facts.content, threads },
    memoryBytes: facts.bytes,
    warm: { fileBytes: facts.bytes },
    runs: options.commandRuns,
    baselines: await baselineRuns(bench, guest),
    subjects: {
      'save.lz4.file': () =>
        intoNewFile(bench, checkpointName, (path) =>
          timed(() => saveVm(guest.vm, `file:${path}`, { ...fixedIdentity, threads })),
        ),
      'save.lz4.image': () =>
        intoNewFile(bench, checkpointName, (path) =>
          timed(() => saveVm(machineOf(image), `file:${path}`, { ...fixedIdentity, threads })),
        ),
      'save.raw.file': () =>
        intoNewFile(bench, checkpointName, (path) =>
          timed(() => saveVm(guest.vm, `file:${path}`, { ...fixedIdentity, threads, codec: 'raw' })),
        ),
      ...commandRun(bench, threads),
    },
  });
}

type Runs<Name extends string> = Partial<Record<Name, () => Promise<Cost>>>;

async function baselineRuns(bench: Bench, { memory }: Guest): Promise<Runs<Baseline>> {
  const runs: Runs<Baseline> = {
    palacios: () =>
      intoNewFile(bench, outputName, async (path) => {
        const descriptor = openSync(path, 'wx', 0o600);
        try {
          return await withCpu(() => nativeAddon().bench.palaciosRecords(memory.native, descriptor));
        } finally {
          closeSync(descriptor);
        }
      }),
  };
  if ((await commandVersion('lz4')) === undefined) {
    bench.skip('lz4 -1', 'there is no lz4 command on this machine');
    return runs;
  }
  const image = bench.scratch.path(imageName);
  runs['lz4 -1'] = () =>
    intoNewFile(bench, outputName, (path) => timeCommand('lz4', ['-1', '-q', '-f', '-k', image, path]));
  return runs;
}

function commandRun(bench: Bench, threads: number): Runs<FigureName> {
  if (!bench.wants('save.lz4.command')) return {};
  const program = join(packageRoot(), 'dist', 'cli', 'main.js');
  if (!existsSync(program)) {
    bench.skip('save.lz4.command', 'dist/cli/main.js is not built');
    return {};
  }
  const image = bench.scratch.path(imageName);
  const args = [program, 'save', '--quiet', '--threads', String(threads), '--memory', image];
  return {
    'save.lz4.command': () =>
      intoNewFile(bench, checkpointName, (path) => timeCommand(process.execPath, [...args, `file:${path}`])),
  };
}

/** The file goes when it was written: all contenders write a new one. Its size goes with the cost. */
async function intoNewFile(
  { scratch }: Bench,
  name: string,
  run: (path: string) => Promise<Cost>,
): Promise<Cost> {
  const cost = await run(scratch.path(name));
  const bytes = statSync(scratch.path(name)).size;
  scratch.remove(name);
  return { ...cost, bytes };
}
