/** Saves that go nowhere or into memory, beside what their parts cost alone. */
import { saveVm } from '../../src/checkpoint/save-vm.ts';
import { nativeAddon } from '../../src/native/index.ts';
import { defaultMemoryStoreSpace } from '../../src/store/index.ts';
import { type Bench, timed, withCpu } from '../bench.ts';
import { type Guest, storedBlocksOf } from '../guest.ts';

/** The same in every save, so that all of them write the same bytes. */
export const fixedIdentity = { uuid: '6ba7b810-9dad-41d1-80b4-00c04fd430c8', createdMs: 0 } as const;

const name = 'bench';

export async function measureEncode(bench: Bench, guest: Guest): Promise<void> {
  if (bench.wants('save.lz4.null', 'save.lz4.mem')) await measureLz4(bench, guest);
  if (bench.wants('save.raw.null')) await measureRaw(bench, guest);
}

async function measureLz4(bench: Bench, { memory, facts, vm }: Guest): Promise<void> {
  const { options } = bench;
  const blocks = await storedBlocksOf(memory, Math.max(...options.threads));
  const acceleration = 1;
  for (const threads of options.threads) {
    await bench.contest({
      parameters: { memory: facts.memory, bytes: facts.bytes, content: facts.content, threads },
      memoryBytes: facts.bytes,
      warm: { memoryBytes: facts.bytes },
      runs: options.runs,
      baselines: { liblz4: () => withCpu(() => blocks.compress(threads, acceleration)) },
      subjects: {
        'save.lz4.null': () => timed(() => saveVm(vm, 'null:', { ...fixedIdentity, threads })),
        'save.lz4.mem': async () => {
          // Checkpoints of earlier runs are garbage by now, collected before this one is timed.
          const cost = await timed(() => saveVm(vm, `mem:${name}`, { ...fixedIdentity, threads }));
          defaultMemoryStoreSpace.delete(name);
          return cost;
        },
      },
    });
  }
}

async function measureRaw(bench: Bench, { memory, facts, vm }: Guest): Promise<void> {
  const { options } = bench;
  const native = nativeAddon().bench;
  for (const threads of options.threads) {
    await bench.contest({
      parameters: { memory: facts.memory, bytes: facts.bytes, content: facts.content, threads },
      memoryBytes: facts.bytes,
      runs: options.runs,
      baselines: {
        memcpy: () => native.copy(memory.native, threads),
        read: () => withCpu(() => native.read(memory.native, threads)),
      },
      subjects: {
        'save.raw.null': () => timed(() => saveVm(vm, 'null:', { ...fixedIdentity, threads, codec: 'raw' })),
      },
    });
  }
}
