/** The registry, and what its guard makes of stores that break the rules. */
import { describe, expect, test } from 'vitest';
import { CheckpointError } from '../../src/errors/index.ts';
import {
  openStore,
  registeredSchemes,
  registerStore,
  type Store,
  type StoreReader,
  StoreRegistry,
  type StoreWriter,
} from '../../src/store/index.ts';
import { sampleStream, writeSegments } from './support/sample-stream.ts';

const { uuid } = sampleStream('any').summary;
const summary = { uuid, parent: undefined, epoch: 0n, root: '0'.repeat(64), bytes: 0 };

describe('registry', () => {
  test('the stores that come with chkpt are registered', () => {
    expect(registeredSchemes()).toEqual(expect.arrayContaining(['dir', 'file', 'mem', 'null']));
  });

  test('an unknown scheme is CHKPT_STORE_UNKNOWN, which names the known ones', () => {
    expect(() => openStore('floppy:a')).toThrow(
      expect.objectContaining({
        code: 'CHKPT_STORE_UNKNOWN',
        message: expect.stringContaining('only dir: '),
      }),
    );
    expect(() => new StoreRegistry().open('file:a')).toThrow(
      expect.objectContaining({ code: 'CHKPT_STORE_UNKNOWN' }),
    );
  });

  test('schemes are the same in upper and lower case', () => {
    const registry = new StoreRegistry();
    const seen: string[] = [];
    registry.register('My+Scheme', (rest, url) => {
      seen.push(rest, url);
      return storeOf({});
    });
    expect(registry.open('MY+scheme:Rest:2').url).toBe('MY+scheme:Rest:2');
    expect(seen).toEqual(['Rest:2', 'MY+scheme:Rest:2']);
    expect(registry.schemes()).toEqual(['my+scheme']);
  });

  test('registering twice, a wrong scheme or no function is a TypeError', () => {
    const before = registeredSchemes();
    expect(() => registerStore('FILE', () => storeOf({}))).toThrow(TypeError);
    expect(() => registerStore('x', () => storeOf({}))).toThrow(TypeError);
    expect(() => registerStore('a b', () => storeOf({}))).toThrow(TypeError);
    expect(() => registerStore('xyz', {} as never)).toThrow(TypeError);
    expect(registeredSchemes()).toEqual(before);
  });

  test('a path without scheme is a file', async () => {
    const store = openStore('/nonexistent-folder/vm.chkpt');
    await expect(store.openReader()).rejects.toMatchObject({ code: 'CHKPT_NOT_FOUND' });
  });
});

describe('null:', () => {
  test('takes a stream and keeps nothing', async () => {
    const stream = sampleStream('null');
    const writer = await openStore('null:').openWriter({ uuid: stream.summary.uuid });
    await writeSegments(writer, stream);
    await writer.commit(stream.summary);
    await expect(openStore('null:').openReader()).rejects.toMatchObject({ code: 'CHKPT_UNSUPPORTED' });
    expect(() => openStore('null:name')).toThrow(expect.objectContaining({ code: 'CHKPT_STORE_URL' }));
  });
});

