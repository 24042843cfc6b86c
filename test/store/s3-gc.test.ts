/** What saves into `s3:` leave behind when they are killed, and who removes it. */
import { expect, test } from 'vitest';
import '../support/s3/credentials.ts';
import { collectGarbage } from '../../src/index.ts';
import { openStore } from '../../src/store/index.ts';
import { S3TestServer } from '../support/s3/server.ts';
import { isSame, load, longStream, sampleStream, save } from './support/sample-stream.ts';

const mebibyte = 1024 * 1024;
const old = 3 * 24 * 3600 * 1000;

/** Everything in the bucket is older by `ms`. */
function age({ state }: S3TestServer, ms: number): void {
  for (const [key, { bytes, etag, changedMs }] of [...state.objects])
    state.put(key, bytes, etag, changedMs - ms);
  for (const upload of state.uploads.values()) upload.startedMs -= ms;
}

/** A checkpoint, and all that killed saves leave: an upload, and data whose commit never came. */
async function litter(server: S3TestServer): Promise<string[]> {
  const url = server.url('a/vm', '&part-mib=5');
  await save(openStore(url), sampleStream('kept'));
  const kept = server.remains();
  const killed = await openStore(url).openWriter({ uuid: sampleStream('killed').summary.uuid });
  for (const { bytes } of longStream('killed', 11 * mebibyte).segments) await killed.write(bytes);
  while (
    server.state.uploads.size === 0 ||
    [...server.state.uploads.values()].some(({ parts }) => parts.size < 2)
  ) {
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  const { uuid } = sampleStream('late').summary;
  server.state.put(`a/vm.objects/${uuid}.${'0'.repeat(32)}.0`, Buffer.alloc(1000));
  server.state.put(`a/gone.objects/${uuid}.${'1'.repeat(32)}.12`, Buffer.alloc(500));
  await openStore(url).claims?.take({ uuid, by: 'nobody', timeMs: 0 });
  return kept;
}

test('gc tells what is left behind, removes it when told to, and leaves the checkpoint alone', async () => {
  const server = await S3TestServer.start();
  const kept = await litter(server);
  const others = ['a/vm.objects/readme', 'a/vm.objects/x.continued', 'a.objects', 'b'];
  for (const key of others) server.state.put(key, Buffer.from('of somebody else'));
  server.state.pageCount = 2;
  const before = server.remains();
  const place = server.url('');
  expect((await collectGarbage(place)).leftovers).toEqual([]);
  age(server, old);
  const found = await collectGarbage(place);
  expect(found.leftovers.map(({ kind, bytes }) => [kind, bytes])).toEqual([
    ['upload', 10 * mebibyte],
    ['object', 500],
    ['object', 1000],
    ['object', expect.any(Number)],
  ]);
  expect(found.leftovers.every(({ path }) => path.startsWith('s3://bucket/a/'))).toBe(true);
  expect(server.remains()).toEqual(before);
  expect((await collectGarbage(place, { olderThanMs: 4 * 24 * 3600 * 1000 })).leftovers).toEqual([]);
  expect((await collectGarbage(server.url('b'), { remove: true })).leftovers).toEqual([]);
  const removed = await collectGarbage(place, { remove: true });
  expect(removed).toEqual({ ...found, removed: true });
  expect(server.remains()).toEqual([...kept, ...others].sort());
  expect(isSame(await load(openStore(server.url('a/vm'))), sampleStream('kept').bytes)).toBe(true);
});

test('gc touches nothing of a checkpoint whose manifest cannot be read', async () => {
  const server = await S3TestServer.start();
  await save(openStore(server.url('vm')), sampleStream('damaged'));
  const manifest = server.state.objects.get('vm')?.bytes ?? Buffer.alloc(0);
  server.state.put('vm', manifest.subarray(0, manifest.length - 2));
  age(server, old);
  expect((await collectGarbage(server.url(''), { remove: true })).leftovers).toEqual([]);
  server.fault = ({ key }) => (key === 'vm' ? { refuse: 403, code: 'AccessDenied' } : undefined);
  await expect(collectGarbage(server.url(''), { remove: true })).rejects.toMatchObject({
    code: 'CHKPT_PERMISSION',
  });
  expect(server.remains()).toHaveLength(2);
});

test('gc leaves what is kept for loads elsewhere until its time is over', async () => {
  const server = await S3TestServer.start();
  await save(openStore(server.url('vm')), sampleStream('first'));
  await save(openStore(server.url('vm', '&keep=3600')), sampleStream('second'));
  age(server, old);
  expect((await collectGarbage(server.url(''), { remove: true })).leftovers).toEqual([]);
  expect(server.remains()).toHaveLength(3);
});
