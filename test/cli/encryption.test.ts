/** Keys on the command line: every command that opens a checkpoint takes one, from a file or from the environment. */
import { readFileSync, writeFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { makeFolder } from './support/folders.ts';
import { type CliOptions, chkpt, chkptJson, chkptOk } from './support/run-cli.ts';

const digits = (byte: string): string => byte.repeat(32);

function prepare(): string {
  const cwd = makeFolder();
  writeFileSync(`${cwd}/ram`, Buffer.alloc(256 * 1024, 'what memory holds '));
  writeFileSync(`${cwd}/pic`, Uint8Array.of(7));
  writeFileSync(`${cwd}/key`, `# of this test\n${digits('5a')}\n`);
  writeFileSync(`${cwd}/raw`, Buffer.alloc(32, 0x5a));
  writeFileSync(`${cwd}/other`, digits('a5'));
  writeFileSync(`${cwd}/both`, `${digits('A5')}\r\n\n  ${digits('5a')}`);
  return cwd;
}

const save = ['save', '--memory', 'ram', '--state', 'pic.irr=pic', '--quiet'];

test('every command opens what save has encrypted, with a key of digits or of bytes, and says that it authenticates', async () => {
  const cwd = prepare();
  await chkptOk([...save, '--key-file', 'key', 'a'], { cwd });
  expect(readFileSync(`${cwd}/a`).includes('what memory holds')).toBe(false);
  await chkptOk([...save, '--key-file', 'raw', '--parent', 'a', 'b'], { cwd });
  const key = ['--key-file', 'raw'];
  expect(await chkptJson(['verify', 'b', '--json', ...key], { cwd })).toMatchObject({
    integrity: 'authenticate',
  });
  expect(await chkptJson(['info', 'b', '--json', ...key], { cwd })).toMatchObject({
    integrity: 'authenticate',
  });
  expect((await chkptOk(['verify', 'b', ...key], { cwd })).stdout.toString()).toMatch(
    /^ok b: [^\n]*, integrity authenticate, /,
  );
  const info = await chkptOk(['info', 'b', ...key], { cwd });
  expect(info.stdout.toString()).toMatch(/^integrity +authenticate \(accidental damage and forgery\)$/m);
  expect((await chkptOk(['ls', 'b', ...key], { cwd })).stdout.toString()).toContain('irr');
  expect((await chkptOk(['cat', 'a', 'pic', 'irr', ...key], { cwd })).stdout).toEqual(Buffer.of(7));
  expect(await chkptJson(['diff', 'a', 'b', '--json', ...key], { cwd })).toMatchObject({ differing: 0 });
  await chkptOk(['load', 'b', '--memory', 'out', ...key], { cwd });
  expect(readFileSync(`${cwd}/out`).equals(readFileSync(`${cwd}/ram`))).toBe(true);
  await chkptOk(['flatten', 'b', 'flat', ...key], { cwd });
  await chkptOk(['prune', 'b', '--keep', '1', ...key], { cwd });
  await chkptOk(['verify', 'b', ...key], { cwd });
  await chkptOk(['verify', 'flat', ...key], { cwd });
});

test('convert encrypts, changes keys and decrypts; of several keys the first one encrypts', async () => {
  const cwd = prepare();
  await chkptOk([...save, 'plain'], { cwd });
  await chkptOk(['convert', 'plain', 'a', '--to-key-file', 'key'], { cwd });
  await chkptOk(['convert', 'a', 'b', '--key-file', 'both'], { cwd });
  await chkptOk(['verify', 'b', '--key-file', 'other'], { cwd });
  await chkptOk(['convert', 'b', 'c', '--key-file', 'other', '--to-plain'], { cwd });
  expect(readFileSync(`${cwd}/c`).equals(readFileSync(`${cwd}/plain`))).toBe(true);
});

test('keys come from the environment, and the command line goes before it', async () => {
  const cwd = prepare();
  const env = (entries: Readonly<Record<string, string>>): CliOptions => ({ cwd, env: entries });
  await chkptOk([...save, 'a'], env({ CHKPT_KEY_FILE: 'key' }));
  await chkptOk(['verify', 'a'], env({ CHKPT_KEY: digits('5a') }));
  await chkptOk(['verify', 'a'], env({ CHKPT_KEY: digits('a5'), CHKPT_KEY_FILE: 'key' }));
  await chkptOk(['verify', 'a', '--key-file', 'key'], env({ CHKPT_KEY_FILE: 'other' }));
  expect((await chkpt(['verify', 'a'], env({ CHKPT_KEY_FILE: '' }))).code).toBe(1);
});

test('a wrong key is exit code 1, damage 3, and what is no key 2', async () => {
  const cwd = prepare();
  await chkptOk([...save, '--key-file', 'key', 'a'], { cwd });
  await chkptOk([...save, 'plain'], { cwd });
  const failure = async (args: readonly string[]): Promise<string> => {
    const { code, stderr } = await chkpt(args, { cwd });
    return `${code} ${stderr}`;
  };
  expect(await failure(['info', 'a'])).toMatch(
    /^1 chkpt: CHKPT_KEY: this checkpoint is encrypted, and no key was given/,
  );
  expect(await failure(['info', 'a', '--key-file', 'other'])).toMatch(
    /^1 chkpt: CHKPT_KEY: .* another key .*--key-file FILE/,
  );
  expect(await failure(['verify', 'plain', '--key-file', 'key'])).toMatch(
    /^1 chkpt: CHKPT_KEY: .* not encrypted/,
  );
  expect(await failure(['info', 'a', '--key-file', 'pic'])).toMatch(
    /^2 chkpt: CHKPT_USAGE: pic: 32 random bytes or/,
  );
  expect(await failure(['info', 'a', '--key-file', 'none'])).toMatch(
    /^1 chkpt: CHKPT_NOT_FOUND: cannot read the key/,
  );
  expect(await failure(['send', 'tcp://h:1', '--memory', 'ram', '--key-file', 'key'])).toMatch(
    /^2 chkpt: CHKPT_USAGE/,
  );
  expect(await failure(['convert', 'a', 'b', '--to-plain', '--to-key-file', 'key'])).toMatch(
    /^2 chkpt: CHKPT_USAGE/,
  );
  const bytes = readFileSync(`${cwd}/a`);
  bytes[300] = (bytes[300] ?? 0) ^ 1;
  writeFileSync(`${cwd}/a`, bytes);
  expect(await failure(['verify', 'a', '--key-file', 'key'])).toMatch(
    /^3 chkpt: CHKPT_SEAL: record 0 was damaged/,
  );
});
