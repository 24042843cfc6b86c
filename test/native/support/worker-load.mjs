// One worker: keeps every native path busy until it is terminated.
import { createRequire } from 'node:module';
import { parentPort, workerData } from 'node:worker_threads';

const addon = createRequire(import.meta.url)(workerData.addon);
const regions = [
  [0n, 8n << 20n],
  [4n << 30n, 8n << 20n],
];
const uuid = new Uint8Array(16).fill(7);
const position = { uuid, epoch: 0n, sequence: 0, offset: 128 };
const memory = addon.allocateMemory(regions, workerData.index % 2, true);
const target = addon.allocateMemory(regions, 0, true);

async function saveAndLoad() {
  const save = new addon.SavePipeline(memory, {
    ...position,
    codec: 1,
    acceleration: 1,
    dedup: true,
    threads: 2,
    slabCount: 0,
  });
  const load = new addon.LoadPipeline(target, { ...position, threads: 2, bufferCount: 0 });
  for (let slab = await save.next(); slab !== undefined; slab = await save.next()) {
    for (let rest = slab.view.subarray(slab.begin, slab.begin + slab.bytes); rest.length > 0; ) {
      const { buffer, view } = await load.acquire();
      const piece = rest.subarray(0, view.length);
      view.set(piece);
      load.push(buffer, piece.length);
      rest = rest.subarray(piece.length);
    }
    save.release(slab.slab);
  }
  await load.finish();
  await Promise.all([save.close(), load.close()]);
}

const writer = new addon.StampWriter(memory, {
  threads: 1,
  pagesPerSecond: 100_000,
  pattern: 1,
  seed: 5n,
  firstPage: 0,
  pageCount: 1024,
});
parentPort.postMessage('up');
for (;;) {
  await memory.fillGuestLike(BigInt(workerData.index), 1);
  writer.resume();
  // Several operations in flight at once, so that a termination meets each of them.
  await Promise.all([saveAndLoad(), memory.digest(2), memory.scan(1), memory.presence()]);
  await writer.pause();
}
