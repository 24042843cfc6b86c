/** `palacios+file:`, `palacios+textfile:`, `palacios+dir:`: both ways, byte for byte, and as stores of chkpt. */
import { existsSync, readdirSync, statSync } from 'node:fs';
import { mkdir, readFile, rename, rm, symlink, truncate, writeFile } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { describe, expect, test } from 'vitest';
import {
  GuestMemory,
  inspectCheckpoint,
  openCheckpoint,
  openPalaciosStore,
  openStore,
  PageDecoder,
  PageEncoder,
  type PalaciosStoreOptions,
  receiveCheckpoint,
  type Store,
  verifyCheckpoint,
} from '../../../src/index.ts';
import { describeForeignStore } from '../../conformance/foreign-store.suite.ts';
import { extendedDevices, plainDevices } from './support/devices.ts';
import { contentOf, encoders, type Form, fingerprint, useFolder, writeOriginal } from './support/folders.ts';
import { type Group, plainOf, record, sampleOriginal, samplePage, u32, u64 } from './support/original.ts';

const forms: readonly Form[] = ['file', 'textfile', 'dir'];
const folder = useFolder();
const whole = sampleOriginal({ devices: plainDevices, extended: extendedDevices });
let count = 0;

function native(): Store {
  count += 1;
  return openStore(`mem:palacios-${process.pid}-${count}`);
}

const open = (form: Form, path: string, options: PalaciosStoreOptions = {}): Store =>
  openPalaciosStore(`palacios+${form}:${path}`, options);

const regions = [
  { base: 0n, bytes: 1n << 20n },
  { base: 3n << 20n, bytes: 3n << 16n },
];

for (const form of forms) {
  const traits = { types: true, integrity: 'detect', removes: true, regions } as const;
  await describeForeignStore(`palacios+${form}:`, traits, () => {
    const path = folder.next();
    const remains = (): string[] =>
      readdirSync(dirname(path)).flatMap((name) =>
        name.includes(basename(path))
          ? readdirSync(join(dirname(path), name)).map((file) => {
              const { size, ino } = statSync(join(dirname(path), name, file));
              return `${name}/${file} ${size} ${ino}`;
            })
          : [],
      );
    return { open: () => open(form, path, { blockBytes: 1 << 20 }), remains };
  });
}

describe('a checkpoint of an original', () => {
  const samples: [string, Group[]][] = [
    ['with every kind of device', whole],
    [
      'of an Intel machine with one core',
      sampleOriginal({ vendor: 'VMX', cores: 1, devices: plainDevices.slice(0, 2) }),
    ],
    ['without memory', sampleOriginal({ skip: ['memory'] })],
    ['without devices', sampleOriginal({ skip: ['devices'] })],
    ['without cores', sampleOriginal({ skip: ['cores'] })],
    ['without architecture-dependent state', sampleOriginal({ skip: ['archdep'] })],
    ['with nothing but its header', sampleOriginal({ skip: ['memory', 'devices', 'cores'] })],
    ['with twelve blocks and eleven cores', sampleOriginal({ blocks: 12, blockBytes: 8192, cores: 11 })],
  ];
  // The form of the file decides how all of them are framed; the others differ in nothing that the samples do.
  const cells = samples.flatMap(([what, groups], index) =>
    forms.filter((form) => form === 'file' || index === 0).map((form) => [what, form, groups] as const),
  );
  describe('both ways', () => {
    test.each(cells)(
      'becomes a native one and the same files again: %s, palacios+%s:',
      async (_what, form, groups) => {
        const [from, to] = [folder.next(), folder.next()];
        await writeOriginal(from, form, groups);
        const kept = native();
        await receiveCheckpoint(open(form, from), kept);
        await receiveCheckpoint(kept, open(form, to));
        expect(await contentOf(to)).toEqual(await contentOf(from));
        const first = await verifyCheckpoint(open(form, from));
        const second = await verifyCheckpoint(open(form, to));
        expect([second.root, second.header]).toEqual([first.root, first.header]);
        expect(first.integrity).toBe('none');
        await kept.remove?.();
      },
    );
  });

  test.each(forms)('becomes one in every other form: from palacios+%s:', async (form) => {
    const from = folder.next();
    await writeOriginal(from, form, whole);
    for (const other of forms) {
      const to = folder.next();
      await receiveCheckpoint(open(form, from), open(other, to));
      const expected = whole.map((group): [string, string] => [
        group[0],
        fingerprint(encoders[other](group)),
      ]);
      expect(await contentOf(to)).toEqual(new Map(expected.sort(([a], [b]) => (a < b ? -1 : 1))));
    }
  });

  test.each(forms)('gives contexts, tags and memory: palacios+%s:', async (form) => {
    const from = folder.next();
    await writeOriginal(from, form, whole);
    const checkpoint = await openCheckpoint(open(form, from), { mode: 'load' });
    for (const [name, blobs] of whole) {
      if (name === 'memory_img') continue;
      const context = await checkpoint.openContext(name);
      for (const [tag, data] of blobs)
        expect(fingerprint(await context.loadBytes(tag)), tag).toBe(fingerprint(data));
      await context.close();
    }
    const memory = GuestMemory.allocate([{ base: 0, bytes: 3 * 16_384 }]);
    await checkpoint.loadMemory('memory', () => new PageDecoder(memory));
    await checkpoint.finish();
    await checkpoint.close();
    for (let page = 0; page < 12; page += 1) expect(memory.read(page * 4096, 4096)).toEqual(samplePage(page));
    await memory.close();
  });

  test('says what machine it is of, as one of chkpt does', async () => {
    const from = folder.next();
    await writeOriginal(from, 'file', whole);
    const inspection = await inspectCheckpoint(open('file', from));
    const read = async (context: string, tag: string): Promise<unknown> =>
      (await inspection.readTag(context, tag)).value;
    expect(await read('header', 'producer')).toBe('v3vee palacios checkpoint version: x.x, SVM x.x');
    expect(await read('header', 'cpu.vendor')).toBe('AuthenticAMD');
    expect(await read('header', 'core.count')).toBe(2);
    expect(await read('header', 'options.skip')).toBe(0);
    expect(await read('header', 'region.bytes')).toEqual(BigUint64Array.of(49_152n));
    const rows = await Promise.all(
      Array.from({ length: (await read('devices', 'count')) as number }, async (_row, index) => [
        await read('devices', `device.${index}.id`),
        await read('devices', `device.${index}.class`),
      ]),
    );
    expect(rows).toEqual([
      ['dev 0', '8259 PIC'],
      ['dev 1', '8254 PIT'],
      ['dev 2', 'I/O APIC'],
      ['dev 3', 'keyboard'],
      ['dev 4', 'serial'],
      ['dev 5', 'CGA'],
      ['dev 6', 'os_debug'],
      ['dev 7', 'local APICs'],
      ['hpet', ''],
      ['ide', 'IDE'],
      ['pci', 'PCI'],
    ]);
    expect(await read('devices', 'device.9.context.3')).toBe('ide-0-1');
    await inspection.close();
  });
});

