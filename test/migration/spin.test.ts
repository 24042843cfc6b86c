/** The second opinion: `commit.pml` under spin, and with mistakes that it has to find. */
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

const hasSpin = spawnSync('spin', ['-V']).status === 0 && spawnSync('cc', ['--version']).status === 0;
if (!hasSpin)
  console.log('skipped: the model of the commit protocol under spin: no spin, or no cc (package spin)');

const model = readFileSync(new URL('commit.pml', import.meta.url), 'utf8');
let folder = '';

/** What the checker says about a model. */
function check(text: string): { readonly errors: number; readonly states: number; readonly said: string } {
  writeFileSync(join(folder, 'model.pml'), text);
  const run = (command: string, ...args: string[]): string =>
    execFileSync(command, args, { cwd: folder, encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });
  run('spin', '-a', 'model.pml');
  run('cc', '-O1', '-w', '-DSAFETY', '-DNOREDUCE', '-o', 'pan', 'pan.c');
  const said = run('./pan', '-m1000000');
  return {
    said,
    errors: Number(/errors: (\d+)/.exec(said)?.[1]),
    states: Number(/(\d+) states, stored/.exec(said)?.[1]),
  };
}

const mistakes: Readonly<Record<string, readonly [string, string]>> = {
  'DROPPED taken for ABORTED': [
    '(s == inDoubt || s == orphaned) && mAborted',
    '(s == inDoubt || s == orphaned) && (mAborted || mDropped[0])',
  ],
  'a guest that resumes without an ABORT on the disk': [
    's == aborting -> sJournal = abort;',
    's == aborting ->',
  ],
  'a source in doubt that resumes when the link breaks': [
    '(s == stopping || s == stopped) -> s = aborting',
    '(s == stopping || s == stopped || s == inDoubt) -> s = aborting',
  ],
  'a restarted destination that forgets that it was prepared': [
    ':: dJournal == isPrepared -> d = abandoning',
    ':: dJournal == isPrepared -> d = prepared',
  ],
};

describe.skipIf(!hasSpin)('spin', () => {
  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), 'chkpt-spin-'));
  });
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  it('finds nothing in the commit protocol, and reaches every state', () => {
    const { errors, states, said } = check(model);
    console.log(`spin: ${states} states`);
    expect(errors, said).toBe(0);
    expect(states).toBeGreaterThan(2000);
    // The one statement that is not reached says what becomes of a source that aborts without a guest: there is none.
    expect(/\((\d+) of \d+ states\)/.exec(said)?.[1]).toBe('2');
  });

  it.each(Object.entries(mistakes))('finds %s', (_, [right, wrong]) => {
    expect(model).toContain(right);
    expect(check(model.replace(right, wrong)).errors).toBeGreaterThan(0);
  });
});
