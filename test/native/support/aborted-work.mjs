// Saves and loads that are aborted, then nothing: the process ends by itself.
//   node aborted-work.mjs DIST
const [dist] = process.argv.slice(2);
const { loadVm, saveVm } = await import(`${dist}/index.js`);
const { SyntheticVm } = await import(`${dist}/adapters/synthetic/index.js`);

const machine = () => SyntheticVm.create({ id: 'a', memoryBytes: 64 << 20, guestLike: true });
const [source, target] = await Promise.all([machine(), machine()]);
await saveVm(source, 'mem:a');

/** The abort is dealt with first, then JavaScript is busy until every thread has ended, before it hears of that. */
async function abortAtFirstPages(start) {
  const abort = new AbortController();
  const onProgress = ({ phase }) => {
    if (phase !== 'memory' || abort.signal.aborted) return;
    abort.signal.addEventListener('abort', () => {
      const endMs = performance.now() + 200;
      while (performance.now() < endMs);
    });
    abort.abort();
  };
  return start({ signal: abort.signal, onProgress }).then(
    () => 'done',
    ({ code }) => code,
  );
}

process.stdout.write(`save: ${await abortAtFirstPages((options) => saveVm(source, 'null:', options))}\n`);
process.stdout.write(`load: ${await abortAtFirstPages((options) => loadVm(target, 'mem:a', options))}\n`);
await Promise.all([source.close?.(), target.close?.()]);