/** What is done to the folder of a sound checkpoint, and the code that a reader must give. */
type Damage = readonly [what: string, code: string, change: (path: string) => Promise<void>];

const replace =
  (name: string, bytes: Uint8Array) =>
  async (path: string): Promise<void> =>
    await writeFile(join(path, name), bytes);
const headerText = Buffer.from('v3vee palacios checkpoint version: x.x, SVM x.x');
const info = whole.find(([name]) => name === 'guest_info0')?.[1] ?? [];

const damages: readonly Damage[] = [
  ['no header', 'CHKPT_FORMAT', (path) => rm(join(path, 'header'))],
  ['an empty header', 'CHKPT_FORMAT', replace('header', new Uint8Array())],
  [
    'a header of another program',
    'CHKPT_FORMAT',
    replace('header', record(['header', Buffer.alloc(47, 0x78)])),
  ],
  [
    'a header of another version',
    'CHKPT_FORMAT',
    replace('header', record(['header', Buffer.from(String(headerText).replace('x.x', '1.3'))])),
  ],
  [
    'a record behind the header',
    'CHKPT_TRAILING_DATA',
    replace('header', Buffer.concat([record(['header', headerText]), record(['header2', headerText])])),
  ],
  [
    'a wrong boundary',
    'CHKPT_FORMAT',
    replace('header', Buffer.concat([Uint8Array.of(1), record(['header', headerText]).subarray(1)])),
  ],
  ['a device of the table without a context', 'CHKPT_FORMAT', (path) => rm(join(path, 'hpet'))],
  ['a device table cut short', 'CHKPT_TRUNCATED', (path) => truncate(join(path, 'devices'), 100)],
  [
    'too many devices',
    'CHKPT_LIMIT',
    replace(
      'devices',
      Buffer.concat([record(['num_devs', u32(0xffffffff)]), record(['names', new Uint8Array()])]),
    ),
  ],
  ['the state of core 0 cut short', 'CHKPT_TRUNCATED', (path) => truncate(join(path, 'guest_info0'), 2000)],
  ['no state of core 0', 'CHKPT_FORMAT', (path) => rm(join(path, 'guest_info0'))],
  [
    'a core without architecture-dependent state of its own',
    'CHKPT_FORMAT',
    (path) => rename(join(path, 'vmcb_data1'), join(path, 'vmcb_data7')),
  ],
  [
    'registers in another order',
    'CHKPT_FORMAT',
    replace('guest_info0', Buffer.concat([...info].reverse().map(record))),
  ],
  [
    'a register with a prefix of its name',
    'CHKPT_FORMAT',
    replace(
      'guest_info0',
      Buffer.concat(info.map(([tag, data]) => record([tag === 'RIP' ? 'RI' : tag, data]))),
    ),
  ],
  [
    'the tail of an older save behind a device',
    'CHKPT_TRAILING_DATA',
    async (path) => {
      const bytes = await readFile(join(path, 'dev 0'));
      await writeFile(join(path, 'dev 0'), Buffer.concat([bytes, record(['MASTER_IRR', u32(0)])]));
    },
  ],
  [
    'a record twice in a device',
    'CHKPT_FORMAT',
    replace('dev 3', Buffer.concat([record(['A', u32(0)]), record(['A', u32(1)])])),
  ],
  ['memory cut short', 'CHKPT_TRUNCATED', (path) => truncate(join(path, 'memory_img'), 49_000)],
  [
    'bytes behind memory',
    'CHKPT_TRAILING_DATA',
    async (path) => {
      await writeFile(
        join(path, 'memory_img'),
        Buffer.concat([await readFile(join(path, 'memory_img')), Buffer.alloc(1)]),
      );
    },
  ],
  [
    'memory of 2^63 bytes',
    'CHKPT_LIMIT',
    replace(
      'memory_img',
      Buffer.concat([record(['region_size', u64(2n ** 62n)]), record(['num_regions', u32(2)])]),
    ),
  ],
  [
    'memory whose blocks are no pages',
    'CHKPT_FORMAT',
    replace(
      'memory_img',
      Buffer.concat([record(['region_size', u64(1000)]), record(['num_regions', u32(2)])]),
    ),
  ],
  [
    'memory that announces more than it has',
    'CHKPT_TRUNCATED',
    replace(
      'memory_img',
      Buffer.concat([record(['region_size', u64(4096)]), record(['num_regions', u32(0xffffffff)])]),
    ),
  ],
  ['an empty memory', 'CHKPT_FORMAT', replace('memory_img', new Uint8Array())],
  ['a folder among the contexts', 'CHKPT_FORMAT', async (path) => void (await mkdir(join(path, 'x')))],
  ['a link among the contexts', 'CHKPT_PERMISSION', (path) => symlink('/etc/passwd', join(path, 'x'))],
  ['chkpt. without chkpt', 'CHKPT_FORMAT', replace('chkpt.x', new Uint8Array())],
  ['a context called memory', 'CHKPT_FORMAT', replace('memory', new Uint8Array())],
];

