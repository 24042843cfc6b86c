/**
 * Listeners and connecting ends under attack: everything is refused, nothing is used up, and whoever is in earnest gets in.
 *
 * Quick counts here; CHKPT_HOSTILE=full has 10,000 handshakes and 500 sockets.
 */
import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { connect as connectSocket, createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { afterAll, expect, test } from 'vitest';
import { encodeMessage } from '../../src/transport/handshake-message.ts';
import {
  type Connection,
  connect,
  type Listener,
  type ListenOptions,
  listen,
  type Purpose,
} from '../../src/transport/index.ts';
import { encodePurpose } from '../../src/transport/purpose.ts';

const isFull = process.env['CHKPT_HOSTILE'] === 'full';
const MiB = 1024 * 1024;
const folder = mkdtempSync(`${tmpdir()}/chkpt-hostile-`);
afterAll(() => rmSync(folder, { recursive: true, force: true }));
const checkpoint: Purpose = { kind: 'checkpoint' };
const migration: Purpose = {
  ...{ kind: 'migration', migration: '123e4567-e89b-42d3-a456-426614174000' },
  ...{ guest: 'guest', stream: 0, streams: 1 },
};
let sockets = 0;
function freshPath(): string {
  sockets += 1;
  return `${folder}/${sockets}`;
}

function helloOf(purpose = checkpoint, flags = 1): Buffer {
  return encodeMessage('hello', randomBytes(32), Buffer.from([flags, 0, 0, 0]), encodePurpose(purpose));
}

/** Sends bytes to a listener and waits until it hangs up; what it said. */
function attack(path: string, bytes: Uint8Array, then: 'end' | 'wait' = 'end'): Promise<Buffer> {
  return new Promise((resolve) => {
    const said: Buffer[] = [];
    const socket = connectSocket({ path, allowHalfOpen: true });
    socket.on('data', (piece) => said.push(piece));
    socket.on('error', () => undefined);
    socket.on('end', () => socket.end());
    socket.on('close', () => resolve(Buffer.concat(said)));
    socket.write(bytes, () => {
      if (then === 'end') socket.end();
    });
  });
}

/** A good client gets in within a second. */
async function expectServed(listener: Listener, options: ListenOptions, purpose = checkpoint): Promise<void> {
  const near = connect(listener.address, purpose, { ...options, handshakeMs: isFull ? 1000 : 5000 });
  const [good, far] = await Promise.all([near, listener.accept()]);
  expect(far.purpose).toEqual(purpose);
  good.destroy();
  far.destroy();
}

test('malformed handshakes are all refused, take next to no memory, and a good client is served', async () => {
  const key = randomBytes(32);
  const path = freshPath();
  const refused: string[] = [];
  const listener = await listen(`unix:${path}`, {
    ...{ psk: { key }, handshakeMs: 400 },
    onRefusal: ({ code }) => refused.push(code),
  });
  let taken = 0;
  void (async () => {
    for (;;) {
      await listener.accept();
      taken += 1;
    }
  })().catch(() => undefined);
  const mutate = (round: number): Buffer => {
    const good = Buffer.concat([
      helloOf(round % 2 ? checkpoint : migration),
      encodeMessage('proof', randomBytes(32)),
    ]);
    const at = Math.floor(Math.random() * good.length);
    switch (round % 8) {
      case 0:
        return randomBytes(1 + Math.floor(Math.random() * 300));
      case 1:
        return good.subarray(0, at);
      case 2:
        good[at] = (good[at] ?? 0) ^ (1 << (round % 7));
        return good;
      case 3:
        good.writeUInt32LE(Math.floor(Math.random() * 2 ** 32), 12);
        return good;
      case 4:
        return Buffer.concat([good.subarray(0, at), randomBytes(20), good.subarray(at)]);
      case 5:
        return Buffer.concat([good, randomBytes(30_000)]);
      case 6:
        return Buffer.concat([good.subarray(0, 100), good, good]);
      default:
        return Buffer.from('GET / HTTP/1.1\r\nHost: localhost\r\n\r\n');
    }
  };
  const count = isFull ? 10_000 : 320;
  const before = process.memoryUsage().rss;
  for (let done = 0; done < count; done += 8) {
    await Promise.all(Array.from({ length: 8 }, (_, index) => attack(path, mutate(done + index))));
  }
  expect(process.memoryUsage().rss - before).toBeLessThan(isFull ? 200 * MiB : 64 * MiB);
  expect(taken).toBe(0);
  expect(refused.length).toBe(count);
  expect(new Set(refused)).not.toContain('CHKPT_INTERNAL');
  const good = await connect(listener.address, checkpoint, {
    psk: { key },
    handshakeMs: isFull ? 1000 : 5000,
  });
  good.destroy();
  await listener.close();
}, 120_000);

test('sockets that only sit there are dropped by the deadline, and keep nobody out', async () => {
  const path = freshPath();
  const late: string[] = [];
  const options = { handshakeMs: isFull ? 700 : 1500 };
  const onRefusal = ({ code }: { code: string }): void => void late.push(code);
  const unix = await listen(`unix:${path}`, { ...options, onRefusal });
  const tcp = await listen('tcp://127.0.0.1:0', { ...options, onRefusal });
  const port = Number(tcp.address.replace(/.*:/, ''));
  const crowd: Socket[] = [];
  const half = isFull ? 250 : 80;
  const before = process.memoryUsage().rss;
  for (let index = 0; index < half; index += 1) {
    // From many addresses, as far as one machine has them.
    const localAddress = `127.0.${1 + (index >> 5)}.${1 + (index & 31)}`;
    for (const socket of [connectSocket(path), connectSocket({ port, host: '127.0.0.1', localAddress })]) {
      socket.on('error', () => undefined);
      // Or it would not notice that it was hung up on.
      socket.resume();
      socket.write(helloOf().subarray(0, 1 + (index % 80)));
      crowd.push(socket);
    }
  }
  await new Promise((resolve) => setTimeout(resolve, 100));
  await expectServed(unix, {});
  await expectServed(tcp, {}, migration);
  expect(process.memoryUsage().rss - before).toBeLessThan(2 * half * MiB);
  await Promise.all(
    crowd.map((socket) =>
      socket.closed ? undefined : new Promise((resolve) => socket.once('close', resolve)),
    ),
  );
  expect(late.length).toBe(crowd.length);
  await expectServed(unix, {});
  await Promise.all([unix.close(), tcp.close()]);
}, 60_000);

test('every field of a hello is checked: what cannot be is refused with a reason', async () => {
  const path = freshPath();
  const listener = await listen(`unix:${path}`, { handshakeMs: 500 });
  const lengths = [0, 1, 35, 36, 1023, 1024, 1025, 2 ** 31, 2 ** 32 - 1];
  const bombs: [string, Buffer][] = lengths.map((length) => {
    const hello = helloOf(checkpoint, 0);
    hello.writeUInt32LE(length, 12);
    return [`length ${length}`, hello];
  });
  const at = 16 + 32 + 4;
  const patched = (where: number, value: number, bytes: 2 | 4 = 2): Buffer => {
    const hello = helloOf(migration, 0);
    hello.writeUIntLE(value, where, bytes);
    return hello;
  };
  for (const [name, where] of [
    ['magic', 0],
    ['version', 8],
    ['type', 10],
  ] as const)
    bombs.push([name, patched(where, 0xffff)]);
  bombs.push(['flags', patched(16 + 32, 2 ** 31, 4)], ['a key that is not wanted', patched(16 + 32, 1, 4)]);
  for (const kind of [0, 1, 4, 0xffff]) bombs.push([`kind ${kind}`, patched(at, kind)]);
  for (const stream of [1, 64, 0xffff]) bombs.push([`stream ${stream}`, patched(at + 2, stream)]);
  for (const streams of [0, 65, 0xffff]) bombs.push([`streams ${streams}`, patched(at + 4, streams)]);
  for (const guest of [0, 4, 6, 255, 256, 0xffff]) bombs.push([`guest ${guest}`, patched(at + 6, guest)]);
  bombs.push(
    ['guest not UTF-8', patched(at + 24, 0xffff)],
    ['guest with a control character', patched(at + 24, 0x0a0a)],
  );
  for (const [name, bytes] of bombs) {
    const said = await attack(path, Buffer.concat([bytes, encodeMessage('proof')]));
    // A refusal, and nothing else.
    expect([said.readUInt16LE(10), said.readUInt32LE(12)], name).toEqual([5, said.length - 16]);
  }
  await expectServed(listener, {}, migration);
  await listener.close();
}, 30_000);

test('a listener that is none, or lies about lengths, is an error of the connecting end', async () => {
  const refusal = (code: number, text: string): Buffer => {
    const payload = Buffer.alloc(2 + text.length);
    payload.writeUInt16LE(code, 0);
    payload.write(text, 2);
    return encodeMessage('refusal', payload);
  };
  const challenge = encodeMessage('challenge', randomBytes(32), Buffer.alloc(4));
  const long = Buffer.from(challenge);
  long.writeUInt32LE(2 ** 32 - 1, 12);
  const cases: [Buffer, string][] = [
    [Buffer.from('HTTP/1.1 400 Bad Request\r\n\r\n'), 'CHKPT_PEER_PROTOCOL'],
    [randomBytes(64), 'CHKPT_PEER_PROTOCOL'],
    [long, 'CHKPT_PEER_PROTOCOL'],
    [challenge.subarray(0, 30), 'CHKPT_LINK_LOST'],
    [encodeMessage('welcome'), 'CHKPT_PEER_PROTOCOL'],
    [encodeMessage('challenge', randomBytes(32), Buffer.from([2, 0, 0, 0])), 'CHKPT_PEER_PROTOCOL'],
    [encodeMessage('challenge', randomBytes(33), Buffer.alloc(4)), 'CHKPT_PEER_PROTOCOL'],
    [
      encodeMessage('challenge', randomBytes(32), Buffer.from([1, 0, 0, 0]), randomBytes(32)),
      'CHKPT_UNAUTHENTICATED',
    ],
    [Buffer.concat([challenge, encodeMessage('welcome', randomBytes(1))]), 'CHKPT_PEER_PROTOCOL'],
    [Buffer.concat([challenge, challenge]), 'CHKPT_PEER_PROTOCOL'],
    [refusal(5, 'CHKPT'), 'CHKPT_PEER_REFUSED'],
    [refusal(0xffff, 'x'), 'CHKPT_PEER_REFUSED'],
    [refusal(0, '\u001b]0;title\u0007'), 'CHKPT_PEER_REFUSED'],
    [Buffer.alloc(0), 'CHKPT_LINK_LOST'],
  ];
  for (const [bytes, code] of cases) {
    const path = freshPath();
    const server = createServer((socket) => {
      socket.on('error', () => undefined);
      socket.once('data', () => socket.end(bytes));
    });
    await new Promise<void>((resolve) => server.listen(path, resolve));
    const error = await connect(`unix:${path}`, checkpoint).catch(
      (reason: unknown) => reason as Error & { code: string },
    );
    expect((error as { code?: string }).code, bytes.toString('latin1')).toBe(code);
    expect((error as Error).message).not.toContain('\u001b');
    server.close();
  }
});

test('a one-time key is good for one connection, whoever comes first of many at once', async () => {
  for (const address of [`unix:${freshPath()}`, 'tcp://127.0.0.1:0']) {
    const psk = { key: randomBytes(32) };
    const listener = await listen(address, { psk });
    const winner = listener.accept();
    const tries: PromiseSettledResult<Connection>[] = [];
    for (let round = 0; round < (isFull ? 125 : 2); round += 1) {
      const crowd = Array.from({ length: 8 }, () => connect(listener.address, checkpoint, { psk }));
      tries.push(...(await Promise.allSettled(crowd)));
    }
    expect(tries.filter(({ status }) => status === 'fulfilled')).toHaveLength(1);
    for (const result of tries) {
      if (result.status === 'fulfilled') result.value.destroy();
      else expect(result.reason.code).toMatch(/^CHKPT_(UNAUTHENTICATED|LINK_LOST)$/);
    }
    (await winner).destroy();
    await expect(connect(listener.address, checkpoint, { psk })).rejects.toThrow(
      'the one-time key has been used',
    );
    await listener.close();
  }
}, 60_000);

test('a key for several streams takes each of them once; a key that is old takes none', async () => {
  const psk = { key: randomBytes(32), uses: 3 };
  const listener = await listen(`unix:${freshPath()}`, { psk });
  const stream = (index: number): Purpose =>
    ({ ...(migration as object), stream: index, streams: 3 }) as Purpose;
  for (const index of [0, 2]) (await connect(listener.address, stream(index), { psk })).destroy();
  const used = { code: 'CHKPT_UNAUTHENTICATED' };
  await expect(connect(listener.address, stream(2), { psk })).rejects.toMatchObject(used);
  (await connect(listener.address, stream(1), { psk })).destroy();
  await expect(connect(listener.address, checkpoint, { psk })).rejects.toMatchObject(used);
  await listener.close();

  const old = await listen(`unix:${freshPath()}`, { psk: { key: psk.key, lifeMs: 30 } });
  await new Promise((resolve) => setTimeout(resolve, 50));
  await expect(connect(old.address, checkpoint, { psk })).rejects.toThrow('expired');
  await old.close();
});

test('a proof that was overheard is worth nothing a second time, nor for another purpose', async () => {
  const psk = { key: randomBytes(32), uses: 5 };
  const path = freshPath();
  const listener = await listen(`unix:${path}`, { psk, handshakeMs: 500 });
  const tap = freshPath();
  const sent: Buffer[] = [];
  const proxy = createServer((near) => {
    const far = connectSocket(path);
    for (const socket of [near, far]) socket.on('error', () => undefined);
    near.on('data', (bytes) => sent.push(bytes) && far.write(bytes));
    far.on('data', (bytes) => near.write(bytes));
  });
  await new Promise<void>((resolve) => proxy.listen(tap, resolve));
  (await connect(`unix:${tap}`, checkpoint, { psk })).destroy();
  const said = await attack(path, Buffer.concat(sent));
  expect(said.toString('latin1')).toContain('CHKPT_UNAUTHENTICATED');

  // In the middle: the purpose is another one, and everything else as it was said.
  const changing = createServer((near) => {
    const far = connectSocket(path);
    for (const socket of [near, far]) socket.on('error', () => undefined);
    near.once('data', (hello) => {
      const other = Buffer.concat([hello.subarray(0, 16 + 36), encodePurpose(migration)]);
      other.writeUInt32LE(other.length - 16, 12);
      far.write(other);
      near.on('data', (bytes) => far.write(bytes));
    });
    far.on('data', (bytes) => near.write(bytes));
  });
  const middle = freshPath();
  await new Promise<void>((resolve) => changing.listen(middle, resolve));
  await expect(connect(`unix:${middle}`, checkpoint, { psk, handshakeMs: 500 })).rejects.toMatchObject({
    code: 'CHKPT_UNAUTHENTICATED',
  });
  for (const server of [proxy, changing]) server.close();
  (await connect(listener.address, migration, { psk })).destroy();
  await listener.close();
});
