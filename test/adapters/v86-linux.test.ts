/** A real Linux, saved at its prompt by examples/v86.mjs, killed, and continued in another process. */
import { type ChildProcess, spawn } from 'node:child_process';
import { copyFileSync, mkdirSync, symlinkSync } from 'node:fs';
import { dirname } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';
import { guestFolder, whyNoGuest } from '../../bench/guests/v86.ts';
import { buildCommandLine } from '../cli/support/dist.ts';
import { makeFolder } from '../store/support/folders.ts';

const root = fileURLToPath(new URL('../..', import.meta.url));
const missing = whyNoGuest();

function makeProject(): string {
  const folder = makeFolder();
  mkdirSync(`${folder}/node_modules/chkpt`, { recursive: true });
  copyFileSync(`${root}/examples/v86.mjs`, `${folder}/v86.mjs`);
  copyFileSync(`${root}/package.json`, `${folder}/node_modules/chkpt/package.json`);
  symlinkSync(dirname(dirname(buildCommandLine())), `${folder}/node_modules/chkpt/dist`);
  symlinkSync(`${root}/node_modules/v86`, `${folder}/node_modules/v86`);
  return folder;
}

interface Run {
  readonly child: ChildProcess;
  readonly ended: Promise<number | null>;
  output(): string;
  waitFor(pattern: RegExp): Promise<RegExpMatchArray>;
}

function run(folder: string, mode: 'save' | 'load' | 'send' | 'receive'): Run {
  const isMoved = mode === 'send' || mode === 'receive';
  const place = isMoved ? `unix:${folder}/socket` : `file:${folder}/linux.chkpt`;
  const child = spawn(process.execPath, ['v86.mjs', mode, guestFolder, place], {
    cwd: folder,
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, XDG_STATE_HOME: `${folder}/state` },
  });
  let output = '';
  let look = (): void => {};
  for (const stream of [child.stdout, child.stderr]) {
    stream.on('data', (data) => {
      output += data;
      look();
    });
  }
  const ended = new Promise<number | null>((resolve) => child.on('close', resolve));
  const waitFor = (pattern: RegExp): Promise<RegExpMatchArray> =>
    new Promise((resolve, reject) => {
      look = () => {
        const match = output.match(pattern);
        if (match !== null) resolve(match);
      };
      look();
      void ended.then((code) => reject(new Error(`ended with ${code}: ${output}`)));
    });
  return { child, ended, output: () => output, waitFor };
}

const ticksOf = (output: string): number[] =>
  [...output.matchAll(/TICK (\d+)/g)].map(([, tick]) => Number(tick));
const hashOf = (output: string): string | undefined => output.match(/([0-9a-f]{40}) {2}\/tmp\/noise/)?.[1];

describe.skipIf(missing !== undefined)('a Linux guest in v86', () => {
  test('goes on in another process after its own was killed', { timeout: 240_000 }, async () => {
    const folder = makeProject();
    const first = run(folder, 'save');
    await first.waitFor(/^save: the guest/m);
    const [before] = first.output().split(/^save: /m);
    first.child.kill('SIGKILL');
    await first.ended;

    const second = run(folder, 'load');
    expect(await second.ended).toBe(0);
    const output = second.output();
    expect(hashOf(output)).toMatch(/^[0-9a-f]{40}$/);
    expect(hashOf(output)).toBe(hashOf(before ?? ''));
    const last = ticksOf(before ?? '').at(-1) ?? 0;
    expect(last).toBeGreaterThanOrEqual(3);
    // The first process goes on after the save: it may have said one more before it could say that it saved.
    expect([last, last + 1]).toContain(ticksOf(output)[0]);
    // It did not boot: it was there.
    expect(output).not.toContain('GUEST-UP');
  });

  test('moves to another process while it works', { timeout: 240_000 }, async () => {
    const folder = makeProject();
    const destination = run(folder, 'receive');
    // It is there when it listens: the source takes longer to boot its guest.
    const source = run(folder, 'send');
    expect(await source.ended).toBe(0);
    expect(await destination.ended).toBe(0);
    const [before, after] = [source.output(), destination.output()];
    expect(before).toMatch(/^send: the guest stood still for \d+ ms$/m);
    expect(hashOf(after)).toMatch(/^[0-9a-f]{40}$/);
    expect(hashOf(after)).toBe(hashOf(before));
    const last = ticksOf(before).at(-1) ?? 0;
    expect([last, last + 1]).toContain(ticksOf(after)[0]);
    expect(after).not.toContain('GUEST-UP');
  });
});
