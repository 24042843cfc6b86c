/** What an original does wrong and chkpt must not, one test for each: its name is the promise. Other tests guard many of them in depth. */
import { existsSync, readdirSync, statSync } from 'node:fs';
import { mkdir, readFile, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, describe, expect, test } from 'vitest';
import { SyntheticVm } from '../../../src/adapters/synthetic/index.ts';
import { ForeignStore } from '../../../src/foreign/foreign-store.ts';
import { PalaciosFolderFormat } from '../../../src/foreign/palacios/folder-format.ts';
import { fileForm, textForm } from '../../../src/foreign/palacios/form.ts';
import { encodeWireContext } from '../../../src/foreign/palacios/net-format.ts';
import {
  encodeSkip,
  GuestMemory,
  inspectCheckpoint,
  loadVm,
  openCheckpoint,
  openPalaciosStore,
  openStore,
  PageDecoder,
  PageSet,
  palaciosUserStore,
  receiveCheckpoint,
  receivePalacios,
  type Store,
  saveVm,
  sendPalacios,
  trackMemory,
  verifyCheckpoint,
} from '../../../src/index.ts';
import { encodePages } from '../../../src/migration/palacios/memory-wire.ts';
import { nativeAddon } from '../../../src/native/index.ts';
import { hostProcesses } from '../../../src/store/environment.ts';
import { runHere } from '../../cli/support/in-process.ts';
import { FaultFileSystem } from '../../store/support/fault-file-system.ts';
import { plainDevices } from './support/devices.ts';
import { contentOf, useFolder, writeOriginal } from './support/folders.ts';
import { type Group, key, memoryGroup, record, sampleOriginal, u32, wireOf } from './support/original.ts';
import { drain, drainAndReset, groupsIn, originalConnects, originalListens } from './support/peers.ts';

const folder = useFolder();
const machines: SyntheticVm[] = [];
afterEach(async () => {
  for (const vm of machines.splice(0)) await vm.close();
});

async function machine(options: Parameters<typeof SyntheticVm.create>[0] = {}): Promise<SyntheticVm> {
  const vm = await SyntheticVm.create({ memoryBytes: 64 * 4096, pagesPerSecond: 0, ...options });
  machines.push(vm);
  return vm;
}

async function codeOf(work: Promise<unknown>): Promise<string> {
  return await work.then(
    () => 'no error',
    (error: { code?: unknown }) => String(error.code ?? error),
  );
}

async function original(groups: readonly Group[]): Promise<{ path: string; store: Store }> {
  const path = folder.next();
  await writeOriginal(path, 'file', groups);
  return { path, store: openStore(`palacios+file:${path}`) };
}

const fileStore = (path: string): Store =>
  openPalaciosStore(`palacios+file:${path}`, { blockBytes: 1 << 16 });

async function saveContexts(
  store: Store,
  contexts: Readonly<Record<string, Record<string, number>>>,
): Promise<void> {
  const checkpoint = await openCheckpoint(store, { mode: 'save' });
  for (const [name, values] of Object.entries(contexts)) {
    const context = await checkpoint.openContext(name);
    await context.saveAll(values);
    await context.close();
  }
  await checkpoint.commit();
}

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

  test('a context is closed by the name that it was opened by', () => {
    const records = Array.from({ length: 6 }, (_, bar) => ({ tag: `BAR-${bar}`, data: u32(bar) }));
    const [group] = groupsIn(Buffer.concat(encodeWireContext({ name: 'pci-0.1-0', records })));
    expect(group?.[2]).toBe('pci-0.1-0');
  });

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
    await mkdir(folder.next());
  });
});
