/** Memory that is given back at once: large buffers are empty afterwards, at any time after the release was made. */
import { setTimeout } from 'node:timers/promises';
import { expect, test } from 'vitest';
import { MemoryRelease } from '../../src/util/release-memory.ts';

test('large buffers are empty at once, small ones and shared ones stay', async () => {
  const memory = new MemoryRelease();
  for (const waitMs of [0, 50]) {
    await setTimeout(waitMs);
    const [large, small] = [new Uint8Array(100_000).fill(7), new Uint8Array(100).fill(7)];
    const shared = new Uint8Array(new SharedArrayBuffer(100_000));
    memory.release([large, small, shared]);
    expect([large, small, shared].map(({ length }) => length)).toEqual([0, 100, 100_000]);
    memory.release([large]);
    memory.release([]);
  }
});
