/** Saves as a gem5 checkpoint and loads of one, beside the tools that compress the same RAM image to the same format. */
import { rmSync } from 'node:fs';
import { loadVm } from '../../src/checkpoint/load-vm.ts';
import { saveVm } from '../../src/checkpoint/save-vm.ts';
import { type Bench, timed } from '../bench.ts';
import type { FigureName } from '../catalog.ts';
import { commandVersion, timeCommand } from '../commands.ts';
import { type Guest, untouchedGuest, writeImage } from '../guest.ts';
import type { Cost } from '../interleave.ts';
import { machineOf } from '../memory-machine.ts';
import { fixedIdentity } from './encode.ts';

const names = { image: 'gem5.ram', packed: 'gem5.ram.gz', checkpoint: 'gem5.cpt' };
const wanted: readonly FigureName[] = ['save.gem5', 'load.gem5'];

export async function measureGem5(bench: Bench, guest: Guest): Promise<void> {
  if (!bench.wants(...wanted)) return;
  const { scratch } = bench;
  const { facts } = guest;
  // The image twice, as the decompressor leaves it, and what a load of ours decodes into.
  if (scratch.freeBytes() < 3 * facts.bytes) {
    bench.skip(`gem5, ${facts.memory}`, `less than ${3 * facts.bytes} bytes free in the scratch folder`);
    return;
  }
  if ((await commandVersion('gzip')) === undefined) {
    bench.skip('gem5', 'there is no gzip command on this machine');
    return;
  }
  await writeImage(guest.memory, scratch.path(names.image));
  try {
    await measureSaves(bench, guest);
    await measureLoads(bench, guest);
  } finally {
    for (const name of Object.values(names)) removeAll(bench, name);
  }
}

/** One thread beside gzip, which has one; all of them beside pigz with as many. */
async function measureSaves(bench: Bench, guest: Guest): Promise<void> {
  const { facts } = guest;
  const most = Math.max(...bench.options.threads);
  const hasPigz = (await commandVersion('pigz')) !== undefined;
  if (!hasPigz) bench.skip('pigz -1', 'there is no pigz command on this machine');
  for (const threads of new Set([1, ...(hasPigz ? [most] : [])])) {
    const tool = threads === 1 ? ['gzip', '-1'] : ['pigz', '-1', '-p', `${threads}`];
    await bench.contest({
      parameters: { memory: facts.memory, bytes: facts.bytes, content: facts.content, threads },
      memoryBytes: facts.bytes,
      warm: { fileBytes: facts.bytes },
      runs: bench.options.commandRuns,
      baselines: { [threads === 1 ? 'gzip -1' : 'pigz -1']: () => pack(bench, tool) },
      subjects: { 'save.gem5': () => save(bench, guest, threads) },
    });
  }
}

async function measureLoads(bench: Bench, guest: Guest): Promise<void> {
  if (!bench.wants('load.gem5')) return;
  const { scratch, options } = bench;
  const { facts } = guest;
  const threads = Math.max(...options.threads);
  await saveVm(guest.vm, urlOf(bench), { ...fixedIdentity, threads });
  await timeCommand('gzip', ['-1', '-k', '-f', scratch.path(names.image)]);
  await bench.contest({
    parameters: { memory: facts.memory, bytes: facts.bytes, content: facts.content, threads },
    memoryBytes: facts.bytes,
    warm: { memoryBytes: facts.bytes, fileBytes: facts.bytes },
    runs: options.commandRuns,
    baselines: {
      'gzip -d': () => {
        scratch.remove(names.image);
        return timeCommand('gzip', ['-d', '-k', '-f', scratch.path(names.packed)]);
      },
    },
    subjects: {
      'load.gem5': async () => {
        const memory = untouchedGuest(facts.bytes);
        try {
          return await timed(() => loadVm(machineOf(memory), urlOf(bench), { threads }));
        } finally {
          await memory.close();
        }
      },
    },
  });
}

async function save(bench: Bench, { vm }: Guest, threads: number): Promise<Cost> {
  let bytes = 0;
  const cost = await timed(async () => {
    bytes = (await saveVm(vm, urlOf(bench), { ...fixedIdentity, threads })).checkpointBytes;
  });
  removeAll(bench, names.checkpoint);
  return { ...cost, bytes };
}

async function pack(bench: Bench, [command = '', ...args]: readonly string[]): Promise<Cost> {
  const cost = await timeCommand(command, [...args, '-k', '-f', bench.scratch.path(names.image)]);
  bench.scratch.remove(names.packed);
  return cost;
}

function urlOf(bench: Bench): string {
  return `gem5:${bench.scratch.path(names.checkpoint)}`;
}

function removeAll(bench: Bench, name: string): void {
  rmSync(bench.scratch.path(name), { recursive: true, force: true });
}
