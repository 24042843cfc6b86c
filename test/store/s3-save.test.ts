/** Saves into `s3:` when a service, the network or somebody beside us does what it should not. The promises of all stores are in the conformance suite. */
import { describe, expect, test, vi } from 'vitest';
import '../support/s3/credentials.ts';
import { openStore, type Store } from '../../src/store/index.ts';
import { S3Host } from '../../src/store/s3/host.ts';
import { parsePlace } from '../../src/store/s3/place.ts';
import { S3Store } from '../../src/store/s3/s3-store.ts';
import { type Fault, S3TestServer } from '../support/s3/server.ts';
import type { Asked } from '../support/s3/state.ts';
import { isSame, load, longStream, noise, sampleStream, save } from './support/sample-stream.ts';

const mebibyte = 1024 * 1024;
const older = sampleStream('older');
const newer = sampleStream('newer');
/** Three parts of the smallest size, the last one short. */
const large = longStream('large', 12 * mebibyte);

const isManifest = ({ method, key }: Asked): boolean => method === 'PUT' && key === 'vm';
const isData = ({ method, key }: Asked): boolean => method === 'PUT' && key.includes('.objects/');
const named = ({ method, query }: Asked): string => `${method} ${[...query.keys()].sort()}`;

/** The fault, at the first requests that are meant. */
function atFirst(isMeant: (asked: Asked) => boolean, fault: Fault, count = 1) {
  let left = count;
  return (asked: Asked): Fault | undefined => {
    if (!isMeant(asked) || left === 0) return undefined;
    left -= 1;
    return fault;
  };
}

/** Waits for it, but not longer. */
async function until(isSo: () => boolean, timeout: number): Promise<void> {
  await vi.waitFor(() => expect(isSo()).toBe(true), { timeout, interval: 10 }).catch(() => undefined);
}

async function place(): Promise<{ server: S3TestServer; open: () => Store }> {
  const server = await S3TestServer.start();
  return { server, open: () => openStore(server.url('vm', '&part-mib=5')) };
}

async function expectOnly(server: S3TestServer, open: () => Store, bytes: Uint8Array): Promise<void> {
  server.fault = undefined;
  expect(isSame(await load(open(), mebibyte), bytes)).toBe(true);
  expect(server.remains()).toHaveLength(2);
}

describe('the commit', () => {
  test.each<Fault>(['drop', 'lose', 'done-but-500'])(
    'whose answer is lost (%s) is read back',
    async (fault) => {
      const { server, open } = await place();
      await save(open(), older);
      for (const count of [1, 7]) {
        server.fault = atFirst(isManifest, fault, count);
        await save(open(), newer);
        await expectOnly(server, open, newer.bytes);
        server.fault = atFirst(isManifest, fault, count);
        await save(open(), older);
        await expectOnly(server, open, older.bytes);
      }
    },
  );

  test.each([
    [409, 'ConditionalRequestConflict'],
    [412, 'PreconditionFailed'],
    [503, 'SlowDown'],
    [500, 'InternalError'],
  ])('that is refused with %s is tried again', async (refuse, code) => {
    const { server, open } = await place();
    await save(open(), older);
    server.fault = atFirst(isManifest, { refuse, code }, 2);
    await save(open(), newer);
    await expectOnly(server, open, newer.bytes);
  });

  test.each([
    [403, 'AccessDenied', 'CHKPT_PERMISSION'],
    [403, 'QuotaExceeded', 'CHKPT_NO_SPACE'],
    [412, 'PreconditionFailed', 'CHKPT_IO'],
    [501, 'NotImplemented', 'CHKPT_UNSUPPORTED'],
  ])(
    'that is refused for good with %s %s rejects with %s and leaves nothing',
    async (refuse, name, code) => {
      const { server, open } = await place();
      await save(open(), older);
      server.fault = (asked) => (isManifest(asked) ? { refuse, code: name } : undefined);
      await expect(save(open(), newer)).rejects.toMatchObject({ code });
      await expectOnly(server, open, older.bytes);
    },
    120_000,
  );

  test('of which nobody knows is CHKPT_UNACKNOWLEDGED, and its data stays', async () => {
    const { server, open } = await place();
    await save(open(), older);
    let isCut = false;
    server.fault = (asked) => {
      isCut ||= isManifest(asked);
      return isCut ? 'lose' : undefined;
    };
    await expect(save(open(), newer)).rejects.toMatchObject({ code: 'CHKPT_UNACKNOWLEDGED', kind: 'doubt' });
    server.fault = undefined;
    // It was there all the time.
    expect(isSame(await load(open()), newer.bytes)).toBe(true);
  }, 120_000);

  test('that another save has replaced before its lost answer was looked for was one', async () => {
    const { server, open } = await place();
    await save(open(), older);
    let isFirst = true;
    server.fault = async (asked) => {
      if (!isManifest(asked) || !isFirst) return undefined;
      isFirst = false;
      server.state.answer(asked);
      await save(open(), large);
      return 'drop';
    };
    await save(open(), newer);
    server.fault = undefined;
    expect(isSame(await load(open(), mebibyte), large.bytes)).toBe(true);
    // What the one between has replaced, nobody has removed: garbage, never a checkpoint without its data.
    expect(server.remains().length).toBeGreaterThanOrEqual(2);
  });

  test('is the last request that makes something, and conditional', async () => {
    const { server, open } = await place();
    const conditions: unknown[] = [];
    server.fault = (asked) => {
      if (isManifest(asked)) conditions.push([asked.headers['if-none-match'], asked.headers['if-match']]);
      return undefined;
    };
    await save(open(), large);
    expect(server.log.filter((line) => /^P/.test(line)).at(-1)).toBe('PUT vm');
    const { etag } = server.state.objects.get('vm') ?? {};
    await save(open(), newer);
    expect(conditions).toEqual([
      ['*', undefined],
      [undefined, etag],
    ]);
  });

  test('of many at once each succeeds, one is there, and nothing is left of the others', async () => {
    const { server, open } = await place();
    const streams = Array.from({ length: 8 }, (_, index) => sampleStream(`writer ${index}`));
    await Promise.all(streams.map((stream) => save(open(), stream)));
    const found = await load(open());
    expect(streams.filter(({ bytes }) => isSame(bytes, found))).toHaveLength(1);
    expect(server.remains()).toHaveLength(2);
  });

  test('with a service that wants quotes around the ETag goes through', async () => {
    const { server, open } = await place();
    await save(open(), older);
    server.fault = (asked) => {
      const match = asked.headers['if-match'];
      if (!isManifest(asked) || match === undefined) return undefined;
      if (!match.startsWith('"')) return { refuse: 412, code: 'PreconditionFailed' };
      Object.assign(asked.headers, { 'if-match': match.slice(1, -1) });
      return undefined;
    };
    await save(open(), newer);
    await expectOnly(server, open, newer.bytes);
  });
});

