/** `chkpt convert` between the formats of others and those of chkpt: memory comes back byte for byte whatever it went through. */
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { expect, test } from 'vitest';
import { skeletonText } from '../foreign/gem5/skeleton-text.ts';
import { noise } from '../store/support/sample-stream.ts';
import { makeFolder } from './support/folders.ts';
import { chkptOk, mainPath } from './support/run-cli.ts';

const sha256 = (path: string): string => createHash('sha256').update(readFileSync(path)).digest('hex');

test.each(['gem5:other', 'palacios+file:other', 'palacios+textfile:other', 'palacios+dir:other'])(
  'file: → %s → dir: → load',
  async (other) => {
    const cwd = makeFolder();
    const ram = Buffer.alloc(2 * 1024 ** 2);
    ram.set(noise('ram', 300_000), 500_000);
    writeFileSync(join(cwd, 'ram'), ram);
    writeFileSync(join(cwd, 'irr'), Buffer.of(7, 8, 9));
    await chkptOk(['save', '--memory', 'ram', '--state', 'pic.irr=irr', 'a'], { cwd });
    const { stderr } = await chkptOk(['convert', 'a', other], { cwd });
    expect(stderr).toMatch(/^converted 2\.00 MiB of memory as .*, read back/m);
    await chkptOk(['convert', other, 'dir:b'], { cwd });
    await chkptOk(['load', 'dir:b', '--memory', 'back'], { cwd });
    expect(sha256(join(cwd, 'back'))).toBe(sha256(join(cwd, 'ram')));
    expect((await chkptOk(['cat', 'dir:b', 'pic', 'irr', '--raw'], { cwd })).stdout).toEqual(
      Buffer.of(7, 8, 9),
    );
  },
);

test('file: → palacios+net: → file: over a connection, which is not read back', async () => {
  const cwd = makeFolder();
  const ram = Buffer.alloc(2 * 1024 ** 2);
  ram.set(noise('ram', 300_000), 500_000);
  writeFileSync(join(cwd, 'ram'), ram);
  writeFileSync(join(cwd, 'irr'), Buffer.of(7, 8, 9));
  await chkptOk(['save', '--memory', 'ram', '--state', 'pic.irr=irr', 'a'], { cwd });
  const arguments_ = [mainPath, 'convert', 'palacios+net:a:127.0.0.1:0', 'b'];
  const receiver = spawn(process.execPath, arguments_, { cwd, stdio: ['ignore', 'ignore', 'pipe'] });
  let told = '';
  const address = await new Promise<string>((resolve, reject) => {
    receiver.stderr.on('data', (bytes: Buffer) => {
      told += bytes.toString();
      const found = /listening at (\S+)/.exec(told)?.[1];
      if (found !== undefined) resolve(found);
    });
    receiver.once('exit', () => reject(new Error(told)));
  });
  const ended = once(receiver, 'exit');
  const port = /(\d+)$/.exec(address)?.[1];
  const { stderr } = await chkptOk(['convert', 'a', `palacios+net:c:127.0.0.1:${port}`], { cwd });
  expect(stderr).toMatch(/^converted 2\.00 MiB of memory as .*, not read back/m);
  expect(await ended).toEqual([0, null]);
  expect(told).toMatch(/^converted 2\.00 MiB of memory as .*, read back and verified: b$/m);
  await chkptOk(['load', 'b', '--memory', 'back'], { cwd });
  expect(sha256(join(cwd, 'back'))).toBe(sha256(join(cwd, 'ram')));
});

test('a checkpoint as gem5 writes it, with nothing of chkpt → file: → load', async () => {
  const cwd = makeFolder();
  const images = [Buffer.alloc(2 * 1024 ** 2), Buffer.alloc(65_536)] as const;
  images[0].set(noise('low', 300_000), 500_000);
  images[1].set(noise('high', 65_536));
  const text = skeletonText({ cores: 1, storeBytes: images.map(({ length }) => length) });
  mkdirSync(join(cwd, 'cpt.1'));
  writeFileSync(join(cwd, 'cpt.1/m5.cpt'), text);
  for (const [at, image] of images.entries())
    writeFileSync(join(cwd, `cpt.1/board.physmem.store${at}.pmem`), gzipSync(image));
  await chkptOk(['convert', 'gem5:cpt.1', 'file:b'], { cwd });
  await chkptOk(['load', 'file:b', '--memory', 'low@0', '--memory', 'high@4g'], { cwd });
  for (const [at, name] of ['low', 'high'].entries())
    expect(images[at]?.equals(readFileSync(join(cwd, name))), name).toBe(true);
  const { stdout } = await chkptOk(['cat', 'file:b', 'gem5', 'm5.cpt', '--raw'], { cwd });
  expect(stdout.toString('latin1')).toBe(text);
});
