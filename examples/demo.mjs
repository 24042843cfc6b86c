/**
 * The demo: a guest of several GiB is saved while it is warm, verified, loaded into a second machine, proved
 * to be equal and run; then a bit of the checkpoint is inverted, to see what happens. See `--help`.
 *
 *     npm run demo -- --gib 3
 *
 * The guest is synthetic: memory with the page mix of a booted Linux guest, threads that write stamped pages,
 * devices and processors that change. Exits with 1 when anything that it says is not true.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { loadVm, saveVm, verifyCheckpoint } from 'chkpt';
import { SyntheticVm } from 'chkpt/synthetic';
import { measure } from './demo/meter.mjs';
import { help, readOptions } from './demo/options.mjs';
import { damage, makeFolder } from './demo/places.mjs';
import { printTables } from './demo/tables.mjs';
import * as terminal from './demo/terminal.mjs';

const { duration, size, step, whole } = terminal;
const runMs = 500;
const interrupt = new AbortController();
const { signal } = interrupt;
const cleanUp = [];
let isProved = true;

function prove(isTrue, text) {
  terminal.verdict(isTrue, text);
  isProved &&= isTrue;
}

/** The code of the error that `work` rejects with. */
async function codeOf(work) {
  try {
    await work;
    return 'no error';
  } catch (error) {
    signal.throwIfAborted();
    return error.code ?? String(error);
  }
}

/** The seed is that of memory, when it is filled, and of the writers. */
async function createMachine(regions, seed, guestLike) {
  const vm = await SyntheticVm.create({
    id: 'demo',
    regions,
    seed,
    guestLike,
    cores: 4,
    threads: 2,
    pagesPerSecond: 20_000,
    pattern: 'hotspot',
  });
  cleanUp.push(() => vm.close());
  return vm;
}

async function run(vm) {
  const before = vm.ticks;
  await vm.resume();
  await sleep(runMs, undefined, { signal });
  const begin = performance.now();
  await vm.pause();
  return { pages: Number(vm.ticks - before), pauseMs: performance.now() - begin };
}

/** What an operation calls as it goes on: draws, and measures memory at the moments that matter. */
function draw(name, sample) {
  return (now) => {
    terminal.progress(name, now);
    sample();
  };
}

/** The story up to the second machine. Everything that was measured goes into the tables. */
async function saveAndLoad({ regions }, url) {
  let begin = performance.now();
  const source = await createMachine(regions, 1, true);
  const memoryBytes = Number(source.memory.byteLength);
  step('create', `${size(memoryBytes)} of guest-like memory in two regions`, performance.now() - begin);
  const ran = await run(source);
  step('run', `two writers stamped ${whole(ran.pages)} pages`, runMs);
  step('pause', 'nothing writes any more', ran.pauseMs);
  begin = performance.now();
  const digest = await source.digest();
  step('digest', `of memory and all state: ${digest.slice(0, 24)}…`, performance.now() - begin);

  const saved = await measure((sample) => saveVm(source, url, { signal, onProgress: draw('save', sample) }));
  step('save', `${size(saved.result.checkpointBytes)} to ${url}`, saved.elapsedMs);
  const verified = await measure((sample) =>
    verifyCheckpoint(url, { signal, onProgress: draw('verify', sample) }),
  );
  step('verify', 'every byte checked, every page decoded', verified.elapsedMs);

  const target = await createMachine(regions, 2, false);
  const loaded = await measure((sample) => loadVm(target, url, { signal, onProgress: draw('load', sample) }));
  step('load', 'into a second machine', loaded.elapsedMs);
  const guestBytes = (await target.memory.countPresent()) * 4096;
  loaded.peakBytes = Math.max(0, loaded.peakBytes - guestBytes);
  return { source, target, digest, ran, saved, verified, loaded, memoryBytes };
}

