/**
 * What an original does wrong and chkpt must not, one test for each line of the list (`support/checklist.ts`): its name is the promise. Other
 * tests guard many of them in depth. This file: correctness.
 */
import { existsSync } from 'node:fs';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect } from 'vitest';
import { ForeignStore } from '../../../src/foreign/foreign-store.ts';
import { PalaciosFolderFormat } from '../../../src/foreign/palacios/folder-format.ts';
import { fileForm } from '../../../src/foreign/palacios/form.ts';
import { encodeWireContext } from '../../../src/foreign/palacios/net-format.ts';
import {
  GuestMemory,
  inspectCheckpoint,
  loadVm,
  openPalaciosStore,
  PageSet,
  type PalaciosUserHandler,
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
import { describeSection } from './support/checklist.ts';
import {
  declaresDevices,
  keepsHostStateApart,
  leavesNothingHalfWay,
  tellsWhatIsThere,
} from './support/checklist-state.ts';
import { extendedDevices, plainDevices } from './support/devices.ts';
import { contentOf, writeOriginal } from './support/folders.ts';
import { type Group, key, sampleOriginal, u32, wireOf } from './support/original.ts';
import { drain, groupsIn, originalConnects, originalListens } from './support/peers.ts';

import { ReferenceHandler } from './support/reference-handler.ts';
import {
  addProbe,
  codeOf,
  fileStore,
  openBelow,
  saveContexts,
  setTracker,
  useSubjects,
} from './support/subjects.ts';

const subjects = useSubjects();
const { folder, machine, original } = subjects;

describeSection('correctness', (line) => {
  line(
    1,
    'devices that the table leaves out are read too, and a context that nothing reads is an error',
    async () => {
      const { store } = await original(sampleOriginal({ devices: plainDevices, extended: extendedDevices }));
      const inspection = await inspectCheckpoint(store);
      for (const [name, blobs] of extendedDevices) {
        for (const [tag, data] of blobs) expect((await inspection.readTag(name, tag)).value).toEqual(data);
      }
      const { value } = await inspection.readTag('devices', 'count');
      expect(value).toBe(plainDevices.length + 2);
      await inspection.close();
      const path = folder.next();
      await saveContexts(fileStore(path), { pic: { irr: 1 } });
      await writeFile(join(path, 'chkpt.pit'), '');
      expect(await codeOf(verifyCheckpoint(fileStore(path)))).toBe('CHKPT_FORMAT');
    },
  );

  line(2, 'a device has the same names when it is saved and loaded, whatever its id', async () => {
    const extended = extendedDevices.map(
      ([name, blobs]): Group => [name.replace(/^pci/, 'bus 7').replace(/^ide/, 'my disks'), blobs],
    );
    const { path, store } = await original(sampleOriginal({ devices: [['my pci', []]], extended }));
    const to = folder.next();
    await receiveCheckpoint(store, openPalaciosStore(`palacios+file:${to}`));
    expect(await contentOf(to)).toEqual(await contentOf(path));
    const inspection = await inspectCheckpoint(openPalaciosStore(`palacios+file:${to}`));
    const ids = ['device.0.id', 'device.1.id', 'device.2.id'];
    const found = await Promise.all(ids.map(async (tag) => (await inspection.readTag('devices', tag)).value));
    expect(found).toEqual(['my pci', 'bus 7', 'my disks']);
    await inspection.close();
  });

  line(3, 'a context is closed on every path, whatever value cannot be written or read', async () => {
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
    const handler = new ReferenceHandler();
    const all = [...plainDevices, ...extendedDevices];
    const devices = new Map(
      all.map(([id, blobs]) => [id, blobs.map(([tag, data]) => [tag, data.length] as const)]),
    );
    const from = await original(sampleOriginal({ devices: plainDevices, extended: extendedDevices }));
    await receiveCheckpoint(from.store, palaciosUserStore(handler.handle, { devices }));
    for (const failing of [0, 1, 5, 60, 200, 300, 330, 400]) {
      let left = failing;
      const failingHandler = (request: Uint8Array): ReturnType<PalaciosUserHandler> => {
        if (Buffer.from(request).readInt32LE(8) === 6 && left-- === 0) throw new Error('planted');
        return handler.handle(request);
      };
      const failed = palaciosUserStore(failingHandler, { devices });
      expect(await codeOf(verifyCheckpoint(failed)), `read ${failing}`).toBe('CHKPT_STORE_FAILED');
      expect(handler.openCount).toBe(0);
    }
  });

  line(4, 'data longer than its tag does not end up in room for the tag', async () => {
    const { store } = await original([
      ...sampleOriginal({ skip: ['memory'] }),
      ['x', [['a', Buffer.alloc(100_000, 7)]]],
    ]);
    const inspection = await inspectCheckpoint(store);
    expect((await inspection.readTag('x', 'a')).value).toEqual(new Uint8Array(100_000).fill(7));
    await inspection.close();
  });

  // What an original's buffer holds by then is sent for the only contexts where it is another name, on purpose.
  line(5, 'a context is closed by the name that it was opened by, PCI functions as an original', async () => {
    for (const [name, close] of [
      ['serial', 'serial'],
      ['pci-0', 'pci-0'],
      ['pci-0.1-0', 'BAR-5'],
    ] as const) {
      const records = Array.from({ length: 6 }, (_, bar) => ({ tag: `BAR-${bar}`, data: u32(bar) }));
      const [group] = groupsIn(Buffer.concat(encodeWireContext({ name, records })));
      expect(group?.[2]).toBe(close);
    }
    const { url, result } = await originalListens(drain);
    await saveContexts(openPalaciosStore(url), { pic: { irr: 1 }, pit: { counter: 1 } });
    const groups = groupsIn(await result);
    expect(groups.map(([, , close]) => close)).toEqual(groups.map(([open]) => open));
  });

  line(6, 'pages are placed inside memory and nowhere else', () => {
    const memory = GuestMemory.allocate([{ base: 0, bytes: 8192 }]);
    const { placePalaciosPages, encodePalaciosPages } = nativeAddon();
    for (const first of [2, 2 ** 20, 2 ** 52]) {
      expect(() => placePalaciosPages(memory.native, first, new Uint8Array(4153))).toThrow(TypeError);
      expect(() => encodePalaciosPages(memory.native, first, 1)).toThrow(TypeError);
    }
    void memory.close();
  });

  line(7, 'pages at 2 GiB and beyond 4 GiB go to their places', async () => {
    const [memory, other] = [0, 0].map(() => GuestMemory.allocate([{ base: 0, bytes: 5n << 30n }]));
    if (memory === undefined || other === undefined) throw new Error('no memory');
    for (const page of [524_288, 2 ** 20 + 3]) {
      memory.write(BigInt(page) * 4096n, Uint8Array.of(42, page & 255, 7));
      const pages = new PageSet(memory.pageCount);
      pages.markRun(page, 1);
      const [frames] = [...encodePages(memory, pages)];
      expect([...(frames?.subarray(44, 47) ?? [])]).toEqual([42, page & 255, 7]);
      nativeAddon().placePalaciosPages(other.native, page, frames ?? new Uint8Array());
    }
    expect(await other.digest()).toBe(await memory.digest());
    for (const one of [memory, other]) await one.close();
  });

  line(
    8,
    'a guest that runs is not sent without a tracker that is known to work, and nothing is connected to',
    async () => {
      for (const kind of ['digest', 'soft-dirty'] as const) {
        const vm = await machine();
        setTracker(vm, { kind, harvest: async () => new PageSet(64) });
        await vm.resume();
        // Nobody listens there: who connects gets another error.
        expect(await codeOf(sendPalacios(vm, 'palacios+net:c:127.0.0.1:9'))).toBe('CHKPT_UNSUPPORTED');
        expect(vm.running).toBe(true);
        await vm.pause();
      }
    },
  );

  line(9, 'writes that the guest did not make are tracked, those and no others', async () => {
    const memory = GuestMemory.allocate([{ base: 0, bytes: 64 * 4096 }]);
    memory.write(0, new Uint8Array(64 * 4096).fill(3));
    memory.write(40 * 4096, Uint8Array.of(9));
    const tracker = trackMemory(memory);
    await tracker.arm();
    memory.write(5 * 4096, Uint8Array.of(1));
    memory.write(10 * 4096 - 1, Uint8Array.of(1, 1));
    const other = new PageSet(64);
    other.markRun(40, 1);
    const [frames] = [...encodePages(memory, other)];
    nativeAddon().placePalaciosPages(memory.native, 63, frames ?? new Uint8Array());
    const written = (await tracker.harvest()).toBits();
    const expected = Array.from({ length: 8 }, (_, at) => [0x20, 0x06, 0, 0, 0, 0, 0, 0x80][at] ?? 0);
    expect([...written.subarray(0, 8)]).toEqual(expected);
    expect((await tracker.harvest()).count()).toBe(0);
    await tracker.close();
    await memory.close();
  });

  line(10, 'state is taken and given only while the guest stands still', async () => {
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
    const [other, path] = [await machine(), folder.next()];
    addProbe(other, () => stopped.push(!other.running));
    await other.resume();
    await saveVm(other, fileStore(path), { skip: ['memory'] });
    expect(other.running).toBe(true);
    expect(await codeOf(loadVm(other, fileStore(path), { skip: ['memory'] }))).toBe('CHKPT_VM_RUNNING');
    await other.pause();
    await loadVm(other, fileStore(path), { skip: ['memory'] });
    expect(stopped).toEqual([true, true, true]);
  });

  line(
    11,
    'what fails half-way leaves nothing open and nothing behind: a save, and each step of a tracker',
    async () => {
      await leavesNothingHalfWay(subjects);
    },
  );

  line(12, 'a partial send does not count as complete: a slow receiver gets every byte', async () => {
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

  line(13, 'a load of memory that fails early leaves no file open', async () => {
    for (const form of ['file', 'textfile', 'dir'] as const) {
      const path = folder.next();
      await writeOriginal(path, form, sampleOriginal());
      const sound = await readFile(join(path, 'memory_img'));
      for (const bytes of [0, 3, 11, 30, 60, 12_000, sound.length - 1]) {
        await writeFile(join(path, 'memory_img'), sound.subarray(0, bytes));
        const code = await codeOf(verifyCheckpoint(openPalaciosStore(`palacios+${form}:${path}`)));
        expect(code, `${form}, ${bytes} bytes`).toMatch(/^CHKPT_(TRUNCATED|FORMAT)$/);
        expect(openBelow(path)).toEqual([]);
      }
    }
  });

  line(14, 'a device table that is cut anywhere ends the load', async () => {
    const { path, store } = await original(sampleOriginal({ devices: plainDevices }));
    const sound = await readFile(join(path, 'devices'));
    for (let bytes = 0; bytes < sound.length; bytes += bytes < 60 ? 1 : 29) {
      await writeFile(join(path, 'devices'), sound.subarray(0, bytes));
      expect(await codeOf(verifyCheckpoint(store)), `${bytes} bytes`).toMatch(/^CHKPT_(TRUNCATED|FORMAT)$/);
    }
    expect(openBelow(path)).toEqual([]);
  });

  line(15, 'a machine whose load failed half-way refuses to run, and nobody waits for it', async () => {
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

  line(16, 'what cannot be loaded is found before the machine is touched', async () => {
    const path = folder.next();
    const [vm, other] = [await machine({ cores: 2 }), await machine({ cores: 1 })];
    await saveVm(vm, fileStore(path));
    const before = await other.digest();
    expect(await codeOf(loadVm(other, fileStore(path)))).toBe('CHKPT_VM_CORES');
    expect([await other.digest(), other.failure]).toEqual([before, undefined]);
    const [third, damaged] = [
      await machine({ cores: 2, seed: 9n, guestLike: true }),
      join(path, 'memory_img'),
    ];
    const bytes = await readFile(damaged);
    bytes.writeUInt8(bytes.readUInt8(200) ^ 1, 200);
    await writeFile(damaged, bytes);
    const untouched = await third.digest();
    expect(await codeOf(loadVm(third, fileStore(path)))).toBe('CHKPT_DIGEST');
    expect([await third.digest(), third.failure]).toEqual([untouched, undefined]);
  });

  line(
    17,
    'control blocks of the virtualisation hardware, which mean nothing elsewhere, are not written, and of an original told and not loaded',
    async () => {
      await keepsHostStateApart(subjects);
    },
  );

  line(
    18,
    'a device whose state cannot be had fails the save unless that is waived; one without state is known to have none',
    async () => {
      await declaresDevices(subjects);
    },
  );

  line(
    19,
    'how many cores and how much memory there is is kept, time, interrupts and MSRs with it, and what was left out is told',
    async () => {
      await tellsWhatIsThere(subjects);
    },
  );

  line(20, 'names that differ in case only are two names', async () => {
    const path = folder.next();
    await saveContexts(fileStore(path), { Pic: { irr: 1 }, pic: { irr: 2 } });
    const inspection = await inspectCheckpoint(fileStore(path));
    expect([
      (await inspection.readTag('Pic', 'irr')).value,
      (await inspection.readTag('pic', 'irr')).value,
    ]).toEqual([1, 2]);
    await inspection.close();
  });

  line(21, 'a save succeeds only when every file was flushed and closed', async () => {
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
