/** What goes wrong while a command runs: the exit code of the contract, one line that says where, and nothing left behind. */
import { execFileSync } from 'node:child_process';
import {
  chmodSync,
  closeSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statfsSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { beforeAll, describe, expect, test } from 'vitest';
import { listTree, makeFolder } from '../store/support/folders.ts';
import { isSameFile, MiB, makeDenseFile, makeRamFile, noise } from './support/ram-files.ts';
import { type CliOptions, chkpt, chkptOk, until } from './support/run-cli.ts';

const isRoot = process.getuid?.() === 0;

/** Runs a command that must fail: exit code, one line with this code, nothing on standard output, no new file. */
async function expectFailure(
  cwd: string,
  args: readonly string[],
  exitCode: number,
  line: RegExp,
  options: CliOptions = {},
): Promise<void> {
  const before = listTree(cwd);
  const result = await chkpt(args, { cwd, ...options });
  const label = args.join(' ');
  expect(result.stderr, label).toMatch(/^chkpt: CHKPT_[A-Z_]+: [^\n]+; [^\n]+\n$/);
  expect(result.stderr, label).toMatch(line);
  expect(result.code, label).toBe(exitCode);
  expect(result.stdout.toString(), label).toBe('');
  expect(listTree(cwd), label).toEqual(before);
}

/** A folder with `ram.img`, `irr.bin`, `vm.chkpt` and `vm.dir`. */
let sample: string;
beforeAll(async () => {
  sample = makeSample();
  const save = ['save', '--memory', 'ram.img', '--state', 'pic.irr=irr.bin'];
  await Promise.all([chkptOk([...save, 'vm.chkpt'], { cwd: sample }), chkptOk([...save, 'dir:vm.dir'], { cwd: sample })]);
});

function makeSample(): string {
  const folder = makeFolder({ keep: 'suite' });
  makeRamFile(`${folder}/ram.img`, 2 * MiB);
  writeFileSync(`${folder}/irr.bin`, 'irr!');
  return folder;
}
