/** What goes wrong while a command runs: the exit code of the contract, one line that says where, and nothing left behind. */
import { execFileSync, spawnSync } from 'node:child_process';
import {
  chmodSync,
  chownSync,
  closeSync,
  copyFileSync,
  cpSync,
  mkdirSync,
  openSync,
  readFileSync,
  readlinkSync,
  statfsSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { open } from 'node:fs/promises';
import { beforeAll, describe, expect, test } from 'vitest';
import { listTree, makeFolder, makeSharedFolder } from './support/folders.ts';
import { makeReadOnly, mountRefusal, withTmpfs } from './support/mounts.ts';
import { isSameFile, MiB, makeDenseFile, makeRamFile, noise } from './support/ram-files.ts';
import { type CliOptions, chkpt, chkptOk, mainPath } from './support/run-cli.ts';

const isRoot = process.getuid?.() === 0;
const nobody = 65_534;
if (mountRefusal !== undefined)
  console.warn(`tests of full and read-only disks are skipped: ${mountRefusal}`);

/** `ram.img`, `irr.bin`, `vm.chkpt` and `vm.dir`, never changed by a test. */
const sample = makeSharedFolder();
const save = ['save', '--memory', `${sample}/ram.img`, '--state', `pic.irr=${sample}/irr.bin`];

beforeAll(async () => {
  makeRamFile(`${sample}/ram.img`, 2 * MiB);
  writeFileSync(`${sample}/irr.bin`, 'irr!');
  await Promise.all([chkptOk([...save, `${sample}/vm.chkpt`]), chkptOk([...save, `dir:${sample}/vm.dir`])]);
});

/** Runs a command that must fail: exit code, one line that matches, nothing on standard output, no file more or less. */
async function expectFailure(
  args: readonly string[],
  exitCode: number,
  line: RegExp,
  options: CliOptions & { readonly cwd: string },
): Promise<void> {
  const before = listTree(options.cwd);
  const result = await chkpt(args, options);
  const label = args.join(' ');
  expect(result.stderr, label).toMatch(/^chkpt: CHKPT_[A-Z_]+: [^\n]+; [^\n]+\n$/);
  expect(result.stderr, label).toMatch(line);
  expect(result.code, label).toBe(exitCode);
  expect(result.stdout.toString(), label).toBe('');
  expect(listTree(options.cwd), label).toEqual(before);
}

describe('sources of a save', () => {
  test.each<[name: string, make: (path: string) => void, code: string]>([
    ['is not there', () => undefined, 'CHKPT_NOT_FOUND'],
    ['is no whole number of pages', (path) => writeFileSync(path, Buffer.alloc(4097)), 'CHKPT_MEMORY_SHORT'],
    ['is empty', (path) => writeFileSync(path, ''), 'CHKPT_MEMORY_SHORT'],
    ['is a folder', (path) => mkdirSync(path), 'CHKPT_UNSUPPORTED'],
    ['is a FIFO that nobody writes to', (path) => execFileSync('mkfifo', [path]), 'CHKPT_UNSUPPORTED'],
  ])('a RAM image that %s is refused', async (_, make, code) => {
    const cwd = makeFolder();
    make(`${cwd}/ram.img`);
    const line = new RegExp(`^chkpt: ${code}: .*\\(path ram\\.img\\)`);
    await expectFailure(['save', '--memory', 'ram.img', 'vm.chkpt'], 1, line, { cwd });
  });

  test('a RAM image that is cut while it is saved ends the save with CHKPT_MEMORY_SHORT', async () => {
    const cwd = makeFolder();
    makeDenseFile(`${cwd}/ram.img`, 8 * MiB);
    execFileSync('mkfifo', [`${cwd}/fifo`]);
    const onStart = async (): Promise<void> => {
      // Opens when the command does, which is after it has looked at its images.
      const fifo = await open(`${cwd}/fifo`, 'w');
      truncateSync(`${cwd}/ram.img`, 1 * MiB);
      await fifo.close();
    };
    const args = ['save', '--memory', 'ram.img', '--state', 'a.b=fifo', 'vm.chkpt'];
    await expectFailure(args, 1, /^chkpt: CHKPT_MEMORY_SHORT: /, { cwd, onStart });
  });

  test('overlapping images, a missing state file and too much state are refused before the store is touched', async () => {
    const cwd = makeFolder();
    const twice = [...save, '--memory', `${sample}/ram.img@1M`, 'vm.chkpt'];
    await expectFailure(
      twice,
      2,
      /CHKPT_USAGE: .*ram\.img \(0x100000 to 0x300000\) overlaps .*\(0x0 to 0x200000\)/,
      { cwd },
    );
    await expectFailure(
      [...save, '--state', 'a.b=no.bin', 'vm.chkpt'],
      1,
      /NOT_FOUND: .*\(context a, tag b, path no\.bin\)/,
      { cwd },
    );
    writeFileSync(`${cwd}/huge.bin`, '');
    truncateSync(`${cwd}/huge.bin`, 256 * MiB);
    await expectFailure(
      [...save, '--state', 'a.b=huge.bin', 'vm.chkpt'],
      1,
      /VALUE_RANGE: .*exceed 256 MiB.*tag b/,
      { cwd },
    );
  });

  test('a checkpoint and a RAM image that are the same file are refused in either direction', async () => {
    const cwd = makeFolder();
    cpSync(`${sample}/vm.chkpt`, `${cwd}/vm.chkpt`);
    cpSync(`${sample}/ram.img`, `${cwd}/ram.img`);
    symlinkSync('vm.chkpt', `${cwd}/link`);
    await expectFailure(
      ['save', '--memory', 'ram.img', './ram.img'],
      2,
      /ram\.img is the checkpoint itself/,
      { cwd },
    );
    await expectFailure(['load', 'vm.chkpt', '--memory', 'link'], 2, /link is the checkpoint itself/, {
      cwd,
    });
    expect(isSameFile(`${cwd}/ram.img`, `${sample}/ram.img`)).toBe(true);
    expect(isSameFile(`${cwd}/vm.chkpt`, `${sample}/vm.chkpt`)).toBe(true);
  });
});

describe('stores', () => {
  test.each([
    [['verify', 'no.chkpt'], 1, /NOT_FOUND: .*store no\.chkpt/],
    [['info', 'dir:no'], 1, /NOT_FOUND: /],
    [['ls', '.'], 2, /STORE_URL: /],
    [['info', `file:${sample}`], 2, /STORE_URL: .*use dir:/],
    [['info', `dir:${sample}/vm.chkpt`], 1, /NOT_FOUND|STORE_URL/],
    [[...save, `dir:${sample}/ram.img`], 2, /STORE_URL: .*use file:/],
    [[...save, 'no/vm.chkpt'], 1, /NOT_FOUND: .*no\/vm\.chkpt/],
    [['cat', `${sample}/vm.chkpt`, 'nic', 'mac'], 1, /NO_CONTEXT: .*context nic, tag mac\); .*chkpt ls/],
    [['cat', `${sample}/vm.chkpt`, 'pic', 'mac'], 1, /NO_TAG: .*context pic, tag mac\)/],
    [['cat', `${sample}/vm.chkpt`, 'memory', 'x'], 1, /NO_TAG: /],
    [['load', `${sample}/vm.chkpt`], 2, /USAGE: .*--memory OUTFILE@0x0, or --skip memory/],
    [['load', `${sample}/vm.chkpt`, '--memory', 'out@1G'], 2, /USAGE: .*no region at 0x40000000/],
    [
      ['load', `${sample}/vm.chkpt`, '--memory', 'out', '--state', 'nic.mac=m'],
      1,
      /NO_CONTEXT: .*context nic, tag mac/,
    ],
    [
      ['load', `${sample}/vm.chkpt`, '--memory', 'out', '--state', 'pic.mac=m'],
      1,
      /NO_TAG: .*context pic, tag mac/,
    ],
  ] as const)('%j', async (args, code, line) => {
    await expectFailure(args, code, line, { cwd: makeFolder() });
  });

  test('without the native addon save and load say what is missing and leave nothing', async () => {
    const options = { cwd: makeFolder(), env: { CHKPT_NO_NATIVE: '1' } };
    await expectFailure([...save, 'vm.chkpt'], 1, /CHKPT_NO_NATIVE: /, options);
    await expectFailure(['load', `${sample}/vm.chkpt`, '--memory', 'out'], 1, /CHKPT_NO_NATIVE: /, options);
  });
});

