/** What a process pays for having chkpt: no library is loaded before it is needed. */
import { execFileSync } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { hasNativeAddon } from '../../src/index.ts';
import { buildCommandLine } from '../cli/support/dist.ts';

const dist = dirname(dirname(buildCommandLine()));

describe('importing the package', () => {
  test('imports nothing but its own files and those of Node', () => {
    const imported = new Set<string>();
    for (const name of readdirSync(dist, { recursive: true, encoding: 'utf8' })) {
      if (!name.endsWith('.js')) continue;
      const text = readFileSync(join(dist, name), 'utf8');
      for (const [, from = ''] of text.matchAll(/^(?:import|export)\b[^;]*?["']([^"']+)["'];$/gm))
        imported.add(from);
    }
    expect(imported.size).toBeGreaterThan(20);
    expect([...imported].filter((from) => !/^(\.|node:)/.test(from))).toEqual([]);
  });

  test.skipIf(!hasNativeAddon())('maps no native code but the addon', () => {
    const program = `(await import(${JSON.stringify(join(dist, 'index.js'))})).hasNativeAddon();
      const { readFileSync } = await import('node:fs');
      console.log(readFileSync('/proc/self/maps', 'latin1'));`;
    const maps = execFileSync(process.execPath, ['--input-type=module', '-e', program], {
      encoding: 'latin1',
    });
    const addons = new Set([...maps.matchAll(/\S+\.node$/gm)].map(([path]) => path));
    expect([...addons]).toEqual([expect.stringMatching(/chkpt\.node$/)]);
  });
});
