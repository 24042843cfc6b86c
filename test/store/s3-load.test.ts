/** Loads from `s3:` when a service, the network or somebody beside us does what it should not. */
import { describe, expect, test } from 'vitest';
import '../support/s3/credentials.ts';
import { collectGarbage } from '../../src/index.ts';
import { openS3Store, openStore, type Store, type StoreReader } from '../../src/store/index.ts';
import { deferred } from '../../src/util/deferred.ts';
import { type Fault, type Framing, S3TestServer } from '../support/s3/server.ts';
import type { Answer, Asked } from '../support/s3/state.ts';
import { isSame, load, longStream, sampleStream, save } from './support/sample-stream.ts';

const mebibyte = 1024 * 1024;
const stream = longStream('stream', 3 * mebibyte);
const other = sampleStream('other');
const framings = ['length', 'chunked', 'close'] as const;

const isRange = ({ headers }: Asked): boolean => headers['range'] !== undefined;

async function saved(): Promise<{ server: S3TestServer; open: () => Store; dataKey: string }> {
  const server = await S3TestServer.start();
  const open = (): Store => openStore(server.url('vm', '&concurrency=2'));
  await save(open(), stream);
  const dataKey = server.remains().find((key) => key !== 'vm') ?? '';
  return { server, open, dataKey };
}

/** As with every range: so, in every second one. */
function everySecond(fault: Fault): (asked: Asked) => Fault | undefined {
  let count = 0;
  return (asked) => {
    if (!isRange(asked)) return undefined;
    count += 1;
    return count % 2 === 1 ? fault : undefined;
  };
}

/** The first `count` answers to who asks for the manifest. */
function cutManifests(
  cutAfter: number,
  count: number,
  framing?: Framing,
): (asked: Asked) => Fault | undefined {
  let left = count;
  return ({ method, key }) => {
    if (method !== 'GET' || key !== 'vm' || left === 0) return undefined;
    left -= 1;
    return { cutAfter, framing };
  };
}

/**
 * As if the load were slow: it hears of the checkpoint that is replaced when the removal of that one's data is under way, which is done
 * when the load has asked for anything else.
 */
function removeBesideSlowLoad(server: S3TestServer, dataKey: string): void {
  const removalBegun = deferred<void>();
  const loadGoesOn = deferred<void>();
  const removalDone = deferred<void>();
  let isRemoving = false;
  let isLoading = false;
  server.fault = async ({ method, key, headers }) => {
    if (method === 'DELETE' && key === dataKey) {
      isRemoving = true;
      removalBegun.resolve();
      await loadGoesOn.promise;
      return {
        answer: (right) => {
          removalDone.resolve();
          return right;
        },
      };
    }
    if (method === 'GET' && key === 'vm' && !isLoading) {
      isLoading = true;
      return { answer: (right) => removalBegun.promise.then(() => right) };
    }
    const isRangeOfIt = headers['range'] !== undefined && key === dataKey;
    if (isRemoving && (isRangeOfIt || key === 'vm')) loadGoesOn.resolve();
    if (isRangeOfIt) await removalDone.promise;
    return undefined;
  };
}

async function readAll(reader: StoreReader): Promise<void> {
  while ((await reader.read(new Uint8Array(100_000))) > 0);
}

async function readSomewhere(reader: StoreReader): Promise<void> {
  await reader.readAt?.(mebibyte, new Uint8Array(100_000));
}

