/** Connections that measure the way: who is asked about them, and what they leave as it was. */
import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { afterAll, expect, test } from 'vitest';
import { CheckpointError } from '../../src/errors/index.ts';
import {
  connect,
  type ListenOptions,
  listen,
  type ProbePurpose,
  type Purpose,
  type TlsOptions,
} from '../../src/transport/index.ts';
import { Authority, hasOpenssl } from './support/pki.ts';

const folder = mkdtempSync(`${tmpdir()}/chkpt-probe-`);
afterAll(() => rmSync(folder, { recursive: true, force: true }));
const shape = { migration: '123e4567-e89b-42d3-a456-426614174000', guest: 'a guest', stream: 0, streams: 2 };
const probe: ProbePurpose = { kind: 'probe', ...shape };
const migration: Purpose = { kind: 'migration', ...shape };
const refused = { code: 'CHKPT_PEER_REFUSED' };

test('a listener that nobody told about probes refuses them, and takes who comes next', async () => {
  await using listener = await listen(`unix:${folder}/a`);
  await expect(connect(listener.address, probe)).rejects.toMatchObject({
    ...refused,
    message: expect.stringContaining('nothing is measured here'),
  });
  const [near, far] = await Promise.all([connect(listener.address, migration), listener.accept()]);
  expect(far.purpose).toEqual(migration);
  near.destroy();
});

test('a listener is asked about each probe, with what it says it is for, and its no is told', async () => {
  const asked: ProbePurpose[] = [];
  const answer: ListenOptions['probe'] = (purpose) => {
    asked.push(purpose);
    return purpose.stream === 0 ? undefined : 'one is enough';
  };
  await using listener = await listen(`unix:${folder}/b`, { probe: answer });
  const [near, far] = await Promise.all([connect(listener.address, probe), listener.accept()]);
  expect(far.purpose).toEqual(probe);
  const second: ProbePurpose = { ...probe, stream: 1 };
  await expect(connect(listener.address, second)).rejects.toMatchObject({
    ...refused,
    message: expect.stringContaining('one is enough'),
  });
  expect(asked).toEqual([probe, second]);
  near.destroy();
});

test('a probe needs the one-time key and leaves it for the migration; when that is spent it is refused', async () => {
  const psk = { key: randomBytes(32), uses: 1 };
  let asked = 0;
  const answer = (): undefined => {
    asked += 1;
  };
  await using listener = await listen('tcp://127.0.0.1:0', { psk, probe: answer });
  const stranger = connect(listener.address, probe, { psk: { key: randomBytes(32) } });
  await expect(stranger).rejects.toBeInstanceOf(CheckpointError);
  expect(asked).toBe(0);
  for (const purpose of [probe, probe, migration]) {
    const [near] = await Promise.all([connect(listener.address, purpose, { psk }), listener.accept()]);
    near.destroy();
  }
  expect(asked).toBe(2);
  await expect(connect(listener.address, probe, { psk })).rejects.toMatchObject({
    code: 'CHKPT_UNAUTHENTICATED',
  });
});

test.skipIf(!hasOpenssl)(
  'who may not bring the guest may not measure either, and nobody is asked about that',
  async () => {
    const authority = new Authority('CA');
    const asked: Purpose[] = [];
    const tls = { ...authority.issue('host'), ca: authority.cert };
    const authorise: TlsOptions['authorise'] = (_peer, purpose) => {
      asked.push(purpose);
      return purpose.kind === 'probe' && purpose.guest === 'a guest';
    };
    let probes = 0;
    await using listener = await listen('tls://127.0.0.1:0', {
      tls: { ...tls, authorise },
      probe: () => {
        probes += 1;
        return undefined;
      },
    });
    const other: ProbePurpose = { ...probe, guest: 'another guest' };
    await expect(connect(listener.address, other, { tls })).rejects.toMatchObject(refused);
    expect([probes, asked]).toEqual([0, [other]]);
    const [near] = await Promise.all([connect(listener.address, probe, { tls }), listener.accept()]);
    expect(probes).toBe(1);
    near.destroy();
  },
);
