/** `chkpt load --as`: a checkpoint is continued once, and a clone is told which generation it is. */
import { existsSync, readdirSync, writeFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { makeFolder } from './support/folders.ts';
import { isSameFile, MiB, makeRamFile } from './support/ram-files.ts';
import { chkpt, chkptJson, chkptOk } from './support/run-cli.ts';

describe.each(['file:'])('%s', (scheme) => {
  test('load --as continue works once; --force says who was first', async () => {
    const cwd = makeFolder();
    const store = `${scheme}vm.chkpt`;
    makeRamFile(`${cwd}/ram.img`, MiB, 1);
    await chkptOk(['save', '--memory', 'ram.img', store], { cwd });
    const load = ['load', store, '--as', 'continue', '--quiet'];
    const before = readdirSync(cwd);
    // A load that fails does not use it up.
    const failed = await chkpt([...load, '--memory', 'no-folder/out.img'], { cwd });
    expect(failed.code).toBe(1);
    expect(readdirSync(cwd)).toEqual(before);
    await chkptOk([...load, '--memory', 'first.img'], { cwd });
    expect(isSameFile(`${cwd}/ram.img`, `${cwd}/first.img`)).toBe(true);
    const second = await chkpt([...load, '--memory', 'second.img'], { cwd });
    expect(second.code).toBe(1);
    expect(second.stderr).toMatch(
      /^chkpt: CHKPT_CONTINUED: the checkpoint was continued at \S+Z by machine ram\.img, /,
    );
    expect(existsSync(`${cwd}/second.img`)).toBe(false);
    const forced = await chkptJson([...load, '--memory', 'second.img', '--force'], { cwd });
    expect(forced.earlier.by).toContain('machine ram.img');
    expect(isSameFile(`${cwd}/ram.img`, `${cwd}/second.img`)).toBe(true);
  });

  test('load --as clone tells a new generation id, again and again', async () => {
    const cwd = makeFolder();
    const store = `${scheme}vm.chkpt`;
    writeFileSync(`${cwd}/pic.bin`, 'state');
    await chkptOk(['save', '--skip', 'memory', '--state', 'pic.irr=pic.bin', store], { cwd });
    const load = ['load', store, '--skip', 'memory', '--as', 'clone', '--state', 'pic.irr=out.bin'];
    const { stderr } = await chkptOk(load, { cwd });
    const [, first] = /, a clone of generation ([0-9a-f-]{36})\n$/.exec(stderr) ?? [];
    const { generation } = await chkptJson(load, { cwd });
    expect(generation).toMatch(/^[0-9a-f-]{36}$/);
    expect(generation).not.toBe(first);
  });
});

test.each([
  [['load', 'vm.chkpt', '--as', 'twin'], /--as/],
  [['load', 'vm.chkpt', '--force'], /--force goes with --as/],
])('%j is a usage error', async (words, message) => {
  const { code, stderr } = await chkpt(words, { cwd: makeFolder() });
  expect(code).toBe(2);
  expect(stderr).toMatch(message);
});
