/** Claims in `s3:` whose answers are lost. The promises of all stores are in the conformance suite. */
import { expect, test } from 'vitest';
import '../support/s3/credentials.ts';
import { openStore, type StoreClaims } from '../../src/store/index.ts';
import { type Fault, S3TestServer } from '../support/s3/server.ts';
import { sampleStream, save } from './support/sample-stream.ts';

const stream = sampleStream('claimed');
const { uuid } = stream.summary;
const claimOf = (by: string) => ({ uuid, by, timeMs: 1_700_000_000_000 });

async function claimed(): Promise<{ server: S3TestServer; claims: StoreClaims }> {
  const server = await S3TestServer.start();
  const store = openStore(server.url('vm'));
  await save(store, stream);
  if (store.claims === undefined) throw new Error('no claims');
  return { server, claims: store.claims };
}

test.each<Fault>(['lose', 'done-but-500', 'drop'])(
  'a claim whose answer is lost (%s) is known as ours',
  async (fault) => {
    const { server, claims } = await claimed();
    let isFirst = true;
    server.fault = ({ method }) => {
      if (method !== 'PUT' || !isFirst) return undefined;
      isFirst = false;
      return fault;
    };
    expect(await claims.take(claimOf('me'))).toBeUndefined();
    expect(await claims.find(uuid)).toEqual(claimOf('me'));
    // The same words again are somebody else's: only one goes on.
    expect(await claims.take(claimOf('me'))).toEqual(claimOf('me'));
  },
);

test('a claim whose answer is lost and that is read back in pieces is known as ours', async () => {
  const { server, claims } = await claimed();
  let isFirst = true;
  let cuts = 2;
  server.fault = ({ method }) => {
    if (method === 'GET') return cuts-- > 0 ? { cutAfter: 30, framing: 'close' } : undefined;
    if (method !== 'PUT' || !isFirst) return undefined;
    isFirst = false;
    return 'lose';
  };
  expect(await claims.take(claimOf('me'))).toBeUndefined();
});

test('a claim that can never be written rejects, and is none', async () => {
  const { server, claims } = await claimed();
  server.fault = ({ method }) => (method === 'PUT' ? { refuse: 403, code: 'AccessDenied' } : undefined);
  await expect(claims.take(claimOf('me'))).rejects.toMatchObject({ code: 'CHKPT_PERMISSION' });
  expect(await claims.find(uuid)).toBeUndefined();
});

test.each(['', 'who?', '{"by":7}', `{"by":"${'x'.repeat(9000)}"}`])(
  'a claim with the text %s is one of somebody unknown',
  async (text) => {
    const { server, claims } = await claimed();
    server.state.put(`vm.objects/${uuid}.continued`, Buffer.from(text));
    expect(await claims.take(claimOf('me'))).toMatchObject({ by: 'somebody unknown' });
  },
);