describe('a damaged checkpoint of an original', () => {
  test.each(damages)('is a typed error, and nothing comes of it: %s', async (_what, code, change) => {
    const from = folder.next();
    await writeOriginal(from, 'file', whole);
    await change(from);
    await expect(verifyCheckpoint(open('file', from))).rejects.toMatchObject({ code });
    const to = folder.next();
    await expect(receiveCheckpoint(open('file', from), openStore(`file:${to}`))).rejects.toMatchObject({
      code,
    });
    expect(existsSync(to)).toBe(false);
  });

  test('in the head of a block of memory is found when memory is read', async () => {
    const from = folder.next();
    await writeOriginal(from, 'file', whole);
    const bytes = await readFile(join(from, 'memory_img'));
    bytes.writeUInt8(0x39, bytes.indexOf('memory_img1') + 10);
    await writeFile(join(from, 'memory_img'), bytes);
    await expect(verifyCheckpoint(open('file', from))).rejects.toMatchObject({ code: 'CHKPT_FORMAT' });
  });

  test('is never written to: a missing one stays missing, an empty folder stays empty', async () => {
    const path = folder.next();
    await expect(verifyCheckpoint(open('file', path))).rejects.toMatchObject({ code: 'CHKPT_NOT_FOUND' });
    expect(existsSync(path)).toBe(false);
    await mkdir(path);
    await expect(verifyCheckpoint(open('file', path))).rejects.toMatchObject({ code: 'CHKPT_NOT_FOUND' });
    expect(readdirSync(path)).toEqual([]);
  });

  test('without tags needs schemas for devices that are not known', async () => {
    const from = folder.next();
    const nvram = [['state', new Uint8Array(31)]] as const;
    await writeOriginal(from, 'dir', sampleOriginal({ devices: [['nvram', nvram]] }));
    await expect(verifyCheckpoint(open('dir', from))).rejects.toMatchObject({ code: 'CHKPT_UNSUPPORTED' });
    const devices = new Map([['nvram', [['state', 31] as const]]]);
    expect(await verifyCheckpoint(open('dir', from, { devices }))).toMatchObject({ integrity: 'none' });
  });
});

