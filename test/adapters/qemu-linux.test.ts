/** A real Linux in QEMU, saved at its prompt, its QEMU killed, and continued in another one. */
import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { promisify } from 'node:util';
import { afterEach, describe, expect, test } from 'vitest';
import { LinuxQemu, whyNoQemuLinux } from '../../bench/guests/qemu.ts';
import { QemuVm } from '../../src/adapters/qemu/index.ts';
import { loadVm, receiveVm, saveVm, sendVm } from '../../src/index.ts';
import { buildCommandLine } from '../cli/support/dist.ts';
import { makeFolder } from '../store/support/folders.ts';

const missing = whyNoQemuLinux();
if (missing !== undefined) console.warn(`Linux in QEMU is not tested: ${missing}`);
const memoryBytes = 512 << 20;
const run = promisify(execFile);

const started: LinuxQemu[] = [];
afterEach(async () => {
  for (const qemu of started.splice(0)) await qemu.kill();
});

async function start(folder: string, name: string, options: object = {}): Promise<LinuxQemu> {
  const qemu = await LinuxQemu.start({ folder, name, memoryBytes, ...options });
  started.push(qemu);
  return qemu;
}

/** A guest at its prompt with a file of noise in its tmpfs. */
async function atWork(folder: string): Promise<{ qemu: LinuxQemu; hash: string }> {
  const qemu = await start(folder, 'a');
  await qemu.line.waitFor(/^TICK 2/);
  const [hash = ''] = await qemu.line.command(
    'head -c 8388608 /dev/urandom > /tmp/noise; sha1sum /tmp/noise',
  );
  expect(hash).toMatch(/^[0-9a-f]{40} {2}\/tmp\/noise$/);
  return { qemu, hash };
}

/** The shell answers, the file is whole, the counter goes on, and nothing has booted. */
async function checkGoesOn(qemu: LinuxQemu, hash: string, lastTick: number): Promise<void> {
  expect(await qemu.line.command('sha1sum /tmp/noise')).toContain(hash);
  const tick = Number((await qemu.line.waitFor(/^TICK/)).slice(5));
  expect(tick - lastTick).toBeGreaterThanOrEqual(0);
  expect(tick - lastTick).toBeLessThanOrEqual(2);
  expect(qemu.line.lines.join()).not.toContain('GUEST-UP');
}

const lastTickOf = (qemu: LinuxQemu): number =>
  Number(qemu.line.lines.findLast((line) => line.startsWith('TICK'))?.slice(5));

