/** Nothing of the addon keeps a process alive that has nothing left to do. */
import { execFile } from 'node:child_process';
import { dirname } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { expect, it } from 'vitest';
import { buildCommandLine } from '../cli/support/dist.ts';

const script = fileURLToPath(new URL('support/aborted-work.mjs', import.meta.url));

it('a process ends by itself after aborted saves and loads', async () => {
  const dist = dirname(dirname(buildCommandLine()));
  const options = { timeout: 30_000, killSignal: 'SIGKILL' } as const;
  const { stdout } = await promisify(execFile)(process.execPath, [script, dist], options);
  expect(stdout).toBe('save: CHKPT_ABORTED\nload: CHKPT_ABORTED\n');
});
