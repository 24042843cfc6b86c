/** What killed saves leave behind is found and removed; nothing else is. */
import { execFile, spawnSync } from 'node:child_process';
import { mkdir, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { SyntheticVm } from '../../src/adapters/synthetic/index.ts';
import { collectGarbage, saveVm, verifyCheckpoint } from '../../src/index.ts';

let folder = '';
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'chkpt-gc-'));
});
afterEach(async () => await rm(folder, { recursive: true }));

const uuid = '01234567-89ab-4def-8123-456789abcdef';

/** Number of a process that has ended. */
function deadPid(): number {
  return spawnSync('true').pid;
}

async function tree(path: string): Promise<string[]> {
  return (await readdir(path, { recursive: true })).sort();
}

/** A process that saves there and kills itself when the store has some of it. */
async function killSaveInto(url: string): Promise<void> {
  const module = new URL('../../dist/index.js', import.meta.url).href;
  const adapter = new URL('../../dist/adapters/synthetic/index.js', import.meta.url).href;
  const script = `
    import { openStore, saveVm } from ${JSON.stringify(module)};
    import { SyntheticVm } from ${JSON.stringify(adapter)};
    const vm = await SyntheticVm.create({ memoryBytes: 64 << 20, cores: 1, guestLike: true });
    const store = openStore(${JSON.stringify(url)});
    await saveVm(vm, {
      url: store.url,
      openReader: (options) => store.openReader(options),
      openWriter: async (options) => {
        const writer = await store.openWriter(options);
        return {
          beginSegment: (segment) => writer.beginSegment(segment),
          endSegment: (summary) => writer.endSegment(summary),
          write: async (bytes) => {
            await writer.write(bytes);
            if (bytes.length > 100_000) process.kill(process.pid, 'SIGKILL');
          },
          commit: (summary) => writer.commit(summary),
          abort: () => writer.abort(),
        };
      },
    });`;
  const run = promisify(execFile)(process.execPath, ['--input-type=module', '-e', script]);
  await expect(run).rejects.toMatchObject({ signal: 'SIGKILL' });
}

test('killed saves: listed first, then removed, and the older checkpoints are what they were', async () => {
  await using vm = await SyntheticVm.create({ memoryBytes: 4 << 20, cores: 1, guestLike: true });
  const urls = [`file:${folder}/a`, `dir:${folder}/b`];
  for (const url of urls) await saveVm(vm, url);
  const before = await tree(folder);
  for (const url of [...urls, `dir:${folder}/new`]) await killSaveInto(url);
  const killed = await tree(folder);
  expect(killed.length).toBeGreaterThan(before.length + 3);

  const found = await collectGarbage(folder);
  expect(found.removed).toBe(false);
  expect(found.bytes).toBeGreaterThan(100_000);
  expect(await tree(folder)).toEqual(killed);

  const removed = await collectGarbage(folder, { remove: true });
  expect(removed.leftovers).toEqual(found.leftovers);
  // The folder of a checkpoint that never was stays: it may have been there before.
  expect(await tree(folder)).toEqual([...before, 'new'].sort());
  expect((await collectGarbage(folder)).leftovers).toEqual([]);
  for (const url of urls) await verifyCheckpoint(url);
});

test('temporaries of processes that run stay, and so does everything that is not a temporary', async () => {
  await writeFile(`${folder}/.a.${uuid}.${process.pid}.tmp`, 'ours');
  await writeFile(`${folder}/.a.${uuid}.${process.ppid}.tmp`, 'of a process that runs');
  await mkdir(`${folder}/.tmp-${uuid}-${process.ppid}`);
  for (const name of ['a', '.a.tmp', `.a.${uuid}.tmp`, `.a.${uuid}.0.tmp`, `a.${uuid}.1.tmp`, uuid]) {
    await writeFile(`${folder}/${name}`, 'mine');
  }
  const before = await tree(folder);
  await collectGarbage(folder, { remove: true });
  expect(await tree(folder)).toEqual(before);
});

test('folders beside a Palacios checkpoint go, unless the older one is all there is', async () => {
  const pid = deadPid();
  for (const name of [
    'there',
    `.there.${uuid}.${pid}.old`,
    `.there.${uuid}.${pid}.tmp`,
    `.gone.${uuid}.${pid}.old`,
  ]) {
    await mkdir(`${folder}/${name}`);
    await writeFile(`${folder}/${name}/header`, 'text');
  }
  const { leftovers } = await collectGarbage(folder, { remove: true });
  expect(leftovers.map(({ kind }) => kind).sort()).toEqual(['file', 'file', 'folder', 'folder']);
  expect((await readdir(folder)).sort()).toEqual([`.gone.${uuid}.${pid}.old`, 'there']);
});

test('a folder that is not there is CHKPT_NOT_FOUND', async () => {
  await expect(collectGarbage(`${folder}/none`)).rejects.toMatchObject({ code: 'CHKPT_NOT_FOUND' });
});
