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

/** A store that hands each slab to `keep`, which gives back what is stored. */
function keepingStore(name: string, keep: (bytes: Uint8Array) => Uint8Array): Store {
  const inner = space.store(name);
  return {
    url: inner.url,
    openReader: (options) => inner.openReader(options),
    openWriter: async (options) => {
      const writer = await inner.openWriter(options);
      return {
        write: (bytes) => writer.write(bytes.buffer.byteLength > 2 * mebibyte ? keep(bytes) : bytes),
        commit: (summary) => writer.commit(summary),
        abort: () => writer.abort(),
      };
    },
  };
}

it('a slab that its consumer has transferred is never written again', async () => {
  const [first, second] = [memoryOf('first'), memoryOf('second')];
  const taken: { kept: Uint8Array; copy: Uint8Array }[] = [];
  const transferring = keepingStore('transferred', (bytes) => {
    const { byteOffset, byteLength } = bytes;
    const buffer = structuredClone(bytes.buffer as ArrayBuffer, { transfer: [bytes.buffer as ArrayBuffer] });
    const kept = new Uint8Array(buffer, byteOffset, byteLength);
    taken.push({ kept, copy: kept.slice() });
    return kept;
  });
  await save(first, transferring);
  await save(second, space.store('second'));
  await save(second, space.store('again'));
  await save(first, space.store('plain'));
  expect(taken.length).toBeGreaterThan(0);
  for (const { kept, copy } of taken) expect(Buffer.compare(kept, copy)).toBe(0);
  const stored = (name: string): Buffer => Buffer.from(space.bytes(name) ?? []);
  expect(stored('transferred').equals(stored('plain'))).toBe(true);
  expect(stored('second').equals(stored('again'))).toBe(true);
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
  for (let round = 0; round < 3; round += 1) await save(second, space.store(`round-${round}`));
  expect(Buffer.compare(view, copy)).toBe(0);
  finish();
  await aborted;
  await Promise.all([first.close(), second.close()]);
});
