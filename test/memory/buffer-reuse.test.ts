/** Slabs and read buffers that go from one pipeline to the next: nobody's bytes change afterwards, and none of another's appear. */
import { expect, it } from 'vitest';
import { GuestMemory, MemoryStoreSpace, openCheckpoint, PageEncoder, type Store } from '../../src/index.ts';

const mebibyte = 1024 ** 2;
const fixed = { mode: 'save', uuid: '0b0e7f52-51a4-4c3f-8e67-1b2a3c4d5e6f', createdMs: 1 } as const;
const space = new MemoryStoreSpace();

async function save(memory: GuestMemory, store: Store, signal?: AbortSignal): Promise<void> {
  await using checkpoint = await openCheckpoint(store, { ...fixed, signal });
  await checkpoint.saveMemory('memory', new PageEncoder(memory, { threads: 2 }));
  await checkpoint.commit();
}

/** Memory in which each page is text of its own, so that slabs are full of what can be told apart. */
function memoryOf(word: string): GuestMemory {
  const memory = GuestMemory.allocate([{ base: 0, bytes: 24 * mebibyte }]);
  const pages = Array.from({ length: 6144 }, (_, page) => `${word} ${page} `.repeat(600).slice(0, 4096));
  memory.write(0, Buffer.from(pages.join('')));
  return memory;
}

it('a save finds nothing of the one before it', async () => {
  const [first, second] = [memoryOf('first'), memoryOf('second')];
  for (const [name, memory] of [
    ['first', first],
    ['second', second],
    ['first again', first],
    ['second again', second],
  ] as const) {
    await save(memory, space.store(name));
  }
  const stored = (name: string): Buffer => Buffer.from(space.bytes(name) ?? []);
  expect(stored('first').length).toBeGreaterThan(100_000);
  expect(stored('first again').equals(stored('first'))).toBe(true);
  expect(stored('second again').equals(stored('second'))).toBe(true);
  await Promise.all([first.close(), second.close()]);
});

it('a write that is under way when its save is aborted reads what it was given, whatever else is saved meanwhile', async () => {
  const [first, second] = [memoryOf('first'), memoryOf('second')];
  const stop = new AbortController();
  const inner = space.store('hanging');
  let view: Uint8Array | undefined;
  let finish: () => void = () => undefined;
  const finished = new Promise<void>((resolve) => {
    finish = resolve;
  });
  const hanging: Store = {
    url: inner.url,
    openReader: (options) => inner.openReader(options),
    openWriter: async (options) => {
      const writer = await inner.openWriter(options);
      return {
        write: async (bytes) => {
          if (bytes.buffer.byteLength <= 2 * mebibyte) return writer.write(bytes);
          view ??= bytes;
          stop.abort();
          return finished;
        },
        commit: (summary) => writer.commit(summary),
        abort: () => writer.abort(),
      };
    },
  };
  const aborted = expect(save(first, hanging, stop.signal)).rejects.toMatchObject({ code: 'CHKPT_ABORTED' });
  while (view === undefined) await new Promise((resolve) => setTimeout(resolve, 1));
  const copy = view.slice();
  await Promise.all(['a', 'b', 'c', 'd'].map((name) => save(second, space.store(name))));
  expect(Buffer.compare(view, copy)).toBe(0);
  finish();
  await aborted;
  await Promise.all([first.close(), second.close()]);
});
