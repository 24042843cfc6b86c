/** Chains looked after: made one, compared, cut. */
import { existsSync, readdirSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import {
  diffCheckpoints,
  flattenCheckpoint,
  inspectCheckpoint,
  keepLast,
  loadVm,
  saveVm,
  verifyCheckpoint,
} from '../../src/index.ts';
import { makeFolder } from '../store/support/folders.ts';
import { ScribbledVm } from './support/scribbled-vm.ts';

/** A chain `0` to `depth` in a folder; what memory was at each member. */
async function makeChain(
  scheme: string,
  seed: number,
  depth: number,
): Promise<{ url: (n: number | string) => string; vm: ScribbledVm; digests: bigint[] }> {
  const folder = makeFolder();
  const url = (n: number | string): string => `${scheme}:${folder}/${n}`;
  const vm = new ScribbledVm(seed, true);
  vm.scribble(800);
  const digests: bigint[] = [];
  for (let n = 0; n <= depth; n += 1) {
    await saveVm(vm, url(n), n === 0 ? {} : { parent: url(n - 1) });
    digests.push(await vm.memory.digest());
    vm.scribble(25);
  }
  return { url, vm, digests };
}

async function digestAt(url: string): Promise<bigint> {
  const vm = new ScribbledVm(0, false);
  await loadVm(vm, url);
  return await vm.memory.digest();
}

describe.each(['file', 'dir'])('a chain in %s:', (scheme) => {
  it('is made one checkpoint, which stands alone and holds the same', async () => {
    const { url, digests } = await makeChain(scheme, 1, 3);
    const report = await flattenCheckpoint(url(3), url('flat'));
    expect(report.members).toBe(4);
    await using flat = await inspectCheckpoint(url('flat'));
    expect(flat.header.parent).toBeUndefined();
    expect(flat.counts.parentPages).toBe(0);
    await verifyCheckpoint(url('flat'));
    expect(await digestAt(url('flat'))).toBe(digests[3]);
  });

  it('goes on from a member that was made whole in its own place', async () => {
    const { url, vm, digests } = await makeChain(scheme, 2, 3);
    await flattenCheckpoint(url(2), url(2));
    expect(await digestAt(url(2))).toBe(digests[2]);
    expect(await digestAt(url(3))).toBe(digests[3]);
    await flattenCheckpoint(url(3), url(3));
    // The tracker has watched since the checkpoint that the new one replaces.
    const next = await saveVm(vm, url(4), { parent: url(3) });
    expect(next.tracker?.kind).toBe('reported');
    expect(await digestAt(url(4))).toBe(await vm.memory.digest());
  });

  it('is cut after the newest members, which load as before', async () => {
    const { url, digests } = await makeChain(scheme, 3, 4);
    const folder = url('').slice(scheme.length + 1);
    const { kept, removed, freedBytes } = await keepLast(url(4), 2);
    expect(kept).toHaveLength(2);
    expect(removed).toEqual([url(2), url(1), url(0)].map((one) => expect.stringContaining(one.slice(-2))));
    expect(freedBytes).toBeGreaterThan(0);
    expect(readdirSync(folder).sort()).toEqual(['3', '4']);
    expect(await digestAt(url(3))).toBe(digests[3]);
    expect(await digestAt(url(4))).toBe(digests[4]);
    expect((await keepLast(url(4), 2)).removed).toEqual([]);
    await keepLast(url(4), 1);
    expect(existsSync(`${folder}/3`)).toBe(false);
    expect(await digestAt(url(4))).toBe(digests[4]);
  });

  it('is compared page by page, per region, with another one and with itself', async () => {
    const { url, vm } = await makeChain(scheme, 4, 1);
    await saveVm(vm, url('before'));
    const pages = [0, 5, 6, 7, 3071, 3072, 4095];
    for (const page of pages) vm.write(page, new Uint8Array(4096).fill(0xee).fill(page & 0xff, 9, 99));
    vm.write(20, vm.read(20));
    await saveVm(vm, url('after'), { parent: url('before') });
    const diff = await diffCheckpoints(url('before'), url('after'));
    expect(diff.differing).toBe(pages.length);
    expect([...diff.set.runs()].flatMap((packed) => [...packed])).toEqual([0, 1, 5, 3, 3071, 2, 4095, 1]);
    expect(diff.regions.map(({ differing }) => differing)).toEqual([5, 2]);
    const [first] = diff.regions;
    expect(first?.heat).toHaveLength(64);
    expect(first?.heat[0]).toBeCloseTo(4 / 48);
    expect(first?.heat[63]).toBeCloseTo(1 / 48);
    expect((await diffCheckpoints(url('after'), url('after'))).differing).toBe(0);
    const [a, b] = [await diffCheckpoints(url(0), url('after')), await diffCheckpoints(url('after'), url(0))];
    expect(a.differing).toBe(b.differing);
    expect(a.differing).toBeGreaterThan(20);
  });
});

it('refuses to keep less than one, and to compare machines of different memory', async () => {
  const { url } = await makeChain('file', 5, 1);
  await expect(keepLast(url(1), 0)).rejects.toThrow(RangeError);
  const other = new ScribbledVm(1, false, [{ base: 0, bytes: 1024 ** 2 }]);
  await saveVm(other, url('other'));
  await expect(diffCheckpoints(url(1), url('other'))).rejects.toMatchObject({ code: 'CHKPT_VM_REGIONS' });
});
