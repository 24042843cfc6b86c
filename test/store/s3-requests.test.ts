/** What `s3:` asks of a service, request by request, and which rights that needs: what docs/s3.md says of cost and permissions. */
import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import '../support/s3/credentials.ts';
import { collectGarbage } from '../../src/index.ts';
import { openStore, type Store } from '../../src/store/index.ts';
import { S3TestServer } from '../support/s3/server.ts';
import type { Asked } from '../support/s3/state.ts';
import { isSame, load, longStream, sampleStream, save } from './support/sample-stream.ts';

const mebibyte = 1024 * 1024;
const small = sampleStream('small');
const large = longStream('large', 11 * mebibyte);
const page = readFileSync(new URL('../../docs/s3.md', import.meta.url), 'utf8');

async function place(): Promise<{ server: S3TestServer; open: () => Store; requests: () => string[] }> {
  const server = await S3TestServer.start();
  const open = (): Store => openStore(server.url('vm', '&part-mib=5'));
  return { server, open, requests: () => server.log.splice(0).map(plain) };
}

/** Without what is another one each time. */
function plain(line: string): string {
  return line
    .replace(/vm\.objects\/[^ ]*continued/, 'CLAIM')
    .replace(/vm\.objects\/[^ ]*/, 'DATA')
    .replace('vm', 'MANIFEST')
    .replace('partNumber,uploadId', 'part');
}