describe('guard', () => {
  const broken = new Error('the disk has gone');

  test('whatever a store throws becomes CHKPT_STORE_FAILED with the cause, a CheckpointError passes', async () => {
    const full = new CheckpointError('CHKPT_NO_SPACE', 'full');
    for (const [thrown, code] of [
      [broken, 'CHKPT_STORE_FAILED'],
      ['a string', 'CHKPT_STORE_FAILED'],
      [full, 'CHKPT_NO_SPACE'],
    ] as const) {
      const expected = thrown === full ? full : expect.objectContaining({ code, cause: thrown });
      const fail = () => Promise.reject(thrown);
      const failNow = () => {
        throw thrown;
      };
      for (const work of [fail, failNow] as (() => Promise<never>)[]) {
        await expect(guarded({ openWriter: work }).openWriter({ uuid })).rejects.toEqual(expected);
        await expect(guarded({ openReader: work }).openReader()).rejects.toEqual(expected);
        for (const call of ['write', 'commit', 'beginSegment'] as const) {
          await expect(callWriter({ [call]: work }, call)).rejects.toEqual(expected);
        }
        await expect((await writerOf({ abort: work })).abort()).rejects.toEqual(expected);
        await expect((await readerOf({ read: work })).read(new Uint8Array(1))).rejects.toEqual(expected);
        await expect((await readerOf({ readAt: work })).readAt?.(0, new Uint8Array(1))).rejects.toEqual(
          expected,
        );
        await expect((await readerOf({ close: work })).close()).rejects.toEqual(expected);
      }
      expect(() => openWith(failNow)).toThrow(expected);
    }
  });

  test('a factory or a store that returns nonsense is CHKPT_STORE_FAILED', async () => {
    const failed = expect.objectContaining({ code: 'CHKPT_STORE_FAILED' });
    for (const nonsense of [undefined, null, 7, {}, { write: 1 }]) {
      expect(() => openWith(() => nonsense as never)).toThrow(failed);
      await expect(
        guarded({ openWriter: async () => nonsense as never }).openWriter({ uuid }),
      ).rejects.toEqual(failed);
      await expect(guarded({ openReader: async () => nonsense as never }).openReader()).rejects.toEqual(
        failed,
      );
    }
    for (const byteLength of [-1, 0.5, Number.NaN, 2 ** 53, '7' as unknown as number]) {
      let isClosed = false;
      const close = async () => {
        isClosed = true;
      };
      await expect(readerOf({ byteLength, close })).rejects.toEqual(failed);
      expect(isClosed).toBe(true);
    }
  });

  test.each([-1, 9, 1.5, Number.NaN, Number.POSITIVE_INFINITY, undefined, '4', 4n])(
    'a read that returns %s for 8 bytes is CHKPT_STORE_FAILED',
    async (count) => {
      const reader = await readerOf({
        read: async () => count as number,
        readAt: async () => count as number,
      });
      await expect(reader.read(new Uint8Array(8))).rejects.toMatchObject({ code: 'CHKPT_STORE_FAILED' });
      await expect(reader.readAt?.(0, new Uint8Array(8))).rejects.toMatchObject({
        code: 'CHKPT_STORE_FAILED',
      });
    },
  );

  test('optional methods are optional: segments are swallowed, readAt stays absent', async () => {
    const writer = await writerOf({});
    await writer.beginSegment?.({ kind: 'start', name: 'start' });
    await writer.endSegment?.({ bytes: 0, frames: 0, digest: '' });
    await writer.commit(summary);
    const reader = await readerOf({});
    expect(reader.readAt).toBeUndefined();
    expect(reader.byteLength).toBeUndefined();
    expect((await readerOf({ readAt: async () => 0, byteLength: 5 })).readAt).toBeTypeOf('function');
  });

  test('bytes pass through without a copy, and an empty write does not reach the store', async () => {
    const seen: Uint8Array[] = [];
    const writer = await writerOf({
      write: async (bytes) => {
        seen.push(bytes);
      },
    });
    const bytes = new Uint8Array(64).subarray(3, 40);
    await writer.write(bytes);
    await writer.write(new Uint8Array(0));
    expect(seen).toHaveLength(1);
    expect(seen[0]).toBe(bytes);
    const target = new Uint8Array(16);
    const reader = await readerOf({
      read: async (into) => {
        expect(into).toBe(target);
        return 3;
      },
    });
    expect(await reader.read(target)).toBe(3);
  });

  test('after a failed call the store has dropped the save, and nothing can be written after the gap', async () => {
    const calls: string[] = [];
    const writer = await writerOf({
      write: async () => {
        calls.push('write');
        throw broken;
      },
      commit: async () => {
        calls.push('commit');
      },
      abort: async () => {
        calls.push('abort');
      },
    });
    await expect(writer.write(new Uint8Array(1))).rejects.toMatchObject({ code: 'CHKPT_STORE_FAILED' });
    expect(calls).toEqual(['write', 'abort']);
    await expect(writer.write(new Uint8Array(1))).rejects.toMatchObject({
      code: 'CHKPT_CLOSED',
      cause: { cause: broken },
    });
    await expect(writer.commit(summary)).rejects.toMatchObject({ code: 'CHKPT_CLOSED' });
    await writer.abort();
    await writer.abort();
    expect(calls).toEqual(['write', 'abort', 'abort']);
  });

  test('abort() waits for the call in progress', async () => {
    const calls: string[] = [];
    let finish = (): void => undefined;
    const writer = await writerOf({
      write: async () => {
        await new Promise<void>((resolve) => {
          finish = resolve;
        });
        calls.push('written');
      },
      abort: async () => {
        calls.push('aborted');
      },
    });
    const writing = writer.write(new Uint8Array(1));
    const aborting = writer.abort();
    await expect(writer.write(new Uint8Array(1))).rejects.toThrow();
    finish();
    await Promise.all([writing, aborting]);
    expect(calls).toEqual(['written', 'aborted']);
  });

  test('abort() after commit() does not reach the store', async () => {
    let isAborted = false;
    const writer = await writerOf({
      abort: async () => {
        isAborted = true;
      },
    });
    await writer.commit(summary);
    await writer.abort();
    expect(isAborted).toBe(false);
  });

  test('close() of a reader waits for the reads in progress', async () => {
    const calls: string[] = [];
    const finishes: (() => void)[] = [];
    const slowly = async (): Promise<number> => {
      await new Promise<void>((resolve) => finishes.push(resolve));
      calls.push('read');
      return 1;
    };
    const reader = await readerOf({
      read: slowly,
      readAt: slowly,
      close: async () => {
        calls.push('closed');
      },
    });
    const reads = [reader.read(new Uint8Array(1)), reader.readAt?.(0, new Uint8Array(1))];
    const closing = reader.close();
    for (const finish of finishes) finish();
    expect(await Promise.all(reads)).toEqual([1, 1]);
    await closing;
    expect(calls).toEqual(['read', 'read', 'closed']);
  });

  test('what a store throws because the caller cancelled is CHKPT_ABORTED', async () => {
    const controller = new AbortController();
    const store = guarded({
      openReader: async () => ({
        ...idleReader,
        read: async () => {
          controller.abort();
          throw broken;
        },
      }),
    });
    const reader = await store.openReader({ signal: controller.signal });
    await expect(reader.read(new Uint8Array(1))).rejects.toMatchObject({
      code: 'CHKPT_ABORTED',
      cause: broken,
    });
  });
});