describe('damage', () => {
  test('a flipped bit anywhere is exit code 3, names store and place, and a load leaves no file', async () => {
    const cwd = makeFolder();
    const bytes = readFileSync(`${sample}/vm.chkpt`);
    const memoryAt = bytes.indexOf(noise(64, 1));
    expect(memoryAt).toBeGreaterThan(0);
    const places = {
      header: 20,
      value: bytes.indexOf('irr!'),
      memory: memoryAt + 1000,
      end: bytes.length - 600,
    };
    const flips = Object.entries(places).map(async ([name, offset]) => {
      const damaged = Buffer.from(bytes);
      damaged.writeUInt8(damaged.readUInt8(offset) ^ 1, offset);
      writeFileSync(`${cwd}/${name}.chkpt`, damaged);
    });
    await Promise.all(flips);
    for (const name of Object.keys(places)) {
      const line = new RegExp(`^chkpt: CHKPT_DIGEST: .*store ${name}\\.chkpt.*offset \\d+`);
      const args = [`${name}.chkpt`, '--memory', 'out', '--state', 'pic.irr=irr.out', '--json'];
      await expectFailure(['verify', `${name}.chkpt`, '--json'], 3, line, { cwd });
      await expectFailure(['load', ...args], 3, line, { cwd });
    }
    const portable = { cwd, env: { CHKPT_NO_NATIVE: '1' } };
    await expectFailure(['verify', 'memory.chkpt'], 3, /CHKPT_DIGEST: .*offset \d+/, portable);
    await expectFailure(['cat', 'value.chkpt', 'pic', 'irr'], 3, /CHKPT_DIGEST: .*context pic/, { cwd });
  });

  test('a checkpoint cut anywhere, followed by something, or that is none is exit code 3', async () => {
    const cwd = makeFolder();
    const { length } = readFileSync(`${sample}/vm.chkpt`);
    for (const bytes of [100, 3000, length - 1]) {
      copyFileSync(`${sample}/vm.chkpt`, `${cwd}/cut.chkpt`);
      truncateSync(`${cwd}/cut.chkpt`, bytes);
      await expectFailure(
        ['load', 'cut.chkpt', '--memory', 'out'],
        3,
        /CHKPT_TRUNCATED: .*store cut\.chkpt/,
        { cwd },
      );
    }
    await expectFailure(['info', 'cut.chkpt'], 3, /CHKPT_TRUNCATED: /, { cwd });
    writeFileSync(`${cwd}/more.chkpt`, Buffer.concat([readFileSync(`${sample}/vm.chkpt`), Buffer.from('x')]));
    await expectFailure(['verify', 'more.chkpt'], 3, /CHKPT_TRAILING_DATA: /, { cwd });
    writeFileSync(`${cwd}/empty.chkpt`, '');
    await expectFailure(['info', 'empty.chkpt'], 3, /CHKPT_TRUNCATED: /, { cwd });
    await expectFailure(['verify', `${sample}/ram.img`], 3, /CHKPT_BAD_MAGIC: /, { cwd });
  });

  test('a directory checkpoint that lacks a file, or has a manifest that is none, is exit code 3', async () => {
    const cwd = makeFolder();
    cpSync(`${sample}/vm.dir`, `${cwd}/a`, { recursive: true });
    cpSync(`${sample}/vm.dir`, `${cwd}/b`, { recursive: true });
    writeFileSync(`${cwd}/a/MANIFEST.json`, '{');
    await expectFailure(['verify', 'dir:a'], 3, /CHKPT_MANIFEST: /, { cwd });
    const memory = listTree(`${cwd}/b`).find((name) => name.endsWith('.pages'));
    truncateSync(`${cwd}/b/${memory}`, 4096);
    await expectFailure(['load', 'dir:b', '--memory', 'out'], 3, /CHKPT_MANIFEST|CHKPT_TRUNCATED/, { cwd });
  });
});

