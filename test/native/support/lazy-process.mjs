// A process with a lazy load: lazy-process.mjs DIST URL SYNTHETIC_OPTIONS report|exit|silent|tasks
// silent: in a worker thread, of a store that JavaScript reads and that does not answer any more when the guest runs; the worker is ended.
// tasks: the same while threads of the addon read memory that is not there, of the load and of a migration.
import { join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { isMainThread, parentPort, Worker } from 'node:worker_threads';

const [dist, url, options, mode] = process.argv.slice(2);
let isSilent = false;
const load = (path) => import(pathToFileURL(join(dist, path)).href);
const { GuestMemory, loadVm, openStore, saveVm } = await load('index.js');
const { SyntheticVm } = await load('adapters/synthetic/index.js');

const isInWorker = mode === 'silent' || mode === 'tasks';

if (isInWorker && isMainThread) {
  const worker = new Worker(fileURLToPath(import.meta.url), { argv: process.argv.slice(2) });
  await new Promise((resolve, reject) => worker.once('message', resolve).once('error', reject));
  await worker.terminate();
  process.exitCode = 7;
} else {
  await run();
}

async function run() {
  const vm = await SyntheticVm.create(JSON.parse(options));
  const store = isInWorker ? await silentStore() : url;
  const { lazy } = await loadVm(vm, store, {
    lazy: mode !== 'report' ? { fillBytesPerSecond: 1048576 } : true,
  });
  if (mode === 'report') {
    if (lazy.active) await lazy.load.resident;
    const { active, reason } = lazy;
    console.log(JSON.stringify({ active, reason, digest: await vm.digest() }));
    await vm.close();
    return;
  }
  if (!lazy.active) throw new Error(lazy.reason);
  isSilent = true;
  if (mode === 'tasks') await readWhatIsMissing(vm);
  else await vm.resume();
  setTimeout(() => (isMainThread ? process.exit(7) : parentPort.postMessage('the guest waits')), 50);
}

/** The checkpoint of a machine like this one. */
async function silentStore() {
  const local = openStore(url);
  const source = await SyntheticVm.create({ ...JSON.parse(options), guestLike: true });
  await saveVm(source, local);
  await source.close();
  const openReader = async () => {
    const reader = await local.openReader();
    return {
      byteLength: reader.byteLength,
      read: (target) => reader.read(target),
      readAt: (offset, target) => (isSilent ? new Promise(() => undefined) : reader.readAt(offset, target)),
      close: () => reader.close(),
    };
  };
  return { url: 'silent:', openWriter: local.openWriter, openReader };
}

async function readWhatIsMissing(vm) {
  const { nativeAddon } = await load('native/index.js');
  const { PageSet } = await load('memory/index.js');
  const memory = GuestMemory.allocate([{ base: 0n, bytes: 1 << 20 }]);
  const all = new PageSet(memory.pageCount);
  all.markRun(0, memory.pageCount);
  const { MissingPages } = nativeAddon();
  const missing = new MissingPages(memory.native, all.native);
  await missing.started();
  void vm.digest();
  void memory.digest();
}
