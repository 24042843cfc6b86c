/** Guest memory through the native pipelines and the stream, against the portable reader as oracle. */
import { describe, expect, it } from 'vitest';
import { openCheckpoint } from '../../src/checkpoint/open.ts';
import { verifyCheckpoint } from '../../src/checkpoint/verify.ts';
import { StreamReader } from '../../src/context/stream-reader.ts';
import { CheckpointError } from '../../src/errors/index.ts';
import { checkpointDigest } from '../../src/memory/digest.ts';
import { GuestMemory, PageDecoder, PageEncoder } from '../../src/memory/index.ts';
import { PortableVerifier } from '../../src/memory/portable-verifier.ts';
import { defaultMemoryStoreSpace, openStore } from '../../src/store/index.ts';

const regions = [
  { base: 0n, bytes: 640n * 1024n },
  { base: 0x10_0000n, bytes: 7n * 1024n * 1024n + 20480n },
  { base: 5n << 30n, bytes: 24n << 20n },
];

function stored(name: string): Uint8Array {
  return defaultMemoryStoreSpace.bytes(name) ?? new Uint8Array();
}

async function guest(): Promise<GuestMemory> {
  const memory = GuestMemory.allocate(regions);
  await memory.native.fillGuestLike(7n, 2);
  // An equal page in another block, and one in the same block.
  const page = memory.read(0x10_0000n, 4096);
  page[9] = 1;
  memory.write(0x10_0000n, page);
  memory.write(0x10_1000n, page);
  memory.write((5n << 30n) + 0x20_0000n, page);
  return memory;
}

async function save(
  memory: GuestMemory,
  url: string,
  options: ConstructorParameters<typeof PageEncoder>[1] = {},
) {
  const checkpoint = await openCheckpoint(url, {
    mode: 'save',
    uuid: '6f1d2c3b-4a59-4687-9a0b-c1d2e3f40516',
    createdMs: 0,
  });
  const context = await checkpoint.openContext('pic');
  await context.saveAll({ irr: 3, name: 'pic0' });
  await context.close();
  await checkpoint.saveMemory('memory', new PageEncoder(memory, options));
  return checkpoint.commit();
}

async function load(memory: GuestMemory, url: string): Promise<string> {
  const checkpoint = await openCheckpoint(url, { mode: 'load' });
  const context = await checkpoint.openContext('pic');
  expect(await context.load('irr')).toBe(3);
  await context.close();
  await checkpoint.loadMemory('memory', new PageDecoder(memory));
  const { root } = await checkpoint.finish();
  await checkpoint.close();
  return root;
}

describe('guest memory through a store', () => {
  it('comes back with equal digest, for every codec, and the bytes do not depend on the threads', async () => {
    const memory = await guest();
    const digest = await memory.digest();
    for (const codec of ['lz4', 'raw'] as const) {
      const summary = await save(memory, 'mem:a', { codec, threads: 1 });
      const bytes = stored('a');
      await save(memory, 'mem:b', { codec, threads: 3 });
      expect(Buffer.compare(bytes, stored('b'))).toBe(0);
      const target = GuestMemory.allocate(regions);
      expect(await load(target, 'mem:a')).toBe(summary.root);
      expect(await target.digest()).toBe(digest);
      // Once more into memory that is not fresh.
      await target.native.fillGuestLike(8n, 2);
      await load(target, 'mem:a');
      expect(await target.digest()).toBe(digest);
      await target.close();
      const report = await verifyCheckpoint('mem:a');
      expect(report.root).toBe(summary.root);
      expect(report.counts.samePages > 0).toBe(codec === 'lz4');
    }
    await memory.close();
  });

  it('decodes to the same pages with the portable reader', async () => {
    const memory = await guest();
    await save(memory, 'mem:c');
    const digest = await checkpointDigest();
    const reader = new StreamReader(await openStore('mem:c').openReader(), { digest });
    const image = new Uint8Array(Number(memory.byteLength));
    for await (const item of reader) {
      if (item.kind !== 'context-open' || item.contextKind !== 'memory') continue;
      await reader.readMemory(
        new PortableVerifier({
          digest,
          onPages: (firstPage, bytes) => image.set(bytes, firstPage * 4096),
          readPage: (page) => image.subarray(page * 4096, page * 4096 + 4096),
        }),
      );
    }
    let offset = 0;
    for (const { base, bytes } of regions) {
      const expected = memory.read(base, Number(bytes));
      expect(Buffer.compare(expected, image.subarray(offset, offset + expected.length))).toBe(0);
      offset += expected.length;
    }
    await memory.close();
  });

  it('refuses a damaged page with code, frame and offset', async () => {
    const memory = await guest();
    await save(memory, 'mem:d');
    const bytes = Uint8Array.from(stored('d'));
    const middle = Math.floor(bytes.length / 2);
    bytes[middle] = (bytes[middle] ?? 0) ^ 4;
    defaultMemoryStoreSpace.put('d', bytes);
    const failure = await verifyCheckpoint('mem:d').catch((error: unknown) => error);
    expect(failure).toBeInstanceOf(CheckpointError);
    expect(failure).toMatchObject({ code: 'CHKPT_DIGEST', kind: 'damaged' });
    expect((failure as CheckpointError).details).toMatchObject({ context: 'memory', store: 'mem:d' });
    await memory.close();
  });

  it('aborts a save in the middle and publishes nothing', async () => {
    const memory = GuestMemory.allocate([{ base: 0, bytes: 256 << 20 }]);
    await memory.native.fillGuestLike(1n, 2);
    const abort = new AbortController();
    const checkpoint = await openCheckpoint('mem:never', { mode: 'save', signal: abort.signal });
    setTimeout(() => abort.abort(), 30);
    await expect(
      checkpoint.saveMemory('memory', new PageEncoder(memory), { signal: abort.signal }),
    ).rejects.toMatchObject({
      code: 'CHKPT_ABORTED',
    });
    await checkpoint.abort();
    expect(defaultMemoryStoreSpace.names()).not.toContain('never');
    await memory.close();
  });
});