describe('a range', () => {
  test.each<[string, Fault]>([
    ['no answer', 'drop'],
    ['503', { refuse: 503, code: 'ServiceUnavailable' }],
    ['a body that ends early', { cutAfter: 70_000 }],
    ['a body that never begins', { cutAfter: 0 }],
  ])('that first gets %s is asked for again, from where it ended', async (_, fault) => {
    const { server, open } = await saved();
    server.fault = everySecond(fault);
    expect(isSame(await load(open(), mebibyte), stream.bytes)).toBe(true);
    const reader = await open().openReader();
    const target = new Uint8Array(200_000);
    expect(await reader.readAt?.(mebibyte, target)).toBe(target.length);
    expect(isSame(target, stream.bytes.subarray(mebibyte, mebibyte + target.length))).toBe(true);
    await reader.close();
  });

  test.each<[string, string, Fault]>([
    ['no answer', 'CHKPT_LINK_LOST', 'drop'],
    ['a body that never begins', 'CHKPT_LINK_LOST', { cutAfter: 0 }],
    ['403', 'CHKPT_PERMISSION', { refuse: 403, code: 'AccessDenied' }],
    ['the whole object and 200', 'CHKPT_IO', altered({ status: 200 })],
    [
      'another place',
      'CHKPT_IO',
      altered({ range: (first, last, bytes) => `${first + 1}-${last + 1}/${bytes}` }),
    ],
    ['fewer bytes', 'CHKPT_IO', altered({ range: (first, last, bytes) => `${first}-${last - 1}/${bytes}` })],
    [
      'an object of another length',
      'CHKPT_IO',
      altered({ range: (first, last, bytes) => `${first}-${last}/${bytes + 1}` }),
    ],
    ['no Content-Range', 'CHKPT_IO', altered({ range: () => undefined })],
    ['another ETag', 'CHKPT_IO', altered({ etag: '"0123456789"' })],
    ['no ETag', 'CHKPT_IO', altered({ etag: '' })],
    ['more bytes than were asked for', 'CHKPT_IO', altered({ more: 1 })],
  ])(
    'that always gets %s rejects with %s',
    async (_, code, fault) => {
      const { server, open } = await saved();
      for (const read of [readAll, readSomewhere]) {
        server.fault = undefined;
        const reader = await open().openReader();
        server.fault = (asked) => (isRange(asked) ? fault : undefined);
        await expect(read(reader)).rejects.toMatchObject({ code });
        await reader.close();
      }
    },
    120_000,
  );

  test('of an object that was replaced or removed meanwhile rejects with CHKPT_REPLACED', async () => {
    for (const read of [readAll, readSomewhere]) {
      const { server, open, dataKey } = await saved();
      for (const change of [
        () => void server.state.put(dataKey, Buffer.from(other.bytes)),
        () => void server.state.objects.delete(dataKey),
      ]) {
        server.state.put(dataKey, Buffer.from(stream.bytes), undefined, 0);
        const { etag } = server.state.objects.get(dataKey) ?? {};
        expect(etag).toBeDefined();
        const reader = await open().openReader();
        expect(await reader.readAt?.(0, new Uint8Array(10))).toBe(10);
        change();
        await expect(read(reader)).rejects.toMatchObject({ code: 'CHKPT_REPLACED' });
        await reader.close();
      }
    }
  });

  test('is asked for with the ETag of the object that was opened, each time', async () => {
    const { server, open, dataKey } = await saved();
    const matches = new Set<unknown>();
    server.fault = (asked) => {
      if (isRange(asked)) matches.add(asked.headers['if-match']);
      return undefined;
    };
    await load(open(), mebibyte);
    expect([...matches]).toEqual([`"${server.state.objects.get(dataKey)?.etag}"`]);
  });
});

