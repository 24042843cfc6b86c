/** Commands over `s3:`, and what they leave when it fails. */
import { readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import '../support/s3/credentials.ts';
import { noise } from '../store/support/sample-stream.ts';
import { S3TestServer } from '../support/s3/server.ts';
import { makeFolder } from './support/folders.ts';
import { runHere } from './support/in-process.ts';

const image = noise('image', 2 * 1024 * 1024);

async function saved(): Promise<{ server: S3TestServer; cwd: string; url: string }> {
  const server = await S3TestServer.start();
  const cwd = makeFolder();
  writeFileSync(`${cwd}/ram`, image);
  const url = server.url('vm');
  expect(await runHere(['save', '--memory', 'ram', '--quiet', url], cwd)).toMatchObject({ code: 0 });
  return { server, cwd, url };
}

test('save, info, ls, verify, convert and load go through s3:', async () => {
  const { cwd, url } = await saved();
  for (const words of [['info'], ['ls'], ['verify']]) {
    expect(await runHere([...words, url], cwd)).toMatchObject({ code: 0 });
  }
  expect(await runHere(['convert', url, 'copy'], cwd)).toMatchObject({ code: 0 });
  expect(await runHere(['load', url, '--memory', 'out'], cwd)).toMatchObject({ code: 0 });
  expect(readFileSync(`${cwd}/out`).equals(Buffer.from(image))).toBe(true);
});

test('with --key-file what is in the bucket is encrypted, and only who has the key loads it', async () => {
  const server = await S3TestServer.start();
  const cwd = makeFolder();
  writeFileSync(`${cwd}/ram`, Buffer.alloc(image.length, 'what memory holds '));
  writeFileSync(`${cwd}/key`, Buffer.alloc(32, 0x5a));
  writeFileSync(`${cwd}/other`, Buffer.alloc(32, 0xa5));
  const [url, child] = [server.url('vm'), server.url('child')];
  const key = ['--key-file', 'key'];
  const save = ['save', '--memory', 'ram', '--quiet'];
  expect(await runHere([...save, ...key, url], cwd)).toMatchObject({ code: 0 });
  expect(await runHere([...save, ...key, '--parent', url, child], cwd)).toMatchObject({ code: 0 });
  for (const { bytes } of server.state.objects.values()) expect(bytes.includes('what memory')).toBe(false);
  for (const place of [url, child]) {
    expect((await runHere(['verify', place, ...key], cwd)).stdout).toMatch(/, integrity authenticate, /);
    for (const wrong of [[], ['--key-file', 'other']]) {
      const { code, stderr } = await runHere(['load', place, '--memory', 'out', ...wrong], cwd);
      expect(stderr).toMatch(/CHKPT_KEY/);
      expect(code).toBe(1);
    }
    expect(readdirSync(cwd).sort()).toEqual(['key', 'other', 'ram']);
    expect(await runHere(['load', place, '--memory', 'out', ...key], cwd)).toMatchObject({ code: 0 });
    expect(readFileSync(`${cwd}/out`).equals(readFileSync(`${cwd}/ram`))).toBe(true);
    rmSync(`${cwd}/out`);
  }
});

test('an object that is replaced during a load is an error, and nothing is written', async () => {
  const { server, cwd, url } = await saved();
  const key = server.remains().find((name) => name !== 'vm') ?? '';
  let ranges = 0;
  server.fault = ({ headers, method }) => {
    if (method !== 'GET' || headers['range'] === undefined) return undefined;
    ranges += 1;
    if (ranges === 3) server.state.put(key, Buffer.alloc(5000));
    return undefined;
  };
  const { code, stderr } = await runHere(['load', url, '--memory', 'out'], cwd);
  expect(stderr).toMatch(/CHKPT_REPLACED/);
  expect(code).toBe(3);
  expect(readdirSync(cwd)).toEqual(['ram']);
});

test('gc tells and removes what is left behind in a bucket', async () => {
  const { server, cwd, url } = await saved();
  const uuid = '01234567-89ab-4cde-8f01-23456789abcd';
  server.state.put(
    `vm.objects/${uuid}.${'0'.repeat(32)}.0`,
    Buffer.alloc(3072),
    undefined,
    Date.now() - 5 * 3_600_000,
  );
  const place = url.replace('/vm?', '/?');
  expect((await runHere(['gc', place], cwd)).stderr).toMatch(/^found 0 leftovers/);
  const told = await runHere(['gc', place, '--older-than', '4'], cwd);
  expect(told.stdout).toMatch(/^s3:\/\/bucket\/vm\.objects\/.* 3\.00 KiB\n$/);
  expect(told.stderr).toMatch(/^found 1 leftover, .*; --remove removes them\n$/);
  expect(server.remains()).toHaveLength(3);
  expect((await runHere(['gc', place, '--older-than', '4', '--remove'], cwd)).stderr).toMatch(
    /^removed 1 leftover/,
  );
  expect(server.remains()).toHaveLength(2);
  expect(await runHere(['gc', place, '--older-than', 'x'], cwd)).toMatchObject({ code: 2 });
  expect(await runHere(['verify', url], cwd)).toMatchObject({ code: 0 });
});
