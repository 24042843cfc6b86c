/**
 * Chains written by released versions load for ever, each member of them. The files are never made again; a new version of the format
 * adds its own with
 *
 *   CHKPT_WRITE_GOLDEN=1 npx vitest run test/golden
 *
 * which writes the folder named `current` below when it does not exist.
 */
import { existsSync } from 'node:fs';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { loadVm, verifyCheckpoint } from '../../src/index.ts';
import { ChainVm, chainRegions, chainUuid, saveChain } from '../support/sample-chain.ts';
import { goldenChains, goldenFolder, readValues, sha256 } from './golden.ts';

const current = 'format-1.1';
const depth = 2;

/** What a member of a golden chain holds, as JSON. */
interface Expected {
  readonly root: string;
  readonly parents: readonly string[];
  readonly values: Record<string, string>;
  /** Pages by class, and encoded bytes. */
  readonly counts: Record<string, number>;
  readonly memory: Record<string, string>;
}

async function readMember(url: string): Promise<Expected> {
  const { counts } = await verifyCheckpoint(url);
  const values = await readValues(url);
  const vm = new ChainVm();
  const { root, parents } = await loadVm(vm, url);
  expect(`u32 ${vm.counter}`).toBe(values['timer0.counter']);
  const memory: Record<string, string> = {};
  for (const { base, bytes } of vm.memory.regions)
    memory[`0x${base.toString(16)}`] = sha256(vm.memory.read(base, Number(bytes)));
  await vm.memory.close();
  return { root, parents, values, counts: { ...counts }, memory };
}

async function readChain(prefix: string): Promise<Expected[]> {
  const members: Expected[] = [];
  for (let member = 0; member <= depth; member += 1) members.push(await readMember(`${prefix}${member}`));
  return members;
}

if (process.env['CHKPT_WRITE_GOLDEN'] === '1' && !existsSync(join(goldenFolder, current))) {
  for (const scheme of ['file', 'dir']) {
    const path = join(goldenFolder, current, scheme);
    await mkdir(path, { recursive: true });
    await saveChain(`${scheme}:${path}/`, depth);
    await writeFile(`${path}.json`, `${JSON.stringify(await readChain(`${scheme}:${path}/`), null, 2)}\n`);
  }
}

describe('golden chains', () => {
  it('exist for the current format', () => {
    expect(existsSync(join(goldenFolder, current))).toBe(true);
  });

  it.each(goldenChains.flatMap((version) => ['file', 'dir'].map((scheme) => [version, scheme] as const)))(
    '%s in %s: stores load at every depth to what they held when they were written',
    async (version, scheme) => {
      const path = join(goldenFolder, version, scheme);
      const expected = JSON.parse(await readFile(`${path}.json`, 'utf8')) as Expected[];
      expect(await readChain(`${scheme}:${path}/`)).toEqual(expected);
    },
  );

  it('hold every class of page in an increment, and the same pages in both kinds of store', async () => {
    const [file, dir] = await Promise.all(
      ['file', 'dir'].map(
        async (scheme) =>
          JSON.parse(await readFile(join(goldenFolder, current, `${scheme}.json`), 'utf8')) as Expected[],
      ),
    );
    const classes = ['zeroPages', 'fillPages', 'storedPages', 'samePages', 'parentPages'];
    expect(classes.filter((name) => (file?.[1]?.counts[name] ?? 0) === 0)).toEqual([]);
    expect(file?.[2]?.parents).toEqual([chainUuid(1), chainUuid(0)]);
    const contentOf = (members: Expected[] | undefined): unknown =>
      members?.map(({ counts, memory }) => ({ counts, memory }));
    expect(contentOf(file)).toEqual(contentOf(dir));
  });

  it('saving the chain again gives the same pages in the same classes', async () => {
    const members = await saveChain('mem:golden-', depth);
    const expected = JSON.parse(await readFile(join(goldenFolder, current, 'file.json'), 'utf8')) as Expected[];
    for (const [member, { counts, memory }] of expected.entries()) {
      expect(await readMember(`mem:golden-${member}`)).toMatchObject({ counts, memory });
      const { image } = members[member] as { image: Buffer };
      const split = chainRegions[0]?.bytes;
      const saved = [image.subarray(0, split), image.subarray(split)].map(sha256);
      expect(Object.values(memory)).toEqual(saved);
    }
  });
});
