/**
 * The Python verifier was written from docs/format.md alone. What chkpt writes it must accept, and decode to the same bytes.
 */
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { loadVm, openCheckpoint, verifyCheckpoint } from '../../src/index.ts';
import { GuestMemory, PageEncoder } from '../../src/memory/index.ts';
import { saveSample } from '../damage/damage.suite.ts';
import { goldenChains, goldenCheckpoints, goldenFolder } from '../golden/golden.ts';
import { ChainVm, saveChain } from '../support/sample-chain.ts';

const script = fileURLToPath(new URL('verify.py', import.meta.url));
let folder: string;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'chkpt-agreement-'));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

async function verify(args: readonly string[]): Promise<{ code: number; stdout: string; stderr: string }> {
  try {
    return { code: 0, ...(await promisify(execFile)('python3', [script, ...args], { maxBuffer: 64 << 20 })) };
  } catch (error) {
    const { code, stdout, stderr } = error as { code: number; stdout: string; stderr: string };
    return { code, stdout, stderr };
  }
}

/** Reads a checkpoint with both; what the Python verifier says of it, as JSON. */
async function agreeOn(scheme: string, path: string, more: readonly string[] = []): Promise<string> {
  const ours = await verifyCheckpoint(`${scheme}:${path}`);
  const kind = scheme === 'dir' ? ['--dir'] : [];
  const { code, stdout, stderr } = await verify([path, '--json', ...kind, ...more]);
  expect(stderr).toBe('');
  expect(code).toBe(0);
  const theirs = JSON.parse(stdout);
  expect(theirs.root).toBe(ours.root);
  expect(theirs.uuid).toBe(ours.header.uuid);
  const { pages, zeroPages, fillPages, storedPages, samePages, parentPages, encodedBytes } = ours.counts;
  expect(theirs.memory.pages).toMatchObject({
    total: pages,
    zero: zeroPages,
    fill: fillPages,
    stored: storedPages,
    same: samePages,
    parent: parentPages,
  });
  expect(theirs.memory.encodedBytes).toBe(encodedBytes);
  return stdout;
}

it.each(['file', 'dir'])(
  'the Python verifier agrees on root, counts and values of a %s: checkpoint',
  async (scheme) => {
    const path = join(folder, `sample-${scheme}`);
    await saveSample(`${scheme}:${path}`);
    const stdout = await agreeOn(scheme, path);
    // Raw text: a u64 does not fit a number.
    expect(stdout).toMatch(/"value": ?1152921504606846976\b/);
  },
);

it.each(goldenCheckpoints.flatMap((version) => ['file', 'dir'].map((scheme) => [version, scheme] as const)))(
  'the Python verifier agrees on root and counts of the golden %s in a %s: store',
  async (version, scheme) => {
    const path = join(goldenFolder, version, scheme);
    const { root } = JSON.parse(await readFile(`${path}.json`, 'utf8'));
    expect(JSON.parse(await agreeOn(scheme, path)).root).toBe(root);
  },
);

it.each(goldenChains.flatMap((version) => ['file', 'dir'].map((scheme) => [version, scheme] as const)))(
  'the Python verifier agrees on root, counts and memory of the golden chain %s in %s: stores',
  async (version, scheme) => {
    const path = join(goldenFolder, version, scheme);
    const { root, memory } = JSON.parse(await readFile(`${path}.json`, 'utf8')).at(-1);
    const parents = ['--parent', `${path}/0`, '--parent', `${path}/1`];
    const theirs = JSON.parse(await agreeOn(scheme, `${path}/2`, parents));
    expect(theirs.root).toBe(root);
    const digests = theirs.memory.regions.map(({ sha256 }: { sha256: string }) => sha256);
    expect(digests).toEqual(Object.values(memory));
  },
);

it.each(['file', 'dir'])(
  'the Python verifier decodes each increment of a chain of three in %s: stores to the bytes that loadVm gives',
  async (scheme) => {
    const prefix = join(folder, `chain-${scheme}-`);
    const paths: string[] = [];
    for (const [member, { url, image, report }] of (await saveChain(`${scheme}:${prefix}`, 3)).entries()) {
      const decoded = join(folder, `chain-${scheme}.ram`);
      const parents = paths.flatMap((path) => ['--parent', path]);
      paths.push(`${prefix}${member}`);
      if (member === 0) continue;
      const theirs = JSON.parse(
        await agreeOn(scheme, `${prefix}${member}`, [...parents, '--memory', decoded]),
      );
      expect(theirs.root).toBe(report.root);
      expect(theirs.memory.pages.parent).toBeGreaterThan(0);
      expect((await readFile(decoded)).equals(image)).toBe(true);
      const vm = new ChainVm();
      await loadVm(vm, url);
      expect(vm.image().equals(image)).toBe(true);
      await vm.memory.close();
    }
  },
);

it('the Python verifier decodes guest memory of several groups and regions to the same bytes', {
  timeout: 120_000,
}, async () => {
  // Two groups in the first region (blocks around 512 MiB), a region of odd size above 4 GiB.
  const memory = GuestMemory.allocate([
    { base: 0, bytes: 520n << 20n },
    { base: 1n << 33n, bytes: 5 * 4096 },
    { base: (1n << 33n) + (1n << 20n), bytes: 2 << 20 },
  ]);
  const fill = GuestMemory.allocate([{ base: 0, bytes: 2 << 20 }]);
  await fill.native.fillGuestLike(11n, 2);
  const pages = fill.read(0, 2 << 20);
  for (const at of [0n, 511n << 20n, 513n << 20n, (1n << 33n) + (1n << 20n)]) memory.write(at, pages);
  memory.write((1n << 33n) + 4n * 4096n, pages.subarray(0, 4096).fill(9));
  const path = join(folder, 'groups.chkpt');
  const checkpoint = await openCheckpoint(`file:${path}`, { mode: 'save' });
  await checkpoint.saveMemory('memory', new PageEncoder(memory));
  await checkpoint.commit();
  const image = join(folder, 'groups.ram');
  const { code, stderr } = await verify([path, '--json', '--memory', image]);
  expect(stderr).toBe('');
  expect(code).toBe(0);
  const expected = createHash('sha256');
  for (const { base, bytes } of memory.regions) {
    for (let at = 0n; at < bytes; at += 1n << 20n) {
      const piece = bytes - at < 1n << 20n ? bytes - at : 1n << 20n;
      expected.update(memory.read(base + at, Number(piece)));
    }
  }
  expect(
    createHash('sha256')
      .update(await readFile(image))
      .digest('hex'),
  ).toBe(expected.digest('hex'));
  await Promise.all([memory.close(), fill.close()]);
});

it('the Python verifier refuses what chkpt refuses, with exit code 3 and the place', async () => {
  const path = join(folder, 'damaged.chkpt');
  await saveSample(`file:${path}`);
  const bytes = await readFile(path);
  bytes[20_000] = (bytes[20_000] ?? 0) ^ 1;
  await writeFile(path, bytes);
  await expect(verifyCheckpoint(`file:${path}`)).rejects.toMatchObject({ code: 'CHKPT_DIGEST' });
  const { code, stderr } = await verify([path]);
  expect(code).toBe(3);
  expect(stderr).toMatch(/^damaged: .* at offset \d+/);
});
