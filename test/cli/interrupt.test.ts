/** Ctrl-C and its relatives at the worst moment: no half checkpoint, no half output, no temporary. */
import { type ChildProcess, execFileSync } from 'node:child_process';
import { readdirSync, readFileSync, readlinkSync, statSync, writeFileSync } from 'node:fs';
import { beforeAll, describe, expect, test } from 'vitest';
import { listTree, makeFolder, makeSharedFolder } from './support/folders.ts';
import { isSameFile, MiB, makeDenseFile, makeRamFile } from './support/ram-files.ts';
import { type CliResult, chkpt, chkptOk, until } from './support/run-cli.ts';

const denseBytes = 192 * MiB;
const shared = makeSharedFolder();

beforeAll(async () => {
  makeDenseFile(`${shared}/dense.img`, denseBytes);
  writeFileSync(`${shared}/irr.bin`, 'irr!');
  const save = [
    'save',
    '--codec',
    'raw',
    '--memory',
    `${shared}/dense.img`,
    '--state',
    `pic.irr=${shared}/irr.bin`,
  ];
  await chkptOk([...save, `${shared}/dense.chkpt`]);
});

/** Runs a command and sends it a signal while it is known to be in the middle of its work: it is stopped for the look. */
async function interruptHalfWay(
  args: readonly string[],
  cwd: string,
  signal: NodeJS.Signals,
): Promise<CliResult & { readonly temporaries: readonly string[] }> {
  const before = listTree(cwd);
  let temporaries: string[] = [];
  const result = await chkpt(args, {
    cwd,
    onStart: async (child) => {
      await until(() => writtenBytes(cwd, before) > 8 * MiB, 'something was written');
      child.kill('SIGSTOP');
      await until(() => stateOf(child) === 'T', 'the process has stopped');
      temporaries = newEntries(cwd, before);
      child.kill(signal);
      child.kill('SIGCONT');
    },
  });
  expect(listTree(cwd), 'nothing is left').toEqual(before);
  return { ...result, temporaries };
}

describe.each(['file:', 'dir:'])('%s', (scheme) => {
  test('a save stopped by SIGINT leaves the older checkpoint and no temporary, and ends with 130', async () => {
    const cwd = makeFolder();
    const store = `${scheme}vm`;
    await chkptOk(['save', '--skip', 'memory', '--state', `pic.irr=${shared}/irr.bin`, store], { cwd });
    const args = ['save', '--codec', 'raw', '--memory', `${shared}/dense.img`, store];
    const { code, stderr, stdout, temporaries } = await interruptHalfWay(args, cwd, 'SIGINT');
    expect(temporaries.length).toBeGreaterThan(0);
    expect(stderr).toBe(`chkpt: CHKPT_ABORTED: stopped by SIGINT (store ${store}); nothing was published\n`);
    expect(stdout.length).toBe(0);
    expect(code).toBe(130);
    expect((await chkptOk(['cat', store, 'pic', 'irr'], { cwd })).stdout.toString()).toBe('irr!');
  });
});

test('a load stopped by SIGTERM leaves the older output and no temporary, and ends with 143', async () => {
  const cwd = makeFolder();
  writeFileSync(`${cwd}/out.img`, 'older');
  const args = [
    'load',
    `${shared}/dense.chkpt`,
    '--memory',
    'out.img',
    '--state',
    'pic.irr=irr.out',
    '--json',
  ];
  const { code, stderr, stdout, temporaries } = await interruptHalfWay(args, cwd, 'SIGTERM');
  const names = temporaries.map((name) => name.replace(/\.[0-9a-f-]{36}\.\d+\.tmp$/, ''));
  expect(names.sort()).toEqual(['.irr.out', '.out.img']);
  expect(stderr).toMatch(/^chkpt: CHKPT_ABORTED: stopped by SIGTERM[^\n]*; no output file was changed\n$/);
  expect(stdout.length).toBe(0);
  expect(code).toBe(143);
  expect(readFileSync(`${cwd}/out.img`, 'utf8')).toBe('older');
});

test('the same save and load, left alone, succeed: what stopped them was the signal', async () => {
  const cwd = makeFolder();
  await chkptOk(['load', `${shared}/dense.chkpt`, '--memory', 'out.img'], { cwd });
  expect(isSameFile(`${cwd}/out.img`, `${shared}/dense.img`)).toBe(true);
});

test('a save that waits for standard input is stopped by SIGHUP with 129', async () => {
  const cwd = makeFolder();
  makeRamFile(`${cwd}/ram.img`, 1 * MiB);
  const before = listTree(cwd);
  const { code, stderr } = await chkpt(['save', '--memory', 'ram.img', '--state', 'a.b=-', 'vm'], {
    cwd,
    onStart: async (child) => {
      // What comes next is standard input, which nobody writes to.
      await until(() => hasOpen(child, `${cwd}/ram.img`), 'the image is open');
      child.kill('SIGHUP');
    },
  });
  expect(stderr).toMatch(/^chkpt: CHKPT_ABORTED: stopped by SIGHUP; nothing was published\n$/);
  expect(code).toBe(129);
  expect(listTree(cwd)).toEqual(before);
});

test('a second SIGINT ends a process that cannot stop at once', async () => {
  const cwd = makeFolder();
  execFileSync('mkfifo', [`${cwd}/fifo`]);
  // Opening a FIFO without a writer cannot be cancelled.
  const { code, signal } = await chkpt(['save', '--skip', 'memory', '--state', 'a.b=fifo', 'vm'], {
    cwd,
    onStart: async (child) => {
      await until(() => isOpening(child), 'the FIFO is being opened');
      // Two that come at once count as one, so more are sent until the process has gone.
      const again = setInterval(() => child.kill('SIGINT'), 50);
      child.once('exit', () => clearInterval(again));
    },
  });
  // With one signal it would end with code 130, or not at all.
  expect([code, signal]).toEqual([null, 'SIGINT']);
  expect(listTree(cwd)).toEqual(['fifo']);
});

function newEntries(folder: string, before: readonly string[]): string[] {
  return listTree(folder).filter((name) => !before.includes(name));
}

/** Bytes on disk of everything that was not there before. */
function writtenBytes(folder: string, before: readonly string[]): number {
  let byteCount = 0;
  for (const name of newEntries(folder, before)) {
    const status = statSync(`${folder}/${name}`, { throwIfNoEntry: false });
    byteCount += status?.isFile() === true ? status.blocks * 512 : 0;
  }
  return byteCount;
}

/** One letter: R, S, D, T, Z. */
function stateOf({ pid }: ChildProcess): string | undefined {
  return /\) (\S)/.exec(readFileSync(`/proc/${pid}/stat`, 'utf8'))?.[1];
}

function hasOpen({ pid }: ChildProcess, path: string): boolean {
  return entriesOf(`/proc/${pid}/fd`).some((descriptor) => {
    try {
      return readlinkSync(`/proc/${pid}/fd/${descriptor}`) === path;
    } catch {
      return false;
    }
  });
}

/** Numbers of the system call `openat` on x86-64 and arm64. */
const openCalls = ['257', '56'];

/** True when a thread of the process is in `openat`. */
function isOpening({ pid }: ChildProcess): boolean {
  return entriesOf(`/proc/${pid}/task`).some((thread) => {
    try {
      const call = readFileSync(`/proc/${pid}/task/${thread}/syscall`, 'utf8').split(' ')[0] ?? '';
      return openCalls.includes(call);
    } catch {
      return false;
    }
  });
}

function entriesOf(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch {
    return [];
  }
}
