/** What it costs to take back the hundredth part of a guest, beside a load of the whole guest from the same place. */
import { loadVm } from '../../src/checkpoint/load-vm.ts';
import { CheckpointRing } from '../../src/checkpoint/ring.ts';
import { pageBytes } from '../../src/limits.ts';
import { GuestMemory } from '../../src/memory/index.ts';
import { type Bench, timed } from '../bench.ts';
import type { Guest } from '../guest.ts';
import type { Cost } from '../interleave.ts';
import { machineOf } from '../memory-machine.ts';

const changedShare = 0.01;
const blockPages = 16;

/** What a ring stores, and its stages: the same changes taken back out of compressed blocks and out of pages as they are. */
const codecs = [
  { codec: 'lz4', scattered: 'rollback.scattered', blocks: 'rollback.blocks' },
  { codec: 'raw', scattered: 'rollback.raw.scattered', blocks: 'rollback.raw.blocks' },
] as const;

export async function measureRollback(bench: Bench, guest: Guest): Promise<void> {
  for (const { codec, scattered, blocks } of codecs) {
    if (bench.wants(scattered, blocks)) await measureRing(bench, guest, codec, { scattered, blocks });
  }
}

async function measureRing(
  bench: Bench,
  guest: Guest,
  codec: 'lz4' | 'raw',
  names: { readonly scattered: string; readonly blocks: string },
): Promise<void> {
  const { facts, memory, vm } = guest;
  const threads = Math.max(...bench.options.threads);
  await using ring = await CheckpointRing.open(vm, { capacity: 2, threads, codec });
  const { url } = await ring.save();
  // Memory of its own: the ring would take a whole load into the guest for a change of all of it.
  await using other = GuestMemory.allocate(memory.regions);
  const whole = (): Promise<Cost> => timed(() => loadVm(machineOf(other), url, { threads }));
  await whole();
  const takeBack = async (runPages: number): Promise<Cost> => {
    changePages(guest, runPages);
    return await timed(() => ring.rollback());
  };
  await bench.contest({
    parameters: { memory: facts.memory, bytes: facts.bytes, content: facts.content, threads },
    memoryBytes: facts.bytes,
    warm: { memoryBytes: facts.bytes },
    runs: bench.options.runs,
    baselines: { 'whole load': whole },
    subjects: {
      [names.scattered]: () => takeBack(1),
      [names.blocks]: () => takeBack(blockPages),
    },
  });
}

/** One byte of every hundredth page, or of all pages of every hundredth block. */
function changePages({ memory, facts }: Guest, runPages: number): void {
  const step = Math.round(runPages / changedShare);
  const byte = new Uint8Array(1);
  const first = Math.floor((Math.random() * step) / runPages) * runPages;
  for (let run = first; run + runPages <= facts.bytes / pageBytes; run += step) {
    for (let page = run; page < run + runPages; page += 1) {
      const address = page * pageBytes + 8 * (page % 509);
      memory.read(address, byte);
      byte[0] = ((byte[0] ?? 0) + 1) & 0xff;
      memory.write(address, byte);
    }
  }
}
