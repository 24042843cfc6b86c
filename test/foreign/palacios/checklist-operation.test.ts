/**
 * What an original does wrong and chkpt must not, one test for each: its name is the promise. Other tests guard many of them in depth.
 * This file: liveness and usability.
 */
import { existsSync, statSync } from 'node:fs';
import { truncate } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { ForeignStore } from '../../../src/foreign/foreign-store.ts';
import { PalaciosFolderFormat } from '../../../src/foreign/palacios/folder-format.ts';
import { textForm } from '../../../src/foreign/palacios/form.ts';
import {
  encodeSkip,
  GuestMemory,
  openCheckpoint,
  openPalaciosStore,
  openStore,
  PageSet,
  receiveCheckpoint,
  sendPalacios,
  verifyCheckpoint,
} from '../../../src/index.ts';
import { encodePages } from '../../../src/migration/palacios/memory-wire.ts';
import { hostProcesses } from '../../../src/store/environment.ts';
import { runHere } from '../../cli/support/in-process.ts';
import { FaultFileSystem } from '../../store/support/fault-file-system.ts';
import { plainDevices } from './support/devices.ts';
import { writeOriginal } from './support/folders.ts';
import { sampleOriginal, wireOf } from './support/original.ts';
import { drain, drainAndReset, originalListens } from './support/peers.ts';

import { codeOf, fileStore, useSubjects } from './support/subjects.ts';

const { folder, machine, original } = useSubjects();

describe('liveness', () => {
  test('an end of the connection ends the load', async () => {
    const { url } = await originalListens(async () => undefined);
    expect(await codeOf(verifyCheckpoint(openStore(url)))).toBe('CHKPT_FORMAT');
  });

  test('silence ends it, and the caller can', async () => {
    const stop = new AbortController();
    const silent = async (): Promise<string> =>
      (
        await originalListens(
          async (socket) =>
            void (await new Promise((resolve) => socket.on('close', resolve).on('error', resolve))),
        )
      ).url;
    expect(await codeOf(verifyCheckpoint(openPalaciosStore(await silent(), { idleMs: 20 })))).toBe(
      'CHKPT_TIMEOUT',
    );
    const waiting = codeOf(verifyCheckpoint(openStore(await silent()), { signal: stop.signal }));
    setTimeout(() => stop.abort(), 20);
    expect(await waiting).toBe('CHKPT_ABORTED');
  });

  test('text is read in large pieces', async () => {
    const path = folder.next();
    await writeOriginal(path, 'textfile', sampleOriginal({ blockBytes: 1 << 20, blocks: 2 }));
    const fileSystem = new FaultFileSystem();
    const environment = { fileSystem, processes: hostProcesses };
    await verifyCheckpoint(
      new ForeignStore('test:', new PalaciosFolderFormat(textForm, path, 'test:', { environment })),
    );
    expect(fileSystem.trace.filter(({ name }) => name === 'read').length).toBeLessThan(150);
  });

  test('two saves of one checkpoint do not write into each other', async () => {
    const path = folder.next();
    const uuid = '0f0e0d0c-0b0a-4908-8706-050403020100';
    const first = await openCheckpoint(fileStore(path), { mode: 'save', uuid });
    expect(await codeOf(openCheckpoint(fileStore(path), { mode: 'save', uuid }))).toBe('CHKPT_IO');
    await first.commit();
    expect((await verifyCheckpoint(fileStore(path))).header.uuid).toBe(uuid);
  });

  test('pages are sent many at a time', () => {
    const memory = GuestMemory.allocate([{ base: 0, bytes: 1000 * 4096 }]);
    const pages = new PageSet(1000);
    pages.markRun(0, 1000);
    expect([...encodePages(memory, pages)].map(({ length }) => length / 4153)).toEqual([256, 256, 256, 232]);
    void memory.close();
  });

  test('a sender has succeeded only when the receiver has closed in good order, and runs on until everything was sent', async () => {
    const vm = await machine();
    await vm.resume();
    const gone = await originalListens(async (socket) => void socket.resetAndDestroy());
    expect(await codeOf(sendPalacios(vm, gone.url))).not.toBe('no error');
    expect(vm.running).toBe(true);
    const silent = await originalListens(drainAndReset);
    expect(await codeOf(sendPalacios(vm, silent.url))).toBe('CHKPT_UNACKNOWLEDGED');
    expect(vm.running).toBe(false);
  });
});

describe('usability', () => {
  test('the command line says so when it fails: exit 3 for damage, and nothing is written', async () => {
    const { path } = await original(sampleOriginal());
    await truncate(join(path, 'memory_img'), 20_000);
    const to = `${folder.next()}.chkpt`;
    for (const words of [
      ['verify', `palacios+file:${path}`],
      ['info', `palacios+file:${path}`],
      ['load', `palacios+file:${path}`, '--memory', to],
    ]) {
      const { code, stderr } = await runHere(words, folder.path);
      expect([code, stderr]).toEqual([3, expect.stringContaining('CHKPT_TRUNCATED')]);
    }
    expect(existsSync(to)).toBe(false);
  });

  test('there is info, ls, cat and verify of an original', async () => {
    const { path } = await original(sampleOriginal({ devices: plainDevices }));
    const run = async (...words: string[]): Promise<string> => {
      const { code, stdout, stderr } = await runHere(words, folder.path);
      expect(code, stderr).toBe(0);
      return stdout;
    };
    const info = await run('info', `palacios+file:${path}`);
    for (const text of ['v3vee palacios', 'AuthenticAMD', '8259 PIC', 'guest_info1', '48.0 KiB'])
      expect(info).toContain(text);
    expect(await run('ls', `palacios+file:${path}`)).toContain('guest_info0');
    expect(await run('verify', `palacios+file:${path}`)).toContain('unverified');
    const memory = folder.next();
    await run('load', `palacios+file:${path}`, '--memory', memory);
    expect(statSync(memory).size).toBe(3 * 16_384);
  });

  test('an option that is none is refused', () => {
    expect(() => encodeSkip(['everything' as never])).toThrow(TypeError);
  });

  test('a conversion loses neither order nor content', async () => {
    const groups = sampleOriginal({ devices: [...plainDevices].reverse() });
    const { url, result } = await originalListens(drain);
    await receiveCheckpoint((await original(groups)).store, openPalaciosStore(url));
    expect((await result).equals(Buffer.concat(groups.map((group) => wireOf(group))))).toBe(true);
  });
});
