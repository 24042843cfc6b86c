/** `chkpt save --scrub` and `--leave-out`, and what `info` and `load` make of it. */
import { readFileSync, writeFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { makeFolder } from './support/folders.ts';
import { chkpt, chkptJson, chkptOk } from './support/run-cli.ts';

const kibibyte = 1024;

test('what is scrubbed or left out is not in the checkpoint, info tells it, and a load has zeros there', async () => {
  const cwd = makeFolder();
  const ram = Buffer.alloc(256 * kibibyte, 'top secret; ');
  writeFileSync(`${cwd}/ram`, ram);
  const save = ['save', '--memory', 'ram@1M', '--codec', 'raw', '--quiet'];
  await chkptOk([...save, 'whole'], { cwd });
  const secrets = ['--scrub', '0x100000+64K', '--leave-out', '1152K+128K'];
  await chkptOk([...save, ...secrets, 'a'], { cwd });
  await chkptOk([...save, ...secrets, '--parent', 'whole', 'b'], { cwd });
  for (const name of ['a', 'b']) {
    const info = (await chkptOk(['info', name], { cwd })).stdout.toString();
    expect(info).toMatch(/^ {2}scrubbed +0x100000 to 0x10ffff, 64.0 KiB \(65536 bytes\), stored as zeros$/m);
    expect(info).toMatch(/^ {2}left out +0x120000 to 0x13ffff, 128 KiB \(131072 bytes\), not stored$/m);
    expect(await chkptJson(['info', '--json', name], { cwd })).toMatchObject({
      scrubbed: [
        { base: 0x10_0000, bytes: 64 * kibibyte, how: 'zero' },
        { base: 0x12_0000, bytes: 128 * kibibyte, how: 'left-out' },
      ],
    });
    await chkptOk(['load', name, '--memory', `out-${name}`], { cwd });
    const expected = Buffer.from(ram);
    expected.fill(0, 0, 64 * kibibyte);
    expected.fill(0, 128 * kibibyte);
    expect(readFileSync(`${cwd}/out-${name}`).equals(expected)).toBe(true);
  }
  const pages = { total: 64, zero: 48 };
  expect(await chkptJson(['info', '--json', 'a'], { cwd })).toMatchObject({ pages });
  expect(await chkptJson(['info', '--json', 'b'], { cwd })).toMatchObject({
    pages: { ...pages, parent: 16 },
  });
  expect(await chkptJson(['info', '--json', 'whole'], { cwd })).toMatchObject({ scrubbed: [] });
});

test('a range that is none is exit code 2, and nothing is saved', async () => {
  const cwd = makeFolder();
  writeFileSync(`${cwd}/ram`, Buffer.alloc(64 * kibibyte, 1));
  for (const range of ['4K', '+4K', '4K+', 'x+4K', '1+4K', '0+100', '60K+8K', '0+0']) {
    const { code, stderr } = await chkpt(['save', '--memory', 'ram', '--scrub', range, 'a'], { cwd });
    expect([code, stderr]).toEqual([2, expect.stringContaining('CHKPT_USAGE: --scrub')]);
  }
  const { code } = await chkpt(['save', '--skip', 'memory', '--leave-out', '0+4K', 'a'], { cwd });
  expect(code).toBe(2);
  expect((await chkpt(['info', 'a'], { cwd })).stderr).toContain('CHKPT_NOT_FOUND');
});