describe('outputs of a load', () => {
  test('what is no regular file is refused and stays what it is', async () => {
    const cwd = makeFolder();
    mkdirSync(`${cwd}/folder`);
    execFileSync('mkfifo', [`${cwd}/fifo`]);
    symlinkSync('nowhere', `${cwd}/dangling`);
    for (const path of ['folder', 'fifo', 'dangling', '/dev/null', '/dev/stdout', '/proc/self/fd/1']) {
      const line = new RegExp(`CHKPT_UNSUPPORTED: .*path ${path}\\)`);
      await expectFailure(['load', `${sample}/vm.chkpt`, '--memory', path], 1, line, { cwd });
    }
    expect(readlinkSync(`${cwd}/dangling`)).toBe('nowhere');
    await expectFailure(
      ['load', `${sample}/vm.chkpt`, '--memory', 'no/out'],
      1,
      /CHKPT_NOT_FOUND: .*path no\/out/,
      { cwd },
    );
  });

  test('a value for standard output that nobody takes fails the load, and no file appears', async () => {
    const cwd = makeFolder();
    writeFileSync(`${cwd}/vram.bin`, noise(2 * MiB, 1));
    await chkptOk([...save, '--state', 'vga.ram=vram.bin', 'vm.chkpt'], { cwd });
    const before = listTree(cwd);
    const { status, stderr } = pipeToNobody(
      ['load', 'vm.chkpt', '--memory', 'out', '--state', 'vga.ram=-'],
      cwd,
    );
    expect(stderr).toMatch(/^chkpt: CHKPT_IO: standard output was closed; no output file was changed\n$/);
    expect(status).toBe(1);
    expect(listTree(cwd)).toEqual(before);
    // The same value for a reader that has seen enough: not an error.
    expect(pipeToNobody(['cat', 'vm.chkpt', 'vga', 'ram'], cwd)).toEqual({ status: 0, stderr: '' });
  });

  test('standard output on a full disk is CHKPT_NO_SPACE', async () => {
    const cwd = makeFolder();
    const stdout = openSync('/dev/full', 'w');
    await expectFailure(['cat', `${sample}/vm.chkpt`, 'pic', 'irr'], 1, /CHKPT_NO_SPACE: .*standard output/, {
      cwd,
      stdout,
    });
    await expectFailure(['info', '--json', `${sample}/vm.chkpt`], 1, /CHKPT_NO_SPACE: /, { cwd, stdout });
    closeSync(stdout);
  });
});

