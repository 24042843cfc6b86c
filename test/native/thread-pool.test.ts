/** libuv's pool belongs to `fs` and `zlib` of the embedder: the addon has threads of its own. */
import { execFile, execFileSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { expect, it } from 'vitest';
import { buildModules } from '../cli/support/dist.ts';
import { makeFolder } from '../store/support/folders.ts';

const script = fileURLToPath(new URL('support/one-pool-thread.mjs', import.meta.url));

/** What the script told, in order of the alphabet. One that hangs is killed, and has told less. */
async function toldWithOnePoolThread(mode: 'taken' | 'shared'): Promise<string[]> {
  const fifo = `${makeFolder()}/fifo`;
  execFileSync('mkfifo', [fifo]);
  const dist = buildModules();
  const env = { ...process.env, UV_THREADPOOL_SIZE: '1' };
  const options = { env, timeout: 60_000, killSignal: 'SIGKILL' } as const;
  return new Promise((settle) => {
    execFile(process.execPath, [script, mode, dist, fifo], options, (error, stdout, stderr) => {
      const end = error === null ? 'ended' : `failed: ${stderr}`;
      settle([...stdout.split('\n').filter(Boolean).sort(), end]);
    });
  });
}

it('saves, loads, scans and digests while every thread of the pool is taken by a read that does not end', {
  timeout: 120_000,
}, async () => {
  expect(await toldWithOnePoolThread('taken')).toEqual([
    'digest',
    'load lz4',
    'load raw',
    'mem: lz4',
    'mem: raw',
    'null: lz4',
    'null: raw',
    'pool worked meanwhile: false',
    'scan',
    'ended',
  ]);
});

it('leaves the pool to readFile, stat and deflate while more saves than it has threads are under way', {
  timeout: 120_000,
}, async () => {
  expect(await toldWithOnePoolThread('shared')).toEqual([
    'all saved',
    'all saves under way',
    'deflate',
    'readFile',
    'stat',
    'ended',
  ]);
});
