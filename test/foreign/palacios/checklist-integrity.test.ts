/**
 * What an original does wrong and chkpt must not, one test for each line of the list (`support/checklist.ts`): its name is the promise. Other
 * tests guard many of them in depth. This file: integrity, versions, hostile input.
 */
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { existsSync, readdirSync, statSync } from 'node:fs';
import { appendFile, readFile, writeFile } from 'node:fs/promises';
import { connect } from 'node:net';
import { join } from 'node:path';
import { expect } from 'vitest';
import {
  encrypted,
  GuestMemory,
  inspectCheckpoint,
  loadVm,
  openCheckpoint,
  openPalaciosStore,
  openStore,
  PageDecoder,
  palaciosUserStore,
  receiveCheckpoint,
  saveVm,
  verifyCheckpoint,
} from '../../../src/index.ts';
import { describeSection } from './support/checklist.ts';
import { plainDevices } from './support/devices.ts';
import { writeOriginal } from './support/folders.ts';
import { type Group, key, pattern, record, sampleOriginal, u32, u64, wireOf } from './support/original.ts';
import { originalListens } from './support/peers.ts';

import { ReferenceHandler } from './support/reference-handler.ts';
import { codeOf, fileStore, saveContexts, useSubjects } from './support/subjects.ts';

const { folder, machine, original } = useSubjects();

/** One peer that announces a memory of 15 TiB and sends nothing of it; meanwhile a second one. */
async function comeTwice(port: number, refused: string[]): Promise<void> {
  const socket = connect(port, '127.0.0.1');
  socket.on('error', () => undefined);
  await once(socket, 'connect');
  const size: Group = [
    'memory_img',
    [
      ['region_size', u64(15n << 40n)],
      ['num_regions', u32(1)],
    ],
  ];
  // The end of the context, and of its last value, does not come.
  socket.write(wireOf(size).subarray(0, -20));
  await new Promise((resolve) => setTimeout(resolve, 100));
  const second = connect(port, '127.0.0.1');
  second.on('error', () => undefined);
  await new Promise((resolve) => second.once('close', resolve));
  refused.push('refused');
  socket.end();
}

