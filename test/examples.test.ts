/**
 * The examples run as a user has them: in a folder of their own, with the package as it is shipped in
 * node_modules.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import {
  copyFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { dirname, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { beforeAll, describe, expect, test } from 'vitest';
import { linuxFolder } from '../bench/guests/linux.ts';
import { whyNoQemuLinux } from '../bench/guests/qemu.ts';
import { buildCommandLine } from './cli/support/dist.ts';
import { makeFolder } from './store/support/folders.ts';

const root = fileURLToPath(new URL('..', import.meta.url));
const readme = readFileSync(`${root}/README.md`, 'utf8');

const noQemuLinux = whyNoQemuLinux();
if (noQemuLinux !== undefined) console.warn(`examples/qemu.mjs does not run: ${noQemuLinux}`);

let dist: string;

beforeAll(() => {
  dist = dirname(dirname(buildCommandLine()));
}, 120_000);

/** A folder with the examples and the package. */
function makeProject(): string {
  const folder = makeFolder();
  cpSync(`${root}/examples`, folder, { recursive: true });
  mkdirSync(`${folder}/node_modules/chkpt`, { recursive: true });
  copyFileSync(`${root}/package.json`, `${folder}/node_modules/chkpt/package.json`);
  symlinkSync(dist, `${folder}/node_modules/chkpt/dist`);
  return folder;
}

