/** Trackers of native code: the suite for each kind, the choice, and a WebAssembly memory that grows. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import {
  CheckpointError,
  GuestMemory,
  type MemoryTracker,
  type TrackerKind,
  trackMemory,
} from '../../src/index.ts';
import { dirtyTrackerSuite, expectCode, pagesOf } from '../conformance/dirty-tracker.suite.ts';

const mebibyte = 1024 ** 2;
const regions = [
  { base: 0, bytes: mebibyte },
  { base: 16 * mebibyte, bytes: mebibyte },
];
const folder = await mkdtemp(join(tmpdir(), 'chkpt-track-test-'));
afterAll(() => rm(folder, { recursive: true }));

/** Why this machine has no such tracker; undefined when it has. */
function lackOf(kind: TrackerKind): string | undefined {
  const memory = GuestMemory.allocate(regions);
  try {
    void trackMemory(memory, { kind }).close();
    return undefined;
  } catch (error) {
    if (!(error instanceof CheckpointError)) throw error;
    return error.message;
  } finally {
    void memory.close();
  }
}

for (const kind of ['write-protect', 'soft-dirty', 'digest', 'reported'] as const) {
  const lack = lackOf(kind);
  if (lack !== undefined) console.warn(`${kind} trackers are not tested: ${lack}`);
  describe.skipIf(lack !== undefined)('on this machine', () => {
    dirtyTrackerSuite(kind, () => {
      const memory = GuestMemory.allocate(regions, { hugePages: false });
      return {
        memory,
        open: () => trackMemory(memory, { kind, threads: 2 }),
        write: (tracker, page, value) => {
          const address = page < 256 ? page * 4096 : 16 * mebibyte + (page - 256) * 4096;
          memory.write(address, Uint8Array.of(value));
          if (kind === 'reported') (tracker as MemoryTracker).mark(page, 1);
        },
      };
    });
  });
}

describe('the choice', () => {
  it('takes write protection where it works, and says why else it takes digests', async () => {
    await using memory = GuestMemory.allocate(regions);
    await using tracker = trackMemory(memory);
    if (tracker.kind === 'write-protect') {
      await using second = trackMemory(memory);
      expect(second.kind).toBe('digest');
      expect(second.reason).toMatch(/another userfaultfd/);
    } else {
      expect(tracker.kind).toBe('digest');
      expect(tracker.reason).toMatch(/no write-protect: .+/);
    }
  });

  it('takes digests for memory that others may write to, or that is not mapped', async () => {
    const file = join(folder, 'ram');
    await writeFile(file, new Uint8Array(mebibyte));
    await using mapped = await GuestMemory.map([{ file }]);
    await using first = trackMemory(mapped);
    expect(first.kind).toBe('digest');
    expect(first.reason).toMatch(/other processes/);
    await using unmapped = await GuestMemory.openFiles([{ file }], { writable: true });
    await using second = trackMemory(unmapped);
    expect(second.kind).toBe('digest');
    await second.arm();
    await writeFile(file, new Uint8Array(4096).fill(1), { flag: 'r+' });
    expect(pagesOf(await second.harvest())).toEqual([0]);
  });

  it('a kind asked for that cannot be had is a typed error', async () => {
    await using memory = GuestMemory.describe(regions);
    for (const kind of ['kvm-log', 'kvm-ring', 'write-protect', 'digest'] as const) {
      try {
        trackMemory(memory, { kind });
        expect.unreachable();
      } catch (error) {
        expectCode('CHKPT_UNSUPPORTED')(error);
      }
    }
    expect(() => trackMemory(memory, { kind: 'magic' as TrackerKind })).toThrow(TypeError);
    await memory.close();
    try {
      trackMemory(memory);
      expect.unreachable();
    } catch (error) {
      expectCode('CHKPT_CLOSED')(error);
    }
  });

  it('marks outside the memory are refused', async () => {
    await using memory = GuestMemory.allocate(regions);
    await using tracker = trackMemory(memory, { kind: 'reported' });
    for (const [first, count] of [
      [-1, 1],
      [512, 1],
      [0, 513],
      [0.5, 1],
    ] as const) {
      expect(() => tracker.mark(first, count)).toThrow(RangeError);
    }
  });
});

it('WebAssembly memory is tracked, also after it has grown', async (context) => {
  const { WebAssembly } = globalThis as unknown as {
    WebAssembly: {
      Memory: new (limits: {
        initial: number;
        maximum: number;
      }) => {
        buffer: ArrayBuffer;
        grow(pages: number): number;
      };
    };
  };
  const lack = lackOf('write-protect');
  if (lack !== undefined) context.skip(lack);
  const wasm = new WebAssembly.Memory({ initial: 64, maximum: 1024 });
  const guest = (): Uint8Array => new Uint8Array(wasm.buffer);
  guest().fill(1);
  await using memory = GuestMemory.attach([{ memory: wasm }]);
  await using tracker = trackMemory(memory);
  expect(tracker.kind).toBe('write-protect');
  await tracker.arm();
  guest()[5 * 4096 + 1] = 2;
  expect(pagesOf(await tracker.harvest())).toEqual([5]);
  wasm.grow(64);
  guest()[6 * 4096] = 3;
  guest()[1000 * 4096] = 3;
  guest()[1100 * 4096] = 3;
  expect(pagesOf(await tracker.harvest())).toEqual([6, 1000]);
});