describeSection('integrity and versions', (line) => {
  line(22, 'one bit that is wrong in any file is found', async () => {
    const path = folder.next();
    await saveVm(await machine({ guestLike: true, cores: 1 }), fileStore(path));
    const names = readdirSync(path);
    expect(names).toEqual(
      expect.arrayContaining(['header', 'memory_img', 'chkpt', 'chkpt.timer0', 'chkpt.core0']),
    );
    for (const name of names) {
      const sound = await readFile(join(path, name));
      const damaged = Buffer.from(sound);
      damaged.writeUInt8(damaged.readUInt8(damaged.length - 1) ^ 1, damaged.length - 1);
      await writeFile(join(path, name), damaged);
      expect(await codeOf(verifyCheckpoint(fileStore(path))), name).toMatch(/^CHKPT_(DIGEST|FORMAT|LIMIT)$/);
      await writeFile(join(path, name), sound);
    }
    expect(await codeOf(verifyCheckpoint(fileStore(path)))).toBe('no error');
  });

  line(23, 'the header says who wrote it, and is compared', async () => {
    const text = 'v3vee palacios checkpoint version: x.x, ARM x.x';
    const groups = sampleOriginal().map(
      (group): Group => (group[0] === 'header' ? ['header', [['header', Buffer.from(text)]]] : group),
    );
    expect(await codeOf(verifyCheckpoint((await original(groups)).store))).toBe('CHKPT_FORMAT');
    const { store } = await original(sampleOriginal({ vendor: 'VMX' }));
    const vm = await machine({ memoryBytes: 3 * 16_384, cpu: { vendor: 'AuthenticAMD', model: '' } });
    const before = await vm.digest();
    const options = { skip: ['devices', 'cores'], ignore: ['id'] } as const;
    expect(await codeOf(loadVm(vm, store, options))).toBe('CHKPT_VM_CPU');
    expect([await vm.digest(), vm.failure]).toEqual([before, undefined]);
  });

  line(24, 'the header comes first', async () => {
    const inspection = await inspectCheckpoint((await original(sampleOriginal())).store);
    expect(inspection.contexts[0]?.name).toBe('header');
    await inspection.close();
  });

  line(25, 'a load that asks for what was skipped is told so', async () => {
    const path = folder.next();
    await saveVm(await machine(), fileStore(path), { skip: ['memory'] });
    expect(await codeOf(loadVm(await machine(), fileStore(path)))).toBe('CHKPT_SKIPPED');
  });

  line(26, 'an end in the middle is an error, wherever it is', async () => {
    const groups = sampleOriginal({
      blockBytes: 4096,
      blocks: 2,
      devices: plainDevices.slice(0, 1),
      cores: 1,
    });
    const bytes = Buffer.concat(groups.map((group) => wireOf(group)));
    const header = bytes.indexOf(wireOf(groups.find(([name]) => name === 'header') as Group));
    const borders = groups.map(
      (_, index) => Buffer.concat(groups.slice(0, index).map((one) => wireOf(one))).length,
    );
    for (const at of [0, 1, 9, 5000, header - 1, header + 3, header + 60, bytes.length - 1, ...borders]) {
      const { url } = await originalListens(async (socket) => void socket.write(bytes.subarray(0, at)));
      const code = await codeOf(verifyCheckpoint(openStore(url)));
      // Behind the header the protocol has no way to tell: a machine may have been saved without its cores.
      if (borders.includes(at) && at > header) expect(code).toBe('no error');
      else expect(code, `${at} bytes`).toBe(borders.includes(at) ? 'CHKPT_FORMAT' : 'CHKPT_TRUNCATED');
    }
  });

  line(27, 'a shorter save leaves no tail of the longer one before', async () => {
    const path = folder.next();
    await saveContexts(fileStore(path), { pic: { irr: 1, isr: 2, imr: 3 }, pit: { counter: 1 } });
    const dropped = await openCheckpoint(fileStore(path), { mode: 'save' });
    await dropped.abort();
    const inspection = await inspectCheckpoint(fileStore(path));
    expect((await inspection.readTag('pit', 'counter')).value).toBe(1);
    await inspection.close();
    await saveContexts(fileStore(path), { pic: { irr: 1 } });
    expect(readdirSync(path).sort()).toEqual(['chkpt', 'chkpt.pic', 'header']);
    expect(statSync(join(path, 'chkpt.pic')).size).toBe(20 + 3 + 4);
    const { path: other, store } = await original(sampleOriginal());
    await appendFile(join(other, 'guest_info0'), record(['RIP', u64(0)]));
    expect(await codeOf(verifyCheckpoint(store))).toBe('CHKPT_TRAILING_DATA');
  });

  line(28, 'a load makes no file', async () => {
    const path = folder.next();
    expect(await codeOf(verifyCheckpoint(fileStore(path)))).toBe('CHKPT_NOT_FOUND');
    const { path: sound, store } = await original(sampleOriginal());
    const before = readdirSync(sound);
    await verifyCheckpoint(store);
    expect(readdirSync(sound)).toEqual(before);
  });

  line(29, 'too few or too many bytes without lengths are found by the schema', async () => {
    const path = folder.next();
    await writeOriginal(path, 'dir', sampleOriginal());
    const store = openStore(`palacios+dir:${path}`);
    for (const name of ['guest_info0', 'vmcb_data1', 'header', 'memory_img']) {
      const sound = await readFile(join(path, name));
      await writeFile(join(path, name), sound.subarray(0, -1));
      expect(await codeOf(verifyCheckpoint(store)), name).toBe('CHKPT_TRUNCATED');
      await writeFile(join(path, name), Buffer.concat([sound, Uint8Array.of(0)]));
      expect(await codeOf(verifyCheckpoint(store)), name).toBe('CHKPT_TRAILING_DATA');
      await writeFile(join(path, name), sound);
    }
    expect(await codeOf(verifyCheckpoint(store))).toBe('no error');
  });

  line(30, 'tags and names are compared whole', async () => {
    const path = folder.next();
    await writeOriginal(path, 'textfile', sampleOriginal());
    const text = (await readFile(join(path, 'guest_info0'))).toString().replace('\nRIP=', '\nRIPS=');
    await writeFile(join(path, 'guest_info0'), text);
    expect(await codeOf(verifyCheckpoint(openStore(`palacios+textfile:${path}`)))).toBe('CHKPT_FORMAT');
    const header = wireOf(sampleOriginal().find(([name]) => name === 'header') as Group);
    for (const name of ['', 'h', 'heade', 'header2']) {
      const { url } = await originalListens(async (socket) => {
        socket.write(Buffer.concat([key(name), header.subarray(8)]));
      });
      expect(await codeOf(verifyCheckpoint(openStore(url))), name).toBe('CHKPT_FORMAT');
    }
  });

  line(
    31,
    'the same memory in other blocks is the same memory, and another size of it is found',
    async () => {
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
      const { store } = await original(sampleOriginal());
      const vm = await machine({ memoryBytes: 4 * 16_384 });
      const options = { skip: ['devices', 'cores'], ignore: ['id', 'cpu'] } as const;
      expect(await codeOf(loadVm(vm, store, options))).toBe('CHKPT_VM_REGIONS');
    },
  );

  line(32, 'tags of chkpt are names, not expressions of a language', async () => {
    const path = folder.next();
    await saveVm(await machine({ cores: 2 }), fileStore(path));
    const inspection = await inspectCheckpoint(fileStore(path));
    const tags = inspection.contexts.flatMap(({ tags: all }) => all.map(({ name }) => name));
    await inspection.close();
    expect(tags.length).toBeGreaterThan(100);
    expect(tags.filter((tag) => !/^[A-Za-z][A-Za-z0-9]*((\.|\[)[A-Za-z0-9]+\]?)*$/.test(tag))).toEqual([]);
  });

  line(
    33,
    'pages of zeros take no room in the files; the native format has what repeats once, compresses, keeps what changed, and encrypts',
    async () => {
      const [path, small] = [folder.next(), folder.next()];
      const vm = await machine({ memoryBytes: 32 << 20 });
      await saveVm(vm, openPalaciosStore(`palacios+file:${path}`));
      expect(statSync(join(path, 'memory_img')).blocks * 512).toBeLessThan(1 << 20);
      const natively = async (text: string, options = {}): Promise<number> =>
        (await saveVm(vm, openStore(text), options)).checkpointBytes;
      const [repeated, packed, whole, changed] = ['a', 'b', 'c', 'd'].map(
        (name) => `file:${small}.${name}`,
      ) as [string, string, string, string];
      for (let page = 0; page < 64; page += 1) vm.memory.write(page * 4096, pattern(1, 4096));
      await saveVm(vm, fileStore(path));
      expect((await receiveCheckpoint(fileStore(path), repeated)).storedBytes).toBeLessThan((64 * 4096) / 8);
      // Each page another one, and each half of it the same bytes: what LZ4 finds.
      for (let page = 0; page < 512; page += 1) {
        const half = randomBytes(1024);
        vm.memory.write(page * 4096, Buffer.concat([half, half, half, half]));
      }
      await saveVm(vm, fileStore(path));
      expect((await receiveCheckpoint(fileStore(path), packed)).storedBytes).toBeLessThan((512 * 4096) / 2);
      await natively(whole);
      vm.memory.write(4096, Uint8Array.of(1, 2, 3));
      expect(await natively(changed, { parent: whole })).toBeLessThan(100_000);
      expect(await codeOf(saveVm(vm, fileStore(path), { parent: whole }))).toBe('CHKPT_UNSUPPORTED');
      const key = randomBytes(32);
      await saveVm(vm, encrypted(openStore(packed), { key }));
      expect(await codeOf(verifyCheckpoint(packed))).toBe('CHKPT_KEY');
      // The files of an original have no room for a seal.
      expect(await codeOf(saveVm(vm, encrypted(fileStore(path), { key })))).toBe('CHKPT_UNSUPPORTED');
    },
  );
});

