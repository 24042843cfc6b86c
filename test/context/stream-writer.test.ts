import { createHash } from 'node:crypto';
import { beforeAll, describe, expect, it } from 'vitest';
import type { MemoryFrameSource } from '../../src/context/memory-frames.ts';
import { StreamWriter } from '../../src/context/stream-writer.ts';
import type { Digest64 } from '../../src/format/digest.ts';
import { createWasmDigest64 } from '../../src/format/wasm-digest.ts';
import { referenceSource } from '../support/page-encoder.ts';
import { readStream } from '../support/read-stream.ts';
import { samplePage, sampleRegions, sampleUuid as uuid } from '../support/sample-checkpoint.ts';
import { TestStore, type TestStoreOptions } from '../support/test-store.ts';

let digest: Digest64;
beforeAll(async () => {
  digest = await createWasmDigest64();
});

async function open(options: TestStoreOptions = {}): Promise<{ store: TestStore; writer: StreamWriter }> {
  const store = new TestStore(options);
  const writer = await StreamWriter.open(await store.openWriter({ uuid }), {
    uuid,
    digest,
    store: store.url,
  });
  return { store, writer };
}

function source(): MemoryFrameSource {
  return referenceSource(sampleRegions, samplePage, digest);
}

/** Header digests of the frames in a piece of a stream. */
function digestsIn(bytes: Uint8Array): Buffer[] {
  const view = Buffer.from(bytes);
  const digests: Buffer[] = [];
  for (
    let at = 0;
    at + 56 <= view.length;
    at += 56 + Math.ceil(Number(view.readBigUInt64LE(at + 8)) / 8) * 8
  ) {
    digests.push(view.subarray(at + 48, at + 56));
  }
  return digests;
}

describe('segments', () => {
  it('are start, one per context, and end; each with the digest of its frames', async () => {
    const { store, writer } = await open();
    await writer.openContext('pic');
    await writer.tag('irr', 'u8', Uint8Array.of(1));
    await writer.closeContext();
    await writer.memory('memory', source());
    await writer.openContext('empty');
    await writer.closeContext();
    const summary = await writer.finish();

    expect(store.segments.map(({ segment }) => segment)).toEqual([
      { kind: 'start', name: 'start' },
      { kind: 'values', name: 'pic' },
      { kind: 'memory', name: 'memory' },
      { kind: 'values', name: 'empty' },
      { kind: 'end', name: 'end' },
    ]);
    const bytes = store.bytes ?? new Uint8Array();
    for (const { segment, summary: told, start } of store.segments) {
      const body = bytes.subarray(start, start + (told?.bytes ?? 0));
      const frames =
        segment.kind === 'start' ? [] : digestsIn(segment.kind === 'end' ? body.subarray(0, -64) : body);
      expect(told).toEqual({
        bytes: body.length,
        frames: frames.length,
        digest: createHash('sha256').update(Buffer.concat(frames)).digest('hex'),
      });
    }
    expect(store.segments.map((segment) => segment.summary?.frames)).toEqual([0, 3, 10, 2, 2]);
    expect(store.segments.at(-1)?.start).toBe(bytes.length - (store.segments.at(-1)?.summary?.bytes ?? 0));
    expect(summary).toEqual({
      uuid,
      parent: undefined,
      epoch: 0n,
      root: (await readStream(bytes, digest)).summary.root,
      bytes: bytes.length,
      storedBytes: bytes.length,
    });
    expect({ ...store.summary, storedBytes: bytes.length }).toEqual(summary);
  });
});

