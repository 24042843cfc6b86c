/** `chkpt gc FOLDER`: what killed processes left there is told, then removed; checkpoints and what may be in use stay. */
import { copyFileSync, linkSync, mkdirSync, statSync, writeFileSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { expect, test } from 'vitest';
import { makeScratchFolder, scratchPidIn } from '../../src/foreign/scratch.ts';
import { endedPid } from '../store/support/hosts.ts';
import { listTree, makeFolder } from './support/folders.ts';
import { chkpt, chkptOk } from './support/run-cli.ts';

const uuid = '01234567-89ab-4def-8123-456789abcdef';
const urls = ['file:a', 'dir:b', 'gem5:g', 'palacios+file:p'];

/** An m5.cpt that a removal of this process has taken away: what it names, it has from the one that is there. */
const removedText = (pid: number): string => `g/.m5.cpt.${uuid}.${pid}.tmp`;

/** Files that a save or load of this process has at some moment. */
const filesOf = (pid: number): readonly string[] => [
  `.a.${uuid}.${pid}.tmp`,
  `b/.tmp-${uuid}-${pid}/0`,
  `b/.MANIFEST.json.${uuid}.${pid}.tmp`,
  `g/.tmp-${uuid}-${pid}/store0`,
  `.p.${uuid}.${pid}.tmp/header`,
  `.chkpt-scratch-${pid}-a1B2c3/0`,
];

function leave(cwd: string, pid: number): void {
  for (const path of filesOf(pid)) {
    mkdirSync(dirname(join(cwd, path)), { recursive: true });
    writeFileSync(join(cwd, path), 'half');
  }
  copyFileSync(join(cwd, 'g/m5.cpt'), join(cwd, removedText(pid)));
}

test('leftovers of every kind are listed, then removed', async () => {
  const cwd = makeFolder();
  writeFileSync(join(cwd, 'value'), 'value');
  for (const url of urls)
    await chkptOk(['save', '--skip', 'memory', '--state', 'pic.irr=value', url], { cwd });
  // Not of the form that gc knows, and of a process that runs.
  mkdirSync(join(cwd, '.chkpt-scratch-mine'));
  leave(cwd, process.pid);
  const before = listTree(cwd);
  leave(cwd, endedPid);
  // Its second name is the evidence by which a file of memory that nothing names is found.
  linkSync(join(cwd, `g/.tmp-${uuid}-${endedPid}/store0`), join(cwd, 'g/system.physmem.store7.pmem'));
  const killed = listTree(cwd);

  const told = await chkptOk(['gc', '.'], { cwd });
  const lines = told.stdout.toString().trimEnd().split('\n');
  const paths = lines.map((line) => line.replace(/ {2}[\d.]+ (bytes|KiB)$/, '')).sort();
  const left = killed.filter((path) => !before.includes(path));
  expect(paths).toEqual(left.map((path) => `${cwd}/${path}`).sort());
  const size = `${((24 + statSync(join(cwd, 'g/m5.cpt')).size) / 1024).toFixed(2)} KiB`;
  expect(told.stderr).toBe(`found 12 leftovers, ${size}; --remove removes them\n`);
  expect(listTree(cwd)).toEqual(killed);

  const removed = await chkptOk(['gc', '.', '--remove'], { cwd });
  expect(removed.stdout.toString()).toBe(told.stdout.toString());
  expect(removed.stderr).toBe(`removed 12 leftovers, ${size}\n`);
  expect(listTree(cwd)).toEqual(before);
  for (const url of urls) await chkptOk(['verify', url], { cwd });
  const { stdout } = await chkptOk(['gc', '.', '--json'], { cwd });
  expect(JSON.parse(stdout.toString())).toEqual({
    ...{ command: 'gc', folder: cwd, removed: false, leftovers: [], bytes: 0 },
  });
});

test('a scratch folder has the name by which it is found', async () => {
  const folder = await makeScratchFolder(makeFolder());
  expect(scratchPidIn(basename(folder))).toBe(process.pid);
  expect(scratchPidIn(`${basename(folder)}.bak`)).toBeUndefined();
});

test('a folder that is not there is CHKPT_NOT_FOUND', async () => {
  const { code, stderr } = await chkpt(['gc', 'none'], { cwd: makeFolder() });
  expect(stderr).toMatch(/^chkpt: CHKPT_NOT_FOUND: /);
  expect(code).toBe(1);
});
