/** How fast memory is looked at: with something in it, all zeros, untouched. */
import { saveVm } from '../../src/checkpoint/save-vm.ts';
import type { GuestMemory } from '../../src/memory/index.ts';
import { nativeAddon } from '../../src/native/index.ts';
import { type Bench, timed, withCpu } from '../bench.ts';
import { type Guest, gibBytes, untouchedGuest, zeroGuest } from '../guest.ts';
import type { Cost } from '../interleave.ts';
import { machineOf } from '../memory-machine.ts';
import { fixedIdentity } from './encode.ts';

/** Untouched memory takes no room: as much as a large guest has. */
const untouchedBytes = 16 * gibBytes;

export async function measureGuestScan(bench: Bench, { memory, facts }: Guest): Promise<void> {
  if (!bench.wants('scan.guest')) return;
  for (const threads of bench.options.threads) {
    await bench.contest({
      parameters: { memory: facts.memory, bytes: facts.bytes, content: facts.content, threads },
      memoryBytes: facts.bytes,
      runs: bench.options.runs,
      baselines: { read: () => withCpu(() => nativeAddon().bench.read(memory.native, threads)) },
      subjects: { 'scan.guest': () => timed(() => memory.scan({ threads })) },
    });
  }
}

export async function measureZeroScan(bench: Bench, bytes: number): Promise<void> {
  const zero = ['scan.zero', 'scan.zero.kernel', 'save.zero.null'] as const;
  const untouched = ['scan.untouched', 'save.untouched'] as const;
  if (!bench.wants(...zero, ...untouched)) return;
  await using memory = zeroGuest(bytes);
  const vm = machineOf(memory);
  const native = nativeAddon().bench;
  for (const threads of bench.options.threads) {
    await bench.contest({
      parameters: { memory: 'zeros', bytes, threads },
      memoryBytes: bytes,
      runs: bench.options.runs,
      baselines: { read: () => withCpu(() => native.read(memory.native, threads)) },
      subjects: {
        'scan.zero.kernel': () => withCpu(() => native.zeroScan(memory.native, threads)),
        'scan.zero': () => timed(() => memory.scan({ threads })),
        'save.zero.null': () => timed(() => saveVm(vm, 'null:', { ...fixedIdentity, threads })),
      },
    });
  }
  if (bench.wants(...untouched)) await measureUntouched(bench, memory, bytes);
}

/** Per GiB on both sides: the baseline reads memory that is there, since reading untouched memory would make it present. */
async function measureUntouched(bench: Bench, resident: GuestMemory, residentBytes: number): Promise<void> {
  const threads = Math.max(...bench.options.threads);
  await using memory = untouchedGuest(untouchedBytes);
  const vm = machineOf(memory);
  const costs = { scan: [] as number[], save: [] as number[] };
  // Over in less than a millisecond: many times for one sample.
  const perGib = async (list: number[], times: number, work: () => PromiseLike<unknown>): Promise<Cost> => {
    const all = await timed(async () => {
      for (let time = 0; time < times; time += 1) await work();
    });
    const seconds = all.seconds / times / (untouchedBytes / gibBytes);
    list.push(seconds * 1000);
    return { seconds };
  };
  const parameters = { memory: 'untouched', bytes: untouchedBytes, threads };
  await bench.contest({
    parameters,
    memoryBytes: gibBytes,
    runs: bench.options.runs,
    baselines: {
      read: async () => {
        const { seconds } = await nativeAddon().bench.read(resident.native, threads);
        return { seconds: seconds / (residentBytes / gibBytes) };
      },
    },
    subjects: {
      'scan.untouched': () => perGib(costs.scan, 50, () => memory.countPresent()),
      'save.untouched': () => perGib(costs.save, 5, () => saveVm(vm, 'null:', { ...fixedIdentity, threads })),
    },
  });
  // The first of each was the warm-up.
  if (costs.scan.length > 1) {
    bench.value({ name: 'scan.untouched.cost', parameters, unit: 'ms/GiB' }, costs.scan.slice(1));
  }
  if (costs.save.length > 1) {
    bench.value({ name: 'save.untouched.cost', parameters, unit: 'ms/GiB' }, costs.save.slice(1));
  }
}