/** Runs the command with a pipe whose reader has gone. */
function pipeToNobody(args: readonly string[], cwd: string): { status: number | null; stderr: string } {
  const script = 'set -o pipefail; "$@" 2>err.txt | true; echo $?';
  const words = ['-c', script, 'bash', process.execPath, mainPath, ...args];
  const { stdout } = spawnSync('bash', words, { cwd, encoding: 'utf8' });
  const stderr = readFileSync(`${cwd}/err.txt`, 'utf8');
  execFileSync('rm', [`${cwd}/err.txt`]);
  return { status: Number(stdout), stderr };
}

describe.skipIf(mountRefusal !== undefined)('disks', () => {
  test.each(['file:', 'dir:'])(
    'a save to a full disk is CHKPT_NO_SPACE and leaves the older checkpoint: %s',
    (scheme) =>
      withTmpfs(1 * MiB, async (cwd) => {
        const store = `${scheme}vm`;
        await chkptOk(['save', '--skip', 'memory', '--state', `pic.irr=${sample}/irr.bin`, store], { cwd });
        const dense = `${makeFolder()}/dense.img`;
        makeDenseFile(dense, 4 * MiB);
        const free = freeBytes(cwd);
        await expectFailure(['save', '--memory', dense, store], 1, /CHKPT_NO_SPACE: .*ENOSPC.*store/, {
          cwd,
        });
        expect(freeBytes(cwd)).toBe(free);
        expect((await chkptOk(['cat', store, 'pic', 'irr'], { cwd })).stdout.toString()).toBe('irr!');
      }),
  );

  test('a load to a full disk is CHKPT_NO_SPACE and leaves no file, neither memory nor values', async () => {
    const folder = makeFolder();
    makeDenseFile(`${folder}/dense.img`, 4 * MiB);
    await chkptOk([
      'save',
      '--memory',
      `${folder}/dense.img`,
      '--state',
      `vga.ram=${folder}/dense.img`,
      `${folder}/vm`,
    ]);
    await withTmpfs(1 * MiB, async (cwd) => {
      const free = freeBytes(cwd);
      const space = /CHKPT_NO_SPACE: .*; free some space and load again; no output file was changed/;
      await expectFailure(['load', `${folder}/vm`, '--memory', 'out'], 1, space, { cwd });
      const value = ['load', `${folder}/vm`, '--skip', 'memory', '--state', 'vga.ram=ram'];
      await expectFailure(value, 1, space, { cwd });
      expect(freeBytes(cwd)).toBe(free);
    });
  });

  test('a read-only disk is CHKPT_PERMISSION for save and load', () =>
    withTmpfs(1 * MiB, async (cwd) => {
      makeReadOnly(cwd);
      await expectFailure([...save, 'vm.chkpt'], 1, /CHKPT_PERMISSION: .*EROFS/, { cwd });
      await expectFailure([...save, 'dir:vm'], 1, /CHKPT_PERMISSION: .*EROFS/, { cwd });
      await expectFailure(['load', `${sample}/vm.chkpt`, '--memory', 'out'], 1, /CHKPT_PERMISSION: .*EROFS/, {
        cwd,
      });
    }));
});

