import { beforeAll, describe, expect, it } from 'vitest';
import type { Digest64 } from '../../src/format/digest.ts';
import { FrameQueue } from '../../src/format/frame-queue.ts';
import { createWasmDigest64 } from '../../src/format/wasm-digest.ts';
import { allocateAligned } from '../../src/util/aligned-buffer.ts';
import { CallQueue } from '../../src/util/call-queue.ts';
import { GrowingBytes } from '../../src/util/growing-bytes.ts';
import { StreamBuilder } from '../support/stream-builder.ts';

let digest: Digest64;
beforeAll(async () => {
  digest = await createWasmDigest64();
});

describe('FrameQueue', () => {
  it('gives undefined until a whole frame is there, and takes nothing before', () => {
    const built = new StreamBuilder(digest);
    built.contextOpen('pic').tag('irr', 3, Uint8Array.of(1)).contextClose();
    const bytes = built.build();
    const queue = new FrameQueue(digest, 64);
    const seen: number[] = [];
    let header = queue.takeStreamHeader();
    for (const byte of bytes) {
      queue.space()[0] = byte;
      queue.filled(1);
      if (header === undefined) {
        header = queue.takeStreamHeader();
        continue;
      }
      const before = queue.offset;
      const frame = queue.take();
      if (frame === undefined) expect(queue.offset).toBe(before);
      else seen.push(frame.offset);
      if (seen.length === 4) break;
    }
    expect(seen).toEqual(built.buildParts().offsets.slice(0, 4));
    expect(queue.sequence).toBe(4);
  });

  it('grows its buffer only when it is full of bytes that were read', () => {
    const sizes: number[] = [];
    const allocator = (byteCount: number): Uint8Array => {
      sizes.push(byteCount);
      return new Uint8Array(byteCount);
    };
    const built = new StreamBuilder(digest);
    built.add(0x8000_0001, { payload: new Uint8Array(1_114_112).fill(7) });
    const bytes = built.build();
    const queue = new FrameQueue(digest, 4096, allocator);
    let at = 0;
    const feed = (upTo: number): void => {
      while (at < upTo) {
        const space = queue.space();
        const piece = bytes.subarray(at, Math.min(at + space.length, upTo));
        space.set(piece);
        queue.filled(piece.length);
        at += piece.length;
        if (queue.offset === 0) queue.takeStreamHeader();
      }
    };
    feed(128 + 56);
    expect(queue.peek()?.payloadBytes).toBe(1_114_112);
    expect(sizes).toEqual([4096]);
    feed(100_000);
    expect(Math.max(...sizes)).toBeLessThanOrEqual(4 * 100_000);
    feed(128 + 56 + 1_114_112);
    expect(queue.take()?.payload).toHaveLength(1_114_112);
    expect(Math.max(...sizes)).toBeLessThanOrEqual(4 << 20);
  });

  it('reads to places that are multiples of 64 bytes, also behind the rest of a frame', () => {
    const buffers: Uint8Array[] = [];
    const allocator = (byteCount: number): Uint8Array => {
      const buffer = new Uint8Array(byteCount);
      buffers.push(buffer);
      return buffer;
    };
    const built = new StreamBuilder(digest);
    built.contextOpen('pic');
    for (let tag = 0; tag < 200; tag++) built.tag(`tag ${tag}`, 0, new Uint8Array(tag));
    built.contextClose();
    const bytes = built.build();
    const queue = new FrameQueue(digest, 1024, allocator);
    for (let at = 0; at < bytes.length; ) {
      const space = queue.space();
      expect(space.byteOffset % 64).toBe(0);
      const piece = bytes.subarray(at, at + space.length);
      space.set(piece);
      queue.filled(piece.length);
      at += piece.length;
      if (queue.offset === 0) queue.takeStreamHeader();
      while (queue.sequence < built.frames.length && queue.take() !== undefined);
    }
    expect(queue.sequence).toBe(built.frames.length);
  });
});

describe('helpers', () => {
  it('an aligned buffer has the length asked for, or is the one of the allocator', () => {
    expect(allocateAligned(1000)).toHaveLength(1000);
    const own = new Uint8Array(5);
    expect(allocateAligned(5, () => own)).toBe(own);
  });

  it('growing bytes end at their final length and never beyond', () => {
    const bytes = new GrowingBytes(1000);
    for (let index = 0; index < 10; index++) {
      expect(bytes.isComplete).toBe(false);
      expect(() => bytes.take()).toThrow(RangeError);
      bytes.append(new Uint8Array(100).fill(index));
    }
    expect(bytes.take().buffer.byteLength).toBe(1000);
    expect(bytes.take()[999]).toBe(9);
    expect(() => bytes.append(Uint8Array.of(1))).toThrow(RangeError);
    expect(new GrowingBytes(0).take()).toHaveLength(0);
  });

  it('queued calls never overlap, keep their order, and outlive failures', async () => {
    const queue = new CallQueue();
    const events: string[] = [];
    const call = (name: string, fails = false) =>
      queue.run(async () => {
        events.push(`${name} starts`);
        await Promise.resolve();
        events.push(`${name} ends`);
        if (fails) throw new Error(name);
        return name;
      });
    const results = await Promise.allSettled([call('a'), call('b', true), call('c')]);
    expect(events).toEqual(['a starts', 'a ends', 'b starts', 'b ends', 'c starts', 'c ends']);
    expect(results.map(({ status }) => status)).toEqual(['fulfilled', 'rejected', 'fulfilled']);
  });
});
