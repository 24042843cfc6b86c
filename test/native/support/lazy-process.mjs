// A process with a lazy load: lazy-process.mjs DIST URL SYNTHETIC_OPTIONS report|exit
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';

const [dist, url, options, mode] = process.argv.slice(2);
const load = (path) => import(pathToFileURL(join(dist, path)).href);
const { loadVm } = await load('index.js');
const { SyntheticVm } = await load('adapters/synthetic/index.js');

const vm = await SyntheticVm.create(JSON.parse(options));
const { lazy } = await loadVm(vm, url, { lazy: mode === 'exit' ? { fillBytesPerSecond: 1048576 } : true });
if (mode === 'exit') {
  await vm.resume();
  setTimeout(() => process.exit(7), 50);
} else {
  if (lazy.active) await lazy.load.resident;
  const { active, reason } = lazy;
  console.log(JSON.stringify({ active, reason, digest: await vm.digest() }));
  await vm.close();
}