describe('a checkpoint of chkpt', () => {
  async function save(store: Store, memory?: GuestMemory): Promise<void> {
    const checkpoint = await openCheckpoint(store, { mode: 'save' });
    const context = await checkpoint.openContext('pic');
    await context.saveAll({ irr: 7, name: 'master' });
    await context.close();
    if (memory !== undefined) await checkpoint.saveMemory('memory', new PageEncoder(memory));
    await checkpoint.commit();
  }

  test('has memory in blocks of 128 MiB, as original builds have, and takes no more space than it has', async () => {
    const path = folder.next();
    const memory = GuestMemory.allocate([{ base: 0, bytes: 1 << 20 }]);
    memory.write(8192, Uint8Array.of(1, 2, 3));
    await save(open('file', path), memory);
    const { size, blocks } = statSync(join(path, 'memory_img'));
    expect(size).toBe(74 + 31 + 134_217_728);
    expect(blocks * 512).toBeLessThan(1 << 20);
    await memory.close();
  });

  test('whose bytes were changed anywhere beside is CHKPT_DIGEST or another error of damage', async () => {
    const path = folder.next();
    await save(open('file', path));
    for (const name of ['chkpt', 'chkpt.pic', 'header']) {
      const bytes = await readFile(join(path, name));
      for (let at = 0; at < bytes.length; at += 7) {
        const changed = Buffer.from(bytes);
        changed.writeUInt8((bytes.readUInt8(at) + 1) & 255, at);
        await writeFile(join(path, name), changed);
        await expect(verifyCheckpoint(open('file', path))).rejects.toMatchObject({
          code: expect.stringMatching(/^CHKPT_(DIGEST|FORMAT|LIMIT|TRUNCATED|TRAILING_DATA)$/),
        });
      }
      await writeFile(join(path, name), bytes);
    }
    expect(await verifyCheckpoint(open('file', path))).toMatchObject({ integrity: 'detect' });
  });

  test('whose memory was changed is CHKPT_DIGEST', async () => {
    const path = folder.next();
    const memory = GuestMemory.allocate([{ base: 0, bytes: 1 << 20 }]);
    memory.write(8192, Uint8Array.of(1, 2, 3));
    await save(open('file', path, { blockBytes: 1 << 20 }), memory);
    await memory.close();
    const bytes = await readFile(join(path, 'memory_img'));
    bytes.writeUInt8(9, bytes.length - 100);
    await writeFile(join(path, 'memory_img'), bytes);
    await expect(verifyCheckpoint(open('file', path))).rejects.toMatchObject({ code: 'CHKPT_DIGEST' });
  });

  test('does not replace a folder of something else, and does not remove it', async () => {
    const path = folder.next();
    await mkdir(path);
    await writeFile(join(path, 'letter'), 'dear');
    await expect(save(open('file', path))).rejects.toMatchObject({ code: 'CHKPT_STORE_URL' });
    await expect(open('file', path).remove?.()).rejects.toMatchObject({ code: 'CHKPT_STORE_URL' });
    expect(readdirSync(path)).toEqual(['letter']);
  });

  test('removes what a save that was killed has left beside it', async () => {
    const path = folder.next();
    const left = join(dirname(path), `.${basename(path)}.01234567-89ab-4cde-8f01-23456789abcd.4194000.tmp`);
    await mkdir(left);
    await writeFile(join(left, 'header'), 'x');
    await save(open('file', path));
    expect(existsSync(left)).toBe(false);
  });

  test.each(forms)('as palacios+%s: with a name too long for a file is refused', async (form) => {
    const checkpoint = await openCheckpoint(open(form, folder.next()), { mode: 'save' });
    const context = await checkpoint.openContext('x'.repeat(250));
    await context.close();
    await expect(checkpoint.commit()).rejects.toMatchObject({ code: 'CHKPT_NAME' });
  });

  test('has modes for its owner only, but for palacios+dir:, whose folder all may enter', async () => {
    for (const [form, mode] of [
      ['file', 0o700],
      ['textfile', 0o700],
      ['dir', 0o755],
    ] as const) {
      const path = folder.next();
      await save(open(form, path));
      expect(statSync(path).mode & 0o777 & ~process.umask()).toBe(mode & ~process.umask());
      expect(statSync(join(path, 'header')).mode & 0o777).toBe(0o600);
    }
  });

  test('without tags is its values, one behind the other', async () => {
    const path = folder.next();
    await save(open('dir', path));
    expect(await readFile(join(path, 'header'))).toEqual(headerText);
    expect(await readFile(join(path, 'chkpt.pic'))).toEqual(
      plainOf([
        ['', u64(7).slice(0, 4)],
        ['', Buffer.from('master')],
      ]),
    );
  });
});
