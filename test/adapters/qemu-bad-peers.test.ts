/** QMP sockets with something else behind them, and QEMUs that chkpt cannot work with. */
import { spawn } from 'node:child_process';
import { createServer, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import fc from 'fast-check';
import { afterEach, describe, expect, test } from 'vitest';
import { linuxArguments, qemuCommand, whyNoQemuLinux } from '../../bench/guests/qemu.ts';
import { QemuVm, QmpClient } from '../../src/adapters/qemu/index.ts';
import { LineReader, lineBytesMax } from '../../src/adapters/qemu/line-reader.ts';
import { saveVm } from '../../src/index.ts';
import { makeFolder } from '../store/support/folders.ts';

const missing = whyNoQemuLinux();
const greeting =
  '{"QMP": {"version": {"qemu": {"micro": 0, "minor": 2, "major": 7}}, "capabilities": []}}\r\n';

const cleanUps: (() => void | Promise<void>)[] = [];
afterEach(async () => {
  for (const cleanUp of cleanUps.splice(0)) await cleanUp();
});

/** A server that does `serve` with each connection, and answers commands by `answers`. */
async function serve(
  first: string | Buffer,
  answers: Readonly<Record<string, string>> = {},
  onCommand: (socket: Socket, command: string) => void = () => {},
): Promise<string> {
  const path = `${makeFolder()}/qmp`;
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.on('error', () => {});
    socket.write(first);
    socket.on('data', (data) => {
      for (const line of data.toString().split('\n').filter(Boolean)) {
        const { execute, id } = JSON.parse(line) as { execute: string; id: number };
        const body = execute === 'qmp_capabilities' ? '"return": {}' : answers[execute];
        if (body !== undefined) socket.write(`{${body}, "id": ${id}}\n`);
        onCommand(socket, execute);
      }
    });
  });
  await new Promise<void>((resolve) => server.listen(path, () => resolve()));
  cleanUps.push(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  return path;
}

const timeoutMs = 200;

describe('QMP', () => {
  test('nobody listens', async () => {
    const path = `${makeFolder()}/qmp`;
    await expect(QmpClient.connect(path)).rejects.toMatchObject({
      code: 'CHKPT_NOT_FOUND',
      details: { path },
    });
  });

  test('a peer that never says anything', async () => {
    const path = await serve('');
    await expect(QmpClient.connect(path, { timeoutMs })).rejects.toMatchObject({ code: 'CHKPT_QMP_TIMEOUT' });
  });

  test.each([
    ['another protocol', 'SSH-2.0-OpenSSH_9.2\r\n'],
    ['JSON that is no object', '[1, 2]\n'],
    ['JSON of something else', '{"jsonrpc": "2.0"}\n'],
    ['a greeting without a version', '{"QMP": {}}\n'],
    ['a line without end', Buffer.alloc(lineBytesMax + 1, 0x20)],
  ])('a peer that speaks %s', async (_, first) => {
    const path = await serve(first);
    await expect(QmpClient.connect(path)).rejects.toMatchObject({ code: 'CHKPT_QMP_PROTOCOL' });
  });

  test('a peer that closes in mid-command, and every later command', async () => {
    const path = await serve(greeting, {}, (socket, command) => command === 'stop' && socket.destroy());
    await using client = await QmpClient.connect(path);
    const closed = { code: 'CHKPT_QMP_CLOSED' };
    await expect(client.execute('stop')).rejects.toMatchObject(closed);
    await expect(client.execute('cont')).rejects.toMatchObject(closed);
  });

  test('a command that is never answered; an answer too late is nobody’s', async () => {
    const late: (() => void)[] = [];
    const path = await serve(greeting, { 'query-name': '"return": {"name": "x"}' }, (socket, command) => {
      if (command === 'stop') late.push(() => socket.write('{"return": {}, "id": 2}\n'));
    });
    await using client = await QmpClient.connect(path);
    await expect(client.execute('stop', {}, { timeoutMs })).rejects.toMatchObject({
      code: 'CHKPT_QMP_TIMEOUT',
    });
    for (const answer of late) answer();
    expect(await client.execute('query-name')).toEqual({ name: 'x' });
  });

  test('a command that is refused, and events in between', async () => {
    const refusal = '"error": {"class": "GenericError", "desc": "no such thing"}';
    const path = await serve(`${greeting}{"event": "STOP", "timestamp": {}}\n`, { eject: refusal });
    await using client = await QmpClient.connect(path);
    const refused = { code: 'CHKPT_QMP_COMMAND', message: /no such thing/ };
    await expect(client.execute('eject')).rejects.toMatchObject(refused);
  });

  test('answers of the wrong shape are the peer’s fault', async () => {
    const path = await serve(greeting, { 'query-status': '"return": 7' });
    await expect(QemuVm.connect(path)).rejects.toMatchObject({ code: 'CHKPT_QMP_PROTOCOL' });
  });

  test('lines are the same however they are cut', () => {
    fc.assert(
      fc.property(fc.array(fc.string({ unit: 'grapheme' })), fc.array(fc.nat(200)), (texts, cuts) => {
        const bytes = Buffer.from(texts.map((text) => `${text.replaceAll('\n', '')}\n`).join(''));
        const places = [0, ...cuts.filter((cut) => cut < bytes.length), bytes.length].sort((a, b) => a - b);
        const reader = new LineReader();
        const lines = places.flatMap((place, i) => [
          ...reader.push(bytes.subarray(places[i - 1] ?? 0, place)),
        ]);
        const expected = texts.map((text) => text.replaceAll('\n', '').trim()).filter((text) => text !== '');
        expect(lines).toEqual(expected);
      }),
    );
  });
});

