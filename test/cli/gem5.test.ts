/** The command line with gem5 checkpoints: in and out, and what bad ones do to it. */
import { cpSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { beforeAll, describe, expect, test } from 'vitest';
import { listTree, makeFolder, makeSharedFolder } from './support/folders.ts';
import { isSameFile, MiB, makeRamFile } from './support/ram-files.ts';
import { chkpt, chkptOk } from './support/run-cli.ts';

const store = 'system.physmem.store0.pmem';

const sample = makeSharedFolder();
beforeAll(async () => {
  makeRamFile(`${sample}/ram.img`, 2 * MiB);
  await chkptOk(['save', '--memory', 'ram.img', 'gem5:cpt.0'], { cwd: sample });
});

describe('gem5: on the command line', () => {
  test('an image and values go in and come out', async () => {
    const cwd = makeFolder();
    makeRamFile(`${cwd}/ram.img`, 2 * MiB);
    writeFileSync(`${cwd}/irr.bin`, 'irr!');
    await chkptOk(['save', '--memory', 'ram.img', '--state', 'pic.irr=irr.bin', 'gem5:cpt.0'], { cwd });
    expect(listTree(`${cwd}/cpt.0`)).toEqual(['chkpt.manifest.json', 'm5.cpt', store]);
    await chkptOk(['load', 'gem5:cpt.0', '--memory', 'out.img', '--state', 'pic.irr=out.bin'], { cwd });
    expect(isSameFile(`${cwd}/ram.img`, `${cwd}/out.img`)).toBe(true);
    expect(readFileSync(`${cwd}/out.bin`, 'utf8')).toBe('irr!');
    const verified = await chkptOk(['verify', 'gem5:cpt.0', '--json'], { cwd });
    expect(JSON.parse(verified.stdout.toString())).toMatchObject({ verified: true, integrity: 'detect' });
  });

  test.each<[name: string, path: string, change: (bytes: Buffer) => Buffer]>([
    ['a path in filename', 'm5.cpt', (bytes) => replace(bytes, 'filename=', 'filename=../../')],
    ['an e in an integer', 'm5.cpt', (bytes) => replace(bytes, 'range_size=2', 'range_size=2e')],
    [
      'a flipped bit',
      store,
      (bytes) => Buffer.from(bytes.map((byte, at) => (at === 5000 ? byte ^ 4 : byte))),
    ],
  ])('%s is exit code 3, with and without manifest, and nothing is written', async (_name, file, change) => {
    const cwd = makeFolder();
    cpSync(sample, cwd, { recursive: true });
    writeFileSync(`${cwd}/cpt.0/${file}`, change(readFileSync(`${cwd}/cpt.0/${file}`)));
    await expectDamaged(['verify', 'gem5:cpt.0'], cwd);
    rmSync(`${cwd}/cpt.0/chkpt.manifest.json`);
    await expectDamaged(['load', 'gem5:cpt.0', '--memory', 'out.img'], cwd);
  });
});

async function expectDamaged(args: readonly string[], cwd: string): Promise<void> {
  const before = listTree(cwd);
  const result = await chkpt(args, { cwd });
  expect(result.stderr).toMatch(/^chkpt: CHKPT_[A-Z_]+: [^\n]+; [^\n]+\n$/);
  expect(result.code, result.stderr).toBe(3);
  expect(result.stdout.toString()).toBe('');
  expect(listTree(cwd)).toEqual(before);
}

function replace(bytes: Buffer, from: string, to: string): Buffer {
  const text = bytes.toString('latin1');
  expect(text).toContain(from);
  return Buffer.from(text.replace(from, to), 'latin1');
}
