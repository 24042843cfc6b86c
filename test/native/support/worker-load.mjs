// One worker: keeps every native path busy until it is terminated.
import { randomUUID } from 'node:crypto';
import { open, unlink } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { parentPort, workerData } from 'node:worker_threads';

const addon = createRequire(import.meta.url)(workerData.addon);
const regions = [
  [0n, 2n << 20n],
  [4n << 30n, 2n << 20n],
];
const uuid = new Uint8Array(16).fill(7);
const position = { uuid, epoch: 0n, sequence: 0, offset: 128 };
const memory = addon.allocateMemory(regions, workerData.index % 2, true);
const target = addon.allocateMemory(regions, 0, true);
const fileTarget = addon.allocateMemory(regions, 0, true);

const saveOptions = { ...position, codec: 1, acceleration: 1, dedup: true, threads: 2, slabCount: 0 };
const loadOptions = { ...position, threads: 2, bufferCount: 0, readBytes: 0 };

/** Slabs and buffers go through JavaScript. */
async function saveAndLoad() {
  const save = new addon.SavePipeline(memory, saveOptions);
  const load = new addon.LoadPipeline(target, loadOptions);
  for (let batch = await save.next(); batch !== undefined; batch = await save.next()) {
    for (const piece of batch.pieces) {
      const { buffer, view } = await load.acquire();
      view.set(piece);
      load.push(buffer, piece.length);
    }
    save.release();
  }
  await load.finish();
  await Promise.all([save.close(), load.close()]);
}

/** Threads write a file and read it; a worker that ends closes it meanwhile. */
async function saveAndLoadFile() {
  const path = join(workerData.folder, randomUUID());
  const file = await open(path, 'wx+', 0o600);
  await unlink(path);
  const save = new addon.SavePipeline(memory, {
    ...saveOptions,
    output: { descriptor: file.fd, position: 0 },
  });
  let bytes = 0;
  for (let batch = await save.next(); batch !== undefined; batch = await save.next()) bytes += batch.written;
  await save.close();
  const load = new addon.LoadPipeline(fileTarget, loadOptions);
  load.feed(file.fd, 0, bytes);
  while (!(await load.fed()).over);
  await load.finish();
  await load.close();
  await file.close();
}

/** Constructors ask for many properties: a worker may end between any two. */
async function construct() {
  for (let count = 0; count < 50; count += 1) {
    await new addon.SavePipeline(memory, saveOptions).close();
    await new addon.LoadPipeline(fileTarget, { ...loadOptions, deltas: true }).close();
  }
}

const writer = new addon.StampWriter(memory, {
  threads: 1,
  pagesPerSecond: 100_000,
  pattern: 1,
  seed: 5n,
  firstPage: 0,
  pageCount: 1024,
});

// A KVM guest that reads a port for ever, `in al, dx; jmp`, in the worker that a termination meets; where there is a KVM.
function startGuest() {
  let support;
  try {
    support = addon.kvmSupport();
  } catch {
    return undefined;
  }
  const guestMemory = addon.allocateMemory([[0n, 1n << 20n]], 0, true);
  guestMemory.write(0x1000n, Uint8Array.of(0xba, 0x00, 0x05, 0xec, 0xeb, 0xfd));
  const guest = new addon.KvmMachine(guestMemory, {
    cpuid: [support.cpuid],
    ranges: [[false, 0x500n, 1n]],
    ringEntries: 0,
    onNews: () => {
      for (let access = guest.takeAccess(); access !== undefined; access = guest.takeAccess())
        guest.answer(access.core, 0n);
    },
  });
  const sregs = guest.getVcpu(0, 1);
  sregs.fill(0, 0, 8); // base and selector of cs
  sregs.fill(0, 12, 14);
  guest.setVcpu(0, 1, sregs);
  const regs = new Uint8Array(144);
  const view = new DataView(regs.buffer);
  view.setBigUint64(16 * 8, 0x1000n, true);
  view.setBigUint64(17 * 8, 2n, true);
  guest.setVcpu(0, 0, regs);
  guest.resume();
  return guest;
}
const guest = startGuest();
await memory.fillGuestLike(BigInt(workerData.index), 1);
parentPort.postMessage('up');
for (let count = 1; ; count += 1) {
  writer.resume();
  // Several operations in flight at once, so that a termination meets each of them.
  await Promise.all([
    saveAndLoad(),
    saveAndLoadFile().then(construct),
    memory.digest(2),
    memory.scan(1),
    memory.presence(),
  ]);
  await writer.pause();
  await guest?.pause();
  guest?.resume();
  // That terminations meet whole turns, and not the first one only.
  if (count === 1) parentPort.postMessage('once');
}
