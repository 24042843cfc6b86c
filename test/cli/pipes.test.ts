/** Checkpoints through standard output and standard input. */
import { spawnSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { makeFolder } from './support/folders.ts';
import { isSameFile, MiB, makeRamFile } from './support/ram-files.ts';
import { chkpt, chkptOk, mainPath } from './support/run-cli.ts';

const fixed = ['--uuid', '01234567-89ab-4def-8123-456789abcdef', '--time', '2025-01-31'];

test('save into a pipe, load out of it: the memory is equal', () => {
  const cwd = makeFolder();
  makeRamFile(`${cwd}/ram.img`, 24 * MiB, 1);
  const line = '"$0" "$1" save --memory ram.img - | "$0" "$1" load - --memory copy.img';
  const { status, stderr } = spawnSync('bash', ['-o', 'pipefail', '-c', line, process.execPath, mainPath], {
    cwd,
  });
  expect(status, stderr.toString()).toBe(0);
  expect(isSameFile(`${cwd}/ram.img`, `${cwd}/copy.img`)).toBe(true);
});

test('what goes into a pipe is what goes into a file, and is inspected and verified out of a pipe', async () => {
  const cwd = makeFolder();
  makeRamFile(`${cwd}/ram.img`, 4 * MiB, 1);
  await chkptOk(['save', '--memory', 'ram.img', ...fixed, 'vm.chkpt'], { cwd });
  const piped = await chkptOk(['save', '--memory', 'ram.img', ...fixed, '-'], { cwd });
  const bytes = readFileSync(`${cwd}/vm.chkpt`);
  expect(piped.stdout.equals(bytes)).toBe(true);
  expect(piped.stderr).toMatch(/^saved 4\.00 MiB/);
  expect((await chkptOk(['verify', '-'], { cwd, input: bytes })).stdout.toString()).toMatch(/^ok -: /);
  expect((await chkptOk(['cat', '-', 'header', 'vm.id'], { cwd, input: bytes })).stdout.toString()).toBe(
    'ram.img',
  );
});

test('a pipe that ends too early is damage, and nothing is published', async () => {
  const cwd = makeFolder();
  makeRamFile(`${cwd}/ram.img`, 4 * MiB, 1);
  const { stdout } = await chkptOk(['save', '--memory', 'ram.img', '-'], { cwd });
  writeFileSync(`${cwd}/copy.img`, 'as before');
  const input = stdout.subarray(0, stdout.length - 100);
  const { code, stderr } = await chkpt(['load', '-', '--memory', 'copy.img'], { cwd, input });
  expect([code, stderr]).toEqual([3, expect.stringMatching(/^chkpt: CHKPT_TRUNCATED/)]);
  expect(readFileSync(`${cwd}/copy.img`, 'utf8')).toBe('as before');
});

test('a reader that goes away is a failure of the save', () => {
  const cwd = makeFolder();
  makeRamFile(`${cwd}/ram.img`, 8 * MiB, 1);
  const line = '"$0" "$1" save --memory ram.img - | head -c 1000 > /dev/null; exit $PIPESTATUS';
  const { status, stderr } = spawnSync('bash', ['-c', line, process.execPath, mainPath], { cwd });
  expect([status, stderr.toString()]).toEqual([1, expect.stringMatching(/^chkpt: CHKPT_IO: .*has gone/)]);
});

test('a checkpoint and a document do not share standard output', async () => {
  const cwd = makeFolder();
  makeRamFile(`${cwd}/ram.img`, MiB, 1);
  const { code, stdout } = await chkpt(['save', '--json', '--memory', 'ram.img', '-'], { cwd });
  expect([code, stdout.length]).toEqual([2, 0]);
});
