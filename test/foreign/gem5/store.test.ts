/** `gem5:` as a store: what every foreign store promises, what gem5 itself reads of it, and what damage does. */
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, readdirSync, readFileSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { gunzipSync, gzipSync } from 'node:zlib';
import { describe, expect, test } from 'vitest';
import {
  GuestMemory,
  openCheckpoint,
  openStore,
  PageDecoder,
  PageEncoder,
  verifyCheckpoint,
} from '../../../src/index.ts';
import { describeForeignStore } from '../../conformance/foreign-store.suite.ts';
import { listTree, makeFolder } from '../../store/support/folders.ts';
import { noise } from '../../store/support/sample-stream.ts';
import { readAsConfigParser, readAsGem5 } from './consumers.ts';
import { readStoresAsGem5 } from './store-loop.ts';

const regions = [
  { base: 0n, bytes: 1n << 20n },
  { base: 1n << 32n, bytes: 3n << 16n },
];

await describeForeignStore('gem5:', { types: true, integrity: 'detect', removes: true, regions }, () => {
  const folder = makeFolder();
  return { open: () => openStore(`gem5:${folder}/cpt`), remains: () => listTree(folder) };
});

const upgrader = ((): string | undefined => {
  const source = process.env['CHKPT_GEM5_SOURCE'];
  if (source === undefined) {
    console.warn("gem5's own upgrader is not run: CHKPT_GEM5_SOURCE does not name a gem5 source tree");
    return undefined;
  }
  return join(source, 'util', 'cpt_upgrader.py');
})();

async function makeMemory(): Promise<GuestMemory> {
  const memory = GuestMemory.allocate(regions);
  for (let page = 0; page < 200; page += 11) memory.write(page * 4096, noise(`page ${page}`, 3000));
  memory.write(1n << 32n, noise('above', 50_000));
  return memory;
}

async function save(path: string, memory?: GuestMemory, query = ''): Promise<void> {
  const checkpoint = await openCheckpoint(openStore(`gem5:${path}${query}`), { mode: 'save' });
  const context = await checkpoint.openContext('device');
  await context.saveAll({ count: 7, name: 'x' });
  await context.close();
  if (memory !== undefined) await checkpoint.saveMemory('memory', new PageEncoder(memory));
  await checkpoint.commit();
}

async function load(url: string): Promise<GuestMemory> {
  const memory = GuestMemory.allocate(regions);
  const checkpoint = await openCheckpoint(openStore(url), { mode: 'load' });
  try {
    await checkpoint.loadMemory('memory', () => new PageDecoder(memory));
    await checkpoint.finish();
    return memory;
  } catch (error) {
    await memory.close();
    throw error;
  } finally {
    await checkpoint.close();
  }
}

/** SHA-256 of what `memory` has there, hexadecimal. */
function digestOf(memory: GuestMemory, base: bigint, bytes: number): string {
  return createHash('sha256').update(memory.read(base, bytes)).digest('hex');
}

/** Those of gem5 24.0, as its upgrader has them. */
const tagsOfGem5 =
  'arm-ccregs arm-contextidr-el2 arm-gem5-gic-ext arm-gicv2-banked-regs arm-hdlcd-upgrade arm-miscreg-teehbr arm-sve ' +
  'arm-sysreg-mapping-ns armv8 cpu-pid dvfs-perflevel etherswitch globals-to-root ide-dma-abort isa-is-simobject ' +
  'memory-per-range mempool-sections mempool-to-seworkload multiple-event-queues process-fdmap-rename register-files ' +
  'remove-arm-cpsr-mode-miscreg riscv-dyn-vlen riscv-pcstate riscv-vext ruby-block-size-bytes smt-interrupts ' +
  'x86-add-tlb x86-add-xcr0';

