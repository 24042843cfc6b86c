// Works with the one thread of libuv's pool, as the first parameter says; tells what is done, line by line.
//   UV_THREADPOOL_SIZE=1 node one-pool-thread.mjs taken|shared DIST FIFO
import { closeSync, openSync } from 'node:fs';
import { open, readFile, stat } from 'node:fs/promises';
import { promisify } from 'node:util';
import { deflate } from 'node:zlib';

const [mode, dist, fifo] = process.argv.slice(2);
const { loadVm, saveVm } = await import(`${dist}/index.js`);
const { deferred } = await import(`${dist}/util/deferred.js`);
const { SyntheticVm } = await import(`${dist}/adapters/synthetic/index.js`);

const tell = (line) => process.stdout.write(`${line}\n`);
const machine = (id) => SyntheticVm.create({ id, memoryBytes: 24 << 20, guestLike: true });
const codecs = ['raw', 'lz4'];
const machines = await Promise.all(['a', 'b', 'c', 'd'].map(machine));

/** The one thread waits in open(2) for somebody who writes into the FIFO. */
async function poolThreadTaken() {
  const reading = open(fifo);
  let poolWorked = false;
  const behindIt = stat('.').then(() => {
    poolWorked = true;
  });
  try {
    const savings = ['null:', 'mem:'].flatMap((scheme, place) =>
      codecs.map((codec, index) => {
        const target = scheme === 'mem:' ? `mem:${codec}` : scheme;
        return saveVm(machines[2 * place + index], target, { codec }).then(() => tell(`${scheme} ${codec}`));
      }),
    );
    await Promise.all(savings);
    const { memory } = machines[0];
    await Promise.all([
      memory.scan().then(() => tell('scan')),
      memory.digest().then(() => tell('digest')),
      ...codecs.map((codec, index) =>
        loadVm(machines[2 + index], `mem:${codec}`).then(() => tell(`load ${codec}`)),
      ),
    ]);
    tell(`pool worked meanwhile: ${poolWorked}`);
  } finally {
    // Opens at once, and lets the reader go on.
    const writing = openSync(fifo, 'r+');
    await (await reading).close();
    await behindIt;
    closeSync(writing);
  }
}

/** A store in which a save stands still, its pipeline full, from its first page until `gate` is done. */
function standingStore(gate, onFirstPage) {
  const nothing = async () => undefined;
  let inMemory = false;
  const write = () => {
    if (!inMemory) return nothing();
    onFirstPage();
    return gate;
  };
  const beginSegment = async ({ kind }) => {
    inMemory = kind === 'memory';
  };
  const writer = { beginSegment, write, writeAll: write, commit: nothing, abort: nothing };
  return { url: 'standing:', openWriter: async () => writer, openReader: nothing };
}

async function poolThreadShared() {
  const gate = deferred();
  const stands = machines.map(() => deferred());
  const savings = machines.map((vm, index) =>
    saveVm(vm, standingStore(gate.promise, stands[index].resolve), { codec: codecs[index % 2] }),
  );
  await Promise.all(stands.map(({ promise }) => promise));
  tell('all saves under way');
  await Promise.all([
    readFile(new URL(import.meta.url)).then(() => tell('readFile')),
    stat('.').then(() => tell('stat')),
    promisify(deflate)(Buffer.alloc(1 << 20)).then(() => tell('deflate')),
  ]);
  gate.resolve();
  await Promise.all(savings);
  tell('all saved');
}

await (mode === 'taken' ? poolThreadTaken() : poolThreadShared());
await Promise.all(machines.map((vm) => vm.close()));
