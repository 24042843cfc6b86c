/**
 * Checkpoints of other programs that were damaged or forged, on the command line: each is a typed error and exit code 3, and neither an
 * output nor a temporary is written. What the formats promise in detail is in test/foreign/.
 */
import {
  closeSync,
  fstatSync,
  ftruncateSync,
  openSync,
  readSync,
  renameSync,
  rmSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { beforeAll, expect, test } from 'vitest';
import { u32, u64 } from '../foreign/palacios/support/original.ts';
import { listTree, makeSharedFolder } from './support/folders.ts';
import { runHere } from './support/in-process.ts';
import { MiB, makeRamFile } from './support/ram-files.ts';
import { chkpt, chkptOk } from './support/run-cli.ts';

type Change = (bytes: Buffer) => Buffer;

const cwd = makeSharedFolder();
const state = ['--state', 'pic.irr=irr.out'];
const subjects = {
  gem5: { url: 'gem5:cpt', outputs: ['--memory', 'ram.out', ...state] },
  records: { url: 'palacios+file:records', outputs: ['--memory', 'ram.out', ...state] },
  // Without memory: a block of zeroes would be 256 MiB of digits.
  text: { url: 'palacios+textfile:text', outputs: ['--skip', 'memory', ...state] },
};

beforeAll(async () => {
  makeRamFile(join(cwd, 'ram'), 2 * MiB);
  writeFileSync(join(cwd, 'irr'), 'irr!');
  for (const { url, outputs } of Object.values(subjects)) {
    const memory = outputs.includes('--memory') ? ['--memory', 'ram'] : ['--skip', 'memory'];
    await chkptOk(['save', ...memory, '--state', 'pic.irr=irr', url], { cwd });
    // Sound, it loads: what the rows see is their damage.
    await chkptOk(['load', url, ...outputs], { cwd });
    for (const name of ['ram.out', 'irr.out']) rmSync(join(cwd, name), { force: true });
  }
  // It would find each damage before anything is understood of the rest.
  rmSync(join(cwd, 'cpt/chkpt.manifest.json'));
});

const replaced =
  (from: string | RegExp, to: string): Change =>
  (bytes) =>
    Buffer.from(bytes.toString('latin1').replace(from, to), 'latin1');
const poked =
  (at: number, value: Uint8Array): Change =>
  (bytes) => {
    const changed = Buffer.from(bytes);
    changed.set(value, at);
    return changed;
  };
const flipped =
  (at: number): Change =>
  (bytes) =>
    poked(at, Uint8Array.of(bytes.readUInt8(at) ^ 4))(bytes);

const store = 'cpt/system.physmem.store0.pmem';
// A record of `chkpt.pic`: boundary, length of the tag at 4, "irr" at 12, length of the data at 15.
const pic = 'records/chkpt.pic';
// The image begins with the records `region_size`, whose data is at 31, and `num_regions`, whose data is at 70.
const image = 'records/memory_img';

test.each<[name: string, subject: keyof typeof subjects, file: string, change: Change, told: string]>([
  [
    'a path in filename',
    'gem5',
    'cpt/m5.cpt',
    replaced('filename=', 'filename=../'),
    'CHKPT_FORMAT: filename is no plain name',
  ],
  [
    'a store_id out of range',
    'gem5',
    'cpt/m5.cpt',
    replaced('store_id=0', 'store_id=1'),
    'CHKPT_FORMAT: store_id 1 is none of 1',
  ],
  [
    'an e in an integer',
    'gem5',
    'cpt/m5.cpt',
    replaced(/range_size=\d+/, 'range_size=2e6'),
    'CHKPT_FORMAT: 2e6 is no integer',
  ],
  ['carriage returns', 'gem5', 'cpt/m5.cpt', replaced(/\n/g, '\r\n'), 'CHKPT_FORMAT: not printable ASCII'],
  [
    'a key twice',
    'gem5',
    'cpt/m5.cpt',
    replaced('store_id=0', 'store_id=0\nstore_id=0'),
    'CHKPT_FORMAT: key store_id is there twice',
  ],
  [
    'a section twice',
    'gem5',
    'cpt/m5.cpt',
    replaced('\n[system]\n', '\n[system]\n[system]\n'),
    'CHKPT_FORMAT: section system is there twice',
  ],
  ['a short store', 'gem5', store, (bytes) => bytes.subarray(0, -9), 'CHKPT_TRUNCATED: end in the middle'],
  ['a flipped bit in a store', 'gem5', store, flipped(5000), 'CHKPT_DIGEST: the CRC of a gzip member'],
  ['a wrong boundary', 'records', pic, flipped(2), 'CHKPT_FORMAT: not begin with the boundary'],
  [
    'a negative length of a tag',
    'records',
    pic,
    poked(4, u64(-3)),
    'CHKPT_FORMAT: length of a tag is negative',
  ],
  [
    'a negative length of data',
    'records',
    pic,
    poked(15, u64(-4)),
    'CHKPT_FORMAT: length of a value is negative',
  ],
  [
    'a huge length of data',
    'records',
    pic,
    poked(15, u64(2n ** 62n)),
    'CHKPT_LIMIT: a value exceeds its limit',
  ],
  [
    'huge blocks of memory',
    'records',
    image,
    poked(31, u64(2n ** 62n)),
    'CHKPT_LIMIT: more memory than any machine',
  ],
  [
    'too many blocks of memory',
    'records',
    image,
    poked(70, u32(0xffff_ffff)),
    'CHKPT_LIMIT: more memory than any machine',
  ],
  [
    'a prefix of the name of its context',
    'text',
    'text/chkpt.pic',
    replaced('[chkpt.pic]', '[chkpt.pi]'),
    'CHKPT_FORMAT: the first line is not',
  ],
])('%s in a checkpoint of %s', async (_name, subject, file, change, told) => {
  const restore = damage(join(cwd, file), change);
  try {
    await expectDamaged(subject, told);
  } finally {
    restore();
  }
});

test('a context under a prefix of its name', async () => {
  renameSync(join(cwd, pic), join(cwd, 'records/chkpt.pi'));
  try {
    await expectDamaged('records', 'CHKPT_FORMAT: a context of the document is missing');
  } finally {
    renameSync(join(cwd, 'records/chkpt.pi'), join(cwd, pic));
  }
});

/** Changes a file, of a long one its head: the rest are holes and are to stay holes. Returns how it becomes what it was. */
function damage(path: string, change: Change): () => void {
  const file = openSync(path, 'r+');
  const { size } = fstatSync(file);
  const sound = Buffer.alloc(Math.min(size, 4 * MiB));
  readSync(file, sound, 0, sound.length, 0);
  const put = (head: Buffer): void => {
    writeSync(file, head, 0, head.length, 0);
    ftruncateSync(file, size - sound.length + head.length);
  };
  const damaged = change(sound);
  expect(damaged.equals(sound)).toBe(false);
  put(damaged);
  return () => {
    put(sound);
    closeSync(file);
  };
}

/** Of both commands; one of them in a process of its own, for what only that shows. */
async function expectDamaged(subject: keyof typeof subjects, told: string): Promise<void> {
  const { url, outputs } = subjects[subject];
  const [code, what] = told.split(': ');
  const pattern = new RegExp(`^chkpt: ${code}: .*${what}`);
  const before = listTree(cwd);
  for (const { code: exit, stdout, stderr } of [
    await chkpt(['load', url, ...outputs], { cwd }),
    await runHere(['convert', url, 'file:b'], cwd),
  ]) {
    expect(stderr).toMatch(/^chkpt: CHKPT_[A-Z]+: [^\n]+; [^\n]+\n$/);
    expect(stderr).toMatch(pattern);
    expect(exit, stderr).toBe(3);
    expect(stdout.toString()).toBe('');
    expect(listTree(cwd)).toEqual(before);
  }
}
