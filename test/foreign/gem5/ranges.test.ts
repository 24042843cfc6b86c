/** Memory in one piece, as images of RAM and Palacios have it, in the stores of a PC: below the hole and above it. */

import { createHash } from 'node:crypto';
import { readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { expect, test } from 'vitest';
import { parseIni } from '../../../src/foreign/gem5/ini.ts';
import {
  GuestMemory,
  openCheckpoint,
  openStore,
  PageDecoder,
  PageEncoder,
  verifyCheckpoint,
} from '../../../src/index.ts';
import { makeFolder } from '../../store/support/folders.ts';
import { noise } from '../../store/support/sample-stream.ts';
import { skeletonText } from './skeleton-text.ts';
import { readStoresAsGem5 } from './store-loop.ts';

const gib = 1024 ** 3;
const hole = 3 * gib;
const aboveBytes = 2 * 1024 ** 2;

/** Sparse, with something on both sides of the cut. */
function flatMemory(): GuestMemory {
  const memory = GuestMemory.allocate([{ base: 0n, bytes: BigInt(hole + aboveBytes) }]);
  memory.write(4096 * 5 + 7, noise('low', 9000));
  memory.write(hole - 6000, noise('cut', 12_000));
  memory.write(hole + aboveBytes - 4096, noise('end', 4096));
  return memory;
}

async function save(url: string, memory: GuestMemory): Promise<void> {
  const checkpoint = await openCheckpoint(openStore(url), { mode: 'save' });
  await checkpoint.saveMemory('memory', new PageEncoder(memory));
  await checkpoint.commit();
}

async function digestOf(url: string, like: GuestMemory): Promise<bigint> {
  const memory = GuestMemory.allocate(like.regions);
  const checkpoint = await openCheckpoint(openStore(url), { mode: 'load' });
  try {
    await checkpoint.loadMemory('memory', () => new PageDecoder(memory));
    await checkpoint.finish();
    return await memory.digest();
  } finally {
    await checkpoint.close();
    await memory.close();
  }
}

const sectionsOf = (path: string) => parseIni(readFileSync(join(path, 'm5.cpt')));

test('more than is below the hole goes into two stores, and comes back in one piece', {
  timeout: 120_000,
}, async () => {
  const path = join(makeFolder(), 'cpt');
  const memory = flatMemory();
  const above = memory.read(hole, aboveBytes);
  await save(`gem5:${path}`, memory);
  const document = sectionsOf(path);
  expect(document.section('system.physmem')?.get('nbr_of_stores')).toBe('2');
  const sizes = [0, 1].map((at) => document.section(`system.physmem.store${at}`)?.get('range_size'));
  expect(sizes).toEqual([`${hole}`, `${aboveBytes}`]);
  const file = join(path, String(document.section('system.physmem.store1')?.get('filename')));
  expect(readStoresAsGem5([{ path: file, rangeBytes: aboveBytes }])).toEqual([
    { memory: createHash('sha256').update(above).digest('hex') },
  ]);
  const digest = await memory.digest();
  expect(await digestOf(`gem5:${path}`, memory)).toBe(digest);
  expect((await verifyCheckpoint(`gem5:${path}`)).counts.pages).toBe((hole + aboveBytes) / 4096);
  // By one thread, without the table of members.
  for (const entry of readdirSync(path)) if (entry.endsWith('manifest.json')) rmSync(join(path, entry));
  expect(await digestOf(`gem5:${path}`, memory)).toBe(digest);
  await memory.close();
});

test.each([hole, hole + 4096])('a piece of %i bytes has as many stores as it needs', async (bytes) => {
  const path = join(makeFolder(), 'cpt');
  const memory = GuestMemory.allocate([{ base: 0n, bytes: BigInt(bytes) }]);
  await save(`gem5:${path}`, memory);
  expect(sectionsOf(path).section('system.physmem')?.get('nbr_of_stores')).toBe(bytes === hole ? '1' : '2');
  await memory.close();
});

test('in a skeleton it is cut where the machine is', async () => {
  const folder = makeFolder();
  const [low, high] = [1 << 20, 1 << 16];
  writeFileSync(join(folder, 'm5.cpt'), skeletonText({ cores: 1, storeBytes: [low, high] }));
  for (const [at, bytes] of [low, high].entries())
    writeFileSync(join(folder, `board.physmem.store${at}.pmem`), gzipSync(Buffer.alloc(bytes)));
  const memory = GuestMemory.allocate([{ base: 0n, bytes: BigInt(low + high) }]);
  memory.write(low - 3000, noise('cut', 6000));
  const above = memory.read(low, high);
  const path = join(makeFolder(), 'cpt');
  await save(`gem5:${path}?skeleton=${folder}`, memory);
  const file = join(path, String(sectionsOf(path).section('board.physmem.store1')?.get('filename')));
  expect(readStoresAsGem5([{ path: file, rangeBytes: high }])).toEqual([
    { memory: createHash('sha256').update(above).digest('hex') },
  ]);
  expect(await digestOf(`gem5:${path}`, memory)).toBe(await memory.digest());
  await memory.close();
  const other = GuestMemory.allocate([{ base: 0n, bytes: BigInt(low + high + 4096) }]);
  await expect(save(`gem5:${path}2?skeleton=${folder}`, other)).rejects.toMatchObject({
    code: 'CHKPT_UNSUPPORTED',
  });
  await other.close();
});

test.each([
  ['stores=0', 'a region has no stores'],
  ['stores=3', 'do not fit'],
  ['stores=1 1', 'values'],
])('%s in [chkpt] is refused', async (line, reason) => {
  const folder = makeFolder();
  const path = join(folder, 'cpt');
  const memory = GuestMemory.allocate([{ base: 0n, bytes: 8192n }]);
  await save(`gem5:${path}`, memory);
  await memory.close();
  for (const entry of readdirSync(path)) if (entry.endsWith('manifest.json')) rmSync(join(path, entry));
  const text = readFileSync(join(path, 'm5.cpt'), 'latin1');
  writeFileSync(join(path, 'm5.cpt'), text.replace(/^bases=/m, `${line}\nbases=`), 'latin1');
  await expect(verifyCheckpoint(`gem5:${path}`)).rejects.toMatchObject({
    code: 'CHKPT_FORMAT',
    message: expect.stringContaining(reason),
  });
});
