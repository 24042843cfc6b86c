/** Connections between two ends that mean well: every kind of address and security. */
import { randomBytes } from 'node:crypto';
import { lstatSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { afterAll, describe, expect, test } from 'vitest';
import {
  type Connection,
  connect,
  type ListenOptions,
  listen,
  type Purpose,
} from '../../src/transport/index.ts';
import { isSame, noise } from '../store/support/sample-stream.ts';
import { Authority, hasOpenssl } from './support/pki.ts';

const folder = mkdtempSync(`${tmpdir()}/chkpt-link-`);
afterAll(() => rmSync(folder, { recursive: true, force: true }));
const checkpoint: Purpose = { kind: 'checkpoint' };
const migration: Purpose = {
  ...{ kind: 'migration', migration: '123e4567-e89b-42d3-a456-426614174000' },
  ...{ guest: 'Gäste/🦆', stream: 2, streams: 3 },
};

async function pair(
  address: string,
  options: ListenOptions,
  purpose: Purpose = checkpoint,
): Promise<{ near: Connection; far: Connection; close(): Promise<void> }> {
  const listener = await listen(address, options);
  const [near, far] = await Promise.all([connect(listener.address, purpose, options), listener.accept()]);
  const close = async (): Promise<void> => {
    near.destroy();
    far.destroy();
    await listener.close();
  };
  return { near, far, close };
}

async function readAll(connection: Connection, step = 1 << 20): Promise<Buffer> {
  const pieces: Buffer[] = [];
  for (;;) {
    const target = Buffer.alloc(step);
    const byteCount = await connection.read(target);
    if (byteCount === 0) return Buffer.concat(pieces);
    pieces.push(target.subarray(0, byteCount));
  }
}

const authority = hasOpenssl ? new Authority('chkpt test CA') : undefined;
const host = authority?.issue('host', { subject: '/O=example/CN=host' });
const tls = {
  key: host?.key ?? '',
  cert: host?.cert ?? '',
  ca: authority?.cert ?? '',
  authorise: () => true,
};
const psk = (): { key: Buffer } => ({ key: randomBytes(32) });

const kinds: [string, string, () => ListenOptions, string][] = [
  ['tcp', 'tcp://127.0.0.1:0', () => ({}), 'local'],
  ['tcp by name', 'tcp://localhost:0', () => ({}), 'local'],
  ['tcp with a one-time key', 'tcp://127.0.0.1:0', () => ({ psk: psk() }), 'psk'],
  ['unix', `unix:${folder}/plain.sock`, () => ({}), 'local'],
  ['unix with a one-time key', `unix:${folder}/psk.sock`, () => ({ psk: psk() }), 'psk'],
  ['tls with a one-time key', 'tls://127.0.0.1:0', () => ({ psk: psk() }), 'psk'],
  ...(hasOpenssl
    ? ([
        ['tls', 'tls://127.0.0.1:0', () => ({ tls }), 'tls'],
        ['tls by name', 'tls://localhost:0', () => ({ tls }), 'tls'],
        ['tls and a one-time key', 'tls://127.0.0.1:0', () => ({ tls, psk: psk() }), 'tls'],
      ] as [string, string, () => ListenOptions, string][])
    : []),
];

describe.each(kinds)('%s', (_name, address, options, security) => {
  test('both ends know each other and the purpose', async () => {
    const { near, far, close } = await pair(address, options(), migration);
    expect(near.peer.security).toBe(security);
    expect(far.peer.security).toBe(security);
    expect(far.purpose).toEqual(migration);
    if (security === 'tls') {
      for (const { peer } of [near, far]) {
        expect(peer.identity?.subject).toBe('CN=host,O=example');
        expect(peer.identity?.fingerprint256).toMatch(/^([0-9A-F]{2}:){31}[0-9A-F]{2}$/);
      }
    } else expect(far.peer.identity).toBeUndefined();
    await close();
  });

  test('bytes go both ways at once, whatever the sizes, and each direction ends on its own', async () => {
    const { near, far, close } = await pair(address, options());
    const there = noise('there', 3_000_003);
    const back = noise('back', 150_001);
    const send = async (connection: Connection, bytes: Uint8Array, step: number): Promise<void> => {
      await connection.write(bytes.subarray(0, step));
      const pieces: Uint8Array[] = [];
      for (let at = step; at < bytes.length; at += step) pieces.push(bytes.subarray(at, at + step));
      await connection.writeAll([new Uint8Array(0), ...pieces]);
      await connection.end();
    };
    const [, , found, answer] = await Promise.all([
      send(near, there, 700_001),
      send(far, back, 997),
      readAll(far),
      readAll(near, 333),
    ]);
    expect(isSame(found, there)).toBe(true);
    expect(isSame(answer, back)).toBe(true);
    expect([near.bytesWritten, far.bytesRead, near.bytesRead]).toEqual([
      there.length,
      there.length,
      back.length,
    ]);
    await close();
  });

  test('what is given up rejects at the other end, and its own calls with the reason', async () => {
    const { near, far, close } = await pair(address, options());
    const reading = near.read(Buffer.alloc(10));
    near.destroy(new Error('enough'));
    await expect(reading).rejects.toThrow('enough');
    await expect(near.write(Buffer.alloc(10))).rejects.toThrow('enough');
    await near.closed;
    const writeOn = async (): Promise<void> => {
      for (let count = 0; count < 100; count += 1) await far.write(Buffer.alloc(1 << 20));
    };
    await expect(writeOn()).rejects.toMatchObject({ code: 'CHKPT_LINK_LOST' });
    await close();
  });

  test('an end that says nothing is given up after idleMs', async () => {
    const { near, far, close } = await pair(address, { ...options(), idleMs: 60 });
    await expect(near.read(Buffer.alloc(1))).rejects.toMatchObject({ code: 'CHKPT_TIMEOUT' });
    far.idleMs = 0;
    await close();
  });
});

test('a connection that leaves the machine needs TLS, a key, or to be called insecure, before anything is opened', async () => {
  for (const address of ['tcp://0.0.0.0:0', 'tcp://192.0.2.1:7000', 'tls://127.0.0.1:7000']) {
    await expect(listen(address)).rejects.toMatchObject({ code: 'CHKPT_INSECURE' });
    await expect(connect(address.replace(/:0$/, ':1'), checkpoint)).rejects.toMatchObject({
      code: 'CHKPT_INSECURE',
    });
  }
  const listener = await listen('tcp://0.0.0.0:0', { insecure: true });
  const port = listener.address.replace(/.*:/, '');
  const [near, far] = await Promise.all([connect(`tcp://127.0.0.1:${port}`, checkpoint), listener.accept()]);
  expect([near.peer.security, far.peer.security]).toEqual(['local', 'insecure']);
  near.destroy();
  far.destroy();
  await listener.close();
});

test('options that cannot be are TypeErrors and RangeErrors', async () => {
  const bad: [string, object][] = [
    ['tcp://127.0.0.1', {}],
    ['http://127.0.0.1:1', {}],
    ['tcp://127.0.0.1:70000', {}],
    ['tcp://[127.0.0.1]:1', {}],
    [`unix:${'x'.repeat(108)}`, {}],
    ['unix:', {}],
    ['tcp://127.0.0.1:0', { tls }],
    ['tls://127.0.0.1:0', { tls: { ...tls, authorise: undefined } }],
    ['tls://127.0.0.1:0', { tls: { ...tls, ca: undefined } }],
    ['unix:x', { psk: { key: Buffer.alloc(31) } }],
    ['unix:x', { psk: { key: Buffer.alloc(32) } }],
    ['unix:x', { psk: { key: randomBytes(32), uses: 0 } }],
    ['unix:x', { psk: { key: randomBytes(32), lifeMs: 0 } }],
    ['unix:x', { accepts: 0 }],
  ];
  for (const [address, options] of bad) {
    const error = await listen(address, options).catch((reason: unknown) => reason);
    expect(
      [TypeError, RangeError].some((type) => error instanceof type),
      `${address} ${String(error)}`,
    ).toBe(true);
  }
  for (const purpose of [
    {},
    { kind: 'x' },
    { ...migration, stream: 3 },
    { ...migration, guest: '' },
    { ...migration, guest: 'a\nb' },
    { ...migration, migration: 'x' },
    { ...migration, streams: 65 },
  ]) {
    await expect(connect('tcp://127.0.0.1:1', purpose as Purpose)).rejects.toThrow(/purpose/);
  }
});

test('who cannot connect is told why', async () => {
  const lost = { code: 'CHKPT_LINK_LOST' };
  await expect(connect('tcp://127.0.0.1:1', checkpoint)).rejects.toMatchObject(lost);
  await expect(connect(`unix:${folder}/nobody.sock`, checkpoint)).rejects.toMatchObject(lost);
  await expect(connect('tcp://nobody.invalid:1', checkpoint)).rejects.toMatchObject(lost);
  const silent = createServer(() => undefined);
  await new Promise<void>((resolve) => silent.listen(`${folder}/silent.sock`, resolve));
  const late = connect(`unix:${folder}/silent.sock`, checkpoint, { handshakeMs: 80 });
  await expect(late).rejects.toMatchObject({ code: 'CHKPT_TIMEOUT' });
  const controller = new AbortController();
  const cancelled = connect(`unix:${folder}/silent.sock`, checkpoint, { signal: controller.signal });
  setTimeout(() => controller.abort(), 20);
  await expect(cancelled).rejects.toMatchObject({ code: 'CHKPT_ABORTED' });
  silent.close();
});

test('the socket of a UNIX listener is for its owner; what is left is replaced, what is alive or no socket is not', async () => {
  const path = `${folder}/own.sock`;
  const first = await listen(`unix:${path}`);
  expect(lstatSync(path).mode & 0o777).toBe(0o600);
  await expect(listen(`unix:${path}`)).rejects.toMatchObject({ code: 'CHKPT_IO' });
  await first.close();
  expect(lstatSync(path, { throwIfNoEntry: false })).toBeUndefined();

  writeFileSync(path, 'precious');
  await expect(listen(`unix:${path}`)).rejects.toMatchObject({ code: 'CHKPT_IO' });
  rmSync(path);
  symlinkSync(`${folder}/elsewhere`, path);
  await expect(listen(`unix:${path}`)).rejects.toMatchObject({ code: 'CHKPT_IO' });
  rmSync(path);
  const script = `import socket; s = socket.socket(socket.AF_UNIX); s.bind(${JSON.stringify(path)})`;
  const { spawnSync } = await import('node:child_process');
  spawnSync('python3', ['-c', script]);
  expect(lstatSync(path).isSocket()).toBe(true);
  const again = await listen(`unix:${path}`);
  await again.close();
});

test('a listener that is closed or cancelled rejects those who wait, and hands out nothing more', async () => {
  const listener = await listen('tcp://127.0.0.1:0');
  const waiting = listener.accept();
  await listener.close();
  await listener.close();
  await expect(waiting).rejects.toMatchObject({ code: 'CHKPT_CLOSED' });
  await expect(listener.accept()).rejects.toMatchObject({ code: 'CHKPT_CLOSED' });
  await expect(connect(listener.address, checkpoint)).rejects.toMatchObject({ code: 'CHKPT_LINK_LOST' });
  const controller = new AbortController();
  const other = await listen('tcp://127.0.0.1:0', { signal: controller.signal });
  const cancelled = other.accept();
  controller.abort();
  await expect(cancelled).rejects.toMatchObject({ code: 'CHKPT_ABORTED' });
});
