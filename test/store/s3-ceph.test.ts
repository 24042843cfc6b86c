/**
 * `s3:` with a real service: the gateway of Ceph, from Debian's packages. With one store in memory in every run; with three that
 * replicate, one of which is killed in mid-save and one in mid-load, by `npm run test:s3`.
 */
import { CreateBucketCommand, S3Client } from '@aws-sdk/client-s3';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import '../support/s3/credentials.ts';
import { openStore, type Store } from '../../src/store/index.ts';
import { loadSdk } from '../../src/store/s3/sdk.ts';
import { S3Service } from '../../src/store/s3/service.ts';
import { describeS3Machines, type S3Subject } from '../conformance/s3-machines.suite.ts';
import { describeStore, type StoreSubject } from '../conformance/store.suite.ts';
import { CephService, whyNoCeph } from '../support/s3/ceph.ts';
import { isSame, load, longStream, sampleStream, save } from './support/sample-stream.ts';

const mebibyte = 1024 * 1024;
const missing = whyNoCeph();
if (missing !== undefined) {
  const what = `s3: is not tested with a real service: ${missing}`;
  if (process.env['CHKPT_REQUIRE_GUESTS'] === '1') throw new Error(what);
  console.warn(what);
}
const waiting = { timeout: 60_000, interval: 500 };
const isReplicated = process.env['CHKPT_S3_REPLICAS'] === '1';

/** Started once for the tests of a `describe`. */
class Bed {
  #ceph: CephService | undefined;
  #service: S3Service | undefined;
  #placeCount = 0;

