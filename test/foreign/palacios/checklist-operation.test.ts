/**
 * What an original does wrong and chkpt must not, one test for each line of the list (`support/checklist.ts`): its name is the promise. Other
 * tests guard many of them in depth. This file: liveness and usability.
 */
import { once } from 'node:events';
import { existsSync, statSync } from 'node:fs';
import { readFile, truncate, writeFile } from 'node:fs/promises';
import { type AddressInfo, createServer } from 'node:net';
import { join } from 'node:path';
import { expect } from 'vitest';
import { headerOf, headerState } from '../../../src/checkpoint/vm-header.ts';
import { ForeignStore } from '../../../src/foreign/foreign-store.ts';
import { PalaciosFolderFormat } from '../../../src/foreign/palacios/folder-format.ts';
import { textForm } from '../../../src/foreign/palacios/form.ts';
import {
  encodeSkip,
  GuestMemory,
  loadVm,
  openCheckpoint,
  openPalaciosStore,
  openStore,
  PageSet,
  palaciosUserStore,
  receiveCheckpoint,
  receivePalacios,
  saveVm,
  sendPalacios,
  verifyCheckpoint,
} from '../../../src/index.ts';
import { encodePages } from '../../../src/migration/palacios/memory-wire.ts';
import { hostProcesses } from '../../../src/store/environment.ts';
import { MemoryStoreSpace } from '../../../src/store/memory-store.ts';
import { runHere } from '../../cli/support/in-process.ts';
import { LinkProxy } from '../../migration/link-proxy.ts';
import { makePair, migrate, watch } from '../../migration/support.ts';
import { FaultFileSystem } from '../../store/support/fault-file-system.ts';
import { allocations } from '../../support/allocations.ts';
import { describeSection } from './support/checklist.ts';
import { plainDevices } from './support/devices.ts';
import { contentOf, writeOriginal } from './support/folders.ts';
import { type Group, sampleOriginal, u32, wireOf } from './support/original.ts';
import { drain, drainAndReset, dribble, originalListens, roundOf } from './support/peers.ts';

import { codeOf, fileStore, receiving, saveContexts, useSubjects } from './support/subjects.ts';

const { folder, machine, original } = useSubjects();
const uuid = '0f0e0d0c-0b0a-4908-8706-050403020100';
const header: Group = [
  'header',
  [['header', Buffer.from('v3vee palacios checkpoint version: x.x, SVM x.x')]],
];

