/** Increments on the command line: what is saved, what comes back, and what is said of a chain that is not whole. */
import {
  closeSync,
  copyFileSync,
  ftruncateSync,
  mkdirSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { beforeAll, describe, expect, test } from 'vitest';
import { parentState } from '../../src/checkpoint/parent.ts';
import { openCheckpoint } from '../../src/index.ts';
import { listTree, makeFolder, makeSharedFolder } from './support/folders.ts';
import { type CommandResult, runHere } from './support/in-process.ts';
import { allocatedBytes, isSameFile, MiB, makeRamFile, noise } from './support/ram-files.ts';
import { chkpt } from './support/run-cli.ts';

const pageBytes = 4096;

type Run = (words: readonly string[], cwd: string) => Promise<CommandResult>;

const runProcess: Run = async (words, cwd) => {
  const { code, stdout, stderr } = await chkpt(words, { cwd });
  return { code, stdout: stdout.toString(), stderr };
};
const runWithoutNative: Run = async (words, cwd) => {
  const { code, stdout, stderr } = await chkpt(words, { cwd, env: { CHKPT_NO_NATIVE: '1' } });
  return { code, stdout: stdout.toString(), stderr };
};

/** Writes pages of a RAM image; `undefined` is a page of zeros. */
function change(path: string, pages: Readonly<Record<number, Uint8Array | undefined>>): void {
  const file = openSync(path, 'r+');
  for (const [page, content = Buffer.alloc(pageBytes)] of Object.entries(pages)) {
    writeSync(file, content, 0, content.length, Number(page) * pageBytes);
  }
  closeSync(file);
}

/** RAM images 0.img, 1.img, 2.img, each a few pages away from the one before. */
function makeImages(folder: string): void {
  makeRamFile(`${folder}/0.img`, 2 * MiB);
  copyFileSync(`${folder}/0.img`, `${folder}/1.img`);
  // New content, a page that becomes zero, one that was zero, one that equals an older one.
  const moved = readFileSync(`${folder}/0.img`).subarray(3 * pageBytes, 4 * pageBytes);
  change(`${folder}/1.img`, { 0: noise(pageBytes, 70), 2: undefined, 90: noise(pageBytes, 71), 500: moved });
  copyFileSync(`${folder}/1.img`, `${folder}/2.img`);
  change(`${folder}/2.img`, { 2: noise(pageBytes, 72), 3: undefined, 90: undefined });
}

const chain = makeSharedFolder();
beforeAll(async () => {
  makeImages(chain);
  await ok(['save', '--memory', '0.img', '0'], chain);
  await ok(['save', '--memory', '1.img', '--parent', '0', '1'], chain);
  await ok(['save', '--memory', '2.img', '--parent', '1', '2'], chain);
});

/** A copy of the chain of files. */
function copyChain(): string {
  const folder = makeFolder();
  for (const name of ['0', '1', '2']) copyFileSync(`${chain}/${name}`, `${folder}/${name}`);
  return folder;
}

async function ok(words: readonly string[], cwd: string, run: Run = runHere): Promise<CommandResult> {
  const result = await run(words, cwd);
  expect(result.stderr, words.join(' ')).not.toContain('CHKPT_');
  expect(result.code, words.join(' ')).toBe(0);
  return result;
}

// biome-ignore lint/suspicious/noExplicitAny: a document of any shape
async function json(words: readonly string[], cwd: string, run: Run = runHere): Promise<any> {
  return JSON.parse((await ok([...words, '--json'], cwd, run)).stdout);
}

/** Runs a command that must fail and leave every file as it was. */
async function expectFailure(
  words: readonly string[],
  exitCode: number,
  line: RegExp,
  cwd: string,
  run: Run = runHere,
): Promise<void> {
  const before = listTree(cwd);
  const { code, stderr, stdout } = await run(words, cwd);
  expect(stderr, words.join(' ')).toMatch(/^chkpt: CHKPT_[A-Z_]+: [^\n]+; [^\n]+\n$/);
  expect(stderr, words.join(' ')).toMatch(line);
  expect([code, stdout], words.join(' ')).toEqual([exitCode, '']);
  expect(listTree(cwd), words.join(' ')).toEqual(before);
}

function damage(path: string, offset: number): void {
  const bytes = readFileSync(path);
  bytes.writeUInt8(bytes.readUInt8(offset) ^ 1, offset);
  writeFileSync(path, bytes);
}

describe.each<[scheme: string, how: string, run: Run]>([
  ['file:', 'here', runHere],
  ['dir:', 'by processes', runProcess],
])('a chain in %s saved %s', (scheme, _, run) => {
  test('comes back byte for byte at every depth, sparse, and the documents of all commands agree', async () => {
    const cwd = makeFolder();
    makeImages(cwd);
    writeFileSync(`${cwd}/irr.bin`, 'irr!');
    await ok(['save', '--memory', '0.img', `${scheme}0`], cwd, run);
    const first = ['save', '--memory', '1.img', '--parent', `${scheme}0`, `${scheme}1`];
    expect((await ok(first, cwd, run)).stderr).toMatch(
      /^saved 2\.00 MiB as [0-9.]+ KiB in [^,]+, [^,]+, an increment: 4 of 512 pages stored\n$/,
    );
    const second = ['save', '--memory', '2.img', '--parent', `${scheme}1`, '--state', 'pic.irr=irr.bin'];
    const saved = await json([...second, `${scheme}2`], cwd, run);
    expect(saved.pages).toMatchObject({ total: 512, zero: 2, stored: 1, parent: 509 });
    expect(saved.tracker).toEqual({ kind: 'digest', reason: 'the machine has no dirty tracker' });

    const loaded = [];
    for (const depth of [0, 1, 2]) {
      loaded.push(await json(['load', `${scheme}${depth}`, '--memory', `${depth}.out`], cwd, run));
      expect(isSameFile(`${cwd}/${depth}.out`, `${cwd}/${depth}.img`), `${depth}`).toBe(true);
      expect(allocatedBytes(`${cwd}/${depth}.out`)).toBeLessThan(MiB / 2);
    }
    const [, one, two] = loaded;
    expect(saved.parent).toBe(one.uuid);
    expect(two.parents).toEqual([one.uuid, ...one.parents]);

    const info = await json(['info', `${scheme}2`], cwd, run);
    expect(info.chain).toMatchObject([
      { depth: 0, uuid: saved.uuid, root: saved.root, store: `${scheme}2`, epoch: '2', ownPages: 3 },
      { depth: 1, uuid: one.uuid, root: one.root, epoch: '1', ownPages: 4, error: null },
      { depth: 2, uuid: one.parents[0], epoch: '0', ownPages: 512, error: null },
    ]);
    expect(info.chain[1].checkpointBytes).toBe(one.checkpointBytes);
    const verified = await json(['verify', `${scheme}2`], cwd, run);
    const placeOf = ({ store, uuid, root }: { store: string; uuid: string; root: string }) => [
      store,
      uuid,
      root,
    ];
    expect(verified.parents.map(placeOf)).toEqual(info.chain.slice(1).map(placeOf));
    expect(verified.parents[0].store).toBe(`${scheme}${cwd}/1`);

    // State needs no parent.
    rmSync(`${cwd}/0`, { recursive: true });
    await ok(['load', `${scheme}2`, '--skip', 'memory', '--state', 'pic.irr=irr.out'], cwd, run);
    expect(readFileSync(`${cwd}/irr.out`, 'utf8')).toBe('irr!');
    const alone = await json(['verify', '--alone', `${scheme}2`], cwd, run);
    expect(alone).toMatchObject({ uuid: saved.uuid, parents: null });
    const missing = new RegExp(
      `^chkpt: CHKPT_PARENT_MISSING: .*${scheme}${cwd}/0: ${one.parents[0]} is wanted`,
    );
    await expectFailure(['load', `${scheme}2`, '--memory', 'out'], 1, missing, cwd, run);
  });
});

test('with --uuid and --time an increment has the same bytes whatever the number of threads', async () => {
  const cwd = copyChain();
  const fixed = ['--uuid', '01234567-89ab-4def-8123-456789abcdef', '--time', '2025-01-31'];
  for (const threads of ['1', '2']) {
    const save = ['save', '--memory', `${chain}/2.img`, '--parent', '0', ...fixed];
    await ok([...save, '--threads', threads, `t${threads}`], cwd);
  }
  expect(isSameFile(`${cwd}/t1`, `${cwd}/t2`)).toBe(true);
});

test('info and verify tell the same of a chain without the native addon; save and load say what is missing', async () => {
  const text = (await ok(['info', '2'], chain)).stdout;
  expect(text).toMatch(/\nDEPTH +CHAIN [^\n]*\n +0 [^\n]* 2\n +1 [^\n]*\/1\n +2 [^\n]*\/0\n\n/);
  expect((await ok(['info', '2'], chain, runWithoutNative)).stdout).toBe(text);
  const line = /^ok 2: [^\n]*512 pages, 3 of its own, [^\n]*, with 2 parents of [^\n]*\n$/;
  expect((await ok(['verify', '2'], chain)).stdout).toMatch(line);
  expect((await ok(['verify', '2'], chain, runWithoutNative)).stdout).toMatch(line);
  expect((await ok(['verify', '--alone', '2'], chain)).stdout).toContain(', its parents were not read, ');
  const noNative = /CHKPT_NO_NATIVE: /;
  await expectFailure(['load', '2', '--memory', 'out'], 1, noNative, chain, runWithoutNative);
  const save = ['save', '--memory', '2.img', '--parent', '1', 'x'];
  await expectFailure(save, 1, noNative, chain, runWithoutNative);
});

describe('a chain that has moved', () => {
  test('is found where --parent says, also by a further save', async () => {
    const cwd = copyChain();
    mkdirSync(`${cwd}/old`);
    const parents = ['--parent', 'old/x', '--parent', 'old/y'];
    renameSync(`${cwd}/0`, `${cwd}/old/x`);
    renameSync(`${cwd}/1`, `${cwd}/old/y`);
    await expectFailure(['verify', '2'], 1, /CHKPT_PARENT_MISSING: .*\/1: .*--parent URL/, cwd);
    await ok(['load', '2', '--memory', 'out', ...parents], cwd);
    expect(isSameFile(`${cwd}/out`, `${chain}/2.img`)).toBe(true);
    expect((await json(['verify', '2', ...parents], cwd)).parents).toHaveLength(2);
    const places = (await json(['info', '2', ...parents], cwd)).chain;
    expect(places.map(({ store }: { store: string }) => store)).toEqual(['2', 'old/y', 'old/x']);
    // The first --parent is the one to build on, the others say where its own are.
    const save = ['save', '--memory', `${chain}/0.img`, '--parent', '2'];
    await expectFailure([...save, '3'], 1, /CHKPT_PARENT_MISSING/, cwd);
    await ok([...save, ...parents, '3'], cwd);
    await ok(['load', '3', '--memory', 'out', ...parents], cwd);
    expect(isSameFile(`${cwd}/out`, `${chain}/0.img`)).toBe(true);
  });

  test('is found behind symbolic links and names with a dot, and as a whole', async () => {
    const cwd = makeFolder();
    mkdirSync(`${cwd}/all/far/away`, { recursive: true });
    symlinkSync('far/away', `${cwd}/all/link`);
    copyFileSync(`${chain}/0`, `${cwd}/all/.base`);
    await ok(['save', '--memory', `${chain}/1.img`, '--parent', '.base', 'link/1'], `${cwd}/all`);
    await ok(['save', '--memory', `${chain}/2.img`, '--parent', 'link/1', '2'], `${cwd}/all`);
    await ok(['save', '--memory', `${chain}/2.img`, '--parent', '.base', 'beside'], `${cwd}/all`);
    renameSync(`${cwd}/all`, `${cwd}/moved`);
    await ok(['verify', 'moved/beside'], cwd);
    await ok(['load', `${cwd}/moved/2`, '--memory', 'out'], cwd);
    expect(isSameFile(`${cwd}/out`, `${chain}/2.img`)).toBe(true);
    await ok(['verify', 'moved/link/1'], cwd);
  });
});

describe('a chain that is not whole', () => {
  /** What `info` says of the last member, in either form. */
  async function endOf(store: string, cwd: string): Promise<unknown[]> {
    const { chain: members } = await json(['info', store], cwd);
    const { depth, uuid, store: place, error } = members.at(-1);
    const line = new RegExp(`\\n +${depth}  ${uuid} [^\\n]*  ${error.code}: [^\\n]*\\n`);
    expect((await ok(['info', store], cwd)).stdout).toMatch(line);
    expect([members.length, place]).toEqual([depth + 1, null]);
    return [depth, uuid, error.code];
  }

  test('because a parent is missing or another checkpoint: exit code 1, named, and nothing appears', async () => {
    const cwd = copyChain();
    const { uuid } = await json(['info', '0'], cwd);
    const load = ['load', '2', '--memory', 'out', '--json'];
    rmSync(`${cwd}/0`);
    const missing = new RegExp(
      `PARENT_MISSING: .*${cwd}/0: ${uuid} is wanted .*; tell where it is with --parent`,
    );
    await expectFailure(load, 1, missing, cwd);
    await expectFailure(['verify', '2', '--json'], 1, /CHKPT_PARENT_MISSING: .*--alone/, cwd);
    expect(await endOf('2', cwd)).toEqual([2, uuid, 'CHKPT_PARENT_MISSING']);
    await ok(['verify', '2', '--alone'], cwd);

    await ok(['save', '--memory', `${chain}/0.img`, '0'], cwd);
    const foreign = new RegExp(`CHKPT_PARENT_FOREIGN: .*${cwd}/0: ${uuid} is wanted`);
    await expectFailure(load, 1, foreign, cwd);
    await expectFailure(['verify', '2'], 1, foreign, cwd);
    await expectFailure(['save', '--memory', `${chain}/2.img`, '--parent', '2', '3'], 1, foreign, cwd);
    expect(await endOf('2', cwd)).toEqual([2, uuid, 'CHKPT_PARENT_FOREIGN']);
  });

  test('because a parent is damaged: exit code 3, its store is named, and nothing appears', async () => {
    const cwd = copyChain();
    const { uuid } = await json(['info', '1'], cwd);
    const content = noise(19 * pageBytes, 1).subarray(8 * pageBytes, 9 * pageBytes);
    const offset = readFileSync(`${cwd}/0`).indexOf(content);
    expect(offset).toBeGreaterThan(0);
    damage(`${cwd}/0`, offset);
    const named = new RegExp(`CHKPT_DIGEST: .*store file:${cwd}/0[,)]`);
    await expectFailure(['load', '2', '--memory', 'out'], 3, named, cwd);
    await expectFailure(['load', '2', '--memory', 'out'], 3, named, cwd, runProcess);
    await expectFailure(['verify', '2'], 3, named, cwd);
    await expectFailure(['save', '--memory', `${chain}/2.img`, '--parent', '2', '3'], 3, named, cwd);
    // Damage that the index does not show is told before a parent that is missing further on.
    rmSync(`${cwd}/0`);
    const one = readFileSync(`${cwd}/1`);
    damage(`${cwd}/1`, one.indexOf(noise(pageBytes, 70)) + 9);
    await expectFailure(['verify', '2'], 3, new RegExp(`CHKPT_DIGEST: .*store file:${cwd}/1[,)]`), cwd);
    truncateSync(`${cwd}/1`, one.length - 1);
    await expectFailure(['verify', '2'], 3, new RegExp(`CHKPT_TRUNCATED: .*${cwd}/1`), cwd);
    expect(await endOf('2', cwd)).toEqual([1, uuid, 'CHKPT_TRUNCATED']);
  });

  test('because it never ends: CHKPT_PARENT_CYCLE', async () => {
    const cwd = makeFolder();
    const forge = async (name: string, parent: { uuid: string; root: string }, url: string) => {
      const checkpoint = await openCheckpoint(`${cwd}/${name}`, { mode: 'save', parent, epoch: 5n });
      const header = await checkpoint.openContext('header');
      await header.save(parentState, { parent: { url } });
      await header.close();
      const { uuid, root } = await checkpoint.commit();
      return { uuid, root };
    };
    const nobody = { uuid: '01234567-89ab-4def-8123-456789abcdef', root: '77'.repeat(32) };
    const older = await forge('older', nobody, 'file:');
    await forge('newer', older, 'file:./older');
    await expectFailure(['verify', 'newer'], 1, /CHKPT_PARENT_CYCLE: /, cwd);
    expect(await endOf('newer', cwd)).toEqual([1, older.uuid, 'CHKPT_PARENT_CYCLE']);
    // A link that is no URL is the fault of the checkpoint, not of the command line.
    await expectFailure(['verify', 'older'], 1, /CHKPT_PARENT_MISSING: /, cwd);
    expect(await endOf('older', cwd)).toEqual([1, nobody.uuid, 'CHKPT_PARENT_MISSING']);
  });
});

test('no save, load or flatten takes the place of what it builds on, however that is named', async () => {
  const cwd = copyChain();
  symlinkSync('.', `${cwd}/here`);
  const save = ['save', '--memory', `${chain}/0.img`, '--parent', '2'];
  await expectFailure([...save, './2'], 1, /CHKPT_PARENT_CYCLE: /, cwd);
  await expectFailure([...save, 'here/0'], 1, /CHKPT_PARENT_CYCLE: .*store file:.*\/0[,)]/, cwd);
  await expectFailure(['flatten', '2', 'here/0'], 1, /CHKPT_PARENT_CYCLE: /, cwd);
  await expectFailure(['load', '2', '--memory', 'here/0'], 2, /here\/0 is the checkpoint itself/, cwd);
  const state = ['load', '2', '--memory', 'out', '--state', 'a.b=./1', '--parent', '1'];
  await expectFailure(state, 2, /\.\/1 is the checkpoint itself/, cwd);
  for (const name of ['0', '1', '2']) expect(isSameFile(`${cwd}/${name}`, `${chain}/${name}`)).toBe(true);
});

test('a parent that is not there, or has another region table, is refused', async () => {
  const cwd = copyChain();
  const file = openSync(`${cwd}/larger.img`, 'w');
  ftruncateSync(file, 4 * MiB);
  closeSync(file);
  const save = ['save', '--memory', 'larger.img', '--parent'];
  await expectFailure([...save, '2', '3'], 1, /CHKPT_VM_REGIONS: .*store 2.*leave out --parent/, cwd);
  await expectFailure([...save, 'no', '3'], 1, /CHKPT_NOT_FOUND: .*store no/, cwd);
});