test('paths without the right to them are CHKPT_PERMISSION', async () => {
  const cwd = makeFolder();
  for (const name of ['ram.img', 'vm.chkpt']) copyFileSync(`${sample}/${name}`, `${cwd}/${name}`);
  // Root may do everything: the commands run as somebody else.
  const options = { cwd, ...(isRoot ? { uid: nobody } : {}) };
  if (isRoot) for (const path of ['', '/ram.img', '/vm.chkpt']) chownSync(`${cwd}${path}`, nobody, nobody);
  await expectFailure(['info', 'no.chkpt'], 1, /CHKPT_NOT_FOUND/, options);
  chmodSync(`${cwd}/ram.img`, 0);
  chmodSync(`${cwd}/vm.chkpt`, 0);
  await expectFailure(
    ['save', '--memory', 'ram.img', 'new.chkpt'],
    1,
    /CHKPT_PERMISSION: .*EACCES.*ram\.img/,
    options,
  );
  await expectFailure(['verify', 'vm.chkpt'], 1, /CHKPT_PERMISSION: .*EACCES.*vm\.chkpt/, options);
  chmodSync(`${cwd}/ram.img`, 0o600);
  chmodSync(`${cwd}/vm.chkpt`, 0o600);
  chmodSync(cwd, 0o500);
  await expectFailure(['save', '--memory', 'ram.img', 'new.chkpt'], 1, /CHKPT_PERMISSION: .*EACCES/, options);
  await expectFailure(
    ['load', 'vm.chkpt', '--memory', 'out.img'],
    1,
    /CHKPT_PERMISSION: .*EACCES.*out\.img/,
    options,
  );
  chmodSync(cwd, 0o700);
});

test('CHKPT_DEBUG=1 adds the stack and the causes behind the line', async () => {
  const { code, stderr } = await chkpt(['info', 'no.chkpt'], {
    cwd: makeFolder(),
    env: { CHKPT_DEBUG: '1' },
  });
  expect(stderr).toMatch(/^chkpt: CHKPT_NOT_FOUND: [^\n]*\nCheckpointError: [\s\S]*caused by: Error: ENOENT/);
  expect(code).toBe(1);
});

function freeBytes(folder: string): number {
  const { bavail, bsize } = statfsSync(folder);
  return bavail * bsize;
}