describeSection('liveness', (line) => {
  line(44, 'an end of what comes ends the load, and so does a handler that gives nothing', async () => {
    const { url } = await originalListens(async () => undefined);
    expect(await codeOf(verifyCheckpoint(openStore(url)))).toBe('CHKPT_FORMAT');
    const round = roundOf(64, new Map([[3, new Uint8Array(4096)]]));
    for (const [bytes, code] of [
      [0, 'CHKPT_FORMAT'],
      [30, 'CHKPT_TRUNCATED'],
      [round.length - 100, 'CHKPT_TRUNCATED'],
      [round.length, 'CHKPT_FORMAT'],
    ] as const) {
      const sender = await originalListens(async (socket) => void socket.write(round.subarray(0, bytes)));
      expect(await codeOf(receivePalacios(await machine(), sender.url)), `${bytes} bytes`).toBe(code);
    }
    const silent = palaciosUserStore((request) => {
      const answer = Buffer.alloc(48);
      answer.writeBigUInt64LE(48n);
      answer.writeInt32LE(Buffer.from(request).readInt32LE(8), 8);
      answer.writeBigUInt64LE(1n, 24);
      return answer;
    });
    expect(await codeOf(verifyCheckpoint(silent))).toBe('CHKPT_FORMAT');
  });

  line(45, 'silence ends it, and the caller can; a guest that was on its way runs on', async () => {
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
    const vm = await machine({ memoryBytes: 64 << 20 });
    await vm.resume();
    const late = new AbortController();
    setTimeout(() => late.abort(), 50);
    expect(await codeOf(sendPalacios(vm, await silent(), { signal: late.signal }))).toBe('CHKPT_ABORTED');
    expect(vm.running).toBe(true);
    await vm.pause();
  });

  line(46, 'each step of a connection is checked, and an end may come twice', async () => {
    const { url, result } = await originalListens(async (socket) => void socket.write(wireOf(header)));
    const reader = await openStore(url).openReader();
    await Promise.all([reader.close(), reader.close()]);
    await reader.close();
    await result;
    const nobody = [
      verifyCheckpoint(openStore(url)),
      saveContexts(openPalaciosStore(url), { pic: { irr: 1 } }),
      machine().then((vm) => sendPalacios(vm, url)),
      machine().then((vm) => receivePalacios(vm, url)),
    ];
    expect(await Promise.all(nobody.map(codeOf))).toEqual(nobody.map(() => 'CHKPT_LINK_LOST'));
    const taken = createServer().listen(0, '127.0.0.1');
    await once(taken, 'listening');
    const { port } = taken.address() as AddressInfo;
    expect(await codeOf(verifyCheckpoint(openStore(`palacios+net:a:127.0.0.1:${port}`)))).toBe(
      'CHKPT_LINK_LOST',
    );
    taken.close();
  });

  line(47, 'text is read in large pieces', async () => {
    const path = folder.next();
    await writeOriginal(path, 'textfile', sampleOriginal({ blockBytes: 1 << 20, blocks: 2 }));
    const fileSystem = new FaultFileSystem();
    const environment = { fileSystem, processes: hostProcesses };
    await verifyCheckpoint(
      new ForeignStore('test:', new PalaciosFolderFormat(textForm, path, 'test:', { environment })),
    );
    expect(fileSystem.trace.filter(({ name }) => name === 'read').length).toBeLessThan(150);
  });

  line(
    48,
    'what grows grows by more than a piece: room for all of it is taken a few times, not for each write',
    async () => {
      const [count, bytes] = [4000, 1000];
      const space = new MemoryStoreSpace();
      const piece = new Uint8Array(bytes);
      const kept = await allocations(async () => {
        const writer = await space.store('kept').openWriter({ uuid });
        for (let index = 0; index < count; index += 1) await writer.write(piece);
        await writer.commit({
          uuid,
          parent: undefined,
          epoch: 0n,
          root: '0'.repeat(64),
          bytes: count * bytes,
        });
      });
      expect(space.byteLength('kept')).toBe(count * bytes);
      expect(kept.total).toBeLessThan(4 * count * bytes);
      const large = wireOf(['x', [['a', Buffer.alloc(32 << 20)]]]);
      const { url } = await originalListens((socket) =>
        dribble(socket, Buffer.concat([wireOf(header), large]), 60_000),
      );
      const arrived = await allocations(async () => {
        const loading = await openStore(url).openReader();
        await loading.close();
      });
      expect(arrived.total).toBeLessThan(6 * (32 << 20));
    },
  );

  line(49, 'two saves of one checkpoint do not write into each other', async () => {
    const path = folder.next();
    const first = await openCheckpoint(fileStore(path), { mode: 'save', uuid });
    expect(await codeOf(openCheckpoint(fileStore(path), { mode: 'save', uuid }))).toBe('CHKPT_IO');
    await first.commit();
    expect((await verifyCheckpoint(fileStore(path))).header.uuid).toBe(uuid);
  });

  line(50, 'a receiver that is slow holds the sender up: nothing piles up in between', async () => {
    const vm = await machine({ memoryBytes: 64 << 20 });
    let read: () => void = () => undefined;
    const reads = new Promise<void>((resolve) => {
      read = resolve;
    });
    const { url, result } = await originalListens(async (socket) => {
      await reads;
      return (await drain(socket)).length;
    });
    let sent = 0;
    const before = process.memoryUsage().arrayBuffers;
    const saving = saveVm(vm, openPalaciosStore(url, { blockBytes: 64 << 20 }), {
      onProgress: ({ memoryBytesDone }) => {
        sent = memoryBytesDone;
      },
    });
    await new Promise((resolve) => setTimeout(resolve, 400));
    expect(sent).toBeLessThan(32 << 20);
    expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(32 << 20);
    read();
    await saving;
    expect(await result).toBeGreaterThan(64 << 20);
  });

  line(51, 'pages are sent many at a time', () => {
    const memory = GuestMemory.allocate([{ base: 0, bytes: 1000 * 4096 }]);
    const pages = new PageSet(1000);
    pages.markRun(0, 1000);
    expect([...encodePages(memory, pages)].map(({ length }) => length / 4153)).toEqual([256, 256, 256, 232]);
    void memory.close();
  });

  line(52, 'a pause and a peer are waited for without a turn of the loop', async () => {
    const vm = await machine();
    const { url, done } = receiving(await machine());
    const pause = vm.pause.bind(vm);
    vm.pause = async () => {
      await new Promise((resolve) => setTimeout(resolve, 400));
      await pause();
    };
    const start = performance.eventLoopUtilization();
    const sending = sendPalacios(vm, (await url).replace(':a:', ':c:'));
    await new Promise((resolve) => setTimeout(resolve, 350));
    expect(performance.eventLoopUtilization(start).utilization).toBeLessThan(0.5);
    await Promise.all([sending, done]);
  });

  line(
    53,
    'a guest that writes faster than the link takes is not sent for ever: a cap, a target, and an end',
    async () => {
      await using pair = await makePair({ memoryBytes: 8 << 20, pagesPerSecond: 4000 });
      await pair.source.resume();
      const options = { bandwidth: 4e6, downtimeTargetMs: 5, codec: 'raw', strategy: 'abort' } as const;
      const { send, receive } = await migrate(pair, { send: { ...options, totalMaxMs: 6000 } });
      expect(await codeOf(send)).toBe('CHKPT_NO_CONVERGENCE');
      expect(await codeOf(receive)).not.toBe('no error');
      expect([pair.source.running, pair.destination.running]).toEqual([true, false]);
      await pair.source.pause();
    },
  );

  line(54, 'a link that breaks is made anew, and the guest arrives as it was', async () => {
    await using pair = await makePair({ memoryBytes: 4 << 20, guestLike: true });
    const digests = watch(pair);
    await pair.source.resume();
    const cut = { connection: 1, direction: 'toDestination', afterBytes: 300_000, how: 'reset' } as const;
    let proxy: LinkProxy | undefined;
    const { send, receive } = await migrate(pair, {
      send: { codec: 'raw' },
      through: async (address) => {
        proxy = await LinkProxy.open(join(pair.folder, 'proxy'), address, cut);
        return proxy.address;
      },
    });
    const [{ reconnects }] = await Promise.all([send, receive]);
    expect(reconnects).toBeGreaterThan(0);
    expect(digests.arrived).toBe(digests.stopped);
    expect([pair.source.running, pair.destination.running]).toEqual([false, true]);
    await pair.destination.pause();
    await proxy?.[Symbol.asyncDispose]();
  });

  line(55, 'a sender has succeeded only when the receiver has closed in good order', async () => {
    const vm = await machine();
    const gone = await originalListens(async (socket) => void socket.resetAndDestroy());
    expect(await codeOf(sendPalacios(vm, gone.url))).not.toBe('no error');
    const silent = await originalListens(drainAndReset);
    expect(await codeOf(sendPalacios(vm, silent.url))).toBe('CHKPT_UNACKNOWLEDGED');
    const refused = await originalListens(drainAndReset);
    expect(await codeOf(saveVm(vm, openPalaciosStore(refused.url, { blockBytes: 1 << 20 })))).toBe(
      'CHKPT_UNACKNOWLEDGED',
    );
    // A word of the receiver is no end in good order.
    const talker = await originalListens(async (socket) => {
      socket.write('x');
      await drain(socket);
    });
    expect(await codeOf(sendPalacios(vm, talker.url))).toBe('CHKPT_UNACKNOWLEDGED');
  });

  line(
    56,
    'a guest runs on here until everything was sent, stays paused then, and may run there',
    async () => {
      const [vm, other] = [await machine(), await machine()];
      await vm.resume();
      const stop = new AbortController();
      const contexts = (): [] => {
        expect(vm.running).toBe(false);
        stop.abort();
        return [];
      };
      const cancelled = sendPalacios(vm, (await originalListens(drain)).url, {
        contexts,
        signal: stop.signal,
      });
      expect(await codeOf(cancelled)).toBe('CHKPT_ABORTED');
      expect(vm.running).toBe(true);
      const silent = await originalListens(drainAndReset);
      await codeOf(sendPalacios(vm, silent.url));
      expect(vm.running).toBe(false);
      const { url, done } = receiving(other);
      await Promise.all([sendPalacios(vm, (await url).replace(':a:', ':c:')), done]);
      expect([vm.running, other.running, other.failure]).toEqual([false, false, undefined]);
      await other.resume();
      expect([vm.running, other.running]).toEqual([false, true]);
      await other.pause();
    },
  );
});

