/** Digests of what `s3:` sends: the service has one with each body and refuses another body, and the manifest has those of the parts. */
import { createHash } from 'node:crypto';
import { describe, expect, test } from 'vitest';
import '../support/s3/credentials.ts';
import { openStore, type Store } from '../../src/store/index.ts';
import { S3Host } from '../../src/store/s3/host.ts';
import { parsePlace } from '../../src/store/s3/place.ts';
import { S3Store } from '../../src/store/s3/s3-store.ts';
import { S3TestServer } from '../support/s3/server.ts';
import type { Asked } from '../support/s3/state.ts';
import { isSame, load, longStream, type SampleStream, sampleStream, save } from './support/sample-stream.ts';

const mebibyte = 1024 * 1024;
const partBytes = 5 * mebibyte;
const older = sampleStream('older');
const small = sampleStream('small');
/** Three parts, the last one short. */
const large = longStream('large', 12 * mebibyte);

const isPart = (number: number, { query }: Asked): boolean => query.get('partNumber') === `${number}`;

async function place(): Promise<{ server: S3TestServer; open: () => Store }> {
  const server = await S3TestServer.start();
  return { server, open: () => openStore(server.url('vm', '&part-mib=5')) };
}

function sha256(bytes: Uint8Array): Buffer {
  return createHash('sha256').update(bytes).digest();
}

/** The body, with one bit changed in its middle. */
function flipped(body: Buffer): Buffer {
  const copy = Buffer.from(body);
  const middle = Math.floor(copy.length / 2);
  copy[middle] = (copy[middle] ?? 0) ^ 1;
  return copy;
}

describe('a body', () => {
  test('goes with its own SHA-256 in the header that the service checks: parts, whole objects, manifests', async () => {
    const { server, open } = await place();
    const bodies: [string, boolean][] = [];
    server.fault = ({ method, key, query, headers, body }) => {
      const isRight = headers['x-amz-content-sha256'] === sha256(body).toString('hex');
      const what = query.get('partNumber') ?? (key === 'vm' ? 'manifest' : 'whole');
      if (method === 'PUT') bodies.push([what, isRight]);
      return undefined;
    };
    await save(open(), large);
    await save(open(), small);
    expect(bodies.sort()).toEqual(
      ['1', '2', '3', 'manifest', 'manifest', 'whole'].map((what) => [what, true]),
    );
  });

  test.each<[string, SampleStream, (asked: Asked) => boolean]>([
    ['the first part', large, (asked) => isPart(1, asked)],
    ['the last part', large, (asked) => isPart(3, asked)],
    ['a whole object', small, ({ method, key }) => method === 'PUT' && key.includes('.objects/')],
    ['a manifest', small, ({ method, key }) => method === 'PUT' && key === 'vm'],
  ])(
    'that is altered on the way (%s) is refused: a typed error, and nothing is left',
    async (_, stream, isMeant) => {
      const { server, open } = await place();
      await save(open(), older);
      const before = server.remains();
      let altered = 0;
      server.onTheWay = (asked) => {
        if (!isMeant(asked)) return asked.body;
        altered += 1;
        return flipped(asked.body);
      };
      await expect(save(open(), stream)).rejects.toMatchObject({ code: 'CHKPT_IO' });
      expect(altered).toBeGreaterThan(0);
      server.onTheWay = undefined;
      expect(server.remains()).toEqual(before);
      expect(isSame(await load(open()), older.bytes)).toBe(true);
      await save(open(), stream);
      expect(isSame(await load(open(), mebibyte), stream.bytes)).toBe(true);
      expect(server.remains()).toHaveLength(2);
    },
  );
});

describe('the digest of an object in the manifest', () => {
  /** Of the docs: SHA-256 over the SHA-256s of what is stored, cut where the manifest says. */
  function expectDigests(server: S3TestServer, objectCount: number): void {
    const { objects } = JSON.parse(server.state.objects.get('vm')?.bytes.toString() ?? '') as Manifest;
    expect(objects).toHaveLength(objectCount);
    for (const { name, bytes: byteCount, partBytes: cut, digest } of objects) {
      const { bytes = Buffer.alloc(0) } = server.state.objects.get(`vm.objects/${name}`) ?? {};
      expect(bytes).toHaveLength(byteCount);
      expect(cut).toBe(partBytes);
      const digests: Buffer[] = [];
      for (let at = 0; at < bytes.length; at += cut) digests.push(sha256(bytes.subarray(at, at + cut)));
      expect(digest).toBe(sha256(Buffer.concat(digests)).toString('hex'));
    }
  }

  test.each([
    ['one part', small],
    ['exactly one part', longStream('one', partBytes)],
    ['several parts', large],
    ['several whole parts', longStream('whole', 2 * partBytes)],
  ])('is that of what is stored: %s', async (_, stream) => {
    const { server, open } = await place();
    await save(open(), stream);
    expectDigests(server, 1);
  });

  test('is that of what is stored, for each of several objects', async () => {
    const server = await S3TestServer.start();
    const url = server.url('vm', '&part-mib=5');
    const store = new S3Store(parsePlace(url.slice('s3:'.length), url), url, new S3Host(), 2);
    await save(store, longStream('several', 5 * partBytes + 17));
    expectDigests(server, 3);
  });

  test('is in the order of the parts, in whatever order the service has answered', async () => {
    const { server, open } = await place();
    let release: () => void = () => undefined;
    const third = new Promise<void>((resolve) => {
      release = resolve;
    });
    server.fault = async (asked) => {
      if (isPart(1, asked)) await third;
      if (isPart(3, asked)) release();
      return undefined;
    };
    await save(open(), large);
    expectDigests(server, 1);
    server.fault = undefined;
    expect(isSame(await load(open(), mebibyte), large.bytes)).toBe(true);
  });
});

interface Manifest {
  readonly objects: readonly {
    readonly name: string;
    readonly bytes: number;
    readonly partBytes: number;
    readonly digest: string;
  }[];
}
