/** Streams through pipes, sockets and files that are open already. */
import { execFileSync, spawn } from 'node:child_process';
import { closeSync, openSync, readFileSync, writeFileSync } from 'node:fs';
import { createServer, type Socket } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import { describe, expect, test } from 'vitest';
import { openCheckpoint, verifyCheckpoint } from '../../src/index.ts';
import { openStore } from '../../src/store/index.ts';
import { makeFolder } from './support/folders.ts';
import { isSame, load, noise, sampleStream, save } from './support/sample-stream.ts';

const sample = sampleStream('through a pipe', [
  ['start', 'start', 128],
  ['values', 'values', 4097],
  ['memory', 'memory', 3_000_001],
  ['end', 'end', 64],
]);

/** A FIFO. Opening it for one direction waits for who opens it for the other. */
function makePipe(): string {
  const path = `${makeFolder()}/pipe`;
  execFileSync('mkfifo', [path]);
  return path;
}

/** Runs a shell line beside this process; resolves at its end. */
function shell(line: string, ...args: string[]): Promise<void> {
  const child = spawn('sh', ['-c', line, 'sh', ...args], { stdio: ['ignore', 'inherit', 'inherit'] });
  return new Promise((resolve) => child.on('exit', () => resolve()));
}

async function readAll(url: string): Promise<Uint8Array> {
  return await load(openStore(url));
}

describe('fd:', () => {
  test('what is saved into a pipe comes out of it, whatever the sizes of writes and reads', async () => {
    const [pipe, copy] = [makePipe(), `${makeFolder()}/copy`];
    const read = shell('dd bs=777 status=none < "$1" > "$2"', pipe, copy);
    await save(openStore(`fd:${openSync(pipe, 'w')}`), sample);
    await read;
    expect(isSame(readFileSync(copy), sample.bytes)).toBe(true);
  });

  test('reads a pipe to its end, however slowly it comes', async () => {
    const [pipe, file] = [makePipe(), `${makeFolder()}/file`];
    writeFileSync(file, sample.bytes);
    const written = shell(
      '{ sleep 0.1; head -c 1000 "$2"; sleep 0.1; tail -c +1001 "$2"; } > "$1"',
      pipe,
      file,
    );
    expect(isSame(await readAll(`fd:${openSync(pipe, 'r')}`), sample.bytes)).toBe(true);
    await written;
  });

  test('reads and writes a file from where the descriptor stands', async () => {
    const path = `${makeFolder()}/file`;
    writeFileSync(path, 'before');
    const output = openSync(path, 'a+');
    await save(openStore(`fd:${output}`), sample);
    closeSync(output);
    expect(isSame(readFileSync(path).subarray(6), sample.bytes)).toBe(true);
    const input = openSync(path, 'r');
    execFileSync('dd', ['bs=6', 'count=1', 'status=none'], { stdio: [input, 'ignore', 'inherit'] });
    expect(isSame(await readAll(`fd:${input}`), sample.bytes)).toBe(true);
    closeSync(input);
  });

  test('a whole checkpoint goes through a pipe and verifies', async () => {
    const [first, second] = [makePipe(), makePipe()];
    const between = shell('cat < "$1" > "$2"', first, second);
    const output = openSync(first, 'w');
    const verified = verifyCheckpoint(`fd:${openSync(second, 'r')}`);
    const checkpoint = await openCheckpoint(`fd:${output}`, { mode: 'save' });
    const context = await checkpoint.openContext('pic');
    await context.save('fifo', noise('fifo', 5_000_000));
    await context.close();
    const { root } = await checkpoint.commit();
    expect((await verified).root).toBe(root);
    await between;
  });

  test('a save whose reader has gone rejects with CHKPT_IO', async () => {
    const pipe = makePipe();
    const read = shell('head -c 1000 < "$1" > /dev/null', pipe);
    const store = openStore(`fd:${openSync(pipe, 'w')}`);
    await expect(save(store, sample)).rejects.toMatchObject({ code: 'CHKPT_IO' });
    await read;
  });

  test.each(['a save that nobody reads', 'a load that nobody writes'])(
    '%s ends when it is cancelled',
    async (what) => {
      // Both ends are open, so nothing breaks.
      const pipe = makePipe();
      const other = openSync(pipe, 'r+');
      const store = openStore(`fd:${openSync(pipe, 'r+')}`);
      const controller = new AbortController();
      const work = what.startsWith('a save')
        ? (async () => {
            const writer = await store.openWriter({ uuid: sample.summary.uuid, signal: controller.signal });
            for (;;) await writer.write(sample.bytes);
          })()
        : (async () => {
            const reader = await store.openReader({ signal: controller.signal });
            await reader.read(new Uint8Array(100));
          })();
      const outcome = expect(work).rejects.toMatchObject({ code: 'CHKPT_ABORTED' });
      await delay(50);
      controller.abort();
      await outcome;
      closeSync(other);
    },
  );

  test('a socket that is reset in the middle rejects with CHKPT_IO, and was not the end', async () => {
    const server = createServer((socket: Socket) => {
      socket.write(sample.bytes.subarray(0, 100_000), () => setTimeout(() => socket.resetAndDestroy(), 50));
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const { port } = server.address() as { port: number };
    const child = spawn(
      'python3',
      [
        '-c',
        `import socket,subprocess,sys
s=socket.create_connection(('127.0.0.1',${port}))
subprocess.run([sys.argv[1], sys.argv[2], 'verify', 'fd:%d' % s.fileno()], pass_fds=[s.fileno()])`,
        process.execPath,
        new URL('../../dist/cli/main.js', import.meta.url).pathname,
      ],
      { stdio: ['ignore', 'ignore', 'pipe'] },
    );
    let told = '';
    child.stderr.on('data', (text) => {
      told += text;
    });
    await new Promise((resolve) => child.on('exit', resolve));
    server.close();
    expect(told).toMatch(/^chkpt: CHKPT_(IO|FORMAT|BAD_MAGIC)/);
  });

  test('is used once', async () => {
    const path = `${makeFolder()}/file`;
    const descriptor = openSync(path, 'w+');
    const store = openStore(`fd:${descriptor}`);
    await save(store, sample);
    await expect(store.openReader()).rejects.toMatchObject({ code: 'CHKPT_UNSUPPORTED' });
    closeSync(descriptor);
  });

  test.each(['fd:', 'fd:-1', 'fd:01', 'fd:1x', 'fd:4294967296'])('%s is CHKPT_STORE_URL', (url) => {
    expect(() => openStore(url)).toThrow(expect.objectContaining({ code: 'CHKPT_STORE_URL' }));
  });

  test('a descriptor that is not open, and a folder, are refused', async () => {
    await expect(openStore('fd:999999').openReader()).rejects.toMatchObject({ code: 'CHKPT_IO' });
    const folder = openSync(makeFolder(), 'r');
    await expect(openStore(`fd:${folder}`).openReader()).rejects.toMatchObject({ code: 'CHKPT_STORE_URL' });
    closeSync(folder);
  });
});
