/** The addon in worker threads that come and go. */
import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { expect, it } from 'vitest';
import { addonPath } from './support/addon-path.ts';

const script = fileURLToPath(new URL('support/terminate-workers.mjs', import.meta.url));

it('survives 500 terminations at random moments of 8 workers', { timeout: 300_000 }, async () => {
  const { stdout } = await promisify(execFile)(process.execPath, [script, addonPath, '500', '1']);
  expect(stdout.trim()).toBe('terminated 500');
});
