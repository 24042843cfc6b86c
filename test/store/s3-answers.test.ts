/** Answers of a service that end early, or whose status says something else than they do; and certificates that go bad under way. */
import { describe, expect, test } from 'vitest';
import '../support/s3/credentials.ts';
import { CheckpointError, collectGarbage } from '../../src/index.ts';
import { openStore, type Store } from '../../src/store/index.ts';
import { isInDoubt, isTransient, s3Failure } from '../../src/store/s3/failure.ts';
import { S3TestServer } from '../support/s3/server.ts';
import type { Asked } from '../support/s3/state.ts';
import { isSame, load, longStream, sampleStream, save } from './support/sample-stream.ts';

const mebibyte = 1024 * 1024;
const older = sampleStream('older');
const large = longStream('large', 11 * mebibyte);
const framings = ['length', 'chunked', 'close'] as const;

async function place(): Promise<{ server: S3TestServer; open: () => Store }> {
  const server = await S3TestServer.start();
  const open = (): Store => openStore(server.url('vm', '&part-mib=5'));
  await save(open(), older);
  return { server, open };
}

const isStart = ({ method, query }: Asked): boolean => method === 'POST' && query.has('uploads');
const isEnd = ({ method, query }: Asked): boolean => method === 'POST' && query.has('uploadId');
const isList = ({ method, key }: Asked): boolean => method === 'GET' && key === '';

// Negative: so many bytes before the end. 50 are in the middle of an upload's id.
const cuts = framings.flatMap((framing) => [0, 100, -120, -50, -10].map((at) => [framing, at] as const));

describe.each(cuts)('a text (%s) that is cut at %d', (framing, cutAfter) => {
  test.each([
    ['at the beginning of an upload', isStart],
    ['at its end', isEnd],
  ] as const)('%s: the save is whole, or rejects and leaves nothing', async (_, isMeant) => {
    const { server, open } = await place();
    server.fault = (asked) => (isMeant(asked) ? { cutAfter, framing } : undefined);
    const failure: unknown = await save(open(), large).catch((error: unknown) => error);
    server.fault = undefined;
    if (failure !== undefined) expect(failure).toBeInstanceOf(CheckpointError);
    const expected = failure === undefined ? large : older;
    expect(isSame(await load(open(), mebibyte), expected.bytes)).toBe(true);
    expect(server.remains()).toHaveLength(2);
  });

  test('as a list: gc rejects, or finds nothing, and removes nothing', async () => {
    const { server, open } = await place();
    const { uuid } = older.summary;
    for (const index of [0, 1, 12])
      server.state.put(`vm.objects/${uuid}.${'0'.repeat(32)}.${index}`, Buffer.alloc(10));
    const before = server.remains();
    server.fault = (asked) => (isList(asked) ? { cutAfter, framing } : undefined);
    const failure: unknown = await collectGarbage(server.url(''), { olderThanMs: 0, remove: true }).then(
      ({ leftovers }) => expect(leftovers).toEqual([]),
      (error: unknown) => error,
    );
    server.fault = undefined;
    // Nothing at all, of no length that was told, is an empty list.
    const isEmpty = cutAfter === 0 && framing === 'close';
    if (!isEmpty) expect(failure).toBeInstanceOf(CheckpointError);
    expect(server.remains()).toEqual(before);
    expect(isSame(await load(open()), older.bytes)).toBe(true);
  });
});

describe('an error with the status of success', () => {
  // A service that takes long to put parts together has said 200 before it knows.
  const slow = { refuse: 200, code: 'InternalError' };

  test('at the end of an upload is asked for again', async () => {
    const { server, open } = await place();
    let left = 3;
    server.fault = (asked) => {
      if (!isEnd(asked) || left === 0) return undefined;
      left -= 1;
      return slow;
    };
    await save(open(), large);
    expect(left).toBe(0);
    expect(isSame(await load(open(), mebibyte), large.bytes)).toBe(true);
    expect(server.remains()).toHaveLength(2);
  });

  test('each time rejects, and leaves nothing', async () => {
    const { server, open } = await place();
    server.fault = (asked) => (isEnd(asked) ? slow : undefined);
    await expect(save(open(), large)).rejects.toMatchObject({ code: 'CHKPT_IO' });
    server.fault = undefined;
    expect(isSame(await load(open()), older.bytes)).toBe(true);
    expect(server.remains()).toHaveLength(2);
  });
});

test.each(['CERT_HAS_EXPIRED', 'SELF_SIGNED_CERT_IN_CHAIN', 'ERR_TLS_CERT_ALTNAME_INVALID'])(
  'a certificate (%s) is not better when it is asked for again, and leaves nothing in doubt',
  (code) => {
    const error = Object.assign(new Error('certificate'), { code });
    expect(isTransient(error)).toBe(false);
    expect(isInDoubt(error)).toBe(false);
    expect(s3Failure(error, 'cannot', {})).toMatchObject({ code: 'CHKPT_UNAUTHENTICATED', cause: error });
  },
);

test('an attempt before the last one may have been carried out, whatever became of the last one', () => {
  const error = (code: string, attempts: number): Error =>
    Object.assign(new Error('certificate'), { code, $metadata: { attempts } });
  expect(isInDoubt(error('CERT_HAS_EXPIRED', 1))).toBe(false);
  expect(isInDoubt(error('CERT_HAS_EXPIRED', 2))).toBe(true);
});