describe('writes', () => {
  it('collect small frames into pieces of up to 256 KiB', async () => {
    const { store, writer } = await open({ segments: false });
    for (let context = 0; context < 100; context++) {
      await writer.openContext(`context ${context}`);
      for (let tag = 0; tag < 50; tag++) await writer.tag(`tag ${tag}`, 'bytes', new Uint8Array(100));
      await writer.closeContext();
    }
    await writer.finish();
    const total = store.writes.reduce((sum, count) => sum + count, 0);
    expect(Math.max(...store.writes)).toBeLessThanOrEqual(256 * 1024);
    expect(store.writes.length).toBeLessThanOrEqual(Math.ceil(total / (255 * 1024)));
    await readStream(store.bytes ?? new Uint8Array(), digest);
  });

  it('pass the pieces of a large value on where they stand', async () => {
    const { store, writer } = await open();
    const large = new Uint8Array(5 << 20).map((_, index) => index >> 9);
    await writer.openContext('vga');
    await writer.tag('ram', 'bytes', large);
    await writer.closeContext();
    await writer.finish();
    const passed = store.writes.filter((_, index) => store.writeBuffers[index] === large.buffer);
    expect(passed).toEqual([1 << 20, 1 << 20, 1 << 20, 1 << 20]);
    const read = await readStream(store.bytes ?? new Uint8Array(), digest);
    expect(Buffer.compare(read.contexts[0]?.tags[0]?.data ?? large.slice(1), large)).toBe(0);
  });

  it('copy a large value that other threads could change', async () => {
    const { store, writer } = await open();
    const shared = new Uint8Array(new SharedArrayBuffer(3 << 20)).fill(3);
    await writer.openContext('vga');
    await writer.tag('ram', 'bytes', shared);
    await writer.closeContext();
    await writer.finish();
    expect(store.writeBuffers).not.toContain(shared.buffer);
    await readStream(store.bytes ?? new Uint8Array(), digest);
  });

  it('pass slabs on where they stand, and release each after its write', async () => {
    const events: string[] = [];
    const { store, writer } = await open({ onCall: (name) => void events.push(name) });
    const inner = source();
    await writer.memory('memory', {
      ...inner,
      open: (position, signal) => {
        const stream = inner.open(position, signal);
        return {
          ...stream,
          next: async () => {
            events.push('next');
            const slab = await stream.next();
            if (slab === undefined) return undefined;
            return {
              ...slab,
              release: () => {
                expect(store.writeBuffers.at(-1)).toBe(slab.pieces[0]?.buffer);
                events.push('release');
                slab.release();
              },
            };
          },
          close: async () => void events.push('close'),
        };
      },
    });
    const first = events.indexOf('next');
    expect(events.slice(first)).toEqual([
      ...['next', 'write', 'release', 'next', 'write', 'release', 'next', 'write', 'release'],
      ...['next', 'close', 'write', 'end'],
    ]);
    await writer.finish();
    await readStream(store.bytes ?? new Uint8Array(), digest);
  });

  it('report progress after each slab', async () => {
    const { writer } = await open();
    const progress: number[] = [];
    await writer.memory('memory', source(), undefined, ({ writtenBytes, memoryBytes }) => {
      expect(memoryBytes).toBe(53n * 4096n);
      progress.push(writtenBytes);
    });
    expect(progress).toHaveLength(3);
    expect(progress.toSorted((left, right) => left - right)).toEqual(progress);
  });
});

describe('the same input', () => {
  it('gives the same bytes', async () => {
    const bytes: (Uint8Array | undefined)[] = [];
    for (const segments of [true, false]) {
      const { store, writer } = await open({ segments });
      await writer.memory(
        'memory',
        referenceSource(sampleRegions, samplePage, digest, { slabFrames: segments ? 1 : 9 }),
      );
      await writer.finish();
      bytes.push(store.bytes);
    }
    expect(bytes[0]).toEqual(bytes[1]);
  });
});

