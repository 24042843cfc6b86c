/**
 * Who is not let in over TLS, on either end. Each case is followed by its positive control: the same listener takes the next good client,
 * so that what was refused was refused for what is wrong with it.
 */
import { randomBytes } from 'node:crypto';
import { connect as connectSocket, createServer, type Server } from 'node:net';
import {
  type ConnectionOptions,
  connect as connectTls,
  createServer as createTlsServer,
  type TLSSocket,
} from 'node:tls';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import {
  connect,
  type LinkOptions,
  type Listener,
  type ListenOptions,
  listen,
  type Purpose,
  type TlsOptions,
} from '../../src/transport/index.ts';
import { Authority, type Certified, hasOpenssl } from './support/pki.ts';

const checkpoint: Purpose = { kind: 'checkpoint' };
const migrationOf = (guest: string): Purpose => ({
  ...{ kind: 'migration', migration: '123e4567-e89b-42d3-a456-426614174000', guest },
  ...{ stream: 0, streams: 1 },
});
const local = 'tls://127.0.0.1:0';
const no = /^CHKPT_(PEER_REFUSED|UNAUTHENTICATED|LINK_LOST|PEER_PROTOCOL)$/;

describe.skipIf(!hasOpenssl)('with certificates', () => {
  let authority: Authority;
  let foreign: Authority;
  let host: Certified;
  let guest: Certified;
  let taken: number;
  let listener: Listener;
  const opened: Listener[] = [];

  beforeAll(() => {
    authority = new Authority('chkpt test CA');
    foreign = new Authority('chkpt foreign CA');
    host = authority.issue('host');
    guest = authority.issue('guest');
  });
  afterAll(async () => {
    for (const one of opened) await one.close();
  });

  const tlsOf = (certified: Certified, extra: Partial<TlsOptions> = {}): TlsOptions => ({
    ...certified,
    ...{ ca: authority.cert, authorise: ({ subject }) => /^CN=(host|guest)$/.test(subject) },
    ...extra,
  });

  /** Listens and counts who gets in. */
  async function serve(options: ListenOptions, address = local): Promise<Listener> {
    listener = await listen(address, { handshakeMs: 2000, ...options });
    opened.push(listener);
    taken = 0;
    const { accept } = listener;
    void (async () => {
      for (;;) {
        (await accept.call(listener)).destroy();
        taken += 1;
      }
    })().catch(() => undefined);
    return listener;
  }

  async function expectRefused(
    options: LinkOptions,
    address = listener.address,
    purpose = checkpoint,
  ): Promise<void> {
    const error = await connect(address, purpose, { handshakeMs: 2000, ...options }).then(
      (connection) => {
        connection.destroy();
        return { code: 'it got in' };
      },
      (reason: unknown) => reason as { code: string },
    );
    expect(error.code).toMatch(no);
    expect(taken).toBe(0);
  }

  async function expectTaken(options: LinkOptions, purpose = checkpoint): Promise<void> {
    (await connect(listener.address, purpose, options)).destroy();
    await expect.poll(() => taken).toBe(1);
    await listener.close();
  }

  const badClients: [string, () => Partial<TlsOptions>][] = [
    ['of a foreign CA', () => foreign.issue('guest')],
    ['that is self-signed', () => ({ key: foreign.key, cert: foreign.cert })],
    ['that has expired', () => authority.issue('guest', { days: [-3, -1] })],
    ['of the future', () => authority.issue('guest', { days: [1, 2] })],
    ['for servers only', () => authority.issue('guest', { usage: 'serverAuth' })],
    ['for something else', () => authority.issue('guest', { usage: 'codeSigning' })],
    ['of a name that is not authorised', () => authority.issue('mallory')],
    ['of a name that looks like one', () => authority.issue('x', { subject: '/O=CN=guest/CN=mallory' })],
  ];
  test.each(badClients)('a client certificate %s is refused', async (_name, make) => {
    await serve({ tls: tlsOf(host) });
    await expectRefused({ tls: tlsOf(guest, make()) });
    await expectTaken({ tls: tlsOf(guest) });
  });

  const badHosts: [string, () => Partial<TlsOptions>, Partial<TlsOptions>?][] = [
    ['of a foreign CA', () => foreign.issue('host')],
    ['that is self-signed', () => ({ key: foreign.key, cert: foreign.cert })],
    ['that has expired', () => authority.issue('host', { days: [-3, -1] })],
    ['of the future', () => authority.issue('host', { days: [1, 2] })],
    ['for clients only', () => authority.issue('host', { usage: 'clientAuth' })],
    ['of another address', () => authority.issue('host', { names: 'IP:127.0.0.2' })],
    ['of a name, by address', () => authority.issue('host', { names: 'DNS:localhost' })],
    ['of another name than was asked for', () => ({}), { serverName: 'other.example' }],
    ['that who connects does not want', () => ({}), { authorise: () => false }],
    ['that who connects fails to judge', () => ({}), { authorise: () => Promise.reject(new Error('x')) }],
  ];
  test.each(badHosts)(
    'a listener with a certificate %s is refused by who connects',
    async (_name, make, extra = {}) => {
      await serve({ tls: tlsOf(host, make()) });
      await expectRefused({ tls: tlsOf(guest, extra) });
      await listener.close();
      await serve({ tls: tlsOf(host) });
      await expectTaken({ tls: tlsOf(guest) });
    },
  );

  const verdicts: [string, TlsOptions['authorise']][] = [
    ['says no', () => false],
    ['says no later', async () => false],
    [
      'throws',
      () => {
        throw new Error('no');
      },
    ],
    ['rejects', () => Promise.reject(new Error('no'))],
    ['says something that is not true', (() => 1) as unknown as TlsOptions['authorise']],
    ['says nothing', (() => undefined) as unknown as TlsOptions['authorise']],
  ];
  test.each(verdicts)('whom authorise %s is refused', async (_name, authorise) => {
    let isOver = false;
    await serve({
      tls: tlsOf(host, { authorise: (...asked) => (isOver ? true : (authorise?.(...asked) ?? false)) }),
    });
    await expectRefused({ tls: tlsOf(guest) });
    isOver = true;
    await expectTaken({ tls: tlsOf(guest) });
  });

  test('who may bring one guest may not bring another', async () => {
    const authorise: TlsOptions['authorise'] = (_peer, purpose) =>
      purpose.kind === 'migration' && purpose.guest === 'mine';
    await serve({ tls: tlsOf(host, { authorise }) });
    await expectRefused({ tls: tlsOf(guest) }, listener.address, migrationOf('yours'));
    await expectRefused({ tls: tlsOf(guest) });
    await expectTaken({ tls: tlsOf(guest) }, migrationOf('mine'));
  });

  const raw: [string, () => ConnectionOptions][] = [
    ['without a certificate', () => ({})],
    ['of TLS 1.2', () => ({ ...guest, minVersion: 'TLSv1.2', maxVersion: 'TLSv1.2' })],
    [
      'of TLS 1.1',
      () => ({ ...guest, minVersion: 'TLSv1.1', maxVersion: 'TLSv1.1', ciphers: 'DEFAULT@SECLEVEL=0' }),
    ],
    [
      'with suites nobody has',
      () => ({ ...guest, minVersion: 'TLSv1.2', maxVersion: 'TLSv1.2', ciphers: 'AES128-SHA' }),
    ],
  ];
  test.each(raw)('a TLS client %s gets no further than the handshake', async (_name, options) => {
    await serve({ tls: tlsOf(host) });
    expect(await rawTls(options())).not.toContain('data');
    expect(taken).toBe(0);
    await expectTaken({ tls: tlsOf(guest) });
  });

  test('a session of a client that is not trusted any more is no way in', async () => {
    let isTrusted = true;
    await serve({ tls: tlsOf(host, { authorise: () => isTrusted }) });
    let session: Buffer | undefined;
    const first = await new Promise<TLSSocket>((resolve) => {
      const socket = connectTls({ ...portOf(listener), ...guest, ca: authority.cert }, () => resolve(socket));
      socket.on('session', (found) => {
        session = found;
      });
    });
    await new Promise((resolve) => setTimeout(resolve, 50));
    first.destroy();
    isTrusted = false;
    const reused = await new Promise<boolean>((resolve, reject) => {
      const socket = connectTls(
        { ...portOf(listener), ...guest, ca: authority.cert, ...(session && { session }) },
        () => {
          resolve(socket.isSessionReused());
          socket.destroy();
        },
      );
      socket.on('error', reject);
    });
    expect(reused).toBe(false);
    await expectRefused({ tls: tlsOf(guest) });
    isTrusted = true;
    await expectTaken({ tls: tlsOf(guest) });
  });

  test('plain TCP at a TLS listener, and TLS at a plain one, are refused', async () => {
    await serve({ tls: tlsOf(host) });
    await expectRefused({}, listener.address.replace('tls:', 'tcp:'));
    await expectTaken({ tls: tlsOf(guest) });
    await serve({}, 'tcp://127.0.0.1:0');
    await expectRefused({ tls: tlsOf(guest) }, listener.address.replace('tcp:', 'tls:'));
    await expectTaken({});
  });

  test('a key where a certificate is wanted, and the other way round, are refused', async () => {
    const psk = { key: randomBytes(32) };
    await serve({ tls: tlsOf(host) });
    await expectRefused({ psk });
    await expectTaken({ tls: tlsOf(guest) });
    await serve({ psk });
    await expectRefused({ tls: tlsOf(guest) });
    await expectTaken({ psk });
  });

  test('a good certificate without the key, or with another one, is refused where both are wanted', async () => {
    const psk = { key: randomBytes(32) };
    await serve({ tls: tlsOf(host), psk });
    await expectRefused({ tls: tlsOf(guest) });
    await expectRefused({ tls: tlsOf(guest), psk: { key: randomBytes(32) } });
    await expectRefused({ psk });
    await expectTaken({ tls: tlsOf(guest), psk });
    await serve({ tls: tlsOf(host) });
    await expectRefused({ tls: tlsOf(guest), psk });
    await expectTaken({ tls: tlsOf(guest) });
  });

  test('a proof that somebody in the middle passes on is for another channel, whatever certificates they have', async () => {
    const psk = { key: randomBytes(32) };
    await serve({ tls: tlsOf(host), psk });
    // Trusted by both, and between them.
    const middle = createTlsServer({ ...host, ca: authority.cert, requestCert: true }, (near) => {
      const far = connectTls({ ...portOf(listener), ...guest, ca: authority.cert });
      for (const socket of [near, far]) socket.on('error', () => undefined);
      near.pipe(far);
      far.pipe(near);
    });
    await listenAt(middle);
    const { port } = middle.address() as { port: number };
    await expectRefused({ tls: tlsOf(guest), psk }, `tls://127.0.0.1:${port}`);
    middle.close();
    await expectTaken({ tls: tlsOf(guest), psk });
  });

  test('a flood before TLS has let it through is cut off', async () => {
    await serve({ tls: tlsOf(host) });
    const passed = await new Promise<number>((resolve) => {
      const socket = connectSocket(portOf(listener));
      socket.on('error', () => undefined);
      socket.on('close', () => resolve(socket.bytesWritten));
      // A record that says it is part of a hello that never ends.
      const record = Buffer.alloc(5 + 16_000);
      record.set([0x16, 3, 1, record.length >> 8, 16_000 & 0xff]);
      record.writeUInt16BE(16_000, 3);
      record.set([1, 0, 0xff, 0xff], 5);
      const flood = (): void => void socket.write(record, (error) => !error && setImmediate(flood));
      flood();
      socket.resume();
    });
    expect(passed).toBeLessThan(64 * 1024 * 1024);
    expect(taken).toBe(0);
    await expectTaken({ tls: tlsOf(guest) });
  });

  /** What a raw TLS client saw, one word for each thing. */
  function rawTls(options: ConnectionOptions): Promise<string[]> {
    return new Promise((resolve) => {
      const seen: string[] = [];
      const socket = connectTls({ ...portOf(listener), ca: authority.cert, ...options });
      socket.on('secureConnect', () => seen.push('secured') && socket.write(randomBytes(200)));
      socket.on('data', () => seen.push('data'));
      socket.on('error', () => seen.push('error'));
      socket.on('close', () => resolve(seen));
    });
  }
});

