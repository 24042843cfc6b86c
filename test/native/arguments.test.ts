/** Whatever JavaScript passes in, it gets a TypeError, a RangeError or a typed error: never a crash, never silence. */
import fc from 'fast-check';
import { afterAll, describe, expect, it } from 'vitest';
import { CheckpointError } from '../../src/errors/index.ts';
import { GuestMemory, PageDecoder, PageEncoder } from '../../src/memory/index.ts';
import { nativeAddon } from '../../src/native/index.ts';
import { detached, outOfBounds } from '../support/lost-memory.ts';

const memory = GuestMemory.allocate([
  { base: 0, bytes: 65536 },
  { base: 1n << 33n, bytes: 65536 },
]);
afterAll(() => memory.close());

describe('guest memory', () => {
  it.each([
    ['detached', () => detached(Uint8Array)],
    ['shrunk', () => outOfBounds(Uint8Array)],
    ['another typed array', () => new Uint16Array(8)],
    ['a DataView', () => new DataView(new ArrayBuffer(8))],
    ['a plain array', () => [1, 2]],
    ['a proxy', () => new Proxy(new Uint8Array(8), {})],
    ['undefined', () => undefined],
  ])('refuses a buffer that is %s with a TypeError', (_, make) => {
    expect(() => memory.read(0, make() as never)).toThrow(TypeError);
    expect(() => memory.write(0, make() as never)).toThrow(TypeError);
  });

  it('refuses a detached buffer below the checks of the package, too', () => {
    expect(() => nativeAddon().xxh3(detached(Uint8Array))).toThrow(TypeError);
    expect(() => memory.native.read(0n, detached(Uint8Array))).toThrow(TypeError);
  });

  it('refuses addresses and lengths outside its regions with a RangeError, across any border', () => {
    for (const [address, bytes] of [
      [65536, 1],
      [65535, 2],
      [-1, 1],
      [0.5, 1],
      [Number.MAX_SAFE_INTEGER, 1],
      [(1n << 33n) - 1n, 2],
      [(1n << 33n) + 65536n, 1],
      [1n << 64n, 1],
    ] as const) {
      expect(() => memory.read(address, bytes), `${address}`).toThrow(RangeError);
      expect(() => memory.write(address, new Uint8Array(bytes)), `${address}`).toThrow(RangeError);
    }
    expect(memory.read(65535, 1)).toEqual(new Uint8Array(1));
    expect(memory.read((1n << 33n) + 65535n, 1)).toEqual(new Uint8Array(1));
  });

  it.each<[string, { base: bigint | number; bytes: bigint | number }[]]>([
    ['none', []],
    ['base inside a page', [{ base: 1, bytes: 4096 }]],
    ['empty', [{ base: 0, bytes: 0 }]],
    ['part of a page', [{ base: 0, bytes: 4097 }]],
    ['above the last address', [{ base: 1n << 52n, bytes: 4096 }]],
    ['more than 16 TiB', [{ base: 0, bytes: 17n << 40n }]],
    [
      'descending',
      [
        { base: 8192, bytes: 4096 },
        { base: 0, bytes: 4096 },
      ],
    ],
    [
      'overlapping',
      [
        { base: 0, bytes: 8192 },
        { base: 4096, bytes: 4096 },
      ],
    ],
    ['257 regions', Array.from({ length: 257 }, (_, i) => ({ base: i * 4096, bytes: 4096 }))],
  ])('refuses a region table with %s with a RangeError', (_, regions) => {
    expect(() => GuestMemory.allocate(regions)).toThrow(RangeError);
  });

  it('refuses a plain ArrayBuffer to attach, and notices memory that shrank or was detached', () => {
    expect(() => GuestMemory.attach([{ memory: new ArrayBuffer(65536) as never }])).toThrow(TypeError);
    const wasm = new (
      globalThis as never as { WebAssembly: { Memory: new (o: object) => never } }
    ).WebAssembly.Memory({
      initial: 1,
      maximum: 2,
    }) as never as { buffer: ArrayBuffer; grow(pages: number): number };
    const attached = GuestMemory.attach([{ memory: wasm }]);
    attached.write(10, new Uint8Array([5]));
    expect(new Uint8Array(wasm.buffer)[10]).toBe(5);
    wasm.grow(1);
    expect(() => attached.read(0, 1)).toThrowError(
      expect.objectContaining({ code: 'CHKPT_MEMORY_DETACHED' }),
    );
  });

  it('knows attached memory again after it has grown, and no other', async () => {
    const { WebAssembly } = globalThis as never as {
      WebAssembly: { Memory: new (o: object) => { buffer: ArrayBuffer; grow(pages: number): number } };
    };
    const [wasm, other] = [
      new WebAssembly.Memory({ initial: 1, maximum: 4 }),
      new WebAssembly.Memory({ initial: 1, maximum: 4 }),
    ];
    const before = GuestMemory.attach([{ memory: wasm, bytes: 65536 }]);
    wasm.grow(1);
    const after = GuestMemory.attach([{ memory: wasm, bytes: 65536 }]);
    expect(before.sharesBytesWith(after)).toBe(true);
    expect(after.sharesBytesWith(GuestMemory.attach([{ memory: wasm }]))).toBe(false);
    expect(after.sharesBytesWith(GuestMemory.attach([{ memory: wasm, offset: 4096, bytes: 65536 }]))).toBe(
      false,
    );
    expect(after.sharesBytesWith(GuestMemory.attach([{ memory: other }]))).toBe(false);
    await using own = GuestMemory.allocate([{ base: 0, bytes: 65536 }]);
    expect(own.sharesBytesWith(own)).toBe(false);
    expect(() => own.native.sharesBytesWith({} as never)).toThrow(TypeError);
  });

  it('rejects every use after close with CHKPT_CLOSED and closes twice', async () => {
    const closed = GuestMemory.allocate([{ base: 0, bytes: 4096 }]);
    await closed.close();
    await closed.close();
    expect(() => closed.read(0, 1)).toThrowError(expect.objectContaining({ code: 'CHKPT_CLOSED' }));
    await expect(closed.digest()).rejects.toMatchObject({ code: 'CHKPT_CLOSED' });
  });

  it('close waits for what is in flight', async () => {
    const busy = GuestMemory.allocate([{ base: 0, bytes: 128 << 20 }]);
    await busy.native.fillGuestLike(3n, 2);
    const order: string[] = [];
    const work = busy.digest().then(() => order.push('digest'));
    await busy.close().then(() => order.push('close'));
    await work;
    expect(order).toEqual(['digest', 'close']);
  });
});