describeSection('hostile input', (line) => {
  line(34, 'the number of devices is checked, and 2^32 times 32 too', async () => {
    for (const [count, names, code] of [
      [0xffffffff, 0, 'CHKPT_LIMIT'],
      [0x8000000, 0, 'CHKPT_LIMIT'],
      [4097, 4097 * 32, 'CHKPT_LIMIT'],
      [2, 32, 'CHKPT_FORMAT'],
      [0, 32, 'CHKPT_FORMAT'],
    ] as const) {
      const { path, store } = await original(sampleOriginal());
      const table = [record(['num_devs', u32(count)]), record(['names', Buffer.alloc(names, 0x61)])];
      await writeFile(join(path, 'devices'), Buffer.concat(table));
      expect(await codeOf(verifyCheckpoint(store)), `${count}`).toBe(code);
    }
  });

  line(
    35,
    'the number of local APICs indexes nothing: what it promises must be there, where lengths hang on it',
    async () => {
      const apics: Group = ['apic', [['NUM_APICS', u32(0xffffffff)]]];
      const { store } = await original([...sampleOriginal(), apics]);
      const inspection = await inspectCheckpoint(store);
      expect((await inspection.readTag('apic', 'NUM_APICS')).value).toEqual(u32(0xffffffff));
      // Nothing is one of its tags: it is no local APIC.
      expect((await inspection.readTag('devices', 'device.0.class')).value).toBe('');
      await inspection.close();
      const path = folder.next();
      await writeOriginal(path, 'dir', [...sampleOriginal(), apics]);
      expect(await codeOf(verifyCheckpoint(openStore(`palacios+dir:${path}`)))).toBe('CHKPT_UNSUPPORTED');
    },
  );

  line(36, 'the name of a device ends, has nothing behind its end, and is there once', async () => {
    const names = (...ids: string[]): Buffer =>
      Buffer.concat(ids.map((id) => Buffer.from(id.padEnd(32, '\0'))));
    for (const [what, bytes] of [
      [/does not end/, names('x'.repeat(32))],
      [/stands behind the name/, names('pic\0x')],
      [/in the table twice/, names('pic', 'pic')],
      [/name/, names('')],
      [/name/, names('../x')],
    ] as const) {
      const { path, store } = await original(sampleOriginal());
      const table = [record(['num_devs', u32(bytes.length / 32)]), record(['names', bytes])];
      await writeFile(join(path, 'devices'), Buffer.concat(table));
      await writeFile(join(path, 'pic'), '');
      const attempt = verifyCheckpoint(store);
      await expect(attempt).rejects.toMatchObject({ code: 'CHKPT_FORMAT' });
      await expect(attempt).rejects.toThrow(what);
    }
  });

  const named = async (...frames: Buffer[]): Promise<string> => {
    const { url } = await originalListens(async (socket) => void socket.write(Buffer.concat(frames)));
    return await codeOf(verifyCheckpoint(openStore(url)));
  };

  line(37, 'a name of more than 127 bytes is refused when it opens a context', async () => {
    for (const bytes of [128, 129, 255, 256, 32_767])
      expect(await named(key('x'.repeat(bytes)))).toBe('CHKPT_LIMIT');
    expect(await named(key('x'.repeat(127)))).toBe('CHKPT_TRUNCATED');
  });

  line(38, 'and when it closes one', async () => {
    for (const bytes of [128, 255, 32_767])
      expect(await named(key('header'), key('x'.repeat(bytes)))).toBe('CHKPT_LIMIT');
  });

  line(39, 'a URL with more or fewer colons than it must have is refused', () => {
    for (const rest of ['a:127.0.0.1:1:2:3:4', 'a:127.0.0.1', 'a', 'c:127.0.0.1:1:', ':::::::', 'c::1']) {
      expect(() => openStore(`palacios+net:${rest}`), rest).toThrow(
        expect.objectContaining({ code: 'CHKPT_STORE_URL' }),
      );
    }
  });

  line(40, 'a handler gives what was asked for, no more and no less, and handle 0 is none', async () => {
    const handler = new ReferenceHandler();
    await receiveCheckpoint((await original(sampleOriginal())).store, palaciosUserStore(handler.handle));
    const bent = (change: (answer: Buffer, type: number) => Buffer): Promise<string> =>
      codeOf(
        verifyCheckpoint(
          palaciosUserStore(async (request) => {
            const type = Buffer.from(request).readInt32LE(8);
            return change(Buffer.from(await handler.handle(request)), type);
          }),
        ),
      );
    expect(await bent((answer) => answer)).toBe('no error');
    const longer = (answer: Buffer, by: number): Buffer => {
      const all = Buffer.concat([answer, Buffer.alloc(by)]);
      all.writeBigUInt64LE(BigInt(all.length), 0);
      all.writeBigUInt64LE(BigInt(all.length - 48), 32);
      return all;
    };
    expect(await bent((answer, type) => (type === 6 ? longer(answer, 8) : answer))).toBe('CHKPT_FORMAT');
    expect(await bent((answer, type) => (type === 6 ? longer(answer, 1 << 20) : answer))).toBe(
      'CHKPT_FORMAT',
    );
    expect(await bent((answer, type) => (type === 6 ? answer.subarray(0, 47) : answer))).toBe('CHKPT_FORMAT');
    const none = (answer: Buffer, type: number): Buffer => (type === 3 ? answer.fill(0, 24, 32) : answer);
    expect(await bent(none)).toBe('CHKPT_NOT_FOUND');
  });

  line(41, 'a length has 64 bits: 2^32 more is not the same', async () => {
    const more = 2n ** 32n;
    const head = (tag: string, bytes: bigint): Buffer =>
      Buffer.concat([record([tag, Buffer.alloc(0)]).subarray(0, -8), u64(bytes)]);
    const text = Buffer.from('v3vee palacios checkpoint version: x.x, SVM x.x');
    for (const [bytes, tag, code] of [
      [47n + more, 'header', 'CHKPT_LIMIT'],
      [47n - more, 'header', 'CHKPT_FORMAT'],
    ] as const) {
      expect(await named(key('header'), head(tag, bytes), text, key('header'))).toBe(code);
      const { path, store } = await original(sampleOriginal());
      await writeFile(join(path, 'header'), Buffer.concat([head(tag, bytes), text]));
      expect(await codeOf(verifyCheckpoint(store))).toMatch(/^CHKPT_(LIMIT|FORMAT|TRUNCATED)$/);
    }
    const { path, store } = await original(sampleOriginal({ blockBytes: 4096, blocks: 1 }));
    const image = await readFile(join(path, 'memory_img'));
    image.writeBigUInt64LE(4096n + more, 31);
    await writeFile(join(path, 'memory_img'), image);
    expect(await codeOf(verifyCheckpoint(store))).toBe('CHKPT_TRUNCATED');
  });

  line(42, 'a name that is a path stays inside the folder', async () => {
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

  line(43, 'a listener is where it was asked to be, and off this machine only when told', async () => {
    expect(await codeOf(verifyCheckpoint(openStore('palacios+net:a:0.0.0.0:0')))).toBe('CHKPT_INSECURE');
    const stop = new AbortController();
    const reached: boolean[] = [];
    const onListening = async (url: string): Promise<void> => {
      for (const host of ['127.0.0.2', '127.0.0.1']) {
        const socket = connect(Number(url.split(':').at(-1)), host);
        reached.push(
          await once(socket, 'connect').then(
            () => true,
            () => false,
          ),
        );
        socket.destroy();
      }
      stop.abort();
    };
    const store = openPalaciosStore('palacios+net:a:127.0.0.1:0', {
      onListening: (url) => void onListening(url),
    });
    await codeOf(verifyCheckpoint(store, { signal: stop.signal }));
    await expect.poll(() => reached).toEqual([false, true]);
    for (const place of ['', ':7000', '7000', '*:7000']) {
      expect(await codeOf((async () => verifyCheckpoint(openStore(`palacios+net:a:${place}`)))())).toBe(
        'CHKPT_STORE_URL',
      );
    }
    // The protocol has nothing to know a peer by (connections of chkpt do): so it takes one, and no memory for what that only announces.
    const refused: string[] = [];
    const one = openPalaciosStore('palacios+net:a:127.0.0.1:0', {
      onListening: (url) => void comeTwice(Number(url.split(':').at(-1)), refused),
    });
    const before = process.memoryUsage.rss();
    expect(await codeOf(verifyCheckpoint(one))).toMatch(/^CHKPT_(LIMIT|TRUNCATED|LINK_LOST)$/);
    expect(process.memoryUsage.rss() - before).toBeLessThan(200 << 20);
    await expect.poll(() => refused).toEqual(['refused']);
  });
});
