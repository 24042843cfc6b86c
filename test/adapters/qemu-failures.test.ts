/** Saves of a running guest that fail at QEMU's side: a typed error, nothing published, and the guest runs on. */
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { afterAll, afterEach, describe, expect, test } from 'vitest';
import { LinuxQemu, whyNoQemuLinux } from '../../bench/guests/qemu.ts';
import { QemuVm } from '../../src/adapters/qemu/index.ts';
import { saveVm } from '../../src/index.ts';
import { makeFolder } from '../store/support/folders.ts';
import { type QmpFault, startQmpProxy } from './support/qmp-proxy.ts';

const missing = whyNoQemuLinux();
if (missing !== undefined) console.warn(`failures of QEMU are not tested: ${missing}`);
const memoryBytes = 256 << 20;

const cleanUps: (() => void | Promise<void>)[] = [];
afterEach(async () => {
  for (const cleanUp of cleanUps.splice(0)) await cleanUp();
});

async function bootedLinux(folder: string, extra: readonly string[] = []): Promise<LinuxQemu> {
  const qemu = await LinuxQemu.start({ folder, name: 'a', memoryBytes, extra });
  await qemu.line.waitFor(/^TICK 1/);
  return qemu;
}

/** Its shell answers, and its clock ticks. */
async function expectRunning(qemu: LinuxQemu): Promise<void> {
  await qemu.line.command('true', 20_000);
  const from = qemu.line.lines.length;
  await qemu.line.waitFor(/^TICK/, from, 20_000);
}

const faults: readonly (readonly [string, string, QmpFault])[] = [
  ['the answer to stop is lost', 'CHKPT_QMP_TIMEOUT', { answerLost: 'stop' }],
  ['the answer to migrate is lost', 'CHKPT_QMP_TIMEOUT', { answerLost: 'migrate' }],
  ['nobody says how the migration is', 'CHKPT_QMP_TIMEOUT', { answerLost: 'query-migrate' }],
  ['the connection is cut before stop', 'CHKPT_QMP_CLOSED', { cutAt: 'stop' }],
  ['the connection is cut while the guest stands still', 'CHKPT_QMP_CLOSED', { cutAt: 'migrate' }],
  ['the connection is cut in mid-migration', 'CHKPT_QMP_CLOSED', { cutAt: 'query-migrate' }],
];

describe.skipIf(missing !== undefined)('the guest of a QEMU runs on', () => {
  /** One guest for all: each save leaves it as fit for the next as it was. */
  let shared: Promise<LinuxQemu> | undefined;
  const place = mkdtempSync(`${tmpdir()}/chkpt-test-`);
  afterAll(async () => {
    await (await shared)?.kill();
    rmSync(place, { recursive: true });
  });

  test.each(faults)('when %s: %s', { timeout: 120_000 }, async (_, code, fault) => {
    const folder = makeFolder();
    shared ??= bootedLinux(place);
    const qemu = await shared;
    const proxy = await startQmpProxy(qemu.qmpPath, `${folder}/proxy`, fault);
    cleanUps.push(() => proxy.close());
    const vm = await QemuVm.connect(proxy.path, { timeoutMs: 1000, processId: qemu.processId });
    await expect(saveVm(vm, `file:${folder}/vm.chkpt`)).rejects.toMatchObject({ code });
    expect(proxy.count()).toBeGreaterThan(0);
    expect(existsSync(`${folder}/vm.chkpt`)).toBe(false);
    await expectRunning(qemu);
    await vm.close();
  });

  test('when it has a device that QEMU cannot migrate', { timeout: 120_000 }, async () => {
    const folder = makeFolder();
    const nvme = ['-drive', 'if=none,id=n,file.driver=null-co', '-device', 'nvme,drive=n,serial=x'];
    const qemu = await bootedLinux(folder, nvme);
    cleanUps.push(() => qemu.kill());
    const vm = await QemuVm.connect(qemu.qmpPath);
    const refused = { code: 'CHKPT_QMP_COMMAND', message: /refused migrate: .*nvme/i };
    await expect(saveVm(vm, `file:${folder}/vm.chkpt`)).rejects.toMatchObject(refused);
    expect(existsSync(`${folder}/vm.chkpt`)).toBe(false);
    await expectRunning(qemu);
    await vm.close();
  });
});