describe('options', () => {
  it.each([0, -1, 1.5, 65, Number.NaN, '2' as never])('refuse %s threads with a RangeError', (threads) => {
    expect(() => new PageEncoder(memory, { threads })).toThrow(RangeError);
    expect(() => new PageDecoder(memory, { threads })).toThrow(RangeError);
  });

  it('refuse codecs and accelerations that do not exist', () => {
    expect(() => new PageEncoder(memory, { codec: 'zip' as never })).toThrow(TypeError);
    expect(() => new PageEncoder(memory, { acceleration: 0 })).toThrow(RangeError);
    expect(() => new PageEncoder(memory, { slabCount: 1000 })).toThrow(RangeError);
  });
});

describe('the bare addon', () => {
  const addon = nativeAddon();
  const anything = fc.oneof(
    fc.anything({ withBigInt: true, withTypedArray: true, maxDepth: 1 }),
    fc.constant(memory.native),
    fc.constant(undefined).map(() => detached(Uint8Array)),
    fc.uint8Array(),
    fc.bigInt(),
    fc.nat(),
  );
  const acceptable = (error: unknown): boolean =>
    error instanceof TypeError ||
    error instanceof RangeError ||
    error instanceof CheckpointError ||
    (error instanceof Error && 'code' in error && String(error.code).startsWith('CHKPT_'));

  it('throws only TypeErrors and typed errors for random arguments', async () => {
    const { native } = memory;
    const calls: ((...values: never[]) => unknown)[] = [
      addon.xxh3,
      addon.peerProcess,
      addon.allocateBuffer,
      addon.copyBytes,
      addon.sha256,
      addon.lz4Encode,
      addon.lz4Decode,
      addon.attachMemory,
      addon.describeMemory,
      (...values) => new addon.SavePipeline(...(values as never as [never, never])),
      (...values) => new addon.LoadPipeline(...(values as never as [never, never])),
      (...values) => new addon.StampWriter(...(values as never as [never, never])),
      (...values) => native.read(...(values as never as [never, never])),
      (...values) => native.write(...(values as never as [never, never])),
      (...values) => native.read.apply(values[0], [0n, new Uint8Array(1)]),
      (...values) => addon.bench.read(...(values as never as [never, never])),
      (...values) => new addon.bench.StoredBlocks().add(...(values as never as [never])),
    ];
    await fc.assert(
      fc.asyncProperty(
        fc.nat(calls.length - 1),
        fc.array(anything, { maxLength: 4 }),
        async (index, values) => {
          try {
            await calls[index]?.(...(values as never[]));
          } catch (error) {
            return acceptable(error);
          }
          return true;
        },
      ),
      { numRuns: 5000 },
    );
  });
});