describe('the data', () => {
  test('goes in parts, several at a time and no more than there are buffers, and comes back', async () => {
    const { server } = await place();
    const stream = longStream('wide', 31 * mebibyte);
    const open = (): Store => openStore(server.url('vm', '&part-mib=5&concurrency=2'));
    server.fault = async ({ query }) => {
      // The first part stays until there is another one; who sends one at a time is not waited for for ever.
      if (query.get('partNumber') === '1') await until(() => server.bodiesUnderWay >= 2, 5000);
      return undefined;
    };
    await save(open(), stream);
    expect(server.bodiesUnderWayMax).toBeGreaterThanOrEqual(2);
    expect(server.bodiesUnderWayMax).toBeLessThanOrEqual(3);
    expect(server.log.filter((line) => line.endsWith('partNumber,uploadId'))).toHaveLength(7);
    await expectOnly(server, open, stream.bytes);
  });

  test('of more parts than an object can have goes into several, read across their borders', async () => {
    const server = await S3TestServer.start();
    const url = server.url('vm', '&part-mib=5');
    const host = new S3Host();
    const open = (): S3Store => new S3Store(parsePlace(url.slice('s3:'.length), url), url, host, 2);
    const stream = longStream('several', 25 * mebibyte + 17);
    await save(open(), stream);
    expect(server.remains()).toHaveLength(4);
    expect(isSame(await load(open(), 3 * mebibyte), stream.bytes)).toBe(true);
    const reader = await open().openReader();
    const border = 10 * mebibyte;
    const target = new Uint8Array(10);
    expect(await reader.readAt?.(border - 4, target)).toBe(4);
    expect(await reader.readAt?.(border, target)).toBe(10);
    expect(isSame(target, stream.bytes.subarray(border, border + 10))).toBe(true);
    await reader.close();
    await save(open(), older);
    expect(server.remains()).toHaveLength(2);
  });

  test.each(['POST uploads', 'PUT partNumber,uploadId', 'POST uploadId', 'HEAD '])(
    'is whole when the answer to %s is lost, and nothing else is left',
    async (request) => {
      const { server, open } = await place();
      for (const fault of ['lose', 'drop', 'done-but-500'] as const) {
        server.fault = atFirst((asked) => named(asked) === request, fault);
        await save(open(), large);
        server.state.uploads.clear(); // of a lost beginning one is left, without parts: see gc
        await expectOnly(server, open, large.bytes);
      }
    },
  );

  test.each([
    [503, 'SlowDown'],
    [503, 'ServiceUnavailable'],
    [500, 'InternalError'],
  ])('of which a part is first refused with %i %s goes, that part again', async (refuse, code) => {
    const { server, open } = await place();
    const isSecond = ({ query }: Asked): boolean => query.get('partNumber') === '2';
    server.fault = atFirst(isSecond, { refuse, code }, 3);
    await save(open(), large);
    expect(server.log.filter((line) => line.endsWith('partNumber,uploadId'))).toHaveLength(3 + 3);
    await expectOnly(server, open, large.bytes);
  });

  test.each([
    ['POST uploads', large],
    ['PUT partNumber,uploadId', large],
    ['POST uploadId', large],
    ['PUT ', newer],
  ] as const)('that is refused for good (%s) rejects, and nothing is left', async (request, stream) => {
    const { server, open } = await place();
    await save(open(), older);
    const isMeant = (asked: Asked): boolean => named(asked) === request && !isManifest(asked);
    for (const [refuse, code, expected] of [
      [403, 'AccessDenied', 'CHKPT_PERMISSION'],
      [500, 'InternalError', 'CHKPT_IO'],
    ] as const) {
      server.fault = (asked) => (isMeant(asked) ? { refuse, code } : undefined);
      await expect(save(open(), stream)).rejects.toMatchObject({ code: expected });
      await expectOnly(server, open, older.bytes);
    }
  });

  test('of which a part is always refused with 503 rejects with CHKPT_IO, and nothing is left', async () => {
    const { server, open } = await place();
    server.fault = ({ query }) =>
      query.get('partNumber') === '2' ? { refuse: 503, code: 'SlowDown' } : undefined;
    await expect(save(open(), large)).rejects.toMatchObject({ code: 'CHKPT_IO' });
    expect(server.remains()).toEqual([]);
  });

  test('that never begins, although it was begun each time, leaves no upload', async () => {
    const { server, open } = await place();
    server.fault = (asked) => (named(asked) === 'POST uploads' ? 'lose' : undefined);
    await expect(save(open(), large)).rejects.toMatchObject({ code: 'CHKPT_LINK_LOST' });
    expect(server.remains()).toEqual([]);
  });

  test('that the service finds altered rejects the save, and nothing is left', async () => {
    const { server, open } = await place();
    server.fault = atFirst(isData, { refuse: 400, code: 'BadDigest' });
    await expect(save(open(), newer)).rejects.toMatchObject({ code: 'CHKPT_IO' });
    expect(server.remains()).toEqual([]);
  });

  test('of a save that is cancelled while parts are under way goes', async () => {
    const { server, open } = await place();
    const controller = new AbortController();
    server.fault = (asked) => {
      if (isData(asked)) controller.abort();
      return undefined;
    };
    const { uuid } = large.summary;
    const writer = await open().openWriter({ uuid, signal: controller.signal });
    const writing = (async () => {
      for (;;) await writer.write(noise('cancelled', mebibyte));
    })();
    await expect(writing).rejects.toMatchObject({ code: 'CHKPT_ABORTED' });
    await writer.abort();
    expect(server.remains()).toEqual([]);
  });

  test('is never named by a manifest when the service has stored less of it', async () => {
    const { server, open } = await place();
    server.fault = (asked) => {
      if (named(asked) !== 'HEAD ') return undefined;
      return { answer: (right) => ({ ...right, headers: { ...right.headers, 'content-length': '7' } }) };
    };
    await expect(save(open(), large)).rejects.toMatchObject({ code: 'CHKPT_IO' });
    expect(server.remains()).toEqual([]);
  });
});

test('an object that is no checkpoint is neither replaced nor removed', async () => {
  const { server, open } = await place();
  server.state.put('vm', Buffer.from('my thesis'));
  await expect(save(open(), newer)).rejects.toMatchObject({ code: 'CHKPT_STORE_URL' });
  await expect(open().remove?.()).rejects.toMatchObject({ code: 'CHKPT_STORE_URL' });
  await expect(load(open())).rejects.toMatchObject({ code: 'CHKPT_MANIFEST' });
  expect(server.state.objects.get('vm')?.bytes.toString()).toBe('my thesis');
});

test('with keep, what was replaced stays readable for others until its time is over', async () => {
  const { server } = await place();
  const open = (keep: number): Store => {
    const url = server.url('vm', `&keep=${keep}`);
    return new S3Store(parsePlace(url.slice('s3:'.length), url), url, new S3Host());
  };
  await save(open(0), older);
  const reader = await open(0).openReader();
  await save(open(3600), newer);
  expect(server.remains()).toHaveLength(3);
  expect(await reader.readAt?.(0, new Uint8Array(9))).toBe(9);
  await reader.close();
  await open(0).remove?.();
  expect(server.remains()).toEqual([]);
});
