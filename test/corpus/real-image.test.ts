/**
 * The RAM of a real Linux guest through the command line: saved to a file and to a directory, verified, loaded, and equal by SHA-256.
 *
 * The image is made by `npm run corpus` (QEMU, Debian packages); without it this test says so and skips.
 */
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { createReadStream, existsSync, readFileSync, statSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { buildCommandLine } from '../cli/support/dist.ts';

const image = fileURLToPath(new URL('../../bench/corpus/data/linux-2g.ram', import.meta.url));
const facts = image.replace(/\.ram$/, '.json');
const present = existsSync(image) && existsSync(facts);
if (!present) console.log(`skipped: ${image} is missing; npm run corpus makes it (needs QEMU)`);

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(existsSync('/dev/shm') ? '/dev/shm' : tmpdir(), 'chkpt-image-'));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

async function chkpt(...args: string[]): Promise<Record<string, unknown>> {
  const { stdout } = await promisify(execFile)(process.execPath, [buildCommandLine(), ...args, '--json']);
  return JSON.parse(stdout) as Record<string, unknown>;
}

async function sha256(path: string): Promise<string> {
  const hash = createHash('sha256');
  await pipeline(createReadStream(path, { highWaterMark: 4 << 20 }), hash);
  return hash.digest('hex');
}

it.skipIf(!present)(
  'a 2 GiB Linux guest survives file: and dir: with equal SHA-256',
  { timeout: 600_000 },
  async () => {
    const { sha256: expected, byteCount } = JSON.parse(readFileSync(facts, 'utf8')) as Record<
      string,
      unknown
    >;
    for (const scheme of ['file', 'dir']) {
      const url = `${scheme}:${join(folder, `guest-${scheme}`)}`;
      const output = join(folder, 'loaded.ram');
      const saved = await chkpt('save', '--memory', image, url);
      const verified = await chkpt('verify', url);
      expect(verified['root']).toBe(saved['root']);
      await chkpt('load', url, '--memory', output);
      expect(statSync(output).size).toBe(byteCount);
      expect(await sha256(output)).toBe(expected);
      await rm(output);
      await rm(url.slice(url.indexOf(':') + 1), { recursive: true });
    }
  },
);
