/**
 * What an original does wrong and chkpt must not, one test for each: its name is the promise. Other tests guard many of them in depth.
 * This file: correctness.
 */
import { existsSync, readdirSync } from 'node:fs';
import { truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { ForeignStore } from '../../../src/foreign/foreign-store.ts';
import { PalaciosFolderFormat } from '../../../src/foreign/palacios/folder-format.ts';
import { fileForm } from '../../../src/foreign/palacios/form.ts';
import { encodeWireContext } from '../../../src/foreign/palacios/net-format.ts';
import {
  encodeSkip,
  GuestMemory,
  inspectCheckpoint,
  loadVm,
  openCheckpoint,
  openPalaciosStore,
  PageSet,
  palaciosUserStore,
  receiveCheckpoint,
  receivePalacios,
  saveVm,
  sendPalacios,
  trackMemory,
  verifyCheckpoint,
} from '../../../src/index.ts';
import { encodePages } from '../../../src/migration/palacios/memory-wire.ts';
import { nativeAddon } from '../../../src/native/index.ts';
import { hostProcesses } from '../../../src/store/environment.ts';
import { FaultFileSystem } from '../../store/support/fault-file-system.ts';
import { plainDevices } from './support/devices.ts';
import { contentOf } from './support/folders.ts';
import { key, sampleOriginal, u32, wireOf } from './support/original.ts';
import { drain, groupsIn, originalConnects, originalListens } from './support/peers.ts';

import { codeOf, fileStore, saveContexts, useSubjects } from './support/subjects.ts';

const { folder, machine, original } = useSubjects();

describe('correctness', () => {
  test('a context that nothing reads is an error', async () => {
    const path = folder.next();
    await saveContexts(fileStore(path), { pic: { irr: 1 } });
    await writeFile(join(path, 'chkpt.pit'), '');
    expect(await codeOf(verifyCheckpoint(fileStore(path)))).toBe('CHKPT_FORMAT');
  });

  test('a device has the same names when it is saved and loaded, whatever its id', async () => {
    const groups = sampleOriginal({
      devices: [['my pci', []]],
      extended: [
        ['bus 7', []],
        ['bus 7-0', []],
      ],
    });
    const { path, store } = await original(groups);
    const to = folder.next();
    await receiveCheckpoint(store, openPalaciosStore(`palacios+file:${to}`));
    expect(await contentOf(to)).toEqual(await contentOf(path));
  });

  test('a context is closed on every path, also when a value cannot be written', async () => {
    const open = new Set<bigint>();
    const store = palaciosUserStore((bytes) => {
      const request = Buffer.from(bytes);
      const type = request.readInt32LE(8);
      const handle = type === 3 ? 7n : request.readBigUInt64LE(24);
      if (type === 3) open.add(handle);
      if (type === 4) open.delete(handle);
      const answer = Buffer.alloc(48);
      answer.writeBigUInt64LE(48n);
      answer.writeInt32LE(type, 8);
      answer.writeBigInt64LE(-1n, 16);
      answer.writeBigUInt64LE(handle, 24);
      return answer;
    });
    expect(await codeOf(saveContexts(store, { pic: { irr: 1 } }))).toBe('CHKPT_STORE_FAILED');
    expect([...open]).toEqual([]);
  });

  test('data longer than its tag does not end up in room for the tag', async () => {
    const { store } = await original([
      ...sampleOriginal({ skip: ['memory'] }),
      ['x', [['a', Buffer.alloc(100_000, 7)]]],
    ]);
    const inspection = await inspectCheckpoint(store);
    expect((await inspection.readTag('x', 'a')).value).toEqual(new Uint8Array(100_000).fill(7));
    await inspection.close();
  });

  // What an original's buffer holds by then is sent for the only contexts where it is another name, on purpose.
  test.each([
    ['serial', 'serial'],
    ['pci-0', 'pci-0'],
    ['pci-0.1-0', 'BAR-5'],
  ])(
    'a context is closed by the name that it was opened by, PCI functions as an original: %s',
    (name, close) => {
      const records = Array.from({ length: 6 }, (_, bar) => ({ tag: `BAR-${bar}`, data: u32(bar) }));
      const [group] = groupsIn(Buffer.concat(encodeWireContext({ name, records })));
      expect(group?.[2]).toBe(close);
    },
  );

  test('pages are placed inside memory and nowhere else', () => {
    const memory = GuestMemory.allocate([{ base: 0, bytes: 8192 }]);
    const { placePalaciosPages, encodePalaciosPages } = nativeAddon();
    for (const first of [2, 2 ** 20, 2 ** 52]) {
      expect(() => placePalaciosPages(memory.native, first, new Uint8Array(4153))).toThrow(TypeError);
      expect(() => encodePalaciosPages(memory.native, first, 1)).toThrow(TypeError);
    }
    void memory.close();
  });

  test('page 524288, at 2 GiB, is where it belongs', () => {
    const memory = GuestMemory.allocate([{ base: 0, bytes: 3n << 30n }]);
    memory.write(1n << 31n, Uint8Array.of(42));
    const pages = new PageSet(memory.pageCount);
    pages.markRun(524_288, 1);
    const [frames] = [...encodePages(memory, pages)];
    expect(frames?.[44]).toBe(42);
    void memory.close();
  });

  test('a guest that runs is not sent without a tracker that is known to work', async () => {
    const vm = await machine();
    Object.defineProperty(vm, 'dirtyTracker', {
      value: { kind: 'digest', reason: 'none', harvest: async () => new PageSet(64) },
    });
    await vm.resume();
    expect(await codeOf(sendPalacios(vm, 'palacios+net:c:127.0.0.1:9'))).toBe('CHKPT_UNSUPPORTED');
    await vm.pause();
  });

  test('writes that the guest did not make are tracked too', async () => {
    const memory = GuestMemory.allocate([{ base: 0, bytes: 16 * 4096 }]);
    const tracker = trackMemory(memory);
    await tracker.arm();
    memory.write(5 * 4096, Uint8Array.of(1));
    const pages = await tracker.harvest();
    expect(pages.neighboursOf(5)).toBeDefined();
    await tracker.close();
    await memory.close();
  });

  test('state is taken and given only while the guest stands still', async () => {
    const vm = await machine();
    await vm.resume();
    expect(await codeOf(receivePalacios(vm, 'palacios+net:a:127.0.0.1:0'))).toBe('CHKPT_VM_RUNNING');
    const { url, result } = await originalListens(drain);
    const stopped: boolean[] = [];
    const contexts = (): [] => {
      stopped.push(!vm.running);
      return [];
    };
    await sendPalacios(vm, url, { contexts });
    await result;
    expect(stopped).toEqual([true]);
  });

  test('a save that fails leaves nothing open and nothing behind', async () => {
    const path = folder.next();
    const checkpoint = await openCheckpoint(fileStore(path), { mode: 'save' });
    const context = await checkpoint.openContext('x'.repeat(255));
    await context.close();
    expect(await codeOf(checkpoint.commit())).toBe('CHKPT_NAME');
    await checkpoint.abort();
    expect(readdirSync(folder.path).filter((name) => name.includes(path.split('/').at(-1) ?? '?'))).toEqual(
      [],
    );
  });

  test('a partial send does not count as complete: a slow receiver gets every byte', async () => {
    const vm = await machine({ memoryBytes: 512 * 4096, guestLike: true });
    const { url, result } = await originalListens(async (socket) => {
      const pieces: Buffer[] = [];
      for await (const piece of socket) {
        pieces.push(piece as Buffer);
        if (pieces.length % 8 === 0) await new Promise((resolve) => setTimeout(resolve, 1));
      }
      return Buffer.concat(pieces);
    });
    const { bytes } = await sendPalacios(vm, url);
    expect((await result).length).toBe(bytes);
  });

  test('a device table that cannot be loaded ends the load', async () => {
    const { path, store } = await original(sampleOriginal({ devices: plainDevices }));
    await truncate(join(path, 'devices'), 60);
    expect(await codeOf(verifyCheckpoint(store))).toBe('CHKPT_TRUNCATED');
  });

  test('a machine whose load failed half-way refuses to run, and nobody waits for it', async () => {
    const vm = await machine();
    let told: (url: string) => void = () => undefined;
    const url = new Promise<string>((resolve) => {
      told = resolve;
    });
    const done = codeOf(receivePalacios(vm, 'palacios+net:a:127.0.0.1:0', { onListening: told }));
    await originalConnects(await url, async (socket) => {
      socket.on('error', () => undefined);
      socket.write(
        Buffer.concat([
          wireOf(['memory_bitmap_bits', [['memory_bitmap_bits', Buffer.alloc(8, 255)]]]),
          key('memory_page'),
        ]),
      );
    });
    expect(await done).toBe('CHKPT_TRUNCATED');
    expect(await codeOf(vm.resume())).toBe('CHKPT_VM_FAILED');
  });

  test('what cannot be loaded is found before the machine is touched', async () => {
    const path = folder.next();
    const [vm, other] = [await machine({ cores: 2 }), await machine({ cores: 1 })];
    await saveVm(vm, fileStore(path));
    const before = await other.digest();
    expect(await codeOf(loadVm(other, fileStore(path)))).toBe('CHKPT_VM_CORES');
    expect([await other.digest(), other.failure]).toEqual([before, undefined]);
  });

  test('a checkpoint of chkpt has no control block of the virtualisation hardware, which means nothing elsewhere', async () => {
    const path = folder.next();
    await saveVm(await machine(), fileStore(path));
    expect(readdirSync(path).filter((name) => /^vm[a-z]+_data/.test(name))).toEqual([]);
  });

  test('what was left out is told', async () => {
    const { store } = await original(sampleOriginal({ skip: ['memory', 'archdep'] }));
    const inspection = await inspectCheckpoint(store);
    expect((await inspection.readTag('header', 'options.skip')).value).toBe(
      encodeSkip(['memory', 'archdep']),
    );
    await inspection.close();
  });

  test('names that differ in case only are two names', async () => {
    const path = folder.next();
    await saveContexts(fileStore(path), { Pic: { irr: 1 }, pic: { irr: 2 } });
    const inspection = await inspectCheckpoint(fileStore(path));
    expect([
      (await inspection.readTag('Pic', 'irr')).value,
      (await inspection.readTag('pic', 'irr')).value,
    ]).toEqual([1, 2]);
    await inspection.close();
  });

  test('a save succeeds only when every file was flushed and closed', async () => {
    for (const name of ['fsync', 'close', 'fsync-directory']) {
      const fileSystem = new FaultFileSystem((operation) =>
        operation.name === name ? { errno: 'EIO' } : undefined,
      );
      const environment = { fileSystem, processes: hostProcesses };
      const path = folder.next();
      const store = new ForeignStore(
        'test:',
        new PalaciosFolderFormat(fileForm, path, 'test:', { environment }),
      );
      expect(await codeOf(saveContexts(store, { pic: { irr: 1 } }))).toMatch(/^CHKPT_(DURABILITY|IO)$/);
      expect(existsSync(path)).toBe(false);
    }
  });
});
