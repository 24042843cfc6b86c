/**
 * Checkpoints written by released versions load for ever. The files are never made again; a new version of the format, or an
 * encoder that writes other bytes, adds its own with
 *
 *   CHKPT_WRITE_GOLDEN=1 npx vitest run test/golden
 *
 * which writes the folder named `current` below when it does not exist.
 */
import { existsSync } from 'node:fs';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { defaultMemoryStoreSpace, inspectCheckpoint, openCheckpoint, PageDecoder, verifyCheckpoint } from '../../src/index.ts';
import { GuestMemory } from '../../src/memory/index.ts';
import { saveSample } from '../damage/damage.suite.ts';
import { goldenCheckpoints, goldenFolder, readValues, sha256 } from './golden.ts';

const current = 'format-1.0-page-encoder';

/** What a golden checkpoint holds, as JSON. */
interface Expected {
  readonly root: string;
  readonly values: Record<string, string>;
  readonly memory: Record<string, string>;
}

async function readAll(url: string): Promise<Expected> {
  const { root } = await verifyCheckpoint(url);
  const values = await readValues(url);
  await using inspection = await inspectCheckpoint(url);
  const target = GuestMemory.allocate(inspection.regions.map(({ base, bytes }) => ({ base, bytes })));
  const checkpoint = await openCheckpoint(url, { mode: 'load' });
  await checkpoint.loadMemory('memory', new PageDecoder(target));
  await checkpoint.finish();
  await checkpoint.close();
  const memory: Record<string, string> = {};
  for (const { base, bytes } of target.regions) memory[`0x${base.toString(16)}`] = sha256(target.read(base, Number(bytes)));
  await target.close();
  return { root, values, memory };
}

if (process.env['CHKPT_WRITE_GOLDEN'] === '1' && !existsSync(join(goldenFolder, current))) {
  await mkdir(join(goldenFolder, current), { recursive: true });
  for (const scheme of ['file', 'dir']) {
    const path = join(goldenFolder, current, scheme);
    await saveSample(`${scheme}:${path}`);
    await writeFile(`${path}.json`, `${JSON.stringify(await readAll(`${scheme}:${path}`), null, 2)}\n`);
  }
}

describe('golden checkpoints', () => {
  it('exist for the current format', () => {
    expect(goldenCheckpoints).toContain(current);
  });

  it.each(goldenCheckpoints.flatMap((version) => ['file', 'dir'].map((scheme) => [version, scheme] as const)))(
    '%s in a %s: store loads to what it held when it was written',
    async (version, scheme) => {
      const path = join(goldenFolder, version, scheme);
      const expected = JSON.parse(await readFile(`${path}.json`, 'utf8')) as Expected;
      expect(await readAll(`${scheme}:${path}`)).toEqual(expected);
    },
  );

  it('saving the sample again gives the same bytes', async () => {
    await saveSample('mem:golden');
  
    const bytes = Buffer.from(defaultMemoryStoreSpace.bytes('golden') ?? []);
    expect(bytes.equals(await readFile(join(goldenFolder, current, 'file')))).toBe(true);
  });
});