interface Finished {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/**
 * Runs an example. Temporary files go into the folder too. `onOutput` is called once, when it begins to tell
 * something.
 */
async function run(
  folder: string,
  parameters: string[],
  onOutput?: (child: ChildProcess) => void,
  variables: NodeJS.ProcessEnv = {},
): Promise<Finished> {
  const env = { ...process.env, TMPDIR: folder, ...variables };
  const child = spawn(process.execPath, parameters, { cwd: folder, env, stdio: ['ignore', 'pipe', 'pipe'] });
  const output = { stdout: '', stderr: '' };
  child.stdout.once('data', () => onOutput?.(child));
  child.stdout.on('data', (data) => {
    output.stdout += data;
  });
  child.stderr.on('data', (data) => {
    output.stderr += data;
  });
  const code = await new Promise<number | null>((settle) => child.on('close', settle));
  return { code, ...output };
}

const temporaries = (folder: string): string[] =>
  readdirSync(folder).filter((name) => name.startsWith('chkpt-demo-'));

test('minimal.mjs has at most 20 lines, loads what it saved, and is the example of the README', async () => {
  const source = readFileSync(`${root}/examples/minimal.mjs`, 'utf8');
  expect(source.trimEnd().split('\n').length).toBeLessThanOrEqual(20);
  expect(readme).toContain(`\`\`\`js\n${source}\`\`\`\n`);
  const folder = makeProject();
  expect(await run(folder, ['minimal.mjs'])).toEqual({ code: 0, stdout: '42n true\n', stderr: '' });
  expect(existsSync(`${folder}/minimal.chkpt`)).toBe(true);
});

test('ring.mjs takes back what its machine did, and is the example of the README', async () => {
  expect(readme).toContain(`\`\`\`js\n${readFileSync(`${root}/examples/ring.mjs`, 'utf8')}\`\`\`\n`);
  const { code, stdout, stderr } = await run(makeProject(), ['ring.mjs']);
  expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
  expect(stdout).toMatch(/^([1-9]\d* of 16384 pages back in \d+ ms\n){3}$/);
});

test('migrate.mjs moves a running machine from one process to another', async () => {
  const folder = makeProject();
  const address = `unix:${folder}/socket`;
  const variables = { XDG_STATE_HOME: `${folder}/state` };
  let sent: ReturnType<typeof run> | undefined;
  const received = await run(
    folder,
    ['migrate.mjs', 'receive', address],
    () => {
      sent = run(folder, ['migrate.mjs', 'send', address], undefined, variables);
    },
    variables,
  );
  expect({ code: received.code, stderr: received.stderr }).toEqual({ code: 0, stderr: '' });
  expect(received.stdout).toMatch(/^runs here, from unix: [1-9]\d* pages of its own, 0 of them damaged$/m);
  expect(await sent).toMatchObject({
    code: 0,
    stderr: '',
    stdout: expect.stringMatching(/^sent \d+ rounds, [\d.]+ MiB\nthe guest stood still for [\d.]+ ms\n$/),
  });
});

test('contexts.mjs shows every tag that it saved, and that the whole is sound', async () => {
  const { code, stdout, stderr } = await run(makeProject(), ['contexts.mjs']);
  expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
  expect(stdout).toMatch(/^pic\n {2}irr +bytes +2 bytes\n/);
  expect(stdout).toMatch(/channels\[1\]\.count +u16 +2 bytes/);
  expect(stdout).toMatch(/root digest [0-9a-f]{64}\n$/);
});

test('increments.mjs stores little of what is large, loads its chain, and leaves one whole checkpoint', async () => {
  const folder = makeProject();
  const files = readdirSync(folder);
  const { code, stdout, stderr } = await run(folder, ['increments.mjs', folder]);
  expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
  const bytesOf = (name: string): number =>
    Number(new RegExp(`^${name}: .* (\\d+) bytes`, 'm').exec(stdout)?.[1]);
  for (const number of [1, 2, 3]) expect(bytesOf(`increment ${number}`)).toBeLessThan(bytesOf('base') / 2);
  expect(stdout).toMatch(/^loaded from a chain of 5: equal$/m);
  expect(stdout).toMatch(/^(loaded lazily as well|not loaded lazily: .+)$/m);
  expect(stdout).toMatch(/^flattened 5 into one: equal$/m);
  expect(readdirSync(folder)).toEqual([...files, '4.chkpt'].sort());
});

describe('demo.mjs', () => {
  test('proves what it says, draws for people only on a terminal, and leaves nothing behind', async () => {
    const folder = makeProject();
    const { code, stdout, stderr } = await run(folder, ['demo.mjs', '--gib', '0.0625']);
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    expect(stdout.match(/✔/g)).toHaveLength(8);
    expect(stdout).not.toContain('✘');
    expect(stdout).toContain('verify says CHKPT_DIGEST');
    expect(stdout).toContain('refuses to run: CHKPT_VM_FAILED');
    expect(stdout).toContain('all proved');
    expect(stdout).not.toContain('\x1b');
    expect(Math.max(...stdout.split('\n').map((line) => line.length))).toBeLessThanOrEqual(100);
    expect(temporaries(folder)).toEqual([]);
  });

  test('damages and mends a directory of its user, and leaves it there', async () => {
    const folder = makeProject();
    const options = ['--gib', '0.0625', '--store', `dir:${folder}/kept`];
    const first = await run(folder, ['demo.mjs', ...options]);
    expect(first).toMatchObject({ code: 0, stderr: '' });
    expect(first.stdout.match(/✔/g)).toHaveLength(8);
    expect(readdirSync(`${folder}/kept`)).toContain('MANIFEST.json');
  });

  test('fails when a proof fails', async () => {
    const folder = makeProject();
    // Nothing is damaged: then verify has nothing to say, and the demo must not say that it had.
    const places = `${folder}/demo/places.mjs`;
    const source = readFileSync(places, 'utf8');
    expect(source).toContain('buffer[0] ^= 1;');
    writeFileSync(places, source.replace('buffer[0] ^= 1;', ''));
    const { code, stdout } = await run(folder, ['demo.mjs', '--gib', '0.0625']);
    expect(code).toBe(1);
    expect(stdout).toContain('✘');
    expect(stdout).toContain('NOT PROVED');
  });

  test('cleans up when it is interrupted', async () => {
    const folder = makeProject();
    const { code, stdout, stderr } = await run(folder, ['demo.mjs', '--gib', '0.125'], (child) =>
      child.kill('SIGINT'),
    );
    expect({ code, stderr }).toEqual({ code: 130, stderr: 'demo: interrupted\n' });
    expect(stdout).not.toContain('all proved');
    expect(temporaries(folder)).toEqual([]);
  });

  test.each([['--gib', '0'], ['--gib', 'many'], ['--nope'], ['stray']])(
    'refuses %s %s',
    async (...options) => {
      const { code, stdout, stderr } = await run(makeProject(), ['demo.mjs', ...options]);
      expect({ code, stdout }).toEqual({ code: 2, stdout: '' });
      expect(stderr).toMatch(/^demo: .+\n$/);
    },
  );
});

describe('qemu.mjs', () => {
  const tickOf = (output: string): number => Number(/TICK (\d+)/.exec(output)?.[1]);
  const runs = test.skipIf(noQemuLinux !== undefined);
  runs('continues a Linux in another QEMU, and leaves nothing behind', { timeout: 120_000 }, async () => {
    const folder = makeProject();
    const files = readdirSync(folder);
    const { code, stdout, stderr } = await run(folder, ['qemu.mjs', linuxFolder('amd64'), 'file:vm.chkpt']);
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    const [before = '', after = ''] = stdout.split(/^loaded into another QEMU in \d+ ms$/m);
    expect(before).toMatch(/^saved \d+ bytes in \d+ ms, the guest stood still for \d+ ms$/m);
    const [hash] = /^guest: [0-9a-f]{40} {2}\/tmp\/noise$/m.exec(before) ?? [];
    expect(after.split('\n')).toContain(hash);
    // It did not boot: it was there, and its counter goes on.
    expect(after).not.toContain('GUEST-UP');
    expect(tickOf(after)).toBeGreaterThan(2);
    expect(readdirSync(folder)).toEqual([...files, 'vm.chkpt'].sort());
  });

  test('says what to install where QEMU is missing', async () => {
    const { code, stdout, stderr } = await run(makeProject(), ['qemu.mjs', '', ''], undefined, { PATH: '' });
    expect({ code, stdout }).toEqual({ code: 3, stdout: '' });
    expect(stderr).toBe('qemu.mjs: qemu-system-x86_64 is missing: apt-get install qemu-system-x86\n');
  });
});

test.each(['increments.mjs', 'kvm.mjs', 'kvm-migrate.mjs', 'qemu.mjs', 'v86.mjs'])(
  '%s has less than 60 lines',
  (name) => {
    expect(readFileSync(`${root}/examples/${name}`, 'utf8').trimEnd().split('\n').length).toBeLessThan(60);
  },
);

test('every file that the README points to exists', () => {
  const links = [...readme.matchAll(/\]\((?!https?:)([^)#]+)/g)].map(([, path]) => String(path));
  expect(links.length).toBeGreaterThan(5);
  expect(links.filter((path) => !existsSync(resolve(root, path)))).toEqual([]);
});