describe.skipIf(missing !== undefined)('a QEMU', () => {
  /** A QEMU whose guest does not even start. */
  async function startQemu(
    change: (parameters: string[]) => string[],
    folder = makeFolder(),
  ): Promise<string> {
    const parameters = linuxArguments({ folder, name: 'a', memoryBytes: 64 << 20 });
    const child = spawn(qemuCommand, [...change(parameters), '-S'], { stdio: 'ignore', cwd: folder });
    const ended = new Promise<void>((resolve) => child.once('close', () => resolve()));
    cleanUps.push(async () => {
      child.kill('SIGKILL');
      await ended;
    });
    for (let tries = 0; tries < 400; tries += 1) {
      const client = await QmpClient.connect(`${folder}/a.qmp`).catch(() => undefined);
      if (client !== undefined) {
        await client.close();
        break;
      }
      await sleep(10);
    }
    return `${folder}/a.qmp`;
  }

  test.each([
    ['has private RAM', /share=on is missing/, (one: string) => one.replace('share=on', 'share=off')],
    [
      'has no memory-backend',
      /memory-backend=ID is missing/,
      (one: string) => one.replace(',memory-backend=ram', ''),
    ],
    [
      'has a memory-backend without a file',
      /memory-backend-ram, not memory-backend-memfd/,
      (one: string) => one.replace('memory-backend-memfd', 'memory-backend-ram'),
    ],
  ])('that %s: the text says which argument is missing', async (_, message, change) => {
    const path = await startQemu((parameters) => parameters.map(change));
    await expect(QemuVm.connect(path)).rejects.toMatchObject({ code: 'CHKPT_QEMU_MEMORY', message });
  });

  test.each([
    ['relative to its folder', 'guest.ram'],
    ['a folder, in which it makes a file without a name', '.'],
  ])('whose mem-path is %s is mapped', async (_, memPath) => {
    const folder = makeFolder();
    const backend = `memory-backend-file,mem-path=${memPath}`;
    const path = await startQemu(
      (parameters) => parameters.map((one) => one.replace('memory-backend-memfd', backend)),
      folder,
    );
    await using vm = await QemuVm.connect(path);
    // The BIOS is there, and nobody has run it: QEMU itself says what lies in the last bytes of RAM.
    vm.memory.write(0x3f_f0000, Buffer.from('chkpt'));
    const seen = await vm.qmp.execute('human-monitor-command', { 'command-line': 'xp /5bx 0x3ff0000' });
    expect(seen).toMatch(/0x63 0x68 0x6b 0x70 0x74/);
  });

  test('that serves another client already', async () => {
    const path = await startQemu((parameters) => parameters);
    await using vm = await QemuVm.connect(path);
    await expect(QemuVm.connect(path, { timeoutMs })).rejects.toMatchObject({ code: 'CHKPT_QMP_TIMEOUT' });
    expect(await vm.qmp.execute('query-status')).toMatchObject({ status: 'prelaunch' });
  });

  test('that has given its state to somebody else and has not run since', async () => {
    const path = await startQemu((parameters) => parameters);
    {
      await using vm = await QemuVm.connect(path);
      await saveVm(vm, 'mem:first');
      await saveVm(vm, 'mem:second');
    }
    await using vm = await QemuVm.connect(path);
    const refused = { code: 'CHKPT_QEMU_STATE', message: /has not run since/ };
    await expect(saveVm(vm, 'mem:third')).rejects.toMatchObject(refused);
    await vm.resume();
    await saveVm(vm, 'mem:third');
    expect(vm.running).toBe(true);
  });

  test('whose process is not told rightly', async () => {
    const path = await startQemu((parameters) => parameters);
    const wrong = QemuVm.connect(path, { processId: process.pid });
    await expect(wrong).rejects.toMatchObject({ code: 'CHKPT_QEMU_MEMORY' });
    await expect(QemuVm.connect(path, { processId: 2 ** 30 })).rejects.toMatchObject({
      code: 'CHKPT_NOT_FOUND',
    });
  });

  test('that ends while its guest is saved: a typed error, nothing published', async () => {
    const path = await startQemu((parameters) => parameters);
    const vm = await QemuVm.connect(path);
    const save = saveVm(vm, 'mem:ended', {
      onProgress: ({ phase }) => {
        if (phase === 'state') process.kill(vm.qmp.processId ?? 0, 'SIGKILL');
      },
    });
    await expect(save).rejects.toMatchObject({ kind: 'io' });
    expect(vm.running).toBe(false);
    await expect(vm.resume()).rejects.toMatchObject({ code: 'CHKPT_QMP_CLOSED' });
    await vm.close();
  });
});
