/** `file:`: what it adds to the promises of every store. Faults and crashes have tests of their own. */
import { execFileSync, spawnSync } from 'node:child_process';
import {
  existsSync,
  lstatSync,
  mkdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { createServer } from 'node:net';
import { describe, expect, test } from 'vitest';
import { openStore } from '../../src/store/index.ts';
import { FaultFileSystem } from './support/fault-file-system.ts';
import { listTree, makeFolder } from './support/folders.ts';
import { openIn } from './support/hosts.ts';
import { isSame, load, sampleStream, save, writeSegments } from './support/sample-stream.ts';

const stream = sampleStream('file');
const other = sampleStream('other');
const { uuid } = stream.summary;

describe('file:', () => {
  test('the file is the stream, byte for byte, and only its owner can read it', async () => {
    const folder = makeFolder();
    await save(openStore(`file:${folder}/vm.chkpt`), stream);
    expect(isSame(readFileSync(`${folder}/vm.chkpt`), stream.bytes)).toBe(true);
    expect(statSync(`${folder}/vm.chkpt`).mode & 0o777).toBe(0o600);
  });

  test('a save makes exactly these calls, in this order', async () => {
    const folder = makeFolder();
    await save(openIn('file', folder), other);
    const world = new FaultFileSystem();
    await save(openIn('file', folder, { fileSystem: world }), stream);
    const calls = world.trace.map(({ name, path, target }) => {
      return [name, path, ...(target === undefined ? [] : [target])].join(' ').replaceAll(folder, '');
    });
    const temporary = `/.vm.${uuid}.${process.pid}`;
    expect(calls).toEqual([
      'lstat /vm',
      'readdir ',
      `create ${temporary}.tmp`,
      ...Array.from({ length: 6 }, () => `write ${temporary}.tmp`),
      `fstat ${temporary}.tmp`,
      `fsync ${temporary}.tmp`,
      `close ${temporary}.tmp`,
      `link /vm ${temporary}.old`,
      `rename ${temporary}.tmp /vm`,
      'fsync-directory ',
      `unlink ${temporary}.old`,
    ]);
  });

  test('a path with spaces, percent signs and Unicode works as it is, and encoded in file:///', async () => {
    const folder = makeFolder();
    await save(openStore(`file:${folder}/a b%20ü#?.chkpt`), stream);
    expect(listTree(folder)).toEqual(['a b%20ü#?.chkpt']);
    const encoded = `file://${folder}/a%20b%2520%C3%BC%23%3F.chkpt`;
    expect(isSame(await load(openStore(encoded)), stream.bytes)).toBe(true);
    expect(isSame(await load(openStore(`${folder}/a b%20ü#?.chkpt`)), stream.bytes)).toBe(true);
  });

  test('the longest name that a folder takes can be saved to', async () => {
    const folder = makeFolder();
    const name = `${'é'.repeat(127)}x`;
    await save(openStore(`file:${folder}/${name}`), other);
    await save(openStore(`file:${folder}/${name}`), stream);
    expect(listTree(folder)).toEqual([name]);
    const tooLong = openStore(`file:${folder}/${name}x`);
    await expect(save(tooLong, stream)).rejects.toMatchObject({
      code: 'CHKPT_IO',
      cause: { code: 'ENAMETOOLONG' },
    });
  });

  test('a folder that does not exist is CHKPT_NOT_FOUND, for saving too', async () => {
    const store = openStore(`file:${makeFolder()}/none/vm`);
    await expect(save(store, stream)).rejects.toMatchObject({ code: 'CHKPT_NOT_FOUND' });
    await expect(load(store)).rejects.toMatchObject({ code: 'CHKPT_NOT_FOUND' });
  });

  test('a save with the UUID of a save in progress is refused and does not harm it', async () => {
    const folder = makeFolder();
    const writer = await openIn('file', folder).openWriter({ uuid });
    const second = openIn('file', folder).openWriter({ uuid });
    await expect(second).rejects.toMatchObject({ code: 'CHKPT_IO', cause: { code: 'EEXIST' } });
    await writeSegments(writer, stream);
    await writer.commit(stream.summary);
    expect(isSame(await load(openIn('file', folder)), stream.bytes)).toBe(true);
  });

  test('a temporary that somebody removes is CHKPT_IO, not a missing checkpoint', async () => {
    const folder = makeFolder();
    const writer = await openIn('file', folder).openWriter({ uuid });
    await writeSegments(writer, stream);
    rmSync(`${folder}/.vm.${uuid}.${process.pid}.tmp`);
    await expect(writer.commit(stream.summary)).rejects.toMatchObject({
      code: 'CHKPT_IO',
      cause: { code: 'ENOENT' },
    });
  });

  test('a failed flush does not take back what another save has published since', async () => {
    const folder = makeFolder();
    await save(openIn('file', folder), sampleStream('older'));
    const world = new (class extends FaultFileSystem {
      override async fsyncDirectory(): Promise<void> {
        await save(openIn('file', folder), other);
        throw Object.assign(new Error('EIO'), { code: 'EIO' });
      }
    })();
    const late = save(openIn('file', folder, { fileSystem: world }), stream);
    await expect(late).rejects.toMatchObject({ code: 'CHKPT_DURABILITY' });
    expect(isSame(await load(openIn('file', folder)), other.bytes)).toBe(true);
    expect(listTree(folder)).toEqual(['vm']);
  });
});

describe('links and special files', () => {
  test('a link as the last component is refused for loading and replaced by saving', async () => {
    const folder = makeFolder();
    await save(openStore(`file:${folder}/real`), other);
    symlinkSync('real', `${folder}/vm`);
    await expect(load(openIn('file', folder))).rejects.toMatchObject({
      code: 'CHKPT_PERMISSION',
      message: expect.stringContaining('symbolic link'),
    });
    await save(openIn('file', folder), stream);
    expect(lstatSync(`${folder}/vm`).isFile()).toBe(true);
    expect(isSame(readFileSync(`${folder}/real`), other.bytes)).toBe(true);
    expect(isSame(await load(openIn('file', folder)), stream.bytes)).toBe(true);
  });

  test('links in the folders of the path are followed', async () => {
    const folder = makeFolder();
    mkdirSync(`${folder}/real`);
    symlinkSync('real', `${folder}/link`);
    await save(openStore(`file:${folder}/link/vm`), stream);
    expect(readlinkSync(`${folder}/link`)).toBe('real');
    expect(listTree(`${folder}/real`)).toEqual(['vm']);
    expect(isSame(await load(openStore(`file:${folder}/link/vm`)), stream.bytes)).toBe(true);
  });

  test('FIFOs, sockets, folders and devices are refused at once and stay what they are', async () => {
    const folder = makeFolder();
    execFileSync('mkfifo', [`${folder}/fifo`]);
    mkdirSync(`${folder}/folder`);
    const server = createServer();
    await new Promise<void>((resolve) => server.listen(`${folder}/socket`, resolve));
    try {
      const paths = ['fifo', 'folder', 'socket'].map((name) => `${folder}/${name}`);
      for (const path of [...paths, '/dev/null', '/dev/full']) {
        const before = lstatSync(path).mode;
        await expect(load(openStore(`file:${path}`)), path).rejects.toMatchObject({
          code: 'CHKPT_STORE_URL',
        });
        await expect(save(openStore(`file:${path}`), stream), path).rejects.toMatchObject({
          code: 'CHKPT_STORE_URL',
        });
        expect(lstatSync(path).mode, path).toBe(before);
      }
      expect(listTree(folder)).toEqual(['fifo', 'folder/', 'socket']);
    } finally {
      server.close();
    }
  });
});

describe('temporaries that were left behind', () => {
  const dead = 'aaaaaaaa-0000-4000-8000-00000000000a';

  test('those of processes that are gone are removed, those of living ones and of other files are not', async () => {
    const folder = makeFolder();
    const gone = spawnSync('true').pid;
    const living = process.ppid;
    const removed = [`.vm.${dead}.${gone}.tmp`, `.vm.${dead}.${gone}.old`, `.vm.${dead}.4194304.tmp`];
    const kept = [
      `.vm.${dead}.${living}.tmp`,
      `.vm.${dead}.${process.pid}.tmp`,
      `.vm2.${dead}.${gone}.tmp`,
      `.vm.x.${dead}.${gone}.tmp`,
      `.vm.${dead}.0.tmp`,
      `.vm.${dead}.${gone}.tmp.x`,
      `.vm.${dead}.99999999.tmp`,
      `.vm.not-a-uuid.${gone}.tmp`,
      `vm.${dead}.${gone}.tmp`,
    ];
    for (const name of [...removed, ...kept]) writeFileSync(`${folder}/${name}`, 'left behind');
    const writer = await openStore(`file:${folder}/vm`).openWriter({ uuid });
    expect(removed.filter((name) => existsSync(`${folder}/${name}`))).toEqual([]);
    expect(kept.filter((name) => !existsSync(`${folder}/${name}`))).toEqual([]);
    await writer.abort();
  });

  test('one with our own number from before we started is removed: a container numbers every run alike', async () => {
    const folder = makeFolder();
    const name = `.vm.${dead}.${process.pid}.tmp`;
    writeFileSync(`${folder}/${name}`, 'left behind');
    // The time of the last write can be set back by anyone, and proves nothing.
    utimesSync(`${folder}/${name}`, new Date(0), new Date(0));
    await (await openIn('file', folder, { startedMs: Date.now() - 60_000 }).openWriter({ uuid })).abort();
    expect(listTree(folder)).toEqual([name]);
    await (await openIn('file', folder, { startedMs: Date.now() + 60_000 }).openWriter({ uuid })).abort();
    expect(listTree(folder)).toEqual([]);
  });
});
