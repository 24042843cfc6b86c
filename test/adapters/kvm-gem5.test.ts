/** A KVM guest that goes through a checkpoint of gem5 and works on where it was. */
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, describe, expect, test } from 'vitest';
import { whyNoKvm } from '../../bench/guests/kvm.ts';
import { KvmVm } from '../../src/adapters/kvm/index.ts';
import type { ForeignContext } from '../../src/foreign/foreign-format.ts';
import { Gem5Format } from '../../src/foreign/gem5/gem5-store.ts';
import { parseIni, serializeIni } from '../../src/foreign/gem5/ini.ts';
import { isOwnSection } from '../../src/foreign/gem5/own-sections.ts';
import { loadVm, openStore, saveVm } from '../../src/index.ts';
import { checkLost, fieldsOfContexts, type GuestField } from '../foreign/gem5/lost-oracle.ts';
import { skeletonText } from '../foreign/gem5/skeleton-text.ts';
import { makeFolder } from '../store/support/folders.ts';

const missing = await whyNoKvm();
if (missing !== undefined) console.warn(`KVM guests in gem5 are not tested: ${missing}`);

const memoryBytes = 16 * 1024 ** 2;
const counter = 0x30_0000;
// inc %ebp; mov %ebp, 0x300000; jmp to the first
const code = Uint8Array.of(0x45, 0x89, 0x2d, 0x00, 0x00, 0x30, 0x00, 0xeb, 0xf7);

const opened: AsyncDisposable[] = [];
afterEach(async () => {
  for (const one of opened.splice(0).reverse()) await one[Symbol.asyncDispose]();
});

async function guest(): Promise<KvmVm> {
  const vm = await KvmVm.create({
    memoryBytes,
    image: { bytes: code, address: 0x10_0000, mode: 'protected' },
  });
  opened.push(vm);
  return vm;
}

const counterOf = (vm: KvmVm): number => Buffer.from(vm.memory.read(counter, 4)).readUInt32LE();

async function untilBeyond(vm: KvmVm, count: number): Promise<void> {
  for (let tries = 0; counterOf(vm) <= count; tries += 1) {
    if (tries === 4000) throw new Error(`the guest does not work: ${counterOf(vm)}`);
    await sleep(5);
  }
}

/** As gem5 would have written it: without what only chkpt reads. */
function withoutOwn(path: string): void {
  const document = parseIni(readFileSync(`${path}/m5.cpt`));
  for (const { name } of [...document.sections]) if (isOwnSection(name)) document.remove(name);
  writeFileSync(`${path}/m5.cpt`, serializeIni(document));
  for (const name of ['chkpt.manifest.json', 'chkpt.report.json']) rmSync(`${path}/${name}`, { force: true });
}

/** Every tag that KVM gives is read, or told as lost. */
function checkReport(contexts: readonly ForeignContext[]): void {
  const copies = contexts.map(({ name, tags }) => ({
    name,
    tags: tags.map((tag) => ({ ...tag, data: Uint8Array.from(tag.data) })),
  }));
  // The first bit of each, and of long ones some that are set; bit 1 of RFLAGS always is.
  const bits = ({ data }: GuestField): number[] => {
    const some = [...data.keys()].filter((at) => data[at] !== 0 && at % 5 === 0).slice(0, 40);
    return [0, ...some.map((at) => 8 * at + Math.floor(Math.log2(data[at] as number)))];
  };
  const means = (name: string, bit: number): boolean =>
    !/\/xcrs\.nr_xcrs$/.test(name) &&
    // 65536 of a counter is 0.
    !(/channels\[[0-2]\]\.count$/.test(name) && bit === 16) &&
    // Parts of XSAVE that were never used.
    !name.endsWith('/xsave.region');
  const { set, lost } = checkLost(copies, fieldsOfContexts(copies), { bits, means });
  expect(set).toBeGreaterThan(150);
  expect(lost).toBeGreaterThan(100);
}

describe.skipIf(missing !== undefined)('a KVM guest', () => {
  test('goes into the machine of a skeleton, and from what gem5 has of it into KVM', async () => {
    const folder = makeFolder();
    mkdirSync(`${folder}/skeleton`);
    writeFileSync(`${folder}/skeleton/m5.cpt`, skeletonText({ cores: 1, storeBytes: [memoryBytes] }));
    const source = await guest();
    await source.resume();
    await untilBeyond(source, 1000);
    await source.pause();
    await saveVm(source, openStore(`gem5:${folder}/cpt?skeleton=${folder}/skeleton`));
    const thread = parseIni(readFileSync(`${folder}/cpt/m5.cpt`)).section('board.cpu8.xc.0');
    const integers = Uint8Array.from(String(thread?.get('regs.integer')).split(' '), Number);
    const count = Number(new DataView(integers.buffer).getBigUint64(8 * 5, true));
    // Between two instructions the register may be one ahead.
    expect([0, 1]).toContain(count - counterOf(source));
    const reading = await new Gem5Format({}, `${folder}/cpt`, 'gem5:cpt').openReading({});
    await reading.close();
    checkReport(reading.contexts);
    withoutOwn(`${folder}/cpt`);

    const target = await guest();
    await loadVm(target, openStore(`gem5:${folder}/cpt`), {
      ignore: ['id', 'cpu'],
      skip: ['devices', 'archdep'],
    });
    expect(await target.memory.digest()).toBe(await source.memory.digest());
    await target.resume();
    await untilBeyond(target, count + 1000);
    await target.pause();
    // Started anew it would begin with 1.
    expect(counterOf(target)).toBeGreaterThan(count);
  });
});