  constructor(stores: number, kind: 'memstore' | 'bluestore') {
    beforeAll(async () => {
      this.#ceph = await CephService.start({ stores, kind });
      const { endpoint } = this.#ceph;
      const client = new S3Client({ endpoint, region: 'us-east-1', forcePathStyle: true });
      await client.send(new CreateBucketCommand({ Bucket: 'checkpoints' }));
      this.#service = new S3Service(await loadSdk('test'), client, 'checkpoints', 'test');
    }, 300_000);
    afterAll(async () => await this.#ceph?.stop(), 60_000);
  }

  get ceph(): CephService {
    if (this.#ceph === undefined) throw new Error('not started');
    return this.#ceph;
  }

  get service(): S3Service {
    if (this.#service === undefined) throw new Error('not started');
    return this.#service;
  }

  /** A place that nobody has used. */
  subject(more = ''): StoreSubject & { readonly key: string } {
    this.#placeCount += 1;
    const key = `place ${this.#placeCount}/vm`;
    const url = `s3://checkpoints/${encodeURI(key)}?endpoint=${this.ceph.endpoint}&region=us-east-1${more}`;
    return { key, open: () => openStore(url), remains: () => this.#remains(key) };
  }

  /** For machines: keys that nobody has used. */
  machines(): S3Subject {
    this.#placeCount += 1;
    const prefix = `machines ${this.#placeCount}/`;
    const base = `s3://checkpoints/${encodeURI(prefix)}`;
    const query = `?endpoint=${this.ceph.endpoint}&region=us-east-1`;
    return { service: this.service, prefix, url: (name = '', more = '') => `${base}${name}${query}${more}` };
  }

  async #remains(key: string): Promise<string[]> {
    const found: string[] = [];
    for await (const object of this.service.objects(key)) found.push(object.key);
    for await (const upload of this.service.uploads(key)) found.push(`upload ${upload.key}`);
    return found.sort();
  }
}

describe.skipIf(missing !== undefined)('Ceph, one store in memory', () => {
  const bed = new Bed(1, 'memstore');

  describeStore('s3: of Ceph', { randomAccess: true, removesWhenClosed: true }, () => bed.subject());
  describeS3Machines('machines', () => bed.machines());

  test('a stream of many parts comes back, and is replaced without a trace', async () => {
    const { open, remains } = bed.subject('&part-mib=5');
    const stream = longStream('ceph', 33 * mebibyte);
    await save(open(), stream);
    expect(isSame(await load(open(), 3 * mebibyte), stream.bytes)).toBe(true);
    await save(open(), sampleStream('newer'));
    expect(await remains?.()).toHaveLength(2);
  });

  test('a save that is dropped in the middle leaves no upload', async () => {
    const { open, remains } = bed.subject('&part-mib=5');
    const stream = longStream('dropped', 17 * mebibyte);
    const writer = await open().openWriter({ uuid: stream.summary.uuid });
    await writer.write(stream.bytes);
    expect((await remains?.())?.some((name) => name.startsWith('upload'))).toBe(true);
    await writer.abort();
    expect(await remains?.()).toEqual([]);
  });

  test('a part that is altered on its way is refused', async () => {
    const { key } = bed.subject();
    const sent = bed.service.put(key, Buffer.from('altered'), '0'.repeat(64));
    await expect(sent).rejects.toMatchObject({ $metadata: { httpStatusCode: 400 } });
  });

  test('of many saves at once each succeeds, one is there, and nothing is left of the others', async () => {
    const { open, remains } = bed.subject();
    const streams = Array.from({ length: 6 }, (_, index) => sampleStream(`writer ${index}`));
    await Promise.all(streams.map((stream) => save(open(), stream)));
    const found = await load(open());
    expect(streams.filter(({ bytes }) => isSame(bytes, found))).toHaveLength(1);
    expect(await remains?.()).toHaveLength(2);
  });

  test('an object that is replaced while it is read is CHKPT_REPLACED', async () => {
    const { open, key } = bed.subject();
    const stream = longStream('replaced', 3 * mebibyte);
    await save(open(), stream);
    const reader = await open().openReader();
    for await (const object of bed.service.objects(`${key}.objects/`)) {
      await bed.service.put(object.key, Buffer.from(stream.bytes), await digestOf(stream.bytes));
    }
    // The same bytes have the same ETag, made in one part: that is the same object.
    expect(await reader.readAt?.(0, new Uint8Array(10))).toBe(10);
    for await (const object of bed.service.objects(`${key}.objects/`)) {
      const other = stream.bytes.map((byte) => byte ^ 1);
      await bed.service.put(object.key, other, await digestOf(other));
    }
    await expect(reader.readAt?.(0, new Uint8Array(10))).rejects.toMatchObject({ code: 'CHKPT_REPLACED' });
    await reader.close();
  });
});

describe.skipIf(missing !== undefined || !isReplicated)('Ceph, three stores with a copy each', () => {
  const bed = new Bed(3, 'bluestore');

  test('saves and loads go on when a store is killed in the middle, and every byte is right', async () => {
    const subjects = Array.from({ length: 4 }, () => bed.subject('&part-mib=5'));
    const streams = subjects.map((_, index) => longStream(`replicated ${index}`, 64 * mebibyte));
    const saves = subjects.map(async ({ open }, index) => {
      const stream = streams[index] as (typeof streams)[number];
      await saveInPieces(open(), stream, index === 0 ? () => bed.ceph.kill(1) : undefined);
    });
    await Promise.all(saves);
    for (const [index, { open, remains }] of subjects.entries()) {
      expect(isSame(await load(open(), 4 * mebibyte), streams[index]?.bytes ?? new Uint8Array(0))).toBe(true);
      expect(await remains?.()).toHaveLength(2);
    }
    await expect.poll(() => bed.ceph.storesUp(), waiting).toBe(2);
    bed.ceph.revive(1);
    await expect.poll(() => bed.ceph.storesUp(), waiting).toBe(3);
    const { open } = subjects[0] as (typeof subjects)[number];
    const bytes = await loadInPieces(open(), () => bed.ceph.kill(0));
    expect(isSame(bytes, streams[0]?.bytes ?? new Uint8Array(0))).toBe(true);
    await expect.poll(() => bed.ceph.storesUp(), waiting).toBe(2);
  }, 300_000);
});

/** `inTheMiddle` is called when some of it is read. */
async function loadInPieces(store: Store, inTheMiddle: () => void): Promise<Uint8Array> {
  const reader = await store.openReader();
  try {
    const pieces: Uint8Array[] = [];
    for (;;) {
      const target = new Uint8Array(2 * mebibyte);
      const byteCount = await reader.read(target);
      if (byteCount === 0) return Buffer.concat(pieces);
      pieces.push(target.subarray(0, byteCount));
      if (pieces.length === 4) inTheMiddle();
    }
  } finally {
    await reader.close();
  }
}

/** `inTheMiddle` is called when half of it is written. */
async function saveInPieces(
  store: Store,
  { bytes, segments, summary }: ReturnType<typeof longStream>,
  inTheMiddle?: () => void,
): Promise<void> {
  const writer = await store.openWriter({ uuid: summary.uuid });
  const [{ segment }] = segments as [(typeof segments)[number]];
  await writer.beginSegment?.(segment);
  for (let at = 0; at < bytes.length; at += 2 * mebibyte) {
    if (at === 32 * mebibyte) inTheMiddle?.();
    await writer.write(bytes.subarray(at, at + 2 * mebibyte));
  }
  await writer.endSegment?.({ bytes: bytes.length, frames: 1, digest: '0'.repeat(64) });
  await writer.commit(summary);
}

async function digestOf(bytes: Uint8Array): Promise<string> {
  return Buffer.from(await crypto.subtle.digest('SHA-256', bytes as Uint8Array<ArrayBuffer>)).toString('hex');
}
