/**
 * What an original does wrong and chkpt must not, one test for each: its name is the promise. Other tests guard many of them in depth.
 * This file: integrity, versions, hostile input.
 */
import { existsSync, readdirSync, statSync } from 'node:fs';
import { readFile, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import {
  GuestMemory,
  inspectCheckpoint,
  loadVm,
  openCheckpoint,
  openPalaciosStore,
  openStore,
  PageDecoder,
  receiveCheckpoint,
  saveVm,
  verifyCheckpoint,
} from '../../../src/index.ts';
import { writeOriginal } from './support/folders.ts';
import { type Group, key, memoryGroup, record, sampleOriginal, u32, wireOf } from './support/original.ts';
import { originalListens } from './support/peers.ts';

import { codeOf, fileStore, saveContexts, useSubjects } from './support/subjects.ts';

const { folder, machine, original } = useSubjects();

describe('integrity and versions', () => {
  test('damage of memory and of state is found', async () => {
    for (const name of ['memory_img', 'chkpt.timer']) {
      const path = folder.next();
      await saveVm(await machine({ guestLike: true }), fileStore(path));
      const file = existsSync(join(path, name))
        ? name
        : (readdirSync(path).find((one) => one.startsWith('chkpt.')) ?? name);
      const bytes = await readFile(join(path, file));
      bytes.writeUInt8(bytes.readUInt8(bytes.length - 1) ^ 1, bytes.length - 1);
      await writeFile(join(path, file), bytes);
      expect(await codeOf(verifyCheckpoint(fileStore(path)))).toBe('CHKPT_DIGEST');
    }
  });

  test('the header says who wrote it, and is compared', async () => {
    const text = 'v3vee palacios checkpoint version: x.x, ARM x.x';
    const groups = sampleOriginal().map(
      (group): Group => (group[0] === 'header' ? ['header', [['header', Buffer.from(text)]]] : group),
    );
    expect(await codeOf(verifyCheckpoint((await original(groups)).store))).toBe('CHKPT_FORMAT');
  });

  test('the header comes first', async () => {
    const inspection = await inspectCheckpoint((await original(sampleOriginal())).store);
    expect(inspection.contexts[0]?.name).toBe('header');
    await inspection.close();
  });

  test('a load that asks for what was skipped is told so', async () => {
    const path = folder.next();
    await saveVm(await machine(), fileStore(path), { skip: ['memory'] });
    expect(await codeOf(loadVm(await machine(), fileStore(path)))).toBe('CHKPT_SKIPPED');
  });

  test('an end in the middle is truncation', async () => {
    const bytes = wireOf(memoryGroup(4096, 2));
    const { url } = await originalListens(async (socket) => void socket.write(bytes.subarray(0, 5000)));
    expect(await codeOf(verifyCheckpoint(openStore(url)))).toBe('CHKPT_TRUNCATED');
  });

  test('a shorter save leaves no tail of the longer one before', async () => {
    const path = folder.next();
    await saveContexts(fileStore(path), { pic: { irr: 1, isr: 2, imr: 3 }, pit: { counter: 1 } });
    await saveContexts(fileStore(path), { pic: { irr: 1 } });
    expect(readdirSync(path).sort()).toEqual(['chkpt', 'chkpt.pic', 'header']);
    expect(statSync(join(path, 'chkpt.pic')).size).toBe(20 + 3 + 4);
  });

  test('a load makes no file', async () => {
    const path = folder.next();
    expect(await codeOf(verifyCheckpoint(fileStore(path)))).toBe('CHKPT_NOT_FOUND');
    const { path: sound, store } = await original(sampleOriginal());
    const before = readdirSync(sound);
    await verifyCheckpoint(store);
    expect(readdirSync(sound)).toEqual(before);
  });

  test('a short read without lengths is found by the schema', async () => {
    const path = folder.next();
    await writeOriginal(path, 'dir', sampleOriginal());
    await truncate(join(path, 'guest_info0'), 995);
    expect(await codeOf(verifyCheckpoint(openStore(`palacios+dir:${path}`)))).toBe('CHKPT_TRUNCATED');
  });

  test('tags and names are compared whole', async () => {
    const path = folder.next();
    await writeOriginal(path, 'textfile', sampleOriginal());
    const text = (await readFile(join(path, 'guest_info0'))).toString().replace('\nRIP=', '\nRIPS=');
    await writeFile(join(path, 'guest_info0'), text);
    expect(await codeOf(verifyCheckpoint(openStore(`palacios+textfile:${path}`)))).toBe('CHKPT_FORMAT');
  });

  test('the same memory in other blocks is the same memory', async () => {
    const digests: bigint[] = [];
    for (const [blockBytes, blocks] of [
      [8192, 6],
      [16_384, 3],
      [49_152, 1],
    ] as const) {
      const { store } = await original(sampleOriginal({ blockBytes, blocks }));
      const memory = GuestMemory.allocate([{ base: 0, bytes: 49_152 }]);
      const checkpoint = await openCheckpoint(store, { mode: 'load' });
      await checkpoint.loadMemory('memory', () => new PageDecoder(memory));
      await checkpoint.close();
      digests.push(await memory.digest());
      await memory.close();
    }
    expect(new Set(digests).size).toBe(1);
  });

  test('pages of zeros take no room in the files', async () => {
    const path = folder.next();
    await saveVm(await machine({ memoryBytes: 32 << 20 }), openPalaciosStore(`palacios+file:${path}`));
    expect(statSync(join(path, 'memory_img')).blocks * 512).toBeLessThan(1 << 20);
  });
});

describe('hostile input', () => {
  test('the number of local APICs indexes nothing', async () => {
    const apics: Group = ['apic', [['NUM_APICS', u32(0xffffffff)]]];
    expect(await codeOf(verifyCheckpoint((await original([...sampleOriginal(), apics])).store))).toBe(
      'no error',
    );
  });

  test('the number of devices, the end of their names, and 2^32 times 32 are checked', async () => {
    for (const [count, names, code] of [
      [0xffffffff, 0, 'CHKPT_LIMIT'],
      [0x8000000, 0, 'CHKPT_LIMIT'],
      [1, 31, 'CHKPT_FORMAT'],
      [1, 32, 'CHKPT_FORMAT'],
    ] as const) {
      const { path, store } = await original(sampleOriginal());
      await writeFile(
        join(path, 'devices'),
        Buffer.concat([record(['num_devs', u32(count)]), record(['names', Buffer.alloc(names, 0x61)])]),
      );
      expect(await codeOf(verifyCheckpoint(store))).toBe(code);
    }
  });

  test.each([128, 255, 32_767])('a name of %d bytes is refused, opening or closing', async (bytes) => {
    for (const prefix of [Buffer.alloc(0), key('header')]) {
      const { url } = await originalListens(async (socket) => {
        socket.on('error', () => undefined);
        socket.write(Buffer.concat([prefix, key('x'.repeat(bytes))]));
      });
      expect(await codeOf(verifyCheckpoint(openStore(url)))).toBe('CHKPT_LIMIT');
    }
  });

  test('a URL with more colons than it may have is refused', () => {
    expect(() => openStore('palacios+net:a:127.0.0.1:1:2:3:4')).toThrow(
      expect.objectContaining({ code: 'CHKPT_STORE_URL' }),
    );
  });

  test('a name that is a path stays inside the folder', async () => {
    for (const name of ['../x', '..', 'a/b', '\0']) {
      const { url } = await originalListens(async (socket) => {
        socket.on('error', () => undefined);
        socket.write(wireOf([name, []]));
      });
      const to = folder.next();
      expect(await codeOf(receiveCheckpoint(openStore(url), fileStore(to)))).toBe('CHKPT_FORMAT');
      expect(existsSync(to)).toBe(false);
    }
  });

  test('nobody listens off this machine unless told', async () => {
    expect(await codeOf(verifyCheckpoint(openStore('palacios+net:a:0.0.0.0:0')))).toBe('CHKPT_INSECURE');
  });
});
