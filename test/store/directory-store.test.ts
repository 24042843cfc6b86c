/** `dir:`: what it adds to the promises of every store. Faults and crashes have tests of their own. */
import { execFileSync, spawnSync } from 'node:child_process';
import {
  appendFileSync,
  existsSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { describe, expect, test } from 'vitest';
import { manifestBytesMax } from '../../src/limits.ts';
import { openStore } from '../../src/store/index.ts';
import { FaultFileSystem } from './support/fault-file-system.ts';
import { listTree, makeFolder, openDescriptors } from './support/folders.ts';
import { endedPid, openIn } from './support/hosts.ts';
import { isSame, load, noise, sampleStream, save, writeSegments } from './support/sample-stream.ts';

const stream = sampleStream('directory');
const other = sampleStream('other');
const { uuid } = stream.summary;
const files = ['000-start', '001-header', '002-pic0', '003-memory.pages', '004-end'];

describe('dir:', () => {
  test('one file per context, which together are the stream; a manifest; only the owner can read', async () => {
    const folder = makeFolder();
    await save(openStore(`dir:${folder}/vm`), stream);
    const generation = `${folder}/vm/${uuid}`;
    const expected = ['vm/', 'vm/MANIFEST.json', `vm/${uuid}/`, ...files.map((name) => `vm/${uuid}/${name}`)];
    expect(listTree(folder)).toEqual(expected.sort());
    const whole = Buffer.concat(files.map((name) => readFileSync(`${generation}/${name}`)));
    expect(isSame(whole, stream.bytes)).toBe(true);
    for (const [index, name] of files.entries()) {
      const bytes = stream.segments[index]?.bytes ?? new Uint8Array(0);
      expect(isSame(readFileSync(`${generation}/${name}`), bytes), name).toBe(true);
      expect(statSync(`${generation}/${name}`).mode & 0o777).toBe(0o600);
    }
    expect(statSync(`${folder}/vm/MANIFEST.json`).mode & 0o777).toBe(0o600);
    for (const path of [`${folder}/vm`, generation]) expect(statSync(path).mode & 0o777).toBe(0o700);
  });

  test('the manifest says what was saved', async () => {
    const folder = makeFolder();
    const parent = 'ffffffff-0000-4000-8000-000000000000';
    const summary = { ...stream.summary, parent, epoch: 2n ** 60n };
    await save(openStore(`dir:${folder}/vm`), { ...stream, summary });
    const manifest = JSON.parse(readFileSync(`${folder}/vm/MANIFEST.json`, 'utf8'));
    expect(manifest).toEqual({
      format: 'chkpt directory',
      version: 1,
      uuid,
      parent,
      epoch: '1152921504606846976',
      root: summary.root,
      bytes: stream.bytes.length,
      generation: uuid,
      segments: stream.segments.map(({ segment, summary }, index) => ({
        ...segment,
        file: files[index],
        ...summary,
      })),
      digest: expect.stringMatching(/^[0-9a-f]{64}$/),
    });
  });

  test('a save makes exactly these calls, in this order', async () => {
    const folder = makeFolder();
    const small = sampleStream('small', [
      ['start', 'start', 128],
      ['end', 'end', 64],
    ]);
    await save(openIn('dir', folder), other);
    const world = new FaultFileSystem();
    await save(openIn('dir', folder, { fileSystem: world }), small);
    const fileCalls = (path: string) =>
      ['create', 'write', 'fstat', 'fsync', 'close'].map((name) => `${name} ${path}`);
    const readCalls = (path: string) => ['open', 'fstat', 'read', 'close'].map((name) => `${name} ${path}`);
    const work = `/vm/.tmp-${small.summary.uuid}-${process.pid}`;
    const generation = `/vm/${small.summary.uuid}`;
    const manifest = `/vm/.MANIFEST.json.${small.summary.uuid}.${process.pid}`;
    const old = `/vm/${other.summary.uuid}`;
    const calls = world.trace.map(({ name, path, target }) => {
      return [name, path, ...(target === undefined ? [] : [target])].join(' ').replaceAll(folder, '');
    });
    expect(calls).toEqual([
      'mkdir /vm',
      'readdir /vm',
      `mkdir ${work}`,
      ...fileCalls(`${work}/000-start`),
      ...fileCalls(`${work}/001-end`),
      `fsync-directory ${work}`,
      `lstat ${generation}`,
      ...fileCalls(`${manifest}.tmp`),
      `rename ${work} ${generation}`,
      'fsync-directory /vm',
      ...readCalls('/vm/MANIFEST.json'),
      `link /vm/MANIFEST.json ${manifest}.old`,
      `rename ${manifest}.tmp /vm/MANIFEST.json`,
      'fsync-directory /vm',
      'readdir /vm',
      ...readCalls(`${manifest}.old`),
      ...readCalls('/vm/MANIFEST.json'),
      `readdir ${old}`,
      ...files.map((name) => `unlink ${old}/${name}`),
      `rmdir ${old}`,
      `unlink ${manifest}.old`,
    ]);
  });

  test('bytes outside a segment are CHKPT_UNSUPPORTED, a name that breaks the rules CHKPT_NAME', async () => {
    const folder = makeFolder();
    const store = openIn('dir', folder);
    const writer = await store.openWriter({ uuid });
    await expect(writer.write(new Uint8Array(1))).rejects.toMatchObject({ code: 'CHKPT_UNSUPPORTED' });
    for (const name of ['a/b', '..', '', 'x'.repeat(256), '\ud800']) {
      const next = await store.openWriter({ uuid });
      await expect(next.beginSegment?.({ kind: 'values', name })).rejects.toMatchObject({
        code: 'CHKPT_NAME',
      });
    }
    expect(listTree(folder)).toEqual([]);
  });

  test('a path that is a file is CHKPT_STORE_URL for saving and CHKPT_NOT_FOUND for loading', async () => {
    const folder = makeFolder();
    writeFileSync(`${folder}/vm`, 'a file');
    await expect(save(openIn('dir', folder), stream)).rejects.toMatchObject({ code: 'CHKPT_STORE_URL' });
    await expect(load(openIn('dir', folder))).rejects.toMatchObject({ code: 'CHKPT_NOT_FOUND' });
    expect(readFileSync(`${folder}/vm`, 'utf8')).toBe('a file');
    const lost = openStore(`dir:${folder}/none/vm`);
    await expect(save(lost, stream)).rejects.toMatchObject({ code: 'CHKPT_NOT_FOUND' });
  });

  test('a parent that may not be opened stops a save only when it has to be flushed', async () => {
    const folder = makeFolder();
    const world = new FaultFileSystem(({ name, path }) => {
      return name === 'fsync-directory' && path === folder ? { errno: 'EACCES' } : undefined;
    });
    const first = save(openIn('dir', folder, { fileSystem: world }), stream);
    await expect(first).rejects.toMatchObject({ code: 'CHKPT_DURABILITY', cause: { code: 'EACCES' } });
    expect(listTree(folder)).toEqual([]);
    mkdirSync(`${folder}/vm`);
    await save(openIn('dir', folder, { fileSystem: world }), stream);
    expect(isSame(await load(openIn('dir', folder)), stream.bytes)).toBe(true);
  });

  test('a link to a folder may be the path', async () => {
    const folder = makeFolder();
    mkdirSync(`${folder}/real`);
    symlinkSync('real', `${folder}/vm`);
    await save(openIn('dir', folder), stream);
    expect(existsSync(`${folder}/real/MANIFEST.json`)).toBe(true);
    expect(isSame(await load(openIn('dir', folder)), stream.bytes)).toBe(true);
  });

  test('a save replaces a checkpoint whose manifest is damaged', async () => {
    const folder = makeFolder();
    await save(openIn('dir', folder), other);
    writeFileSync(`${folder}/vm/MANIFEST.json`, 'damaged');
    await save(openIn('dir', folder), stream);
    expect(isSame(await load(openIn('dir', folder)), stream.bytes)).toBe(true);
  });

  test('the generation of a checkpoint with the UUID of the one it replaces gets a number', async () => {
    const folder = makeFolder();
    const again = { ...other, summary: { ...other.summary, uuid } };
    await save(openIn('dir', folder), stream);
    await save(openIn('dir', folder), again);
    expect(listTree(folder)).toContain(`vm/${uuid}.2/`);
    expect(listTree(folder)).not.toContain(`vm/${uuid}/`);
    await save(openIn('dir', folder), stream);
    expect(listTree(folder)).toContain(`vm/${uuid}/`);
    expect(listTree(folder)).not.toContain(`vm/${uuid}.2/`);
  });

  test('what others keep in the folder is never touched, whatever it is called', async () => {
    const folder = makeFolder();
    const foreign = 'ffffffff-ffff-4fff-8fff-ffffffffffff';
    await save(openIn('dir', folder), other);
    mkdirSync(`${folder}/vm/${foreign}`);
    const kept = [`${foreign}/data`, 'README', '.tmp-notes', '.MANIFEST.json.backup', `${foreign}.txt`];
    for (const name of kept) writeFileSync(`${folder}/vm/${name}`, 'of somebody else');
    await save(openIn('dir', folder), stream);
    await save(openIn('dir', folder), other);
    for (const name of kept)
      expect(readFileSync(`${folder}/vm/${name}`, 'utf8'), name).toBe('of somebody else');
  });

  test('a save in progress keeps its files while other saves come and go', async () => {
    const folder = makeFolder();
    const writer = await openIn('dir', folder).openWriter({ uuid });
    await writeSegments(writer, stream);
    await save(openIn('dir', folder), other);
    await save(openIn('dir', folder), sampleStream('third'));
    await writer.commit(stream.summary);
    expect(isSame(await load(openIn('dir', folder)), stream.bytes)).toBe(true);
    expect(listTree(folder)).toHaveLength(3 + files.length);
  });

  test('a work folder of a process that is gone is removed by the next save', async () => {
    const folder = makeFolder();
    await save(openStore(`dir:${folder}/vm`), other);
    const gone = `.tmp-${uuid}-${spawnSync('true').pid}`;
    const living = `.tmp-${uuid}-${process.ppid}`;
    for (const name of [gone, living]) mkdirSync(`${folder}/vm/${name}`);
    writeFileSync(`${folder}/vm/${gone}/000-start`, 'left behind');
    await save(openStore(`dir:${folder}/vm`), stream);
    expect([gone, living].map((name) => existsSync(`${folder}/vm/${name}`))).toEqual([false, true]);
  });
});

describe('remains that may still be needed', () => {
  test('without MANIFEST.json the generation that was being replaced stays, for a restore by hand', async () => {
    const folder = makeFolder();
    await save(openIn('dir', folder), stream);
    renameSync(
      `${folder}/vm/MANIFEST.json`,
      `${folder}/vm/.MANIFEST.json.${other.summary.uuid}.${endedPid}.old`,
    );
    await (await openIn('dir', folder).openWriter({ uuid: other.summary.uuid })).abort();
    renameSync(
      `${folder}/vm/.MANIFEST.json.${other.summary.uuid}.${endedPid}.old`,
      `${folder}/vm/MANIFEST.json`,
    );
    expect(isSame(await load(openIn('dir', folder)), stream.bytes)).toBe(true);
  });

  test('with a damaged MANIFEST.json no generation is removed', async () => {
    const folder = makeFolder();
    await save(openIn('dir', folder), stream);
    const text = readFileSync(`${folder}/vm/MANIFEST.json`);
    for (const role of ['old', 'tmp']) {
      writeFileSync(`${folder}/vm/.MANIFEST.json.${other.summary.uuid}.${endedPid}.${role}`, text);
    }
    writeFileSync(`${folder}/vm/MANIFEST.json`, 'damaged');
    await (await openIn('dir', folder).openWriter({ uuid: other.summary.uuid })).abort();
    expect(listTree(`${folder}/vm/${uuid}`)).toEqual(files);
    await save(openIn('dir', folder), other);
    expect(listTree(folder)).toHaveLength(3 + files.length);
  });
});

describe('loading a damaged directory', () => {
  const file = `${uuid}/003-memory.pages`;
  test.each<[string, string, (vm: string) => void]>([
    ['a file is missing', 'CHKPT_MANIFEST', (vm) => rmSync(`${vm}/${file}`)],
    ['a file is shorter', 'CHKPT_MANIFEST', (vm) => truncateSync(`${vm}/${file}`, 4999)],
    ['a file is longer', 'CHKPT_MANIFEST', (vm) => appendFileSync(`${vm}/${file}`, 'x')],
    [
      'a file is a link',
      'CHKPT_MANIFEST',
      (vm) => replace(`${vm}/${file}`, (to) => symlinkSync('../MANIFEST.json', to)),
    ],
    ['a file is a folder', 'CHKPT_MANIFEST', (vm) => replace(`${vm}/${file}`, (to) => mkdirSync(to))],
    [
      'a file is a FIFO',
      'CHKPT_MANIFEST',
      (vm) => replace(`${vm}/${file}`, (to) => execFileSync('mkfifo', [to])),
    ],
    ['the generation is missing', 'CHKPT_MANIFEST', (vm) => rmSync(`${vm}/${uuid}`, { recursive: true })],
    [
      'the generation is a link',
      'CHKPT_MANIFEST',
      (vm) => {
        renameSync(`${vm}/${uuid}`, `${vm}/elsewhere`);
        symlinkSync('elsewhere', `${vm}/${uuid}`);
      },
    ],
    [
      'the generation is a file',
      'CHKPT_MANIFEST',
      (vm) => {
        rmSync(`${vm}/${uuid}`, { recursive: true });
        writeFileSync(`${vm}/${uuid}`, '');
      },
    ],
    ['the manifest is missing', 'CHKPT_NOT_FOUND', (vm) => rmSync(`${vm}/MANIFEST.json`)],
    ['the manifest is empty', 'CHKPT_MANIFEST', (vm) => truncateSync(`${vm}/MANIFEST.json`, 0)],
    [
      'the manifest is huge',
      'CHKPT_MANIFEST',
      (vm) => truncateSync(`${vm}/MANIFEST.json`, manifestBytesMax + 1),
    ],
    [
      'the manifest is a FIFO',
      'CHKPT_STORE_URL',
      (vm) => replace(`${vm}/MANIFEST.json`, (to) => execFileSync('mkfifo', [to])),
    ],
    [
      'the manifest is a link',
      'CHKPT_PERMISSION',
      (vm) => replace(`${vm}/MANIFEST.json`, (to) => symlinkSync(uuid, to)),
    ],
  ])('%s: %s', async (_, code, damage) => {
    const folder = makeFolder();
    await save(openIn('dir', folder), stream);
    damage(`${folder}/vm`);
    await expect(openIn('dir', folder).openReader()).rejects.toMatchObject({ code });
    expect(openDescriptors(folder)).toEqual([]);
  });

  test('a file that becomes shorter while it is read is CHKPT_MANIFEST', async () => {
    const folder = makeFolder();
    await save(openIn('dir', folder), stream);
    const reader = await openIn('dir', folder).openReader();
    truncateSync(`${folder}/vm/${file}`, 10);
    const target = new Uint8Array(stream.bytes.length);
    await expect(reader.read(target)).rejects.toMatchObject({ code: 'CHKPT_MANIFEST' });
    await reader.close();
    expect(openDescriptors(folder)).toEqual([]);
  });
});

describe('loading while others save', () => {
  test('a checkpoint replaced between its manifest and its files is opened anew', async () => {
    const folder = makeFolder();
    await save(openIn('dir', folder), other);
    let replacements = 3;
    const world = new (class extends FaultFileSystem {
      override async open(...[path, ...rest]: Parameters<FaultFileSystem['open']>) {
        if (path.endsWith('003-memory.pages') && replacements > 0) {
          replacements -= 1;
          await save(
            openIn('dir', folder),
            replacements === 0 ? stream : sampleStream(`save ${replacements}`),
          );
        }
        return await super.open(path, ...rest);
      }
    })();
    expect(isSame(await load(openIn('dir', folder, { fileSystem: world })), stream.bytes)).toBe(true);
    expect(replacements).toBe(0);
    expect(openDescriptors(folder)).toEqual([]);
  });

  test('loads beside forty saves all get one whole checkpoint', async () => {
    const folder = makeFolder();
    const streams = Array.from({ length: 40 }, (_, index) => sampleStream(`save ${index}`));
    const known = new Set(streams.map(({ bytes }) => Buffer.from(bytes).toString('base64')));
    await save(openIn('dir', folder), streams[0] ?? stream);
    let isSaving = true;
    const loads = Array.from({ length: 3 }, async () => {
      for (let count = 0; isSaving || count === 0; count += 1) {
        const found = Buffer.from(await load(openIn('dir', folder))).toString('base64');
        expect(known.has(found)).toBe(true);
      }
    });
    for (const next of streams) await save(openIn('dir', folder), next);
    isSaving = false;
    await Promise.all(loads);
    expect(listTree(folder)).toHaveLength(3 + files.length);
  });

  test('a stream larger than one read comes back through 64 KiB reads', async () => {
    const folder = makeFolder();
    const large = sampleStream('large', [
      ['start', 'start', 128],
      ['memory', 'memory', 3_000_001],
      ['end', 'end', 64],
    ]);
    await save(openIn('dir', folder), large);
    expect(isSame(await load(openIn('dir', folder), 65_536), large.bytes)).toBe(true);
    // Behind the type and length of its first frame.
    expect(isSame(noise('large/1', 64).subarray(16), large.bytes.subarray(144, 192))).toBe(true);
  });
});

function replace(path: string, make: (path: string) => void): void {
  rmSync(path);
  make(path);
}
