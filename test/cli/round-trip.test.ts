/** Save, look at, verify, load: what comes out is what went in, byte for byte. */
import { createHash } from 'node:crypto';
import {
  closeSync,
  lstatSync,
  openSync,
  readdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { describe, expect, test } from 'vitest';
import { makeFolder } from './support/folders.ts';
import { allocatedBytes, digestOf, isSameFile, MiB, makeRamFile, noise } from './support/ram-files.ts';
import { chkpt, chkptJson, chkptOk } from './support/run-cli.ts';

const uuid = '01234567-89ab-4def-8123-456789abcdef';
const fixed = ['--uuid', uuid, '--time', '2025-01-31T12:00:00.250Z'];
const withoutNative = { CHKPT_NO_NATIVE: '1' };

describe.each(['file:', 'dir:'])('%s', (scheme) => {
  test('a machine saved, inspected, verified and loaded comes back byte for byte, with sparse output', async () => {
    const cwd = makeFolder();
    const store = `${scheme}vm.chkpt`;
    makeRamFile(`${cwd}/low.img`, 8 * MiB, 1);
    makeRamFile(`${cwd}/high.img`, 4 * MiB, 50);
    const values = { 'irr.bin': noise(64, 3), 'vram.bin': noise(3 * MiB, 4), 'empty.bin': Buffer.alloc(0) };
    for (const [name, bytes] of Object.entries(values)) writeFileSync(`${cwd}/${name}`, bytes);

    const saved = await chkptOk(
      [
        ...['save', '--memory', 'high.img@4GiB', '--memory', 'low.img', '--id', 'guest 7'],
        ...['--state', 'pic.irr=irr.bin', '--state', 'vga.ram.0=vram.bin', '--state', 'pic.empty=empty.bin'],
        ...['--state', 'tty.in=-', store],
      ],
      { cwd, input: 'typed' },
    );
    expect(saved.stdout.length).toBe(0);
    expect(saved.stderr).toMatch(/^saved 12\.0 MiB as [0-9.]+ MiB in [0-9.]+ m?s, [0-9.]+ [KMG]iB\/s\n$/);

    const info = await chkptJson(['info', store], { cwd });
    expect(info).toMatchObject({
      id: 'guest 7',
      skip: [],
      cores: 0,
      devices: [],
      regions: [
        { base: 0, bytes: 8 * MiB, pages: 2048 },
        { base: 4 * 1024 * MiB, bytes: 4 * MiB, pages: 1024 },
      ],
      memoryBytes: 12 * MiB,
      verified: false,
      integrity: 'detect',
    });
    expect(info.contexts.map(({ name }: { name: string }) => name)).toEqual([
      ...['header', 'devices', 'pic', 'vga', 'tty', 'memory'],
    ]);

    const loaded = await chkptOk(
      [
        ...['load', store, '--memory', 'low.out', '--memory', 'high.out@0x100000000'],
        ...['--state', 'vga.ram.0=vram.out', '--state', 'pic.empty=empty.out', '--state', 'tty.in=-'],
      ],
      { cwd },
    );
    expect(loaded.stdout.toString()).toBe('typed');
    expect(loaded.stderr).toMatch(/^loaded 12\.0 MiB and 3 values from /);
    expect(await digestOf(`${cwd}/low.out`)).toBe(await digestOf(`${cwd}/low.img`));
    expect(await digestOf(`${cwd}/high.out`)).toBe(await digestOf(`${cwd}/high.img`));
    expect(readFileSync(`${cwd}/vram.out`).equals(values['vram.bin'])).toBe(true);
    expect(readFileSync(`${cwd}/empty.out`).length).toBe(0);
    expect(allocatedBytes(`${cwd}/low.out`)).toBeLessThan(1 * MiB);
    expect(statSync(`${cwd}/low.out`).mode & 0o777).toBe(0o600);
    expect(readdirSync(cwd).filter((name) => name.startsWith('.'))).toEqual([]);
  });

  test('info, ls, cat and verify tell the same with and without the native addon', async () => {
    const cwd = makeFolder();
    makeRamFile(`${cwd}/ram.img`, 2 * MiB);
    writeFileSync(`${cwd}/irr.bin`, Buffer.from('irr!'));
    const store = `${scheme}vm.chkpt`;
    await chkptOk(['save', '--memory', 'ram.img', '--state', 'pic.irr=irr.bin', store], { cwd });
    const commands = [
      ['info', store],
      ['ls', '--json', store],
      ['cat', store, 'pic', 'irr'],
    ];
    for (const command of commands) {
      const [native, portable] = await Promise.all([
        chkptOk(command, { cwd }),
        chkptOk(command, { cwd, env: withoutNative }),
      ]);
      expect(portable.stdout.equals(native.stdout), command.join(' ')).toBe(true);
      expect(native.stderr).toBe('');
      expect(native.stdout.length).toBeGreaterThan(0);
    }
    const untimed = (line: Buffer): string => line.toString().replace(/, [^,]*, [^,]*$/, '');
    const [native, portable] = await Promise.all([
      chkptOk(['verify', store], { cwd }),
      chkptOk(['verify', store], { cwd, env: withoutNative }),
    ]);
    expect(untimed(portable.stdout)).toBe(untimed(native.stdout));
    expect(native.stdout.toString()).toMatch(
      /^ok [^\n]*2\.00 MiB of memory, 4 contexts, 11 tags, 512 pages, integrity detect, [^\n]*\n$/,
    );
  });
});

test('a RAM image above 4 GiB comes back byte for byte, and stays sparse', async () => {
  const cwd = makeFolder();
  makeRamFile(`${cwd}/ram.img`, 4 * 1024 * MiB + 20 * MiB);
  await chkptOk(['save', '--memory', 'ram.img', 'vm.chkpt'], { cwd });
  await chkptOk(['load', 'vm.chkpt', '--memory', 'out.img'], { cwd });
  expect(statSync(`${cwd}/out.img`).size).toBe(4 * 1024 * MiB + 20 * MiB);
  expect(allocatedBytes(`${cwd}/out.img`)).toBeLessThan(1 * MiB);
  expect(isSameFile(`${cwd}/out.img`, `${cwd}/ram.img`)).toBe(true);
});

test('with --uuid and --time a checkpoint has the same bytes whatever the number of threads', async () => {
  const cwd = makeFolder();
  makeRamFile(`${cwd}/ram.img`, 24 * MiB);
  const save = (threads: string, name: string): Promise<unknown> =>
    chkptOk(['save', '--memory', 'ram.img', ...fixed, '--threads', threads, `${name}.chkpt`], { cwd });
  await Promise.all([save('1', 'one'), save('2', 'two')]);
  const one = readFileSync(`${cwd}/one.chkpt`);
  expect(readFileSync(`${cwd}/two.chkpt`).equals(one)).toBe(true);
  const info = await chkptJson(['info', 'one.chkpt'], { cwd });
  expect(info).toMatchObject({ uuid, created: '2025-01-31T12:00:00.250Z', id: 'ram.img' });
  // Without them the bytes differ, so the comparison above compares something.
  await chkptOk(['save', '--memory', 'ram.img', 'free.chkpt'], { cwd });
  expect(readFileSync(`${cwd}/free.chkpt`).equals(one)).toBe(false);
});

test('--codec raw stores pages as they are, lz4 and auto compress them, and all load the same memory', async () => {
  const cwd = makeFolder();
  makeRamFile(`${cwd}/ram.img`, 4 * MiB);
  const sizes: Record<string, number> = {};
  for (const codec of ['raw', 'lz4', 'auto']) {
    const save = await chkptJson(
      ['save', '--memory', 'ram.img', '--codec', codec, ...fixed, `${codec}.chkpt`],
      { cwd },
    );
    sizes[codec] = save.encodedBytes;
    await chkptOk(['load', '--quiet', `${codec}.chkpt`, '--memory', `${codec}.img`], { cwd });
    expect(await digestOf(`${cwd}/${codec}.img`), codec).toBe(await digestOf(`${cwd}/ram.img`));
  }
  expect(sizes['raw']).toBeGreaterThan(Number(sizes['lz4']) + 30 * 4096);
  expect(sizes['auto']).toBe(sizes['lz4']);
});

test('what was skipped is recorded, and a load that asks for it says so', async () => {
  const cwd = makeFolder();
  makeRamFile(`${cwd}/ram.img`, 1 * MiB);
  writeFileSync(`${cwd}/irr.bin`, 'irr!');
  const skip = ['--skip', 'memory', '--skip', 'devices', '--skip', 'archdep', '--skip', 'memory'];
  await chkptOk(['save', '--memory', 'ram.img@1M', ...skip, '--state', 'pic.irr=irr.bin', 'vm.chkpt'], {
    cwd,
  });
  expect(await chkptJson(['info', 'vm.chkpt'], { cwd })).toMatchObject({
    skip: ['memory', 'devices', 'archdep'],
    regions: [{ base: MiB, bytes: MiB, pages: 256 }],
    memoryBytes: 0,
    pages: { total: 0 },
    devices: null,
    ratio: null,
  });
  const refused = [
    ['load', 'vm.chkpt', '--memory', 'out.img'],
    ['load', 'vm.chkpt', '--state', 'pic.irr=irr.out'],
    ['load', 'vm.chkpt', '--skip', 'memory', '--state', 'nic.mac=mac.out'],
    ['load', 'vm.chkpt', '--skip', 'memory', '--state', 'core0.arch.msr=msr.out'],
  ];
  for (const command of refused) {
    const { code, stderr } = await chkpt(command, { cwd });
    expect(stderr, command.join(' ')).toMatch(/^chkpt: CHKPT_SKIPPED: [^\n]*\n$/);
    expect(code).toBe(1);
  }
  expect(readdirSync(cwd).sort()).toEqual(['irr.bin', 'ram.img', 'vm.chkpt']);
  const { stdout } = await chkptOk(['load', 'vm.chkpt', '--skip', 'memory', '--state', 'pic.irr=-'], { cwd });
  expect(stdout.toString()).toBe('irr!');
  // Nothing of it needs the addon.
  await chkptOk(['save', '--skip', 'memory', '--state', 'pic.irr=irr.bin', 'small.chkpt'], {
    cwd,
    env: withoutNative,
  });
  await chkptOk(['load', 'small.chkpt', '--skip', 'memory', '--state', 'pic.irr=irr.out'], {
    cwd,
    env: withoutNative,
  });
  expect(readFileSync(`${cwd}/irr.out`, 'utf8')).toBe('irr!');
});

test('the JSON documents of save, load and verify have the documented keys and agree with each other', async () => {
  const cwd = makeFolder();
  makeRamFile(`${cwd}/ram.img`, 4 * MiB);
  writeFileSync(`${cwd}/irr.bin`, 'irr!');
  const saved = await chkptJson(['save', '--memory', 'ram.img', '--state', 'pic.irr=irr.bin', 'vm.chkpt'], {
    cwd,
  });
  const loaded = await chkptJson(['load', 'vm.chkpt', '--memory', 'out.img', '--state', 'pic.irr=irr.out'], {
    cwd,
  });
  const verified = await chkptJson(['verify', 'vm.chkpt'], { cwd });
  const info = await chkptJson(['info', 'vm.chkpt'], { cwd });
  const listed = await chkptJson(['ls', 'vm.chkpt'], { cwd });
  expect(Object.keys(saved)).toEqual([
    ...['command', 'store', 'uuid', 'root', 'id', 'memoryBytes', 'checkpointBytes', 'encodedBytes', 'ratio'],
    ...['pages', 'parent', 'tracker', 'elapsedMs'],
  ]);
  expect(Object.keys(loaded)).toEqual([
    ...[
      'command',
      'store',
      'uuid',
      'root',
      'id',
      'memoryBytes',
      'checkpointBytes',
      'ratio',
      'memory',
      'state',
    ],
    ...['parents', 'verified', 'elapsedMs'],
  ]);
  expect(Object.keys(verified)).toEqual([
    ...[
      'command',
      'store',
      'uuid',
      'root',
      'verified',
      'integrity',
      'indexed',
      'contexts',
      'tags',
      'memoryBytes',
    ],
    ...['checkpointBytes', 'encodedBytes', 'pages', 'parents', 'elapsedMs'],
  ]);
  expect(Object.keys(info)).toEqual([
    ...[
      'store',
      'uuid',
      'parent',
      'epoch',
      'created',
      'format',
      'producer',
      'id',
      'cpu',
      'cores',
      'skip',
      'regions',
      'scrubbed',
    ],
    ...[
      'memoryBytes',
      'pages',
      'encodedBytes',
      'checkpointBytes',
      'stored',
      'ratio',
      'codecRatio',
      'devices',
      'contexts',
    ],
    ...['root', 'integrity', 'verified', 'source', 'chain'],
  ]);
  for (const document of [loaded, verified, info]) {
    expect(document).toMatchObject({
      store: 'vm.chkpt',
      uuid: saved.uuid,
      root: saved.root,
      memoryBytes: 4 * MiB,
      checkpointBytes: statSync(`${cwd}/vm.chkpt`).size,
    });
  }
  expect(saved).toMatchObject({ parent: null, tracker: null });
  expect([loaded.parents, verified.parents, info.chain.length]).toEqual([[], [], 1]);
  const { pages } = saved;
  expect(pages.total).toBe(1024);
  expect(pages.zero + pages.fill + pages.stored + pages.same).toBe(1024);
  expect([pages.fill, pages.same]).toEqual([7, 3]);
  expect(verified.pages).toEqual(pages);
  expect(info.pages).toEqual(pages);
  expect(loaded).toMatchObject({
    memory: [{ path: 'out.img', base: 0, bytes: 4 * MiB }],
    state: [{ context: 'pic', tag: 'irr', path: 'irr.out', bytes: 4 }],
    verified: true,
  });
  expect(listed.contexts.find(({ name }: { name: string }) => name === 'pic')).toEqual({
    name: 'pic',
    kind: 'values',
    bytes: 4,
    tags: [
      {
        tag: 'irr',
        type: 'bytes',
        bytes: 4,
        value: Buffer.from('irr!').toString('base64'),
        preview: '69727221',
      },
    ],
  });
  expect(await chkptJson(['cat', 'vm.chkpt', 'header', 'region.bytes'], { cwd })).toEqual({
    store: 'vm.chkpt',
    context: 'header',
    tag: 'region.bytes',
    type: 'u64[]',
    bytes: 8,
    value: [String(4 * MiB)],
  });
});

test('a save replaces an older checkpoint, and a load replaces older outputs behind symbolic links too', async () => {
  const cwd = makeFolder();
  makeRamFile(`${cwd}/a.img`, 1 * MiB, 1);
  makeRamFile(`${cwd}/b.img`, 1 * MiB, 2);
  await chkptOk(['save', '--memory', 'a.img', 'vm.chkpt'], { cwd });
  await chkptOk(['save', '--memory', 'b.img', 'vm.chkpt'], { cwd });
  writeFileSync(`${cwd}/out.img`, 'older');
  symlinkSync('out.img', `${cwd}/link.img`);
  await chkptOk(['load', 'vm.chkpt', '--memory', 'link.img'], { cwd });
  expect(lstatSync(`${cwd}/link.img`).isSymbolicLink()).toBe(true);
  expect(await digestOf(`${cwd}/out.img`)).toBe(await digestOf(`${cwd}/b.img`));
});

test('a temporary that a killed load left behind is removed by the next one', async () => {
  const cwd = makeFolder();
  makeRamFile(`${cwd}/ram.img`, 1 * MiB);
  await chkptOk(['save', '--memory', 'ram.img', 'vm.chkpt'], { cwd });
  // No process has this number: it is above the greatest one of Linux.
  writeFileSync(`${cwd}/.out.img.${uuid}.4194999.tmp`, 'left behind');
  writeFileSync(`${cwd}/.other.img.${uuid}.4194999.tmp`, 'not ours');
  await chkptOk(['load', 'vm.chkpt', '--memory', 'out.img'], { cwd });
  expect(readdirSync(cwd).sort()).toEqual([
    `.other.img.${uuid}.4194999.tmp`,
    'out.img',
    'ram.img',
    'vm.chkpt',
  ]);
});

test('values of any size pass through cat to files and pipes unchanged', async () => {
  const cwd = makeFolder();
  const large = noise(5 * MiB, 9);
  writeFileSync(`${cwd}/large.bin`, large);
  await chkptOk(['save', '--skip', 'memory', '--state', 'vga.ram=large.bin', 'vm.chkpt'], { cwd });
  const piped = await chkptOk(['cat', 'vm.chkpt', 'vga', 'ram'], { cwd });
  expect(createHash('sha256').update(piped.stdout).digest('hex')).toBe(
    createHash('sha256').update(large).digest('hex'),
  );
  const file = openSync(`${cwd}/cat.out`, 'wx');
  await chkptOk(['cat', 'vm.chkpt', 'vga', 'ram'], { cwd, stdout: file });
  closeSync(file);
  expect(readFileSync(`${cwd}/cat.out`).equals(large)).toBe(true);
});

test('RAM images are described by the file that is opened: a file grown to whole pages is one', async () => {
  const cwd = makeFolder();
  writeFileSync(`${cwd}/ram.img`, 'x');
  expect((await chkpt(['save', '--memory', 'ram.img', 'vm.chkpt'], { cwd })).code).toBe(1);
  truncateSync(`${cwd}/ram.img`, 4096);
  await chkptOk(['save', '--memory', 'ram.img', 'vm.chkpt'], { cwd });
  expect(await chkptJson(['info', 'vm.chkpt'], { cwd })).toMatchObject({
    memoryBytes: 4096,
    pages: { stored: 1 },
  });
});