describe('failures', () => {
  it('of any call of the store leave nothing committed, and every later call is CHKPT_CLOSED until abort()', async () => {
    const counted = await open();
    await saveSample(counted.writer);
    const callCount = counted.store.calls.length;
    expect(callCount).toBeGreaterThan(10);
    for (let failing = 0; failing < callCount; failing++) {
      let call = 0;
      const cause = new Error('no');
      const onCall = (): void => {
        if (call++ === failing) throw cause;
      };
      const store = new TestStore({ onCall });
      let writer: StreamWriter | undefined;
      const error = await (async () => {
        writer = await StreamWriter.open(await store.openWriter({ uuid }), {
          uuid,
          digest,
          store: store.url,
        });
        await saveSample(writer);
      })().catch((caught: unknown) => caught);
      expect(error).toMatchObject({ code: 'CHKPT_STORE_FAILED', cause, details: { store: store.url } });
      expect(store.summary).toBeUndefined();
      if (writer !== undefined) {
        expect(writer.isUsable).toBe(false);
        await expect(writer.openContext('more')).rejects.toMatchObject({
          code: 'CHKPT_CLOSED',
          cause: error,
        });
        await writer.abort();
        await writer.abort();
      }
      expect(store.aborted).toBe(1);
    }
  });

  it('of a memory source close it and reach the caller', async () => {
    for (const at of ['next', 'totals'] as const) {
      const { store, writer } = await open();
      const inner = source();
      let closed = 0;
      const failing: MemoryFrameSource = {
        ...inner,
        open: (position, signal) => ({
          ...inner.open(position, signal),
          [at]: () => {
            throw new RangeError('guest gone');
          },
          close: async () => void closed++,
        }),
      };
      await expect(writer.memory('memory', failing)).rejects.toThrow('guest gone');
      expect(closed).toBe(1);
      expect(writer.isUsable).toBe(false);
      await writer.abort();
      expect(store.aborted).toBe(1);
    }
  });

  it('a source that misses pages or hands out half frames is CHKPT_INTERNAL', async () => {
    const inner = source();
    const missing: MemoryFrameSource = {
      ...inner,
      open: (position, signal) => {
        const stream = inner.open(position, signal);
        return { ...stream, totals: () => ({ ...stream.totals(), pages: 52 }) };
      },
    };
    await expect((await open()).writer.memory('memory', missing)).rejects.toMatchObject({
      code: 'CHKPT_INTERNAL',
    });
    const halves: MemoryFrameSource = {
      ...inner,
      open: (position, signal) => {
        const stream = inner.open(position, signal);
        const next = async () => {
          const slab = await stream.next();
          return slab && { ...slab, frameCount: slab.frameCount + 1 };
        };
        return { ...stream, next };
      },
    };
    await expect((await open()).writer.memory('memory', halves)).rejects.toMatchObject({
      code: 'CHKPT_INTERNAL',
    });
  });

  it('a cancelled memory context stops at the next slab', async () => {
    const { writer } = await open();
    const abort = new AbortController();
    const done = writer.memory('memory', source(), abort.signal, () => abort.abort());
    await expect(done).rejects.toMatchObject({ code: 'CHKPT_ABORTED' });
  });

  it('options that cannot be are refused, and the writer of the store is aborted', async () => {
    const store = new TestStore();
    const storeWriter = await store.openWriter({ uuid });
    await expect(StreamWriter.open(storeWriter, { uuid, digest, epoch: 4n })).rejects.toThrow(RangeError);
    expect(store.aborted).toBe(1);
  });

  it('calls that overlap are refused with a TypeError', async () => {
    const { store, writer } = await open();
    const first = writer.openContext('a');
    await expect(writer.openContext('b')).rejects.toThrow(TypeError);
    await expect(writer.abort()).rejects.toThrow(TypeError);
    await first;
    await writer.closeContext();
    await writer.finish();
    expect(
      (await readStream(store.bytes ?? new Uint8Array(), digest)).contexts.map(({ name }) => name),
    ).toEqual(['a']);
  });

  async function saveSample(writer: StreamWriter): Promise<void> {
    await writer.openContext('pic');
    await writer.tag('irr', 'bytes', new Uint8Array(1 << 20));
    await writer.closeContext();
    await writer.memory('memory', source());
    await writer.finish();
  }
});