describe('what gem5 reads of it', () => {
  test('the mandatory keys, all version tags, and a store for each range, alike for both consumers', async () => {
    const folder = makeFolder();
    const memory = await makeMemory();
    await save(`${folder}/cpt.0`, memory);
    const text = readFileSync(`${folder}/cpt.0/m5.cpt`, 'latin1');
    const [parsed] = readAsConfigParser([text]);
    const reading = readAsGem5(text);
    expect(parsed).toEqual(reading);
    expect(reading).toMatchObject({
      root: { FullSystem: 'true' },
      'root.globals': { curTick: '0', version_tags: tagsOfGem5 },
      system: { quiesceEndTick_0: '0' },
      'system.physmem': { lal_addr: '', lal_cid: '', nbr_of_stores: '2' },
      'system.physmem.store0': {
        store_id: '0',
        filename: 'system.physmem.store0.pmem',
        range_size: '1048576',
      },
      'system.physmem.store1': {
        store_id: '1',
        filename: 'system.physmem.store1.pmem',
        range_size: '196608',
      },
    });
    for (const [index, { base, bytes }] of regions.entries()) {
      const path = `${folder}/cpt.0/system.physmem.store${index}.pmem`;
      expect(readStoresAsGem5([{ path, rangeBytes: Number(bytes) }])).toEqual([
        { memory: digestOf(memory, base, Number(bytes)) },
      ]);
    }
    await memory.close();
  });

  test('the name of the machine is that of the query', async () => {
    const folder = makeFolder();
    const memory = await makeMemory();
    await save(`${folder}/cpt`, memory, '?system=board');
    expect(readdirSync(`${folder}/cpt`)).toContain('board.physmem.store0.pmem');
    expect(readAsGem5(readFileSync(`${folder}/cpt/m5.cpt`, 'latin1'))).toHaveProperty(['board.physmem']);
    const back = await load(`gem5:${folder}/cpt`);
    expect(await back.digest()).toBe(await memory.digest());
    for (const one of [memory, back]) await one.close();
  });

  test.skipIf(upgrader === undefined)('its upgrader has nothing to do', async () => {
    const folder = makeFolder();
    const memory = await makeMemory();
    await save(`${folder}/cpt`, memory);
    const path = `${folder}/cpt/m5.cpt`;
    const before = readFileSync(path);
    expect(execFileSync('python3', [upgrader as string, '-v', '-N', path], { encoding: 'utf8' })).toContain(
      'nothing to do',
    );
    expect(readFileSync(path).equals(before)).toBe(true);
    await memory.close();
  });

  test('a second save beside the first is read by gem5 too: names are in m5.cpt', async () => {
    const folder = makeFolder();
    const memory = await makeMemory();
    await save(`${folder}/cpt`);
    await save(`${folder}/cpt`, memory);
    const reading = readAsGem5(readFileSync(`${folder}/cpt/m5.cpt`, 'latin1'));
    const file = String(reading?.['system.physmem.store0']?.['filename']);
    expect(readStoresAsGem5([{ path: `${folder}/cpt/${file}`, rangeBytes: 1 << 20 }])).toEqual([
      { memory: digestOf(memory, 0n, 1 << 20) },
    ]);
    await save(`${folder}/cpt`);
    expect(existsSync(`${folder}/cpt/${file}`)).toBe(false);
    expect(readdirSync(`${folder}/cpt`)).toHaveLength(2);
    await memory.close();
  });
});