describeSection('usability', (line) => {
  line(57, 'the command line says so when it fails: exit 3 for damage, and nothing is written', async () => {
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

  line(
    58,
    'an option that is none is refused, bits of a checkpoint too, and nothing is written',
    async () => {
      expect(() => encodeSkip(['everything' as never])).toThrow(TypeError);
      const path = folder.next();
      const vm = await machine();
      await expect(saveVm(vm, fileStore(path), { skip: ['everything' as never] })).rejects.toThrow(TypeError);
      await writeFile(`${path}.ram`, new Uint8Array(8192));
      const words = ['save', '--memory', `${path}.ram`, '--skip', 'everything', `palacios+file:${path}`];
      expect((await runHere(words, folder.path)).code).toBe(2);
      expect(existsSync(path)).toBe(false);
      const later = await openCheckpoint(fileStore(path), { mode: 'save' });
      const context = await later.openContext('header');
      await context.save(headerState, { ...headerOf(vm, ['memory'], 'later'), options: { skip: 17 } });
      await context.close();
      await later.commit();
      const skip = ['memory', 'devices', 'cores'] as const;
      expect(await codeOf(loadVm(vm, fileStore(path), { skip }))).toBe('CHKPT_VERSION');
    },
  );

  line(59, 'an original can be listed, looked into, verified and compared, with totals', async () => {
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
    const value = await run('cat', `palacios+file:${path}`, 'guest_info1', 'RIP');
    const rip = sampleOriginal()
      .find(([name]) => name === 'guest_info1')?.[1]
      .find(([tag]) => tag === 'RIP')?.[1];
    expect(value).toBe(Buffer.from(rip ?? []).toString());
    const { path: other } = await original(sampleOriginal({ devices: plainDevices }));
    const image = await readFile(join(other, 'memory_img'));
    image.writeUInt8(image.readUInt8(image.length - 1) ^ 1, image.length - 1);
    await writeFile(join(other, 'memory_img'), image);
    const diff = await run('diff', '--json', `palacios+file:${path}`, `palacios+file:${other}`);
    expect(JSON.parse(diff)).toMatchObject({ pages: 12, differing: 1 });
    expect(JSON.parse(await run('verify', '--json', `palacios+file:${path}`))).toMatchObject({
      integrity: 'none',
    });
    const memory = folder.next();
    await run('load', `palacios+file:${path}`, '--memory', memory);
    expect(statSync(memory).size).toBe(3 * 16_384);
  });

  line(60, 'a conversion loses neither order nor content', async () => {
    const groups = sampleOriginal({ devices: [...plainDevices].reverse() });
    const { url, result } = await originalListens(drain);
    await receiveCheckpoint((await original(groups)).store, openPalaciosStore(url));
    expect((await result).equals(Buffer.concat(groups.map((group) => wireOf(group))))).toBe(true);
    const { path, store } = await original(groups);
    const [text, back] = [folder.next(), folder.next()];
    await receiveCheckpoint(store, openPalaciosStore(`palacios+textfile:${text}`));
    await receiveCheckpoint(
      openPalaciosStore(`palacios+textfile:${text}`),
      openPalaciosStore(`palacios+file:${back}`),
    );
    expect(await contentOf(back)).toEqual(await contentOf(path));
    // A tag that comes twice is refused, not taken once.
    const twice: Group = [
      'x',
      [
        ['a', u32(1)],
        ['a', u32(2)],
      ],
    ];
    expect(await codeOf(verifyCheckpoint((await original([...groups, twice])).store))).toBe('CHKPT_FORMAT');
  });
});
