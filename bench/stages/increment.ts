/** What it costs to save the hundredth part of a guest that has changed, beside a whole save of the same guest. */
import { statSync } from 'node:fs';
import { saveVm } from '../../src/checkpoint/save-vm.ts';
import { pageBytes } from '../../src/limits.ts';
import { trackMemory } from '../../src/memory/index.ts';
import { type Bench, timed } from '../bench.ts';
import type { Guest } from '../guest.ts';
import type { Cost } from '../interleave.ts';

const changedShare = 0.01;

export async function measureIncrement(bench: Bench, guest: Guest): Promise<void> {
  if (!bench.wants('save.increment', 'save.increment.size')) return;
  const { facts, memory, vm } = guest;
  // Knows what is written through the memory, as a VMM with a dirty log of its own does.
  await using tracker = trackMemory(memory, { kind: 'reported' });
  const tracked = { ...vm, dirtyTracker: tracker };
  const threads = Math.max(...bench.options.threads);
  const names = ['increment-0', 'increment-1', 'increment-2', 'whole'];
  const urlOf = (name: string): string => `file:${bench.scratch.path(name)}`;
  let latest = 0;
  await saveVm(tracked, urlOf('increment-0'), { threads });
  const increment = async (): Promise<Cost> => {
    changePages(guest);
    const parent = urlOf(names[latest] as string);
    latest = (latest + 1) % 3;
    const name = names[latest] as string;
    const cost = await timed(() => saveVm(tracked, urlOf(name), { threads, parent }));
    return { ...cost, bytes: statSync(bench.scratch.path(name)).size };
  };
  const whole = async (): Promise<Cost> => {
    bench.scratch.remove('whole');
    const cost = await timed(() => saveVm(vm, urlOf('whole'), { threads }));
    return { ...cost, bytes: statSync(bench.scratch.path('whole')).size };
  };
  try {
    await bench.contest({
      parameters: { memory: facts.memory, bytes: facts.bytes, content: facts.content, threads },
      memoryBytes: facts.bytes,
      warm: { fileBytes: facts.bytes },
      runs: bench.options.runs,
      baselines: { 'whole save': whole },
      subjects: { 'save.increment': increment },
    });
  } finally {
    for (const name of names) bench.scratch.remove(name);
  }
}

/** One byte of every hundredth page that holds anything, scattered: the guest stays what it is. */
function changePages({ memory, facts }: Guest): void {
  const step = Math.round(1 / changedShare);
  const byte = new Uint8Array(1);
  for (let page = Math.floor(Math.random() * step); page < facts.bytes / pageBytes; page += step) {
    const address = page * pageBytes + 8 * (page % 509);
    memory.read(address, byte);
    byte[0] = ((byte[0] ?? 0) + 1) & 0xff;
    memory.write(address, byte);
  }
}
