/**
 * One end of a migration in a process and a network of its own.
 *
 *   node bed-host.mjs '{"build":…,"role":"source","url":…,"folder":…,"machine":{…},"options":{…}}'
 *
 * Says on standard output, one JSON document to a line: { listening: url }, { progress }, { halted: point }, { stopped: digest },
 * { arrived: digest }, { missing: pages }, { report }, { end, running }, { settled, running }, { checked }.
 * Hears on standard input: go (from a point at which it halts), check.
 */
import { createHash } from 'node:crypto';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { runUnderLease } from './lease.mjs';
import { watchPoints } from './points.mjs';

const {
  build,
  role,
  url,
  folder,
  machine,
  options = {},
  security = {},
  halt,
  untouched,
} = JSON.parse(process.argv[2]);
const from = async (path) => await import(join(build, path));
const { receiveVm, sendVm } = await from('index.js');
const { SyntheticVm } = await from('adapters/synthetic/index.js');
const { Journal } = await from('migration/journal.js');
const { RecordChannel } = await from('migration/wire/record-channel.js');

const say = (document) => process.stdout.write(`${JSON.stringify(document)}\n`);
const isSource = role === 'source';
const isWhole = options.strategy !== 'postcopy';
const vm = await SyntheticVm.create({ id: 'guest', ...machine, guestLike: isSource });

/** Digest of pages that no guest writes. Its pages are here. */
function digestUntouched() {
  const { first, count } = untouched;
  return createHash('sha256')
    .update(vm.memory.read(first * 4096, count * 4096))
    .digest('hex');
}

let goOn = () => undefined;
const told = new Promise((resolve) => {
  goOn = resolve;
});
createInterface({ input: process.stdin }).on('line', async (word) => {
  if (word === 'go') goOn();
  if (word !== 'check') return;
  const ran = vm.running;
  await vm.pause();
  say({ checked: { ran, ...(await vm.checkStamps()), untouched: untouched && digestUntouched() } });
});

// Whoever comes to that point, also to say it again, waits.
watchPoints({ Journal, RecordChannel }, async (point) => {
  if (point !== halt) return;
  say({ halted: point });
  await told;
});

const [pause, resume] = [vm.pause.bind(vm), vm.resume.bind(vm)];
let isArrived = false;
vm.pause = async () => {
  await pause();
  if (isSource) say({ stopped: await vm.digest() });
};
vm.resume = async () => {
  // With post-copy this would wait for all pages.
  if (!isSource && isWhole && !isArrived) say({ arrived: await vm.digest() });
  isArrived = true;
  await resume();
};
runUnderLease(vm, join(folder, 'lease'), role);

const { tls, psk } = security;
const secured = {
  ...security,
  tls: tls && { ...tls, authorise: ({ fingerprint256 }) => fingerprint256 === tls.peer },
  psk: psk && { ...psk, key: Buffer.from(psk.key, 'hex') },
};
const journal = join(folder, role);
try {
  if (isSource) {
    await vm.resume();
    const onProgress = (progress) => say({ progress });
    say({ report: await sendVm(vm, url, { journal, ...options, ...secured, onProgress }) });
  } else {
    const onListening = (listening) => say({ listening });
    const { postcopy } = await receiveVm(vm, url, { journal, lingerMs: 10_000, ...secured, onListening });
    say({ missing: postcopy?.left() ?? 0 });
    await postcopy?.resident;
  }
  say({ end: 'moved', running: vm.running });
} catch (error) {
  say({ end: error.code ?? String(error), running: vm.running });
  if (error.code === 'CHKPT_IN_DOUBT') say({ settled: await error.resolve(), running: vm.running });
}
// The guest goes on until somebody ends it.
setInterval(() => undefined, 1000);
