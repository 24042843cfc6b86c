/** The examples: a KVM guest goes on in another process after its own was killed, and moves to another one. */
import { type ChildProcess, spawn } from 'node:child_process';
import { cpSync, mkdirSync, symlinkSync } from 'node:fs';
import { dirname } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';
import { assembleGuest } from '../../bench/guests/assembled.ts';
import { whyNoKvm } from '../../bench/guests/kvm.ts';
import { verifyCheckpoint } from '../../src/index.ts';
import { buildCommandLine } from '../cli/support/dist.ts';
import { makeFolder } from '../store/support/folders.ts';

const missing = await whyNoKvm();
if (missing !== undefined) console.warn(`examples/kvm.mjs is not tested: ${missing}`);
const root = fileURLToPath(new URL('../..', import.meta.url));

function makeProject(): string {
  const folder = makeFolder();
  const dist = dirname(dirname(buildCommandLine()));
  for (const name of ['kvm.mjs', 'kvm-migrate.mjs']) cpSync(`${root}/examples/${name}`, `${folder}/${name}`);
  mkdirSync(`${folder}/node_modules/chkpt`, { recursive: true });
  cpSync(`${root}/package.json`, `${folder}/node_modules/chkpt/package.json`);
  symlinkSync(dist, `${folder}/node_modules/chkpt/dist`);
  return folder;
}

/** Collects what a process says; resolves when `pattern` is in it or the process has ended. */
function listen(child: ChildProcess): {
  text: () => string;
  until: (pattern: RegExp) => Promise<number | null>;
} {
  let text = '';
  const ended = new Promise<number | null>((settle) => child.once('close', settle));
  const check = new Set<() => void>();
  for (const stream of [child.stdout, child.stderr]) {
    stream?.on('data', (data) => {
      text += data;
      for (const one of check) one();
    });
  }
  const until = (pattern: RegExp): Promise<number | null> =>
    Promise.race([ended, new Promise<null>((settle) => check.add(() => pattern.test(text) && settle(null)))]);
  return { text: () => text, until };
}

const roundsOf = (text: string): number[] =>
  [...text.matchAll(/^guest: round ([0-9a-f]{8}) ticks/gm)].map(([, digits]) =>
    Number.parseInt(digits ?? '', 16),
  );

describe.skipIf(missing !== undefined)('a KVM guest', () => {
  test('goes on in another process after its own was killed', { timeout: 180_000 }, async () => {
    const folder = makeProject();
    const run = (mode: string): ChildProcess =>
      spawn(process.execPath, ['kvm.mjs', mode, assembleGuest('self-check', 'bin'), 'file:vm.chkpt'], {
        cwd: folder,
        stdio: ['ignore', 'pipe', 'pipe'],
      });
    const first = run('save');
    const said = listen(first);
    await said.until(/^saved \d+ bytes/m);
    // It works on behind the save, and is then killed.
    const atSave = roundsOf(said.text()).length;
    await said.until(new RegExp(`(guest: round.*\\n[^]*){${atSave + 4}}`));
    first.kill('SIGKILL');
    await said.until(/(?!)/);
    await verifyCheckpoint(`file:${folder}/vm.chkpt`);

    const second = run('load');
    const heard = listen(second);
    expect(await heard.until(/(?!)/), heard.text()).toBe(0);
    expect(heard.text()).toMatch(/^loaded in /m);
    expect(heard.text()).not.toMatch(/^guest: .*[A-Z]/m);
    const [before, after] = [roundsOf(said.text().split(/^saved/m)[0] ?? ''), roundsOf(heard.text())];
    // The same guest, not one that started again. The save began behind report number 8, and the guest went on before the
    // example said that it had saved: what it reported between is reported by both.
    expect(after[0]).toBeGreaterThan(before[7] ?? Number.POSITIVE_INFINITY);
    expect(after[0]).toBeLessThanOrEqual((before.at(-1) ?? 0) + 3 * 256);
    const begin = after[0] ?? 0;
    expect(after).toEqual(after.map((_, index) => begin + 256 * index));
    // The first of its eight lines may be the rest of one that the pause cut.
    expect(after.length).toBeGreaterThanOrEqual(7);
  });

  test('moves to another process while it works', { timeout: 180_000 }, async () => {
    const folder = makeProject();
    const run = (side: string): ChildProcess =>
      spawn(
        process.execPath,
        ['kvm-migrate.mjs', side, assembleGuest('self-check', 'bin'), `unix:${folder}/socket`],
        {
          cwd: folder,
          stdio: ['ignore', 'pipe', 'pipe'],
          env: { ...process.env, XDG_STATE_HOME: `${folder}/${side}` },
        },
      );
    const destination = listen(run('receive'));
    await destination.until(/^listening/m);
    const source = listen(run('send'));
    expect(await source.until(/(?!)/), source.text()).toBe(0);
    expect(await destination.until(/(?!)/), destination.text()).toBe(0);
    expect(source.text()).toMatch(/^tracker: kvm-ring$/m);
    expect(source.text()).toMatch(/^sent \d+ rounds, the guest stood still for [\d.]+ ms$/m);
    expect(destination.text()).toMatch(/^runs here, from unix$/m);
    expect(source.text() + destination.text()).not.toMatch(/^guest: .*[A-Z]/m);
    const [before, after] = [roundsOf(source.text()), roundsOf(destination.text())];
    const begin = after[0] ?? 0;
    // The first line may be the rest of one that the move cut.
    expect([256, 512]).toContain(begin - (before.at(-1) ?? 0));
    expect(after).toEqual(after.map((_, index) => begin + 256 * index));
  });
});