describe('opening', () => {
  test('a checkpoint that is replaced at that moment opens the new one', async () => {
    const { server, open } = await saved();
    let isFirst = true;
    server.fault = async ({ method }) => {
      if (method !== 'HEAD' || !isFirst) return undefined;
      isFirst = false;
      // As by another process: the one that opens holds nothing that this save knows of.
      await save(openStore(server.url('vm').replace('127.0.0.1', 'localhost')), other);
      return undefined;
    };
    expect(isSame(await load(open()), other.bytes)).toBe(true);
  });

  test.each([
    ['missing', (server: S3TestServer, key: string) => void server.state.objects.delete(key)],
    [
      'another one',
      (server: S3TestServer, key: string) => void server.state.put(key, Buffer.alloc(3 * mebibyte)),
    ],
    [
      'shorter',
      (server: S3TestServer, key: string) => {
        const { bytes, etag } = server.state.objects.get(key) ?? { bytes: Buffer.alloc(0), etag: '' };
        server.state.put(key, bytes.subarray(1), etag);
      },
    ],
  ])('a checkpoint whose data is %s rejects with CHKPT_MANIFEST', async (_, change) => {
    const { server, open, dataKey } = await saved();
    change(server, dataKey);
    await expect(open().openReader()).rejects.toMatchObject({ code: 'CHKPT_MANIFEST' });
  });

  test('a bucket that does not exist is CHKPT_NOT_FOUND, also for a save', async () => {
    const { server } = await saved();
    const store = openStore(server.url('vm').replace('//bucket', '//other-bucket'));
    await expect(store.openReader()).rejects.toMatchObject({ code: 'CHKPT_NOT_FOUND' });
    await expect(save(store, other)).rejects.toMatchObject({ code: 'CHKPT_NOT_FOUND' });
  });

  test.each(framings.flatMap((framing) => [0, 1, 300].map((cutAfter) => [framing, cutAfter] as const)))(
    'a manifest (%s) whose body ends after %i bytes is asked for again',
    async (framing, cutAfter) => {
      const { server, open } = await saved();
      server.fault = cutManifests(cutAfter, 3, framing);
      expect(isSame(await load(open(), mebibyte), stream.bytes)).toBe(true);
      // A save has to know what it replaces.
      server.fault = cutManifests(cutAfter, 3, framing);
      await save(open(), other);
      server.fault = undefined;
      expect(isSame(await load(open()), other.bytes)).toBe(true);
      expect(server.remains()).toHaveLength(2);
    },
  );

  test.each(framings.flatMap((framing) => [0, 300].map((cutAfter) => [framing, cutAfter] as const)))(
    'a manifest (%s) whose body always ends after %i bytes is CHKPT_LINK_LOST, and stays',
    async (framing, cutAfter) => {
      const { server, open } = await saved();
      const before = server.remains();
      server.fault = cutManifests(cutAfter, Number.POSITIVE_INFINITY, framing);
      const lost = { code: 'CHKPT_LINK_LOST' };
      await expect(open().openReader()).rejects.toMatchObject(lost);
      await expect(open().remove?.()).rejects.toMatchObject(lost);
      await expect(save(open(), other)).rejects.toMatchObject(lost);
      await expect(collectGarbage(server.url(''), { olderThanMs: 0, remove: true })).rejects.toMatchObject(
        lost,
      );
      server.fault = undefined;
      expect(server.remains()).toEqual(before);
      expect(isSame(await load(open(), mebibyte), stream.bytes)).toBe(true);
    },
  );

  test.each(['chunked', 'close'] as const)(
    'answers (%s) that do not say how long they are, and are whole, are taken',
    async (whole) => {
      const { server, open } = await saved();
      server.fault = ({ method }) => (method === 'GET' ? { whole } : undefined);
      expect(isSame(await load(open(), mebibyte), stream.bytes)).toBe(true);
      await save(open(), other);
      expect(isSame(await load(open()), other.bytes)).toBe(true);
      expect(server.remains()).toHaveLength(2);
    },
  );

  test('a manifest without a length that is replaced while it is read is read again', async () => {
    const { server, open } = await saved();
    let manifests = 0;
    server.fault = async ({ method, key }) => {
      if (key !== 'vm' || method === 'PUT') return undefined;
      manifests += 1;
      if (method === 'HEAD' && manifests === 2) await save(openStore(server.url('vm')), other);
      return method === 'GET' ? { whole: 'chunked' } : undefined;
    };
    expect(isSame(await load(open()), other.bytes)).toBe(true);
    expect(manifests).toBeGreaterThan(4);
  });

  test('a manifest that never ends is read up to its bound, and no further', async () => {
    const { server, open } = await saved();
    const huge = Buffer.alloc(64 * mebibyte, 0x20);
    Buffer.from('{\n  "format": "chkpt s3",\n').copy(huge);
    server.state.put('vm', huge);
    await expect(open().openReader()).rejects.toMatchObject({ code: 'CHKPT_MANIFEST' });
  });

  test('needs no region where the service is not AWS, and settings may be elsewhere than in the URL', async () => {
    const { server } = await saved();
    const { AWS_REGION, AWS_DEFAULT_REGION } = process.env;
    delete process.env['AWS_REGION'];
    delete process.env['AWS_DEFAULT_REGION'];
    try {
      const store = openS3Store('s3://bucket/vm', { endpoint: server.endpoint });
      expect(isSame(await load(store, mebibyte), stream.bytes)).toBe(true);
    } finally {
      Object.assign(process.env, definedOf({ AWS_REGION, AWS_DEFAULT_REGION }));
    }
  });

  test('with a wrong secret is CHKPT_PERMISSION', async () => {
    const server = await S3TestServer.start();
    const secret = process.env['AWS_SECRET_ACCESS_KEY'];
    process.env['AWS_SECRET_ACCESS_KEY'] = 'wrong';
    try {
      const store = openStore(server.url('vm'));
      await expect(store.openReader()).rejects.toMatchObject({ code: 'CHKPT_PERMISSION' });
      await expect(save(store, other)).rejects.toMatchObject({ code: 'CHKPT_PERMISSION' });
    } finally {
      process.env['AWS_SECRET_ACCESS_KEY'] = secret;
    }
  });
});

function definedOf(values: object): object {
  return Object.fromEntries(Object.entries(values).filter(([, value]) => value !== undefined));
}

interface Alteration {
  readonly status?: number;
  readonly etag?: string;
  readonly range?: (first: number, last: number, bytes: number) => string | undefined;
  readonly more?: number;
}

function altered({ status, etag, range, more = 0 }: Alteration): Fault {
  return {
    answer: (right: Answer): Answer => {
      const [, first, last, bytes] = /(\d+)-(\d+)\/(\d+)/.exec(right.headers?.['content-range'] ?? '') ?? [];
      const wrong = range?.(Number(first), Number(last), Number(bytes));
      const body = Buffer.concat([Buffer.from(right.body ?? ''), Buffer.alloc(more)]);
      const headers: Record<string, string> = { ...right.headers, 'content-length': `${body.length}` };
      if (etag !== undefined) headers['etag'] = etag;
      if (range !== undefined) headers['content-range'] = wrong === undefined ? '' : `bytes ${wrong}`;
      return { status: status ?? right.status, headers, body };
    },
  };
}

test('a load that opens what is being removed in this process gets what has taken its place', async () => {
  const { server, open, dataKey } = await saved();
  removeBesideSlowLoad(server, dataKey);
  const asked = server.log.length;
  const loading = load(open());
  while (server.log.length === asked) await new Promise(setImmediate);
  await save(open(), other);
  expect(isSame(await loading, other.bytes)).toBe(true);
});
