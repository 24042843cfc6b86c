/** What a harvest costs beside the kernel's call alone, and how fast a set becomes runs. */
import { PageSet, trackMemory } from '../../src/memory/index.ts';
import { nativeAddon } from '../../src/native/index.ts';
import { type Bench, timed } from '../bench.ts';
import { gibBytes, zeroGuest } from '../guest.ts';

const setPages = (16 * gibBytes) / 4096;

export async function measureTrack(bench: Bench, bytes: number): Promise<void> {
  if (bench.wants('track.harvest')) await measureHarvest(bench, bytes);
  for (const perMille of [1, 10, 100, 1000]) {
    const name = perMille <= 10 ? 'track.runs.sparse' : 'track.runs.dense';
    if (!bench.wants(name)) continue;
    const set = randomSet(perMille);
    const native = nativeAddon().bench;
    await bench.contest({
      parameters: { memory: 'page set', bytes: 16 * gibBytes, dirtyPerMille: perMille, threads: 1 },
      memoryBytes: 16 * gibBytes,
      runs: bench.options.runs,
      baselines: { 'bit loop': () => native.bitLoop(set.native) },
      subjects: { [name]: () => native.runs(set.native) },
    });
  }
}

async function measureHarvest(bench: Bench, bytes: number): Promise<void> {
  const native = nativeAddon().bench;
  await using memory = zeroGuest(bytes);
  await native.dirty(memory.native, 1000, 1n);
  const tracker = open();
  if (tracker === undefined) return;
  try {
    await tracker.arm();
    // Nothing last: the writes before have split the huge pages, and the walk is one over small pages.
    for (const perMille of [1, 10, 0]) {
      let seed = 2n;
      const afterWrites = async <T>(work: () => Promise<T>): Promise<T> => {
        seed += 1n;
        await native.dirty(memory.native, perMille, seed);
        return work();
      };
      await bench.contest({
        parameters: { memory: 'resident', bytes, dirtyPerMille: perMille, threads: 1 },
        memoryBytes: bytes,
        runs: bench.options.runs,
        baselines: { PAGEMAP_SCAN: () => afterWrites(() => native.bareScan(memory.native)) },
        subjects: { 'track.harvest': () => afterWrites(() => timed(() => tracker.harvest())) },
      });
    }
  } finally {
    await tracker.close();
  }

  function open(): ReturnType<typeof trackMemory> | undefined {
    const chosen = trackMemory(memory);
    if (chosen.kind === 'write-protect') return chosen;
    bench.skip('track.harvest', chosen.reason);
    void chosen.close();
    return undefined;
  }
}

/** Single pages, spread evenly at random; all of them for 1000. */
function randomSet(perMille: number): PageSet {
  const set = new PageSet(setPages);
  if (perMille === 1000) {
    set.markRun(0, setPages);
    return set;
  }
  let state = 1;
  for (let left = (setPages * perMille) / 1000; left > 0; left -= 1) {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    set.markRun(Math.floor((state / 2 ** 32) * setPages), 1);
  }
  return set;
}
