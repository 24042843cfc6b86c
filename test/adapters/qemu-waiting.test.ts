/** QEMUs of somebody else, started as the help of the command line says, that wait for a state: `-incoming defer`. */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { afterEach, describe, expect, test } from 'vitest';
import { assembleGuest } from '../../bench/guests/assembled.ts';
import { qemuCommand, whyNoQemu } from '../../bench/guests/qemu.ts';
import { QemuVm, QmpClient } from '../../src/adapters/qemu/index.ts';
import { loadVm, MemoryStoreSpace, saveVm } from '../../src/index.ts';
import { buildCommandLine } from '../cli/support/dist.ts';
import type { TestMachine } from '../conformance/virtual-machine-bench.ts';
import { describeDamagedLoads } from '../conformance/virtual-machine-damage.suite.ts';
import { makeFolder } from '../store/support/folders.ts';
import { counterOf, registersOf, untilSteps } from './support/stamp-guest.ts';

const missing = whyNoQemu();
if (missing !== undefined) console.warn(`QEMUs that wait are not tested: ${missing}`);
const guest = missing === undefined ? assembleGuest('stamp-pages', 'elf') : '';

const stampedPages = 2048;
const ended: Promise<unknown>[] = [];
const children: ChildProcess[] = [];
const opened: TestMachine[] = [];
const space = new MemoryStoreSpace();
let count = 0;
afterEach(async () => {
  for (const machine of opened.splice(0)) await machine.close();
  for (const child of children.splice(0)) child.kill('SIGKILL');
  await Promise.all(ended.splice(0));
  for (const name of space.names()) space.delete(name);
});

/** The arguments that `chkpt COMMAND --help` asks for, with the blanks filled in. */
function argumentsOf(command: string, socket: string): string[] {
  const text = execFileSync(process.execPath, [buildCommandLine(), command, '--help'], { encoding: 'utf8' });
  const joined = text.replace(/\s+/g, ' ');
  const [, qmp = ''] = /SOCKET is that of (-qmp \S+)\./.exec(joined) ?? [];
  const [, memory = ''] = /RAM must be shared: (.*?) \(or/.exec(joined) ?? [];
  const blanks = { SOCKET: socket, SIZE: '32M', TYPE: 'pc-q35-7.2' };
  return `${qmp} ${memory}`
    .replace(/SOCKET|SIZE|TYPE/g, (name) => blanks[name as keyof typeof blanks])
    .split(' ');
}

async function start(command: string, waits: boolean): Promise<string> {
  const socket = `${makeFolder()}/qmp`;
  const child = spawn(
    qemuCommand,
    [
      ...['-nodefaults', '-display', 'none', '-vga', 'none', '-no-reboot', '-kernel', guest],
      ...['-accel', 'tcg', '-cpu', 'qemu64', '-S', ...argumentsOf(command, socket)],
      ...(waits ? ['-incoming', 'defer'] : []),
    ],
    { stdio: ['ignore', 'ignore', 'inherit'] },
  );
  children.push(child);
  ended.push(new Promise((resolve) => child.once('close', resolve)));
  return socket;
}

async function connectTo(socket: string): Promise<TestMachine> {
  const vm = await connectSoon(socket);
  const machine: TestMachine = {
    vm,
    digest: async () => {
      const hash = createHash('sha256').update(String(await vm.memory.digest()));
      return hash.update(await registersOf(vm)).digest('hex');
    },
    waitForWork: () => untilSteps(vm, Math.max(counterOf(vm), stampedPages) + 1),
    close: () => vm.close(),
  };
  opened.push(machine);
  return machine;
}

/** QEMU makes its socket a moment after it was started. */
async function connectSoon(socket: string): Promise<QemuVm> {
  for (let tries = 0; ; tries += 1) {
    try {
      return await QemuVm.connect(socket);
    } catch (error) {
      if (tries === 200) throw error;
      await new Promise((resolve) => setTimeout(resolve, 25));
    }
  }
}

describe.skipIf(missing !== undefined)('a QEMU that waits', () => {
  describeDamagedLoads({
    machine: async () => await connectTo(await start('save', false)),
    target: async () => await connectTo(await start('load', true)),
    store: () => space.store(`waiting-${count++}`),
  });

  test('waits on after a load that failed, for another owner too', async () => {
    const source = await connectTo(await start('save', false));
    await source.vm.resume();
    await source.waitForWork();
    const store = space.store('sound');
    await saveVm(source.vm, store);
    const socket = await start('load', true);
    const first = await connectTo(socket);
    const stop = new AbortController();
    const failing = loadVm(first.vm, store, {
      signal: stop.signal,
      onProgress: ({ phase }) => phase === 'memory' && stop.abort(),
    });
    await expect(failing).rejects.toMatchObject({ code: 'CHKPT_ABORTED' });
    await first.close();
    const qmp = await QmpClient.connect(socket);
    expect(await qmp.execute('query-status')).toMatchObject({ status: 'inmigrate', running: false });
    await qmp.close();
    const second = await connectTo(socket);
    await loadVm(second.vm, store);
    await second.vm.resume();
    await second.waitForWork();
  });
});
