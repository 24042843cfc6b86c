/** `chkpt flatten`, `diff` and `prune` over chains that the library made. */
import { existsSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { saveVm } from '../../src/index.ts';
import { ScribbledVm } from '../checkpoint/support/scribbled-vm.ts';
import { makeFolder } from './support/folders.ts';
import { chkpt, chkptJson, chkptOk } from './support/run-cli.ts';

async function makeChain(depth: number): Promise<string> {
  const cwd = makeFolder();
  const vm = new ScribbledVm(11, true);
  vm.scribble(500);
  for (let n = 0; n <= depth; n += 1) {
    await saveVm(vm, `file:${cwd}/${n}`, n === 0 ? {} : { parent: `file:${cwd}/${n - 1}` });
    vm.write(64 + n, new Uint8Array(4096).fill(n + 1));
    vm.write(3072 + n, new Uint8Array(4096).fill(n + 1));
  }
  return cwd;
}

test('flatten makes a checkpoint that equals its chain, beside it and in place', async () => {
  const cwd = await makeChain(3);
  const document = await chkptJson(['flatten', '3', 'flat', '--json'], { cwd });
  expect(document).toMatchObject({ command: 'flatten', to: 'flat', members: 4 });
  const { stderr } = await chkptOk(['flatten', '2', '2'], { cwd });
  expect(stderr).toMatch(/^flattened 3 checkpoints with 16.0 MiB of memory as .* in .*: 2$/m);
  for (const [a, b] of [
    ['3', 'flat'],
    ['2', '3'],
  ]) {
    const diff = await chkptJson(['diff', a ?? '', b ?? '', '--json'], { cwd });
    expect(diff['differing']).toBe(a === '2' ? 2 : 0);
  }
});

test('diff says how much differs in each region, and where', async () => {
  const cwd = await makeChain(3);
  const { stdout } = await chkptOk(['diff', '1', '3'], { cwd });
  const lines = stdout.toString().split('\n');
  expect(lines[0]).toMatch(/^REGION +PAGES +DIFFER +SHARE +BYTES +WHERE$/);
  expect(lines[1]).toMatch(/^0x0 +3072 +2 +0.1 % +8.00 KiB +·░·{62}$/);
  expect(lines[2]).toMatch(/^0x100000000 +1024 +2 +0.2 % +8.00 KiB +░·{63}$/);
  expect(lines[3]).toBe('4 of 4096 pages differ (0.1 %)');
  const document = await chkptJson(['diff', '1', '3', '--json'], { cwd });
  expect(document['runs']).toEqual([
    { first: 65, count: 2 },
    { first: 3073, count: 2 },
  ]);
  expect((await chkptOk(['diff', '3', '3'], { cwd })).stdout.toString()).toMatch(/\nequal\n$/);
});

test('prune keeps the newest, and they load as before', async () => {
  const cwd = await makeChain(4);
  await chkptOk(['flatten', '4', 'reference'], { cwd });
  const document = await chkptJson(['prune', '4', '--keep', '2', '--json'], { cwd });
  expect(document['removed']).toHaveLength(3);
  expect(['0', '1', '2', '3', '4'].filter((name) => existsSync(`${cwd}/${name}`))).toEqual(['3', '4']);
  expect((await chkptJson(['diff', '4', 'reference', '--json'], { cwd }))['differing']).toBe(0);
  expect((await chkptOk(['prune', '4', '--keep', '2'], { cwd })).stderr).toBe(
    'kept 2 checkpoints, removed 0\n',
  );
});

test('a parent that is gone is told by name, and nothing appears', async () => {
  const cwd = await makeChain(2);
  await chkptOk(['flatten', '2', 'reference'], { cwd });
  renameSync(`${cwd}/0`, `${cwd}/moved`);
  for (const args of [
    ['flatten', '2', 'flat'],
    ['diff', '2', '1'],
    ['prune', '2', '--keep', '1'],
  ]) {
    const { code, stderr } = await chkpt(args, { cwd });
    expect([code, stderr]).toEqual([
      1,
      expect.stringMatching(/^chkpt: CHKPT_PARENT_MISSING: .* file:.*\/0: [0-9a-f-]{36} is wanted/),
    ]);
  }
  expect(existsSync(`${cwd}/flat`)).toBe(false);
  await chkptOk(['flatten', '2', 'flat', '--parent', 'moved'], { cwd });
  expect((await chkptJson(['diff', 'flat', 'reference', '--json'], { cwd }))['differing']).toBe(0);
});

test.each([
  [['prune', 'x'], /--keep N is missing/],
  [['prune', 'x', '--keep', '0'], /--keep 0: a number from 1 on/],
  [['flatten', 'x'], /TO/],
  [['diff', 'x'], /B/],
])('%j is a usage error', async (args, message) => {
  const { code, stderr } = await chkpt(args);
  expect(code).toBe(2);
  expect(stderr).toMatch(message);
});

test('convert copies into another store, reads it back, and says so', async () => {
  const cwd = await makeChain(1);
  const document = await chkptJson(['convert', '0', 'dir:copy', '--json'], { cwd });
  expect(document).toMatchObject({
    command: 'convert',
    from: '0',
    to: 'dir:copy',
    checked: 'detect',
    parent: null,
  });
  const { stderr } = await chkptOk(['convert', 'dir:copy', 'back', '--no-check'], { cwd });
  expect(stderr).toMatch(/^converted 16.0 MiB of memory as .* in .*, .*\/s, not read back: back$/m);
  expect(readFileSync(`${cwd}/back`).equals(readFileSync(`${cwd}/0`))).toBe(true);
  const damaged = readFileSync(`${cwd}/0`);
  damaged[5000] = (damaged[5000] ?? 0) ^ 4;
  writeFileSync(`${cwd}/0`, damaged);
  const failed = await chkpt(['convert', '0', 'none'], { cwd });
  expect(failed.code).toBe(3);
  expect(existsSync(`${cwd}/none`)).toBe(false);
  expect((await chkpt(['convert', 'tcp://127.0.0.1:1', 'none'], { cwd })).code).toBe(2);
});

test('save into several stores: one that fails is told, the others have the checkpoint', async () => {
  const cwd = makeFolder();
  writeFileSync(`${cwd}/ram`, Buffer.alloc(1 << 20, 'guest'));
  const document = await chkptJson(['save', '--memory', 'ram', 'one', 'dir:two', '--json'], { cwd });
  expect(document['stores']).toMatchObject([
    { store: 'one', error: null },
    { store: 'dir:two', error: null },
  ]);
  expect((await chkptJson(['diff', 'one', 'dir:two', '--json'], { cwd }))['differing']).toBe(0);
  const failed = await chkpt(['save', '--memory', 'ram', 'missing/one', 'good'], { cwd });
  expect(failed.code).toBe(1);
  expect(failed.stderr).toMatch(/^saved 1.00 MiB .*\nchkpt: CHKPT_NOT_FOUND: .*missing/m);
  await chkptOk(['verify', 'good'], { cwd });
  expect((await chkpt(['save', '--memory', 'ram', 'one', 'one'], { cwd })).code).toBe(2);
  expect((await chkpt(['save', '--memory', 'ram', 'new', 'ram'], { cwd })).code).toBe(2);
});