async function proveEqual({ target, digest, saved, verified, loaded }) {
  terminal.heading('proved');
  prove(
    saved.result.root === verified.result.root && saved.result.root === loaded.result.root,
    'save, verify and load name the same content: one root digest',
  );
  prove((await target.digest()) === digest, 'the second machine is equal: memory, devices and processors');
}

async function proveRunning({ target, source }) {
  const before = await target.checkStamps();
  await run(target);
  const after = await target.checkStamps();
  prove(
    target.ticks > source.ticks && BigInt(after.highestCounter) === target.ticks,
    `it runs: its clock went on from ${whole(source.ticks)} to ${whole(target.ticks)}`,
  );
  prove(
    before.damaged === 0 && after.damaged === 0 && after.stamped >= before.stamped && before.stamped > 0,
    `all ${whole(before.stamped)} stamped pages are right, and ${whole(after.stamped)} after it ran`,
  );
}

/** Resolves to what the load measured that makes the machine whole again. */
async function proveDamage({ target, digest }, url) {
  const damaged = await damage(url);
  if (damaged === undefined) {
    terminal.remark(`${url} is not made of files: nothing was damaged`);
    return undefined;
  }
  const offset = whole(damaged.offset);
  try {
    const verify = await codeOf(verifyCheckpoint(url, { signal }));
    prove(verify === 'CHKPT_DIGEST', `one bit inverted at byte ${offset}: verify says ${verify}`);
    const load = await codeOf(loadVm(target, url, { signal }));
    const resume = await codeOf(target.resume());
    prove(
      load === 'CHKPT_DIGEST' && resume === 'CHKPT_VM_FAILED' && !target.running,
      `load says ${load}, and the machine refuses to run: ${resume}`,
    );
    const save = await codeOf(saveVm(target, 'null:'));
    prove(save === 'CHKPT_VM_FAILED', `it cannot be saved either: ${save}`);
  } finally {
    await damaged.restore();
  }
  await target.pause(); // it runs when the proof above failed
  const again = await measure((sample) => loadVm(target, url, { signal, onProgress: draw('load', sample) }));
  prove((await target.digest()) === digest, 'the bit put right, the same machine loads and is equal again');
  return again;
}

async function main(options) {
  const bytes = options.regions.reduce((sum, region) => sum + region.bytes, 0);
  let url = options.store;
  if (url === undefined) {
    const { folder, remove } = makeFolder(bytes);
    url = `file:${folder}/guest.chkpt`;
    if (!options.keep) cleanUp.push(remove);
  }
  terminal.line();
  terminal.line(
    `  ${terminal.bold('chkpt demo')}  ${terminal.dim('a guest is saved, verified, loaded and damaged')}`,
  );
  terminal.line();
  const begin = performance.now();
  const story = await saveAndLoad(options, url);
  await proveEqual(story);
  await proveRunning(story);
  const again = await proveDamage(story, url);
  printTables({ ...story, again });
  terminal.line();
  const verdict = isProved ? terminal.green('all proved') : terminal.red('NOT PROVED');
  terminal.line(`  ${verdict} in ${duration(performance.now() - begin)}`);
  if (options.keep || options.store !== undefined) terminal.remark(`look at it: npx chkpt info ${url}`);
  terminal.line();
}

let options;
try {
  options = readOptions();
} catch (error) {
  console.error(`demo: ${error.message}`);
  process.exit(2);
}
for (const name of ['SIGINT', 'SIGTERM']) process.once(name, () => interrupt.abort(new Error('interrupted')));
try {
  if (options.help) terminal.line(help);
  else await main(options);
  if (!isProved) process.exitCode = 1;
} catch (error) {
  terminal.clearProgress();
  const failure = error.code === undefined ? error.message : `${error.code}: ${error.message}`;
  console.error(`demo: ${signal.aborted ? 'interrupted' : failure}`);
  process.exitCode = signal.aborted ? 130 : 1;
} finally {
  for (const undo of cleanUp.reverse()) await undo();
}