describe('a checkpoint that gem5 wrote', () => {
  /** One member a store, no manifest. */
  async function makeForeign(folder: string, memory: GuestMemory): Promise<string> {
    const path = `${folder}/foreign`;
    await save(path, memory);
    for (const entry of readdirSync(path)) {
      if (entry.endsWith('.json')) execFileSync('rm', [`${path}/${entry}`]);
      if (entry.endsWith('.pmem'))
        writeFileSync(`${path}/${entry}`, gzipSync(gunzipSync(readFileSync(`${path}/${entry}`))));
    }
    const text = readFileSync(`${path}/m5.cpt`, 'latin1');
    writeFileSync(`${path}/m5.cpt`, text.slice(0, text.indexOf('\n[chkpt]')));
    return path;
  }

  test('is read, unverified, with its text in a context of its own', async () => {
    const folder = makeFolder();
    const memory = await makeMemory();
    const path = await makeForeign(folder, memory);
    const back = await load(`gem5:${path}`);
    expect(await back.digest()).toBe(await memory.digest());
    const report = await verifyCheckpoint(openStore(`gem5:${path}`));
    expect(report.integrity).toBe('none');
    const checkpoint = await openCheckpoint(openStore(`gem5:${path}`), { mode: 'load' });
    const context = await checkpoint.openContext('gem5');
    expect(Buffer.from(await context.loadBytes('m5.cpt')).equals(readFileSync(`${path}/m5.cpt`))).toBe(true);
    await context.close();
    await checkpoint.close();
    for (const one of [memory, back]) await one.close();
  });

  test.each<[name: string, change: (stream: Buffer) => Buffer, code: string]>([
    ['cut', (bytes) => bytes.subarray(0, -1), 'CHKPT_TRUNCATED'],
    ['empty', () => Buffer.alloc(0), 'CHKPT_TRUNCATED'],
    ['short, and sound', (bytes) => gzipSync(gunzipSync(bytes).subarray(0, 4096)), 'CHKPT_TRUNCATED'],
    ['long, and sound', (bytes) => Buffer.concat([bytes, gzipSync(Buffer.alloc(8))]), 'CHKPT_TRAILING_DATA'],
    ['followed by something', (bytes) => Buffer.concat([bytes, Buffer.from('more')]), 'CHKPT_FORMAT'],
    ['not compressed', (bytes) => gunzipSync(bytes), 'CHKPT_FORMAT'],
    [
      'changed',
      (bytes) => Buffer.from(bytes.map((byte, at) => (at === bytes.length - 8 ? byte ^ 1 : byte))),
      'CHKPT_DIGEST',
    ],
  ])('whose store is %s is refused', async (_name, change, code) => {
    const folder = makeFolder();
    const memory = await makeMemory();
    const path = await makeForeign(folder, memory);
    const file = `${path}/system.physmem.store0.pmem`;
    writeFileSync(file, change(readFileSync(file)));
    await expect(load(`gem5:${path}`)).rejects.toMatchObject({ code });
    await memory.close();
  });

  test('where its memory lies can be said, and three stores have to be', async () => {
    const folder = makeFolder();
    const memory = await makeMemory();
    const path = await makeForeign(folder, memory);
    const back = GuestMemory.allocate([
      { base: 4096n, bytes: 1n << 20n },
      { base: 1n << 33n, bytes: 3n << 16n },
    ]);
    const checkpoint = await openCheckpoint(openStore(`gem5:${path}?bases=4096,0x200000000`), {
      mode: 'load',
    });
    await checkpoint.loadMemory('memory', () => new PageDecoder(back));
    await checkpoint.close();
    expect(Buffer.from(back.read(4096n, 5000)).equals(memory.read(0n, 5000))).toBe(true);
    await expect(load(`gem5:${path}?bases=0`)).rejects.toMatchObject({ code: 'CHKPT_FORMAT' });
    for (const one of [memory, back]) await one.close();
  });
});

