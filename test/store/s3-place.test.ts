/** What an `s3:` URL says, what a manifest may say, and what an SDK that is not there means. No service. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import '../support/s3/credentials.ts';
import { openS3Store, openStore } from '../../src/store/index.ts';
import { S3Host } from '../../src/store/s3/host.ts';
import {
  dataName,
  parseManifest,
  type S3Manifest,
  s3ManifestBytesMax,
  serializeManifest,
} from '../../src/store/s3/manifest.ts';
import { isSamePlace, parsePlace, parsePrefix } from '../../src/store/s3/place.ts';
import { S3Store } from '../../src/store/s3/s3-store.ts';

const place = (url: string) => parsePlace(url.slice('s3:'.length), url);

describe('an s3: URL', () => {
  test('names bucket, key and how the service is used', () => {
    expect(place('s3://backups/vm%201/a.chkpt')).toEqual({
      bucket: 'backups',
      key: 'vm 1/a.chkpt',
      settings: {},
    });
    const url =
      's3://backups/a?endpoint=http://127.0.0.1:7480&path-style=true&region=eu-1&part-mib=16&concurrency=2&keep=60&insecure=true';
    expect(place(url).settings).toEqual({
      endpoint: 'http://127.0.0.1:7480',
      pathStyle: true,
      region: 'eu-1',
      partBytes: 16 * 1024 * 1024,
      concurrency: 2,
      keepSeconds: 60,
      insecure: true,
    });
  });

  test('overrides what a program says', () => {
    const url = 's3://backups/a?region=eu-1';
    expect(parsePlace(url.slice(3), url, { region: 'us-1', concurrency: 3 }).settings).toEqual({
      region: 'eu-1',
      concurrency: 3,
    });
  });

  test.each([
    's3:',
    's3:backups/a',
    's3://',
    's3://backups',
    's3://backups/',
    's3://backups/folder/',
    's3://Backups/a',
    's3://user:secret@backups/a',
    's3://b/a',
    's3://backups/a.objects/b',
    's3://backups/%',
    's3://backups/%0a',
    's3://backups/a#b',
    `s3://backups/${'x'.repeat(901)}`,
    's3://backups/a?',
    's3://backups/a?secret=x',
    's3://backups/a?__proto__=x',
    's3://backups/a?region=a&region=b',
    's3://backups/a?region=A/B',
    's3://backups/a?endpoint=ftp://x',
    's3://backups/a?endpoint=http://user:secret@x',
    's3://backups/a?endpoint=x',
    's3://backups/a?path-style=1',
    's3://backups/a?part-mib=4',
    's3://backups/a?part-mib=65',
    's3://backups/a?part-mib=1e1',
    's3://backups/a?concurrency=0',
    's3://backups/a?concurrency=17',
    's3://backups/a?keep=-1',
    's3://backups/a?insecure=yes',
  ])('%s is CHKPT_STORE_URL', (url) => {
    expect(() => openStore(url)).toThrow(expect.objectContaining({ code: 'CHKPT_STORE_URL' }));
  });

  test('of gc may name the beginning of keys, or a whole bucket', () => {
    expect(parsePrefix('//backups', 's3://backups').key).toBe('');
    expect(parsePrefix('//backups/a/', 's3://backups/a/').key).toBe('a/');
  });

  test.each([
    ['s3://backups/a', 's3://backups/a', true],
    ['s3://backups/a', 's3://backups/%61?concurrency=1', true],
    ['s3://backups/a', 's3://backups/a?endpoint=http://x', true],
    ['s3://backups/a?endpoint=http://x/', 's3://backups/a?endpoint=http://x', true],
    ['s3://backups/a?endpoint=http://x', 's3://backups/a?endpoint=http://y', false],
    ['s3://backups/a', 's3://backups/b', false],
    ['s3://backups/a', 's3://others/a', false],
  ])('%s and %s are the same place: %s', (left, right, isSame) => {
    expect(isSamePlace(place(left), place(right))).toBe(isSame);
  });

  test('of another scheme is refused where one of s3: is wanted', () => {
    expect(() => openS3Store('file:a')).toThrow(expect.objectContaining({ code: 'CHKPT_STORE_URL' }));
  });
});

describe('without', () => {
  test('the SDK the error says what to install', async () => {
    const url = 's3://backups/a';
    const host = new S3Host(async () => {
      throw Object.assign(new Error('Cannot find package'), { code: 'ERR_MODULE_NOT_FOUND' });
    });
    const store = new S3Store(place(url), url, host);
    for (const call of [() => store.openReader(), () => store.remove(), () => store.claims.find(uuid)]) {
      await expect(call()).rejects.toMatchObject({
        code: 'CHKPT_UNSUPPORTED',
        message: expect.stringContaining('npm install @aws-sdk/client-s3'),
      });
    }
  });

  test('encryption a service on another machine is CHKPT_INSECURE', async () => {
    for (const endpoint of ['http://s3.example:80', 'http://192.0.2.1', 'http://127.0.0.1.example']) {
      const store = openStore(`s3://backups/a?region=a&endpoint=${endpoint}`);
      await expect(store.openReader()).rejects.toMatchObject({ code: 'CHKPT_INSECURE' });
    }
    process.env['AWS_ENDPOINT_URL_S3'] = 'http://192.0.2.2';
    try {
      const url = 's3://backups/a';
      const store = new S3Store(place(url), url, new S3Host());
      await expect(store.openReader()).rejects.toMatchObject({ code: 'CHKPT_INSECURE' });
    } finally {
      delete process.env['AWS_ENDPOINT_URL_S3'];
    }
  });
});

const uuid = '01234567-89ab-4cde-8f01-23456789abcd';
const token = '0'.repeat(32);
const manifest: S3Manifest = {
  uuid,
  parent: null,
  epoch: '18446744073709551615',
  root: 'a'.repeat(64),
  bytes: 300,
  token,
  objects: [0, 1].map((index) => ({
    name: dataName(uuid, token, index),
    bytes: 100 + 100 * index,
    etag: 'd41d8cd98f00b204e9800998ecf8427e-2',
    partBytes: 8388608,
    digest: 'b'.repeat(64),
  })),
  kept: [{ name: dataName(uuid, '1'.repeat(32), 0), untilMs: 1_700_000_000_000 }],
  history: ['1'.repeat(32)],
};
const details = { store: 'test' };
const refusal = expect.objectContaining({ code: 'CHKPT_MANIFEST' });

describe('a manifest', () => {
  test('comes back as it was written', () => {
    expect(parseManifest(Buffer.from(serializeManifest(manifest)), details)).toMatchObject(manifest);
  });

  test('with any byte changed, or cut anywhere, is CHKPT_MANIFEST', () => {
    const right = Buffer.from(serializeManifest(manifest));
    fc.assert(
      fc.property(fc.nat(right.length - 1), fc.integer({ min: 1, max: 255 }), (at, change) => {
        const wrong = Buffer.from(right);
        wrong[at] = (wrong[at] ?? 0) ^ change;
        expect(() => parseManifest(wrong, details)).toThrow(refusal);
        expect(() => parseManifest(right.subarray(0, at), details)).toThrow(refusal);
      }),
      { numRuns: 400 },
    );
  });

  test.each<[string, object]>([
    ['uuid', { uuid: '../x' }],
    ['parent', { parent: 'x' }],
    ['epoch', { epoch: '18446744073709551616' }],
    ['bytes', { bytes: 301 }],
    ['too many bytes', { bytes: Number.MAX_SAFE_INTEGER }],
    ['token', { token: 'x' }],
    ['an object elsewhere', { objects: [{ ...manifest.objects[0], name: '../../secret' }], bytes: 100 }],
    ['an object twice', { objects: [manifest.objects[0], manifest.objects[0]], bytes: 200 }],
    ['an empty object', { objects: [{ ...manifest.objects[0], bytes: 0 }], bytes: 0 }],
    ['an ETag that ends a header', { objects: [{ ...manifest.objects[0], etag: 'a\r\nx: y' }], bytes: 100 }],
    ['an ETag with a quote', { objects: [{ ...manifest.objects[0], etag: 'a"b' }], bytes: 100 }],
    [
      'too many objects',
      {
        objects: Array.from({ length: 257 }, (_, index) => ({
          ...manifest.objects[0],
          bytes: 1,
          name: dataName(uuid, token, index),
        })),
        bytes: 257,
      },
    ],
    ['kept', { kept: [{ name: 'x', untilMs: 0 }] }],
    ['history', { history: ['x'] }],
    ['a long history', { history: Array.from({ length: 33 }, () => token) }],
  ])('with a right digest and a wrong %s is CHKPT_MANIFEST', (_, change) => {
    const text = serializeManifest({ ...manifest, ...change } as S3Manifest);
    expect(() => parseManifest(Buffer.from(text), details)).toThrow(refusal);
  });

  test('that is too long, or something else, is CHKPT_MANIFEST', () => {
    const text = serializeManifest(manifest);
    for (const wrong of ['', '{}', 'null', '[]', `${text} `, text + ' '.repeat(s3ManifestBytesMax)]) {
      expect(() => parseManifest(Buffer.from(wrong), details)).toThrow(refusal);
    }
  });
});