describe.skipIf(missing !== undefined)('a Linux guest in QEMU', () => {
  test('goes on in another QEMU after its own was killed', { timeout: 120_000 }, async () => {
    const folder = makeFolder();
    const { qemu, hash } = await atWork(folder);
    const store = `file:${folder}/linux.chkpt`;
    {
      await using vm = await QemuVm.connect(qemu.qmpPath);
      expect(vm.running).toBe(true);
      // A running machine is no place for a checkpoint; nor is one that stands still but has its own state.
      await saveVm(vm, 'mem:refused');
      await expect(loadVm(vm, 'mem:refused')).rejects.toMatchObject({ code: 'CHKPT_VM_RUNNING' });
      await vm.pause();
      await expect(loadVm(vm, 'mem:refused')).rejects.toMatchObject({ code: 'CHKPT_QEMU_NOT_WAITING' });
      await vm.resume();
      await qemu.line.command('true');
      await saveVm(vm, store);
    }
    const last = lastTickOf(qemu);
    await qemu.kill();

    const second = await start(folder, 'b', { incoming: 'defer' });
    {
      await using vm = await QemuVm.connect(second.qmpPath);
      await expect(vm.resume()).rejects.toMatchObject({ code: 'CHKPT_VM_FAILED' });
      await expect(saveVm(vm, 'mem:waiting')).rejects.toMatchObject({ code: 'CHKPT_VM_FAILED' });
      await loadVm(vm, store);
      await vm.resume();
    }
    await checkGoesOn(second, hash, last);
  });

  test('is saved, continued and refused by the command line', { timeout: 120_000 }, async () => {
    const folder = makeFolder();
    const { qemu, hash } = await atWork(folder);
    const command = buildCommandLine();
    const chkpt = (...parameters: string[]) => run(process.execPath, [command, ...parameters]);
    const saved = JSON.parse(
      (await chkpt('save', '--qemu', qemu.qmpPath, '--copy-memory', '--json', `${folder}/vm.chkpt`)).stdout,
    );
    expect(saved).toMatchObject({ command: 'save', id: 'qemu', memoryBytes });
    expect(saved.pausedMs).toBeGreaterThan(0);
    expect(saved.pausedMs).toBeLessThan(saved.elapsedMs);
    await qemu.line.command('true'); // it runs on
    const store = `${folder}/increment.chkpt`;
    const increment = JSON.parse(
      (await chkpt('save', '--qemu', qemu.qmpPath, '--parent', `${folder}/vm.chkpt`, '--json', store)).stdout,
    );
    expect(increment).toMatchObject({ parent: saved.uuid, tracker: { kind: 'digest' } });
    expect(increment.pages.total).toBe(memoryBytes / 4096);
    expect(increment.checkpointBytes).toBeLessThan(saved.checkpointBytes / 2);
    const last = lastTickOf(qemu);
    const refused = chkpt('load', `${folder}/vm.chkpt`, '--qemu', qemu.qmpPath);
    await expect(refused).rejects.toMatchObject({ code: 1, stderr: /^chkpt: CHKPT_VM_RUNNING: .*\n$/ });
    await qemu.kill();

    const second = await start(folder, 'b', { incoming: 'defer' });
    const { stderr } = await chkpt('load', store, '--qemu', second.qmpPath);
    expect(stderr).toMatch(/^loaded 512(\.0)? MiB from .* and 1 parent in .*, the guest runs\n$/);
    await checkGoesOn(second, hash, last - 1);
  });

  test('is saved encrypted and without a secret, by the command line', { timeout: 120_000 }, async () => {
    const folder = makeFolder();
    const { qemu, hash } = await atWork(folder);
    const command = buildCommandLine();
    const chkpt = (...parameters: string[]) => run(process.execPath, [command, ...parameters]);
    const [store, keyFile] = [`${folder}/vm.chkpt`, `${folder}/key`];
    await writeFile(keyFile, `${'5a'.repeat(32)}\n`);
    // The vectors of real mode: Linux does not look at them any more.
    const scrub = ['--scrub', '0x0+4K'];
    const key = ['--key-file', keyFile];
    await chkpt('save', '--qemu', qemu.qmpPath, ...key, ...scrub, '--copy-memory', store);
    const last = lastTickOf(qemu);
    {
      await using vm = await QemuVm.connect(qemu.qmpPath);
      expect(Buffer.from(vm.memory.read(0, 4096)).some((byte) => byte !== 0)).toBe(true);
    }
    await qemu.kill();

    const second = await start(folder, 'b', { incoming: 'defer' });
    const refused = chkpt('load', store, '--qemu', second.qmpPath);
    await expect(refused).rejects.toMatchObject({ stderr: expect.stringMatching(/^chkpt: CHKPT_KEY: /) });
    const info = JSON.parse((await chkpt('info', store, '--json', ...key)).stdout);
    expect(JSON.stringify(info)).toContain('"scrubbed":[{"base":0,"bytes":4096,"how":"zero"}]');
    await chkpt('load', store, '--qemu', second.qmpPath, ...key);
    await checkGoesOn(second, hash, last - 1);
    await using vm = await QemuVm.connect(second.qmpPath);
    expect(Buffer.from(vm.memory.read(0, 4096)).every((byte) => byte === 0)).toBe(true);
  });

  test('moves to another QEMU while it works', { timeout: 180_000 }, async () => {
    const folder = makeFolder();
    const { qemu, hash } = await atWork(folder);
    const second = await start(folder, 'b', { incoming: 'defer' });
    await using source = await QemuVm.connect(qemu.qmpPath);
    await using destination = await QemuVm.connect(second.qmpPath);
    const address = `unix:${folder}/migration`;
    let received: Promise<unknown> | undefined;
    await new Promise<void>((listens, fails) => {
      received = receiveVm(destination, address, {
        journal: `${folder}/to`,
        lingerMs: 100,
        onListening: () => listens(),
      });
      received.catch(fails);
    });
    const report = await sendVm(source, address, { journal: `${folder}/from`, downtimeTargetMs: 300 });
    await received;
    const last = lastTickOf(qemu);
    console.log(
      `QEMU, 512 MiB: ${report.rounds.length} rounds, stood still for ${report.downtime.totalMs.toFixed(0)} ms`,
    );
    expect(report.tracker.kind).toBe('digest');
    expect([source.running, destination.running]).toEqual([false, true]);
    await expect(source.resume()).rejects.toMatchObject({ code: 'CHKPT_VM_FAILED' });
    await checkGoesOn(second, hash, last);

    // And on to a third one, by the command line.
    await source.close();
    await destination.close();
    await qemu.kill();
    const third = await start(folder, 'c', { incoming: 'defer' });
    const command = buildCommandLine();
    const [to, from] = ['receive', 'send'].map((side) => [command, side, '--journal', `${folder}/${side}`]);
    const receiving = run(process.execPath, [...(to ?? []), address, '--qemu', third.qmpPath]);
    await expect.poll(() => existsSync(`${folder}/migration`), { timeout: 20_000 }).toBe(true);
    const guest = ['--qemu', second.qmpPath, address];
    const planned = await run(process.execPath, [
      ...(from ?? []),
      ...guest,
      '--plan',
      '--json',
      '--downtime',
      '9000',
    ]);
    expect(JSON.parse(planned.stdout)).toMatchObject({
      ...{ command: 'send', plan: true, memoryBytes, running: true },
      dirty: { kind: 'digest', sampledPages: 16_384 },
      forecast: { outcome: 'moves', converges: true },
    });
    const sending = run(process.execPath, [...(from ?? []), ...guest, '--json']);
    const sent = JSON.parse((await sending).stdout);
    expect(sent).toMatchObject({ command: 'send', memoryBytes, tracker: { kind: 'digest' } });
    expect((await receiving).stderr).toMatch(/received 512(\.0)? MiB from unix in .*, the guest runs\n$/);
    await checkGoesOn(third, hash, lastTickOf(second));
  });
});
