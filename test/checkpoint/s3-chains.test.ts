/** Whole machines in `s3:`: chains over several stores, damage, and machines that go on once. */
import { describe, expect, it } from 'vitest';
import '../support/s3/credentials.ts';
import {
  convertCheckpoint,
  flattenCheckpoint,
  inspectCheckpoint,
  loadVm,
  saveVm,
  verifyChain,
  verifyCheckpoint,
} from '../../src/index.ts';
import { makeFolder } from '../store/support/folders.ts';
import { S3TestServer } from '../support/s3/server.ts';
import { ScribbledVm } from './support/scribbled-vm.ts';

async function machine(seed: number): Promise<ScribbledVm> {
  const vm = new ScribbledVm(seed, true);
  vm.scribble(900);
  return vm;
}

async function digestAt(url: string, options: Parameters<typeof loadVm>[2] = {}): Promise<bigint> {
  const vm = new ScribbledVm(0, false);
  await loadVm(vm, url, options);
  return await vm.memory.digest();
}

function dataKey(server: S3TestServer, key: string): string {
  return server.remains().find((name) => name.startsWith(`${key}.objects/`)) ?? '';
}

describe('a chain', () => {
  it('whose parent is in s3: and whose child is a file, and the other way round, loads and is made whole anywhere', async () => {
    const server = await S3TestServer.start();
    const folder = makeFolder();
    const vm = await machine(1);
    const urls = [server.url('zero'), `file:${folder}/one`, server.url('two'), `dir:${folder}/three`];
    for (const [index, url] of urls.entries()) {
      await saveVm(vm, url, index === 0 ? {} : { parent: urls[index - 1] });
      expect(await digestAt(url)).toBe(await vm.memory.digest());
      vm.scribble(30);
    }
    const [, , two = '', three = ''] = urls;
    expect((await verifyChain(three)).parents).toHaveLength(3);
    const expected = await digestAt(three);
    for (const flat of [server.url('flat'), `file:${folder}/flat`]) {
      await flattenCheckpoint(three, flat);
      await verifyCheckpoint(flat);
      await using inspection = await inspectCheckpoint(flat);
      expect(inspection.header.parent).toBeUndefined();
      expect(await digestAt(flat)).toBe(expected);
    }
    const digest = await digestAt(two);
    await flattenCheckpoint(two, two);
    expect(await digestAt(two)).toBe(digest);
    expect(await digestAt(three)).toBe(expected);
  });

  it('never loses a parent to its own child, whatever the URL is', async () => {
    const server = await S3TestServer.start();
    const vm = await machine(2);
    await saveVm(vm, server.url('vm'));
    const child = saveVm(vm, server.url('%76m', '&concurrency=1'), { parent: server.url('vm') });
    await expect(child).rejects.toMatchObject({ code: 'CHKPT_PARENT_CYCLE' });
  });
});

it('a checkpoint goes from a file into s3: and back, byte for byte', async () => {
  const server = await S3TestServer.start();
  const folder = makeFolder();
  const vm = await machine(3);
  await saveVm(vm, `file:${folder}/a`);
  await convertCheckpoint(`file:${folder}/a`, server.url('vm'));
  await convertCheckpoint(server.url('vm'), `file:${folder}/b`);
  const reports = await Promise.all(
    [`file:${folder}/a`, server.url('vm'), `file:${folder}/b`].map((url) => verifyCheckpoint(url)),
  );
  expect(new Set(reports.map(({ root }) => root)).size).toBe(1);
});

it('a machine goes on once', async () => {
  const server = await S3TestServer.start();
  await saveVm(await machine(5), server.url('vm'));
  await digestAt(server.url('vm'), { as: 'continue' });
  await expect(digestAt(server.url('vm'), { as: 'continue' })).rejects.toMatchObject({
    code: 'CHKPT_CONTINUED',
  });
});

describe('damage', () => {
  it('of one bit on the way is CHKPT_DIGEST, for verify and for load, and the machine does not run', async () => {
    const server = await S3TestServer.start();
    const vm = await machine(6);
    await saveVm(vm, server.url('vm'));
    const bytes = server.state.objects.get(dataKey(server, 'vm'))?.bytes ?? Buffer.alloc(0);
    for (const at of [200, Math.floor(bytes.length / 2), bytes.length - 100]) {
      bytes[at] = (bytes[at] ?? 0) ^ 4;
      await expect(verifyCheckpoint(server.url('vm'))).rejects.toMatchObject({ kind: 'damaged' });
      const target = new ScribbledVm(0, false);
      await expect(loadVm(target, server.url('vm'))).rejects.toMatchObject({ kind: 'damaged' });
      bytes[at] = (bytes[at] ?? 0) ^ 4;
    }
    await verifyCheckpoint(server.url('vm'));
  });

  it('of the bytes of a range, with the right ETag and length, is CHKPT_DIGEST, and the machine is not saved', async () => {
    const server = await S3TestServer.start();
    await saveVm(await machine(9), server.url('vm'), { codec: 'raw' });
    let wrong = 0;
    // Every range but the first is of memory in its middle.
    server.fault = ({ headers }) => {
      if (headers['range'] === undefined || headers['range'].startsWith('bytes=0-')) return undefined;
      return {
        answer: (right) => {
          const body = Buffer.from(right.body ?? '');
          const middle = Math.floor(body.length / 2);
          body[middle] = (body[middle] ?? 0) ^ 4;
          wrong += 1;
          return { ...right, body };
        },
      };
    };
    await expect(verifyCheckpoint(server.url('vm'))).rejects.toMatchObject({ code: 'CHKPT_DIGEST' });
    const target = new ScribbledVm(0, false);
    await expect(loadVm(target, server.url('vm'))).rejects.toMatchObject({ code: 'CHKPT_DIGEST' });
    expect(wrong).toBeGreaterThan(1);
    server.fault = undefined;
    await expect(saveVm(target, server.url('other'))).rejects.toMatchObject({ code: 'CHKPT_VM_FAILED' });
    await verifyCheckpoint(server.url('vm'));
  });

  it('a checkpoint that is replaced while it is loaded is CHKPT_REPLACED, and the machine is not saved', async () => {
    const server = await S3TestServer.start();
    const vm = await machine(7);
    await saveVm(vm, server.url('vm', '&part-mib=5'), { codec: 'raw' });
    const key = dataKey(server, 'vm');
    let ranges = 0;
    server.fault = ({ headers }) => {
      if (headers['range'] === undefined) return undefined;
      ranges += 1;
      if (ranges === 2) server.state.put(key, Buffer.alloc(1000));
      return undefined;
    };
    const target = new ScribbledVm(0, false);
    await expect(loadVm(target, server.url('vm'))).rejects.toMatchObject({ code: 'CHKPT_REPLACED' });
    server.fault = undefined;
    const before = server.remains();
    await expect(saveVm(target, server.url('other'))).rejects.toMatchObject({ code: 'CHKPT_VM_FAILED' });
    expect(server.remains()).toEqual(before);
  });
});
