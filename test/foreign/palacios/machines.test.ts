/** Whole machines of chkpt in the forms of an original: all of it comes back, and an original finds what it has a place for. */
import { readdirSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import {
  debugLayout,
  fpuLayout,
  msrsLayout,
  regsLayout,
  sregsLayout,
} from '../../../src/adapters/kvm/layouts.ts';
import type { StructLayout } from '../../../src/adapters/kvm/struct-layout.ts';
import { SyntheticVm } from '../../../src/adapters/synthetic/index.ts';
import { headerContext, headerState } from '../../../src/checkpoint/vm-header.ts';
import {
  inspectCheckpoint,
  loadVm,
  openCheckpoint,
  openPalaciosStore,
  openStore,
  saveVm,
  verifyCheckpoint,
} from '../../../src/index.ts';
import { useFolder, writeOriginal } from './support/folders.ts';
import { pattern, recordsIn, sampleOriginal, u32, u64 } from './support/original.ts';

const folder = useFolder();

describe.each(['file', 'textfile', 'dir'])('a machine in palacios+%s:', (form) => {
  test('is the same one when it was loaded, and runs on', async () => {
    const options = { memoryBytes: 100 * 4096, guestLike: true, cores: 2, pagesPerSecond: 0 };
    const [vm, other] = [
      await SyntheticVm.create(options),
      await SyntheticVm.create({ ...options, seed: 7n }),
    ];
    const store = openPalaciosStore(`palacios+${form}:${folder.next()}`, { blockBytes: 256 * 4096 });
    await vm.resume();
    await saveVm(vm, store);
    await vm.pause();
    await saveVm(vm, store);
    const report = await loadVm(other, store);
    expect(await other.digest()).toBe(await vm.digest());
    expect(report.header.vm.id).toBe(vm.id);
    await other.resume();
    for (const one of [vm, other]) await one.close();
  });
});

test('an original finds memory, an empty device table and its header, and no more that it knows', async () => {
  const vm = await SyntheticVm.create({ memoryBytes: 16 * 4096 });
  const path = folder.next();
  await saveVm(vm, openPalaciosStore(`palacios+file:${path}`, { blockBytes: 16 * 4096 }));
  expect(readdirSync(path).filter((name) => !name.startsWith('chkpt'))).toEqual([
    'devices',
    'header',
    'memory_img',
  ]);
  expect(recordsIn(await readFile(join(path, 'devices')))).toEqual([
    ['num_devs', u32(0)],
    ['names', new Uint8Array()],
  ]);
  const memory = recordsIn(await readFile(join(path, 'memory_img')));
  expect(memory.map(([tag]) => tag)).toEqual(['region_size', 'num_regions', 'memory_img0']);
  expect(memory[2]?.[1]).toEqual(vm.memory.read(0, 16 * 4096));
  await vm.close();
});

test('memory of an original loads into a machine of the same size', async () => {
  const path = folder.next();
  await writeOriginal(path, 'file', sampleOriginal());
  const vm = await SyntheticVm.create({ memoryBytes: 3 * 16_384 });
  await loadVm(vm, openStore(`palacios+file:${path}`), { skip: ['devices', 'cores'], ignore: ['id', 'cpu'] });
  expect(vm.memory.read(0, 4096)).toEqual(pattern(0, 4096));
  await vm.close();
});

test('an increment is refused', async () => {
  const vm = await SyntheticVm.create({ memoryBytes: 16 * 4096 });
  const parent = `mem:palacios-parent-${process.pid}`;
  await saveVm(vm, parent);
  const store = openPalaciosStore(`palacios+file:${folder.next()}`);
  await expect(saveVm(vm, store, { parent })).rejects.toMatchObject({ code: 'CHKPT_UNSUPPORTED' });
  await vm.close();
});

test('what is told of an original has every tag of the header of a machine', async () => {
  const path = folder.next();
  await writeOriginal(path, 'file', sampleOriginal());
  const inspection = await inspectCheckpoint(openStore(`palacios+file:${path}`));
  const tags = inspection.contexts.find(({ name }) => name === headerContext)?.tags ?? [];
  expect(tags.slice(1).map(({ name, type }) => [name, type])).toEqual(
    headerState.leaves.map(({ tag, type }) => [tag, type]),
  );
  await inspection.close();
});

describe('the processors of a KVM machine', () => {
  const msrs = msrsLayout([0xc0000081, 0xc0000082, 0xc0000084, 0xc0000102]);
  /** One bit of every segment field is set, by a layout of the kernel's struct. */
  const sregs = sregsLayout.decode(pattern(3, 312)) as Record<string, Record<string, unknown> | bigint>;
  const own = {
    type: 11,
    present: 1,
    dpl: 3,
    db: 0,
    s: 1,
    l: 1,
    g: 1,
    avl: 0,
    unusable: 0,
    limit: 0xffffffff,
    base: 0n,
    selector: 0x33,
  };
  const values: [string, StructLayout, Uint8Array][] = [
    ['', regsLayout, pattern(1, 144)],
    [
      '',
      sregsLayout,
      sregsLayout.encode({
        ...sregs,
        cs: own,
        ss: { ...own, l: 0 },
        cr0: 0x80000011n,
        cr4: 0x20n,
        efer: 0xd01n,
        cr8: 5n,
      }),
    ],
  ];
  const arch: [string, StructLayout, Uint8Array][] = [
    ['fpu.', fpuLayout, pattern(5, 416)],
    ['debug.', debugLayout, pattern(6, 128)],
    ['msr.', msrs, pattern(7, 32)],
  ];

  async function save(path: string, cores: number): Promise<void> {
    const checkpoint = await openCheckpoint(openPalaciosStore(`palacios+file:${path}`), { mode: 'save' });
    for (let core = 0; core < cores; core += 1) {
      for (const [name, parts] of [
        [`core${core}`, values],
        [`core${core}.arch`, arch],
      ] as const) {
        const context = await checkpoint.openContext(name);
        for (const [prefix, layout, bytes] of parts) {
          await context.save(layout.state({ prefix, strict: false }), layout.decode(bytes));
        }
        await context.close();
      }
    }
    await checkpoint.commit();
  }

  test('are there as an original knows them: registers, segments, floating point', async () => {
    const path = folder.next();
    await save(path, 2);
    const info = new Map(recordsIn(await readFile(join(path, 'guest_info1'))));
    expect(info.size).toBe(54);
    const regs = pattern(1, 144);
    expect(info.get('RAX')).toEqual(regs.slice(0, 8));
    expect(info.get('RIP')).toEqual(regs.slice(128, 136));
    expect(info.get('RFLAGS')).toEqual(regs.slice(136, 144));
    expect(info.get('CS')).toEqual(
      Uint8Array.of(0x33, 0, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0xfb, 0x0a),
    );
    for (const [tag, value] of [
      ['run_state', 1],
      ['cpu_mode', 3],
      ['mem_mode', 1],
      ['CPL', 3],
      ['FP_STATE_TYPE', 1],
    ] as const) {
      expect(info.get(tag)).toEqual(u32(value));
    }
    expect(info.get('APIC_TPR')).toEqual(u64(0x50));
    expect(info.get('GUEST_EFER')).toEqual(u64(0xd01));
    const debug = pattern(6, 128);
    expect(info.get('DR3')).toEqual(debug.slice(24, 32));
    expect(info.get('DR7')).toEqual(debug.slice(40, 48));
    expect(info.get('LSTAR')).toEqual(pattern(7, 32).slice(8, 16));
    const fpu = pattern(5, 416);
    const blob = info.get('FP_STATE_BLOB') ?? new Uint8Array();
    expect(blob.slice(32, 160)).toEqual(fpu.slice(0, 128));
    expect(blob.slice(160, 416)).toEqual(fpu.slice(152, 408));
    expect(blob.slice(24, 28)).toEqual(fpu.slice(408, 412));
    expect(await verifyCheckpoint(openStore(`palacios+file:${path}`))).toMatchObject({ integrity: 'detect' });
  });

  test('of which one is not known are left out as a whole', async () => {
    const path = folder.next();
    const checkpoint = await openCheckpoint(openPalaciosStore(`palacios+file:${path}`), { mode: 'save' });
    const context = await checkpoint.openContext('core0');
    await context.saveAll({ rip: 1n });
    await context.close();
    await checkpoint.commit();
    expect(readdirSync(path).sort()).toEqual(['chkpt', 'chkpt.core0', 'header']);
  });
});
