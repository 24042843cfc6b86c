/** Loads from a file that is in the page cache into memory that nobody has touched. */
import { loadVm } from '../../src/checkpoint/load-vm.ts';
import { saveVm } from '../../src/checkpoint/save-vm.ts';
import { type NativeStoredBlocks, nativeAddon } from '../../src/native/index.ts';
import { type Bench, timed } from '../bench.ts';
import { commandVersion, timeCommand } from '../commands.ts';
import { type Guest, storedBlocksOf, untouchedGuest, writeImage } from '../guest.ts';
import type { Cost } from '../interleave.ts';
import { machineOf } from '../memory-machine.ts';
import { fixedIdentity } from './encode.ts';

const names = {
  lz4: 'load.lz4',
  raw: 'load.raw',
  image: 'load.ram',
  packed: 'load.ram.lz4',
  unpacked: 'load.out',
};

/** A load touches more than the guest's memory: its buffers must not be taken from what the host has to give first. */
const warmShare = 1.5;

export async function measureLoad(bench: Bench, guest: Guest): Promise<void> {
  if (!bench.wants('load.lz4.file', 'load.raw.file', 'load.lz4.tool')) return;
  const { scratch, options } = bench;
  const { facts } = guest;
  if (scratch.freeBytes() < 3 * facts.bytes) {
    bench.skip(`load, ${facts.memory}`, `less than ${3 * facts.bytes} bytes free in the scratch folder`);
    return;
  }
  const threads = Math.max(...options.threads);
  try {
    await saveVm(guest.vm, `file:${scratch.path(names.lz4)}`, { ...fixedIdentity, threads });
    if (bench.wants('load.lz4.file')) await measureLz4(bench, guest);
    if (bench.wants('load.lz4.tool')) await measureTool(bench, guest, threads);
    if (bench.wants('load.raw.file')) await measureRaw(bench, guest);
  } finally {
    for (const name of Object.values(names)) scratch.remove(name);
  }
}

async function measureLz4(bench: Bench, guest: Guest): Promise<void> {
  const { facts, memory } = guest;
  const blocks = await storedBlocksOf(memory, Math.max(...bench.options.threads));
  const acceleration = 1;
  await blocks.compress(Math.max(...bench.options.threads), acceleration); // keeps what decode() decodes
  await checkLoad(bench, guest);
  for (const threads of bench.options.threads) {
    await bench.contest({
      parameters: { memory: facts.memory, bytes: facts.bytes, content: facts.content, threads },
      memoryBytes: facts.bytes,
      warm: { memoryBytes: warmShare * facts.bytes },
      runs: bench.options.runs,
      baselines: {
        'liblz4 decode': () => decode(blocks, threads, false),
        'liblz4 decode packed': () => decode(blocks, threads, true),
      },
      subjects: { 'load.lz4.file': () => loadFresh(bench, names.lz4, facts.bytes, threads) },
    });
  }
}

async function decode(blocks: NativeStoredBlocks, threads: number, packed: boolean): Promise<Cost> {
  const measured = await blocks.decode(threads, packed);
  if (measured.result !== 1n) throw new Error('liblz4 did not give back what it was given');
  return measured;
}

async function measureRaw(bench: Bench, { facts, memory, vm }: Guest): Promise<void> {
  const { scratch, options } = bench;
  await saveVm(vm, `file:${scratch.path(names.raw)}`, { ...fixedIdentity, codec: 'raw' });
  for (const threads of options.threads) {
    await bench.contest({
      parameters: { memory: facts.memory, bytes: facts.bytes, content: facts.content, threads },
      memoryBytes: facts.bytes,
      warm: { memoryBytes: warmShare * facts.bytes },
      runs: options.runs,
      baselines: { memcpy: () => nativeAddon().bench.copy(memory.native, threads) },
      subjects: { 'load.raw.file': () => loadFresh(bench, names.raw, facts.bytes, threads) },
    });
  }
  scratch.remove(names.raw);
}

async function measureTool(bench: Bench, { facts, memory }: Guest, threads: number): Promise<void> {
  const { scratch, options } = bench;
  if ((await commandVersion('lz4')) === undefined) {
    bench.skip('load.lz4.tool', 'there is no lz4 command on this machine');
    return;
  }
  await writeImage(memory, scratch.path(names.image));
  const packed = scratch.path(names.packed);
  await timeCommand('lz4', ['-1', '-q', '-f', '-k', scratch.path(names.image), packed]);
  scratch.remove(names.image);
  await bench.contest({
    parameters: { memory: facts.memory, bytes: facts.bytes, content: facts.content, threads },
    memoryBytes: facts.bytes,
    warm: { memoryBytes: facts.bytes, fileBytes: facts.bytes },
    runs: options.commandRuns,
    baselines: {
      'lz4 -d': () => {
        scratch.remove(names.unpacked);
        // Without sparse output: the zero pages of the image are written, as they stand in it.
        return timeCommand('lz4', [
          '-d',
          '-q',
          '-f',
          '-k',
          '--no-sparse',
          packed,
          scratch.path(names.unpacked),
        ]);
      },
    },
    subjects: { 'load.lz4.tool': () => loadFresh(bench, names.lz4, facts.bytes, threads) },
  });
  scratch.remove(names.packed);
  scratch.remove(names.unpacked);
}

/** Time from the allocation of memory until everything is in place; giving the memory back is not timed. */
async function loadFresh({ scratch }: Bench, name: string, bytes: number, threads: number): Promise<Cost> {
  let memory = undefined as ReturnType<typeof untouchedGuest> | undefined;
  try {
    return await timed(() => {
      memory = untouchedGuest(bytes);
      return loadVm(machineOf(memory), `file:${scratch.path(name)}`, { threads });
    });
  } finally {
    await memory?.close();
  }
}

/** A fast load of wrong bytes is no load. */
async function checkLoad({ scratch, options }: Bench, { facts }: Guest): Promise<void> {
  const threads = Math.max(...options.threads);
  await using memory = untouchedGuest(facts.bytes);
  await loadVm(machineOf(memory), `file:${scratch.path(names.lz4)}`, { threads });
  const content = (await memory.digest({ threads })).toString(16).padStart(16, '0');
  if (content !== facts.content) throw new Error(`loading ${facts.memory} gave other memory than was saved`);
}