describe('damage', () => {
  test('a flipped bit anywhere in any file is found', async () => {
    const folder = makeFolder();
    const path = `${folder}/cpt`;
    const memory = GuestMemory.allocate([{ base: 0n, bytes: 8n * 4096n }]);
    memory.write(0, noise('some', 3000));
    await save(path, memory);
    for (const entry of readdirSync(path)) {
      const sound = readFileSync(`${path}/${entry}`);
      for (let at = 0; at < sound.length; at += Math.max(1, Math.floor(sound.length / 60))) {
        const damaged = Buffer.from(sound);
        damaged[at] = (damaged[at] ?? 0) ^ (1 << (at % 8));
        writeFileSync(`${path}/${entry}`, damaged);
        await expect(verifyCheckpoint(openStore(`gem5:${path}`)), `${entry} at ${at}`).rejects.toMatchObject({
          kind: expect.stringMatching(/^(?:damaged|unsupported)$/),
        });
      }
      writeFileSync(`${path}/${entry}`, sound);
    }
    expect((await verifyCheckpoint(openStore(`gem5:${path}`))).integrity).toBe('detect');
    await memory.close();
  });

  test('what the read loop of gem5 itself takes for sound is found by the manifest', async () => {
    const folder = makeFolder();
    const rangeBytes = 1 << 20;
    const memory = GuestMemory.allocate([{ base: 0n, bytes: BigInt(rangeBytes) }]);
    memory.write(0, noise('store', rangeBytes));
    await save(`${folder}/cpt`, memory);
    const path = `${folder}/cpt/system.physmem.store0.pmem`;
    const sound = readFileSync(path);
    // Every member's first bytes, where a flip ends the stream for zlib, and a sample of the rest.
    const magic = sound.subarray(0, 4);
    const places = new Set<number>();
    for (let at = 0; at >= 0; at = sound.indexOf(magic, at + 1)) {
      for (const byte of [0, 1, 2, 3]) places.add(at + byte);
    }
    for (let at = 0; at < sound.length; at += 9973) places.add(at);
    const flips = [...places].map((at) => ({ at, bit: at % 8 }));
    const wanted = digestOf(memory, 0n, rangeBytes);
    const outcomes = readStoresAsGem5(flips.map((flip) => ({ path, rangeBytes, flip })));
    let silent = 0;
    for (const [index, flip] of flips.entries()) {
      const outcome = outcomes[index];
      if (outcome !== undefined && 'memory' in outcome && outcome.memory !== wanted) silent += 1;
      const damaged = Buffer.from(sound);
      damaged[flip.at] = (damaged[flip.at] ?? 0) ^ (1 << flip.bit);
      writeFileSync(path, damaged);
      const verified = verifyCheckpoint(openStore(`gem5:${folder}/cpt`));
      await expect(verified, `bit ${flip.bit} of byte ${flip.at}`).rejects.toMatchObject({ kind: 'damaged' });
    }
    expect(silent).toBeGreaterThan(5);
    console.log(`gem5's loop takes ${silent} of ${flips.length} damaged stores for sound, verify none`);
    await memory.close();
  });

  test.each([0, 1, 3])('a store that lost its last bytes, or all (%s), is found', async (kept) => {
    const folder = makeFolder();
    const memory = await makeMemory();
    await save(`${folder}/cpt`, memory);
    const file = `${folder}/cpt/system.physmem.store1.pmem`;
    truncateSync(file, kept === 0 ? 0 : readFileSync(file).length - kept);
    await expect(load(`gem5:${folder}/cpt`)).rejects.toMatchObject({ code: 'CHKPT_TRUNCATED' });
    execFileSync('rm', [file]);
    await expect(load(`gem5:${folder}/cpt`)).rejects.toMatchObject({ code: 'CHKPT_TRUNCATED' });
    await memory.close();
  });

  test.each<[name: string, change: (text: string) => string, told?: RegExp]>([
    [
      'a path in filename',
      (text) => text.replace('filename=system', 'filename=../system'),
      /filename is no plain name/,
    ],
    [
      'an absolute path in filename',
      (text) => text.replace(/filename=system\S*/, 'filename=/etc/passwd'),
      /filename is no plain name/,
    ],
    [
      'a store_id out of range',
      (text) => text.replace('store_id=1', 'store_id=4294967295'),
      /store_id 4294967295/,
    ],
    [
      'a store_id twice',
      (text) => text.replace('store_id=1', 'store_id=0'),
      /store_id 0 is none of 2, or taken/,
    ],
    ['a file twice', (text) => text.replace('store1.pmem', 'store0.pmem')],
    ['an e in an integer', (text) => text.replace('range_size=1048576', 'range_size=1e6')],
    ['an octal integer', (text) => text.replace('range_size=1048576', 'range_size=01048576')],
    ['a range of nothing', (text) => text.replace('range_size=1048576', 'range_size=0')],
    [
      'a range beyond everything',
      (text) => text.replace('range_size=1048576', 'range_size=9223372036854775807'),
    ],
    ['stores that are not there', (text) => text.replace('nbr_of_stores=2', 'nbr_of_stores=3')],
    ['too many stores', (text) => text.replace('nbr_of_stores=2', 'nbr_of_stores=4294967295')],
    ['carriage returns', (text) => text.replaceAll('\n', '\r\n')],
    ['a section twice', (text) => `${text}\n[system]\n`],
    ['a key twice', (text) => text.replace('store_id=1', 'store_id=1\nstore_id=1')],
    ['a line without =', (text) => `${text}no\n`],
    ['a tag longer than it is', (text) => text.replace(/0\.bytes=\d+/, '0.bytes=268435456')],
    ['values beyond their limit', (text) => text.replace(/0\.bytes=\d+/, '0.bytes=9007199254740991')],
    ['a type that is none', (text) => text.replace(/0\.type=\S+/, '0.type=__proto__')],
    ['a name that is none', (text) => text.replace(/0\.name=\S+/, '0.name=a_2fb')],
    ['an address that overlaps', (text) => text.replace('bases=0 4294967296', 'bases=0 4096')],
  ])('%s in m5.cpt is refused', async (_name, change, told = /m5\.cpt/) => {
    const folder = makeFolder();
    const memory = await makeMemory();
    await save(`${folder}/cpt`, memory);
    execFileSync('rm', [`${folder}/cpt/chkpt.manifest.json`]);
    const text = readFileSync(`${folder}/cpt/m5.cpt`, 'latin1');
    const changed = change(text);
    expect(changed).not.toBe(text);
    writeFileSync(`${folder}/cpt/m5.cpt`, changed, 'latin1');
    await expect(load(`gem5:${folder}/cpt`)).rejects.toMatchObject({
      kind: 'damaged',
      message: expect.stringMatching(told),
    });
    await memory.close();
  });

  test('an m5.cpt that another program has replaced does not pass for the one of the manifest', async () => {
    const folder = makeFolder();
    await save(`${folder}/cpt`);
    const path = `${folder}/cpt/m5.cpt`;
    writeFileSync(path, readFileSync(path, 'latin1').replace('curTick=0', 'curTick=1'));
    await expect(load(`gem5:${folder}/cpt`)).rejects.toMatchObject({ code: 'CHKPT_MANIFEST' });
  });

  test('what a save that was killed left behind goes with the next one', async () => {
    const folder = makeFolder();
    const memory = await makeMemory();
    await save(`${folder}/cpt`);
    const before = listTree(folder);
    const dead = `${folder}/cpt/.tmp-00000000-0000-4000-8000-000000000000-4194303`;
    execFileSync('mkdir', [dead]);
    writeFileSync(`${dead}/store0`, 'half');
    execFileSync('ln', [`${dead}/store0`, `${folder}/cpt/system.physmem.store0.pmem`]);
    writeFileSync(`${folder}/cpt/mine.pmem`, 'of somebody');
    await save(`${folder}/cpt`);
    expect(listTree(folder).filter((entry) => !/chkpt.*json/.test(entry))).toEqual(
      [...before, ...listTree(folder).filter((entry) => entry.includes('mine'))]
        .filter((entry) => !/chkpt.*json/.test(entry))
        .sort(),
    );
    await memory.close();
  });
});

describe('the URL', () => {
  test.each([
    'gem5:/tmp/cpt.%d',
    'gem5:/tmp/x?system=a b',
    'gem5:/tmp/x?bases=ten',
    'gem5:/tmp/x?what=1',
    'gem5:',
  ])('%s is refused', (url) => {
    expect(() => openStore(url)).toThrow(expect.objectContaining({ code: 'CHKPT_STORE_URL' }));
  });
});