const idle = async (): Promise<void> => undefined;
const idleWriter: StoreWriter = { write: idle, commit: idle, abort: idle };
const idleReader: StoreReader = { byteLength: undefined, read: async () => 0, close: idle };

function storeOf(parts: Partial<Store>): Store {
  return { url: '', openWriter: async () => idleWriter, openReader: async () => idleReader, ...parts };
}

function openWith(factory: () => Store): Store {
  const registry = new StoreRegistry();
  registry.register('test', factory);
  return registry.open('test:');
}

function guarded(parts: Partial<Store>): Store {
  return openWith(() => storeOf(parts));
}

function writerOf(parts: Partial<StoreWriter>): Promise<StoreWriter> {
  return guarded({ openWriter: async () => ({ ...idleWriter, ...parts }) }).openWriter({ uuid });
}

function readerOf(parts: Partial<StoreReader>): Promise<StoreReader> {
  return guarded({ openReader: async () => ({ ...idleReader, ...parts }) }).openReader();
}

async function callWriter(
  parts: Partial<StoreWriter>,
  call: 'write' | 'commit' | 'beginSegment',
): Promise<void> {
  const writer = await writerOf(parts);
  if (call === 'write') await writer.write(new Uint8Array(1));
  else if (call === 'commit') await writer.commit(summary);
  else await writer.beginSegment?.({ kind: 'start', name: 'start' });
}
