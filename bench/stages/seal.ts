/** What encryption at rest costs: the same saves and loads with a key and without. */
import { createSecretKey, randomBytes } from 'node:crypto';
import { loadVm } from '../../src/checkpoint/load-vm.ts';
import { saveVm } from '../../src/checkpoint/save-vm.ts';
import type { GuestMemory } from '../../src/memory/index.ts';
import { type Bench, timed } from '../bench.ts';
import type { Baseline, FigureName } from '../catalog.ts';
import { type Guest, untouchedGuest } from '../guest.ts';
import type { Cost } from '../interleave.ts';
import { machineOf } from '../memory-machine.ts';
import { fixedIdentity } from './encode.ts';

const names = { plain: 'seal.plain', sealed: 'seal.sealed', out: 'seal.out' };
const key = createSecretKey(randomBytes(32));

export async function measureSeal(bench: Bench, guest: Guest): Promise<void> {
  if (!bench.wants('seal.save.lz4', 'seal.save.raw', 'seal.load.lz4')) return;
  const { scratch } = bench;
  const { facts } = guest;
  if (scratch.freeBytes() < 2 * facts.bytes) {
    bench.skip(
      `encryption, ${facts.memory}`,
      `less than ${2 * facts.bytes} bytes free in the scratch folder`,
    );
    return;
  }
  try {
    for (const codec of ['lz4', 'raw'] as const) {
      if (bench.wants(`seal.save.${codec}`)) await measureSave(bench, guest, codec);
    }
    if (bench.wants('seal.load.lz4')) await measureLoad(bench, guest);
  } finally {
    for (const name of Object.values(names)) scratch.remove(name);
  }
}

async function measureSave(bench: Bench, guest: Guest, codec: 'lz4' | 'raw'): Promise<void> {
  const save = (threads: number, sealed: boolean) => async (): Promise<Cost> => {
    const path = bench.scratch.path(names.out);
    const options = { ...fixedIdentity, codec, threads, ...(sealed ? { key } : {}) };
    const cost = await timed(() => saveVm(guest.vm, `file:${path}`, options));
    bench.scratch.remove(names.out);
    return cost;
  };
  await contest(bench, guest, `seal.save.${codec}`, 'save without key', save);
}

async function measureLoad(bench: Bench, guest: Guest): Promise<void> {
  const { scratch } = bench;
  const urlOf = (sealed: boolean): string => `file:${scratch.path(sealed ? names.sealed : names.plain)}`;
  await saveVm(guest.vm, urlOf(false), fixedIdentity);
  await saveVm(guest.vm, urlOf(true), { ...fixedIdentity, key });
  const load = (threads: number, sealed: boolean) => async (): Promise<Cost> => {
    let memory: GuestMemory | undefined;
    try {
      return await timed(() => {
        memory = untouchedGuest(guest.facts.bytes);
        return loadVm(machineOf(memory), urlOf(sealed), { threads, ...(sealed ? { key } : {}) });
      });
    } finally {
      await memory?.close();
    }
  };
  await contest(bench, guest, 'seal.load.lz4', 'load without key', load);
}

async function contest(
  bench: Bench,
  { facts }: Guest,
  figure: FigureName,
  baseline: Baseline,
  run: (threads: number, sealed: boolean) => () => Promise<Cost>,
): Promise<void> {
  for (const threads of bench.options.threads) {
    await bench.contest({
      parameters: { memory: facts.memory, bytes: facts.bytes, content: facts.content, threads },
      memoryBytes: facts.bytes,
      runs: bench.options.runs,
      baselines: { [baseline]: run(threads, false) },
      subjects: { [figure]: run(threads, true) },
    });
  }
}
