/** Help, version, completions, and what a person at a terminal sees. */
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { stripVTControlCharacters } from 'node:util';
import { beforeAll, describe, expect, test } from 'vitest';
import { commands } from '../../src/cli/command-table.ts';
import { makeSharedFolder } from './support/folders.ts';
import { MiB, makeDenseFile } from './support/ram-files.ts';
import { chkpt, chkptOk, mainPath } from './support/run-cli.ts';

const packageFile = new URL('../../package.json', import.meta.url);

test('--version tells the version of the package', async () => {
  const { version } = JSON.parse(readFileSync(packageFile, 'utf8')) as { version: string };
  expect((await chkptOk(['--version'])).stdout.toString()).toBe(`chkpt ${version}\n`);
});

test('the general help names every command, and each command has help with usage, options and an example', async () => {
  const { stdout } = await chkptOk(['--help']);
  for (const { name, summary } of commands)
    expect(stdout.toString()).toMatch(new RegExp(`^  ${name} +${summary}$`, 'm'));
  for (const { name, options, examples } of commands) {
    const text = (await chkptOk([name, '--help'])).stdout.toString();
    expect(text).toContain(`Usage: chkpt ${name} `);
    for (const option of options) expect(text).toMatch(new RegExp(`^  .*--${option.name}\\b`, 'm'));
    for (const [line] of examples) expect(text).toContain(`  ${line}  `);
    expect(Math.max(...text.split('\n').map((line) => line.length)), name).toBeLessThanOrEqual(110);
  }
  expect((await chkptOk(['help', 'save'])).stdout).toEqual((await chkptOk(['save', '-h'])).stdout);
});

describe('completion', () => {
  test.each([
    ['chkpt sa', 'save'],
    [
      'chkpt ',
      'save load info ls cat verify flatten convert diff prune gc receive send resume migrations help completion --help --version',
    ],
    ['chkpt save --me', '--memory'],
    ['chkpt save --codec ', 'auto raw lz4'],
    ['chkpt load --skip mem', 'memory'],
    ['chkpt help ve', 'verify'],
    ['chkpt completion z', 'zsh'],
    [`chkpt verify ${packageFile.pathname.slice(0, -2)}`, packageFile.pathname],
  ])('bash completes %j to %j', async (line, expected) => {
    const script = (await chkptOk(['completion', 'bash'])).stdout.toString();
    // biome-ignore lint/suspicious/noTemplateCurlyInString: bash
    const call = 'COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _chkpt; echo "${COMPREPLY[@]}"';
    const { stdout, stderr } = spawnSync('bash', ['-c', `${script}\n${call}`, 'bash', ...line.split(' ')], {
      encoding: 'utf8',
    });
    expect(stderr).toBe('');
    expect(stdout.trim()).toBe(expected);
  });

  test('every shell has a script that knows every command and option', async () => {
    for (const shell of ['bash', 'zsh', 'fish']) {
      const script = (await chkptOk(['completion', shell])).stdout.toString();
      for (const { name, options } of commands) {
        expect(script, shell).toContain(name);
        for (const option of options) expect(script, shell).toMatch(new RegExp(`(--|-l )${option.name}\\b`));
      }
      const checker = spawnSync(shell, ['-n'], { input: script, encoding: 'utf8' });
      // Only where the shell is installed.
      if (checker.error === undefined) expect(checker.stderr, shell).toBe('');
    }
  });
});

const hasScript = spawnSync('script', ['--version']).error === undefined;
if (!hasScript) console.warn('tests on a terminal are skipped: script(1) is missing');

describe.skipIf(!hasScript)('on a terminal', () => {
  const folder = makeSharedFolder();
  const bar = '\rsaving ';

  beforeAll(() => makeDenseFile(`${folder}/dense.img`, 160 * MiB));

  /** What the terminal gets from `chkpt save …`. */
  function saveOnTerminal(options: string, environment: Readonly<Record<string, string>> = {}): string {
    const command = `stty cols 90 && exec '${process.execPath}' '${mainPath}' save --threads 1 ${options} vm`;
    const { stdout, status } = spawnSync('script', ['-qec', `${command} --memory dense.img`, '/dev/null'], {
      cwd: folder,
      env: { PATH: process.env['PATH'], TERM: 'xterm', ...environment },
      encoding: 'utf8',
    });
    expect(status).toBe(0);
    return stdout;
  }

  test('a bar is drawn in one line of the width of the terminal, cleared at the end, and followed by a summary', () => {
    const output = saveOnTerminal('');
    expect(output).toContain(bar);
    expect(output).toMatch(/\d+ % {2}[0-9.]+ MiB of 160 MiB/);
    const [frames = '', summary] = output.split('\r\u001b[K');
    expect(summary).toMatch(/^saved 160 MiB as [^\r\n]*\r\n$/);
    expect(frames).not.toContain('\n');
    for (const frame of frames.split('\r')) {
      expect(stripVTControlCharacters(frame).length).toBeLessThan(90);
    }
  });

  test('NO_COLOR leaves the bar without colour, TERM=dumb and --quiet leave no bar, --json only the document', () => {
    const plain = saveOnTerminal('', { NO_COLOR: '1' });
    expect(plain).toContain(bar);
    expect(plain).not.toContain('\u001b[32m');
    expect(saveOnTerminal('', { TERM: 'dumb' })).toMatch(/^saved 160 MiB[^\r\n]*\r\n$/);
    expect(saveOnTerminal('--quiet')).toBe('');
    expect(JSON.parse(saveOnTerminal('--json'))).toMatchObject({ command: 'save', memoryBytes: 160 * MiB });
  });
});

test('without a terminal there is a summary and no bar, and with --quiet nothing', async () => {
  const cwd = makeSharedFolder();
  makeDenseFile(`${cwd}/dense.img`, 64 * MiB);
  const loud = await chkpt(['save', '--memory', 'dense.img', 'vm'], { cwd });
  expect(loud.stderr).toMatch(/^saved 64\.0 MiB as [^\r\n]*\n$/);
  const quiet = await chkpt(['save', '-q', '--memory', 'dense.img', 'vm'], { cwd });
  expect([quiet.code, quiet.stderr, quiet.stdout.length]).toEqual([0, '', 0]);
  const verified = await chkpt(['verify', '--quiet', 'vm'], { cwd });
  expect([verified.code, verified.stderr, verified.stdout.length]).toEqual([0, '', 0]);
});