test('the manifest of the page has the keys of one that is written, in their order', async () => {
  const { server, open } = await place();
  await save(open(), large);
  const [, shown = '{}'] = /```json\n([^`]*)```/.exec(page) ?? [];
  const [written, told] = [server.state.objects.get('vm')?.bytes.toString() ?? '', shown].map(
    (text) => JSON.parse(text) as { objects: object[] },
  );
  expect(Object.keys(told ?? {})).toEqual(Object.keys(written ?? {}));
  expect(Object.keys(told?.objects[0] ?? {})).toEqual(Object.keys(written?.objects[0] ?? {}));
});

test('a damaged manifest is CHKPT_MANIFEST for a load; a save replaces it, and what it named stays', async () => {
  const { server, open } = await place();
  await save(open(), small);
  const manifest = server.state.objects.get('vm')?.bytes ?? Buffer.alloc(0);
  server.state.put('vm', manifest.subarray(0, manifest.length - 3));
  await expect(load(open())).rejects.toMatchObject({ code: 'CHKPT_MANIFEST' });
  await save(open(), large);
  expect(isSame(await load(open(), mebibyte), large.bytes)).toBe(true);
  expect(server.remains()).toHaveLength(3);
});

describe('requests', () => {
  test('of a save of one part, and of one of several that replaces it', async () => {
    const { open, requests } = await place();
    await save(open(), small);
    expect(requests()).toEqual(['GET MANIFEST', 'PUT DATA', 'GET MANIFEST', 'PUT MANIFEST']);
    await save(open(), large);
    expect(requests()).toEqual([
      'GET MANIFEST',
      'POST DATA uploads',
      ...Array.from({ length: 3 }, () => 'PUT DATA part'),
      'POST DATA uploadId',
      'HEAD DATA',
      'GET MANIFEST',
      'PUT MANIFEST',
      'DELETE DATA',
      'DELETE CLAIM',
    ]);
    // Of the same checkpoint the claim goes on.
    await save(open(), large);
    expect(requests().slice(-2)).toEqual(['PUT MANIFEST', 'DELETE DATA']);
  });

  test('of a load: ranges of 256 KiB, twice as much each time, up to a part', async () => {
    const { server, open, requests } = await place();
    await save(open(), large);
    requests();
    const ranges: number[] = [];
    server.fault = ({ headers }) => {
      const [, first, last] = /^bytes=(\d+)-(\d+)$/.exec(headers['range'] ?? '') ?? [];
      if (first !== undefined) ranges.push(Number(last) - Number(first) + 1);
      return undefined;
    };
    await load(open(), mebibyte);
    const sizes = [0.25, 0.5, 1, 2, 4, 3.25].map((one) => one * mebibyte);
    expect(ranges.sort()).toEqual(sizes.sort());
    expect(requests().sort()).toEqual(['GET MANIFEST', 'HEAD DATA', ...sizes.map(() => 'GET DATA')].sort());
  });

  test('of claims, of a removal, and of gc', async () => {
    const { server, open, requests } = await place();
    await save(open(), large);
    requests();
    const { uuid } = large.summary;
    await open().claims?.take({ uuid, by: 'me', timeMs: 0 });
    expect(requests()).toEqual(['PUT CLAIM']);
    await open().claims?.take({ uuid, by: 'me', timeMs: 0 });
    expect(requests()).toEqual(['PUT CLAIM', 'GET CLAIM']);
    await collectGarbage(server.url(''), { olderThanMs: 0 });
    // Whatever is old enough is looked for in its manifest.
    expect(requests()).toEqual([
      'GET  prefix,uploads',
      'GET  list-type,prefix',
      'GET MANIFEST',
      'GET MANIFEST',
    ]);
    await open().remove?.();
    expect(requests()).toEqual(['GET MANIFEST', 'DELETE MANIFEST', 'DELETE DATA', 'DELETE CLAIM']);
  });
});

/** What the policy of a bucket calls it. */
function rightOf({ method, key, query }: Pick<Asked, 'method' | 'key' | 'query'>): string {
  const isUpload = query.has('uploadId');
  if (key === '') return query.has('uploads') ? 's3:ListBucketMultipartUploads' : 's3:ListBucket';
  if (method === 'HEAD') return 's3:GetObject';
  if (method === 'GET') return isUpload ? 's3:ListMultipartUploadParts' : 's3:GetObject';
  if (method === 'DELETE') return isUpload ? 's3:AbortMultipartUpload' : 's3:DeleteObject';
  return 's3:PutObject';
}

/** A save that its service refuses in the middle. */
async function failInTheMiddle(server: S3TestServer, open: () => Store): Promise<unknown> {
  const { fault } = server;
  server.fault = async (asked) =>
    asked.query.get('partNumber') === '2' ? { refuse: 400, code: 'Broken' } : await fault?.(asked);
  const failure: unknown = await save(open(), large).catch((error: unknown) => error);
  server.fault = fault;
  return failure;
}

/** An upload that nobody ends. */
async function leaveUpload(server: S3TestServer, open: () => Store): Promise<void> {
  const writer = await open().openWriter({ uuid: large.summary.uuid });
  await writer.write(large.bytes);
  await expect.poll(() => [...server.state.uploads.values()].at(-1)?.parts.size).toBe(2);
}

describe('rights', () => {
  const uses: [string, (server: S3TestServer, open: () => Store) => Promise<unknown>][] = [
    ['load, verify, info', async (_, open) => await load(open())],
    [
      'save',
      async (server, open) => {
        await save(open(), small);
        await save(open(), large);
        // An upload whose id was never heard of is looked for.
        server.fault = withFault(
          server.fault,
          (asked) => asked.query.has('uploads') && asked.method === 'POST',
        );
        await save(open(), large).catch(() => undefined);
        await failInTheMiddle(server, open);
      },
    ],
    [
      'as: continue',
      async (_, open) => await open().claims?.take({ uuid: small.summary.uuid, by: 'me', timeMs: 0 }),
    ],
    [
      'gc',
      async (server, open) => {
        await leaveUpload(server, open);
        server.state.objects.delete('vm');
        await collectGarbage(server.url(''), { olderThanMs: 0 });
      },
    ],
    [
      'gc --remove',
      async (server, open) => {
        await leaveUpload(server, open);
        server.state.objects.delete('vm');
        await collectGarbage(server.url(''), { olderThanMs: 0, remove: true });
      },
    ],
    ['remove', async (_, open) => await open().remove?.()],
  ];

  test.each(uses)('for %s are those of the page', async (name, use) => {
    const { server, open } = await place();
    await save(open(), small);
    const used = new Set<string>();
    // What makes the situation is not counted.
    let isCounting = !name.startsWith('gc');
    server.fault = (asked) => {
      isCounting ||= asked.key === '';
      if (isCounting) used.add(rightOf(asked));
      return undefined;
    };
    await use(server, open);
    const [, permissions = ''] = page.split('## Permissions');
    const row = permissions.split('\n').find((line) => line.startsWith(`| ${name} |`)) ?? '';
    const told = new Set(row.match(/s3:\w+/g));
    // To be told "there is none" and not "you may not" is no request of its own.
    if (!name.startsWith('gc')) told.delete('s3:ListBucket');
    expect([...used].sort()).toEqual([...told].sort());
  });

  test('to remove may be missing: a save goes through, and what it replaced is garbage', async () => {
    const { server, open } = await place();
    await save(open(), small);
    server.fault = (asked) =>
      rightOf(asked) === 's3:DeleteObject' ? { refuse: 403, code: 'AccessDenied' } : undefined;
    await save(open(), large);
    await expect(open().remove?.()).rejects.toMatchObject({ code: 'CHKPT_PERMISSION' });
    server.fault = undefined;
    expect(isSame(await load(open(), mebibyte), large.bytes)).toBe(true);
    expect(server.remains()).toHaveLength(3);
    await collectGarbage(server.url(''), { olderThanMs: 0, remove: true });
    expect(server.remains()).toHaveLength(2);
  });

  test('to end uploads may be missing: a save that fails says why it failed, and its upload is garbage', async () => {
    const { server, open } = await place();
    server.fault = (asked) =>
      rightOf(asked) === 's3:AbortMultipartUpload' ? { refuse: 403, code: 'AccessDenied' } : undefined;
    expect(await failInTheMiddle(server, open)).toMatchObject({
      code: 'CHKPT_IO',
      message: expect.stringContaining('Broken'),
    });
    expect(server.remains()).toMatchObject([expect.stringMatching(/^upload /)]);
  });

  test('to read or to list may not: CHKPT_PERMISSION, before anything was sent', async () => {
    const { server, open } = await place();
    // What a service says of a missing object to who may not list.
    server.fault = ({ method }) => (method === 'GET' ? { refuse: 403, code: 'AccessDenied' } : undefined);
    await expect(save(open(), large)).rejects.toMatchObject({ code: 'CHKPT_PERMISSION' });
    await expect(load(open())).rejects.toMatchObject({ code: 'CHKPT_PERMISSION' });
    expect(server.log.every((line) => line.startsWith('GET'))).toBe(true);
  });
});

/** The answer to what is meant is lost, each time. */
function withFault(before: S3TestServer['fault'], isMeant: (asked: Asked) => boolean): S3TestServer['fault'] {
  return async (asked) => {
    const fault = await before?.(asked);
    return isMeant(asked) ? 'lose' : fault;
  };
}
