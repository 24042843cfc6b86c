/** What it costs to bring a checkpoint into another store, verified on both sides, beside a load and a save of the same machine. */
import { rmSync } from 'node:fs';
import { convertCheckpoint } from '../../src/checkpoint/convert.ts';
import { loadVm } from '../../src/checkpoint/load-vm.ts';
import { saveVm } from '../../src/checkpoint/save-vm.ts';
import { type Bench, timed } from '../bench.ts';
import { type Guest, untouchedGuest } from '../guest.ts';
import type { Cost } from '../interleave.ts';
import { machineOf } from '../memory-machine.ts';
import { fixedIdentity } from './encode.ts';

const sources = [
  { scheme: 'file', figure: 'convert.file' },
  { scheme: 'gem5', figure: 'convert.gem5' },
] as const;

export async function measureConvert(bench: Bench, guest: Guest): Promise<void> {
  for (const { scheme, figure } of sources) {
    if (!bench.wants(figure)) continue;
    if (bench.scratch.freeBytes() < 3 * guest.facts.bytes) {
      bench.skip(figure, `less than ${3 * guest.facts.bytes} bytes free in the scratch folder`);
      continue;
    }
    await measureFrom(bench, guest, scheme, figure);
  }
}

async function measureFrom(
  bench: Bench,
  { facts, vm }: Guest,
  scheme: 'file' | 'gem5',
  figure: 'convert.file' | 'convert.gem5',
): Promise<void> {
  const threads = Math.max(...bench.options.threads);
  const [from, to] = [bench.scratch.path('convert.from'), bench.scratch.path('convert.to')];
  const [source, target] = [`${scheme}:${from}`, `file:${to}`];
  const remove = (path: string): void => rmSync(path, { recursive: true, force: true });
  const apart = async (): Promise<Cost> => {
    const memory = untouchedGuest(facts.bytes);
    const machine = machineOf(memory);
    try {
      return await timed(async () => {
        await loadVm(machine, source, { threads });
        await saveVm(machine, target, { threads });
      });
    } finally {
      remove(to);
      await memory.close();
    }
  };
  const convert = async (): Promise<Cost> => {
    const cost = await timed(() => convertCheckpoint(source, target, { threads }));
    remove(to);
    return cost;
  };
  await saveVm(vm, source, { ...fixedIdentity, threads });
  try {
    await bench.contest({
      parameters: { memory: facts.memory, bytes: facts.bytes, content: facts.content, threads },
      memoryBytes: facts.bytes,
      warm: { memoryBytes: facts.bytes, fileBytes: facts.bytes },
      runs: bench.options.commandRuns,
      baselines: { 'load and save': apart },
      subjects: { [figure]: convert },
    });
  } finally {
    remove(from);
    remove(to);
  }
}