describe('with one-time keys', () => {
  async function refusal(options: LinkOptions, address: string): Promise<string> {
    return await connect(address, checkpoint, { handshakeMs: 2000, ...options }).then(
      () => 'it got in',
      (error: unknown) => (error as { code: string }).code,
    );
  }

  test.each([
    ['another key', 'tls://127.0.0.1:0', () => ({ psk: { key: randomBytes(32) } })],
    ['another key', `unix:/tmp/chkpt-psk-${process.pid}`, () => ({ psk: { key: randomBytes(32) } })],
    ['no key', `unix:/tmp/chkpt-psk-${process.pid}`, () => ({})],
    ['no key', 'tcp://127.0.0.1:0', () => ({})],
  ] as [string, string, () => LinkOptions][])(
    '%s at %s is refused, and does not use up the good one',
    async (_name, address, make) => {
      const psk = { key: randomBytes(32) };
      const listener = await listen(address, { psk });
      for (let count = 0; count < 3; count += 1) expect(await refusal(make(), listener.address)).toMatch(no);
      (await connect(listener.address, checkpoint, { psk })).destroy();
      await listener.close();
    },
  );

  test('a listener without the key is refused by who has one', async () => {
    for (const address of ['tcp://127.0.0.1:0', `unix:/tmp/chkpt-psk-${process.pid}`]) {
      const listener = await listen(address);
      expect(await refusal({ psk: { key: randomBytes(32) } }, listener.address)).toMatch(no);
      (await connect(listener.address, checkpoint)).destroy();
      await listener.close();
    }
  });

  test.skipIf(!hasOpenssl)('a listener with a certificate in place of the key is refused', async () => {
    const authority = new Authority('anybody');
    const server = createTlsServer({ ...authority.issue('host') }, (socket) =>
      socket.on('error', () => undefined),
    );
    await listenAt(server);
    const { port } = server.address() as { port: number };
    expect(await refusal({ psk: { key: randomBytes(32) } }, `tls://127.0.0.1:${port}`)).toMatch(no);
    server.close();
  });

  test('nothing of a key is sent in the clear', async () => {
    const psk = { key: randomBytes(32) };
    const listener = await listen('tcp://127.0.0.1:0', { psk });
    const wire: Buffer[] = [];
    const tap = createServer((near) => {
      const far = connectSocket(portOf(listener));
      for (const [from, to] of [
        [near, far],
        [far, near],
      ] as const) {
        from.on('error', () => undefined);
        from.on('data', (bytes) => wire.push(bytes) && to.write(bytes));
      }
    });
    await listenAt(tap);
    const { port } = tap.address() as { port: number };
    const near = await connect(`tcp://127.0.0.1:${port}`, migrationOf('secret guest'), { psk });
    await near.write(Buffer.from('secret bytes of a page'));
    await (await listener.accept()).read(Buffer.alloc(100));
    const all = Buffer.concat(wire);
    for (const secret of [psk.key, Buffer.from('secret guest'), Buffer.from('secret bytes')])
      expect(all.includes(secret)).toBe(false);
    near.destroy();
    tap.close();
    await listener.close();
  });
});

function portOf({ address }: Listener): { host: string; port: number } {
  return { host: '127.0.0.1', port: Number(address.replace(/.*:/, '')) };
}

async function listenAt(server: Server): Promise<void> {
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
}
