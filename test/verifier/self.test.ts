import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { expect, it } from 'vitest';

it('the Python verifier passes its own tests', { timeout: 180_000 }, async () => {
  const script = fileURLToPath(new URL('test_verifier.py', import.meta.url));
  const { stderr } = await promisify(execFile)('python3', [script], { maxBuffer: 16 << 20 });
  expect(stderr).toMatch(/Ran \d{3} tests in [\s\S]*\nOK\n$/);
});
