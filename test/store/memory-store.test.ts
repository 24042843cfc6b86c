/** `mem:`: what it adds to the promises of every store. */
import { describe, expect, test } from 'vitest';
import { defaultMemoryStoreSpace, MemoryStoreSpace, openStore } from '../../src/store/index.ts';
import { isSame, load, noise, sampleStream, save } from './support/sample-stream.ts';

const stream = sampleStream('memory');

describe('mem:', () => {
  test('the URL names a checkpoint in the default space', async () => {
    await save(openStore('mem:named'), stream);
    expect(defaultMemoryStoreSpace.names()).toEqual(['named']);
    expect(defaultMemoryStoreSpace.byteLength('named')).toBe(stream.bytes.length);
    expect(isSame(await load(openStore('MEM:named')), stream.bytes)).toBe(true);
    expect(defaultMemoryStoreSpace.delete('named')).toBe(true);
    expect(defaultMemoryStoreSpace.delete('named')).toBe(false);
    await expect(openStore('mem:named').openReader()).rejects.toMatchObject({ code: 'CHKPT_NOT_FOUND' });
    expect(() => openStore('mem:')).toThrow(expect.objectContaining({ code: 'CHKPT_STORE_URL' }));
  });

  test('spaces and names are independent', async () => {
    const left = new MemoryStoreSpace();
    const right = new MemoryStoreSpace();
    await save(left.store('a'), stream);
    await save(left.store('b'), sampleStream('other'));
    expect([left.names(), right.names()]).toEqual([['a', 'b'], []]);
    expect(isSame(await load(left.store('a')), stream.bytes)).toBe(true);
  });

  test('bytes() is a copy of the stream, put() takes one', async () => {
    const space = new MemoryStoreSpace();
    await save(space.store('a'), stream);
    const copy = space.bytes('a') ?? new Uint8Array(0);
    expect(isSame(copy, stream.bytes)).toBe(true);
    copy[5] = (copy[5] ?? 0) ^ 1;
    expect(isSame(await load(space.store('a')), stream.bytes)).toBe(true);
    space.put('a', copy);
    const altered = Uint8Array.from(copy);
    copy.fill(0);
    expect(isSame(await load(space.store('a')), altered)).toBe(true);
    expect(space.bytes('none')).toBeUndefined();
    expect(space.byteLength('none')).toBeUndefined();
  });

  test('a deleted checkpoint stays readable for who has it open', async () => {
    const space = new MemoryStoreSpace();
    await save(space.store('a'), stream);
    const reader = await space.store('a').openReader();
    space.delete('a');
    const target = new Uint8Array(stream.bytes.length);
    expect(await reader.read(target)).toBe(stream.bytes.length);
    expect(isSame(target, stream.bytes)).toBe(true);
    await reader.close();
  });

  test('chunks are ArrayBuffers of their own, also for slices of a pooled Buffer', async () => {
    const space = new MemoryStoreSpace();
    const writer = await space.store('a').openWriter({ uuid: stream.summary.uuid });
    const pooled = Buffer.from('pooled bytes');
    await writer.write(pooled);
    pooled.fill(0);
    const shared = new Uint8Array(new SharedArrayBuffer(8)).fill(7);
    await writer.write(shared);
    shared.fill(0);
    await writer.commit({ ...stream.summary, bytes: 20 });
    expect(Buffer.from(space.bytes('a') ?? []).toString('latin1')).toBe(`pooled bytes${'\x07'.repeat(8)}`);
  });

  test('reads at every offset of a stream of odd chunks', async () => {
    const space = new MemoryStoreSpace();
    const bytes = noise('chunks', 200);
    const writer = await space.store('a').openWriter({ uuid: stream.summary.uuid });
    for (let start = 0, size = 1; start < bytes.length; start += size, size = (size % 13) + 1) {
      await writer.write(bytes.subarray(start, start + size));
    }
    await writer.commit({ ...stream.summary, bytes: bytes.length });
    const reader = await space.store('a').openReader();
    const target = new Uint8Array(31);
    for (let offset = 0; offset <= 210; offset += 1) {
      const byteCount = (await reader.readAt?.(offset, target)) ?? -1;
      expect(isSame(target.subarray(0, byteCount), bytes.subarray(offset, offset + 31)), `${offset}`).toBe(
        true,
      );
    }
    await reader.close();
  });
});
