/** A remote backup by two commands: save on one side, receive on the other. */
import { randomBytes } from 'node:crypto';
import { existsSync, readdirSync, writeFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { openStreamStore } from '../../src/index.ts';
import { hasOpenssl } from '../transport/support/pki.ts';
import { makeFolder } from './support/folders.ts';
import { runHere } from './support/in-process.ts';
import { listening, securityIn } from './support/listening.ts';
import { isSameFile, MiB, makeRamFile } from './support/ram-files.ts';
import { chkptOk } from './support/run-cli.ts';

const fixed = ['--uuid', '01234567-89ab-4def-8123-456789abcdef', '--time', '2025-01-31'];

test.each(['tcp', 'psk', ...(hasOpenssl ? ['tls'] : [])])(
  'save and receive over %s: the same bytes as a save there',
  async (kind) => {
    const cwd = makeFolder();
    makeRamFile(`${cwd}/ram.img`, 8 * MiB, 1);
    writeFileSync(`${cwd}/key`, randomBytes(32).toString('hex'));
    const psk = ['--psk-file', 'key'];
    const { near, far } =
      kind === 'tls' ? securityIn(cwd) : kind === 'psk' ? { near: psk, far: psk } : { near: [], far: [] };
    const scheme = kind === 'tls' ? 'tls' : 'tcp';
    await chkptOk(['save', '--memory', 'ram.img', ...fixed, 'direct.chkpt'], { cwd });
    const receiver = await listening(
      ['receive', `${scheme}://127.0.0.1:0`, '{uuid}.chkpt', ...far, '--json'],
      cwd,
    );
    const sent = await chkptOk(
      ['save', '--memory', 'ram.img', ...fixed, receiver.address, ...near, '--json'],
      { cwd },
    );
    expect(isSameFile(`${cwd}/direct.chkpt`, `${cwd}/${fixed[1]}.chkpt`)).toBe(true);
    const { code, stdout } = await receiver.result;
    expect(code).toBe(0);
    const { checkpoints } = JSON.parse(stdout.toString());
    expect(checkpoints).toMatchObject([
      { root: JSON.parse(sent.stdout.toString()).root, acknowledged: true },
    ]);
  },
);

test('load listens, too; and a receiver goes on until it has its number, whoever fails in between', async () => {
  const cwd = makeFolder();
  makeRamFile(`${cwd}/ram.img`, 4 * MiB, 1);
  const loader = await listening(['load', `unix:${cwd}/s`, '--memory', 'copy.img'], cwd);
  await chkptOk(['save', '--memory', 'ram.img', loader.address], { cwd });
  expect((await loader.result).code).toBe(0);
  expect(isSameFile(`${cwd}/ram.img`, `${cwd}/copy.img`)).toBe(true);

  const receiver = await listening(['receive', `unix:${cwd}/s`, 'dir:{uuid}', '--count', '2', '--json'], cwd);
  for (let count = 0; count < 2; count += 1) {
    const broken = await openStreamStore(receiver.address).openWriter({ uuid: fixed[1] ?? '' });
    await broken.write(randomBytes(5000)).catch(() => undefined);
    await broken.abort();
    await chkptOk(['save', '--memory', 'ram.img', receiver.address], { cwd });
  }
  const { code, stdout, stderr } = await receiver.result;
  expect(code, stderr).toBe(0);
  expect(stderr.match(/^not received: /gm)).toHaveLength(2);
  const uuids = JSON.parse(stdout.toString()).checkpoints.map(({ uuid }: { uuid: string }) => uuid);
  expect(readdirSync(cwd).sort()).toEqual(['copy.img', 'ram.img', ...uuids].sort());
});

test('Ctrl-C ends a receiver that waits, and its socket goes', async () => {
  const cwd = makeFolder();
  const receiver = await listening(['receive', `unix:${cwd}/s`, 'x.chkpt'], cwd);
  receiver.child.kill('SIGINT');
  expect(await receiver.result).toMatchObject({ code: 130 });
  expect(existsSync(`${cwd}/s`)).toBe(false);
});

test('what cannot be is a usage error, before anything listens or connects', async () => {
  const cwd = makeFolder();
  writeFileSync(`${cwd}/short`, 'abc');
  writeFileSync(`${cwd}/pem`, 'x');
  const pems = ['--tls-key', 'pem', '--tls-cert', 'pem', '--tls-ca', 'pem'];
  for (const words of [
    ['receive', 'file:x', 'y'],
    ['receive', 'tcp://127.0.0.1:0', 'tcp://127.0.0.1:1'],
    ['receive', 'tcp://0.0.0.0:0', 'x'],
    ['receive', 'tls://127.0.0.1:0', 'x'],
    ['receive', 'tls://127.0.0.1:0', 'x', ...pems],
    ['receive', 'tcp://127.0.0.1:0', 'x', ...pems, '--tls-peer', 'a'.repeat(64)],
    ['receive', 'tls://127.0.0.1:0', 'x', '--tls-key', 'pem'],
    ['receive', 'tls://127.0.0.1:0', 'x', ...pems, '--tls-peer', 'abc'],
    ['receive', 'tcp://127.0.0.1:0', 'x', '--psk-file', 'short'],
    ['receive', 'tcp://127.0.0.1:0', 'x', '--count', '0'],
    ['receive', 'tcp://127.0.0.1:0', '-', '--json'],
    ['receive', 'tcp://127.0.0.1', 'x'],
    ['load', 'x', '--psk-file', 'short'],
  ]) {
    const { code, stderr } = await runHere(words, cwd);
    expect([code, stderr], words.join(' ')).toEqual([
      2,
      expect.stringMatching(/^chkpt: CHKPT_(USAGE|INSECURE|STORE_URL)/),
    ]);
  }
});
