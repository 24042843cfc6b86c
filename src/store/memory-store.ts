/**
 * `mem:name`: checkpoints in the memory of this process. Fast, never durable, gone with the process.
 *
 * A `MemoryStoreSpace` is where they live; names of different spaces have nothing to do with each other. A
 * committed checkpoint never changes: a reader that was opened before a replacement goes on reading what it
 * opened.
 */
import { CheckpointError } from '../errors/index.ts';
import type { StoreClaims } from './claims.ts';
import { guardStore } from './guard.ts';
import { copyPieces, MemoryChunks, type MemoryObject } from './memory-chunks.ts';
import { MemoryClaims } from './memory-claims.ts';
import type {
  Store,
  StoreExtent,
  StoreFactory,
  StoreReader,
  StoreWriteOptions,
  StoreWriter,
} from './store.ts';
import { urlError } from './url.ts';

export class MemoryStoreSpace {
  readonly #objects = new Map<string, MemoryObject>();
  readonly #claims = new MemoryClaims();

  /** Names of the committed checkpoints, in order of their first commit. */
  names(): string[] {
    return [...this.#objects.keys()];
  }

  /** Length of a checkpoint in bytes, `undefined` when there is none of this name. */
  byteLength(name: string): number | undefined {
    return this.#objects.get(name)?.byteCount;
  }

  /** A copy of the bytes of a checkpoint, `undefined` when there is none of this name. */
  bytes(name: string): Uint8Array | undefined {
    const object = this.#objects.get(name);
    if (object === undefined) return undefined;
    const all = new Uint8Array(object.byteCount);
    for (const [index, chunk] of object.chunks.entries()) all.set(chunk, object.offsets[index]);
    return all;
  }

  /** Puts a copy of `bytes` in place of the checkpoint, as a commit does. */
  put(name: string, bytes: Uint8Array): void {
    const chunks = new MemoryChunks();
    chunks.append(bytes);
    this.#claims.keepOnly(name, undefined);
    this.#objects.set(name, chunks.seal());
  }

  /** Frees a checkpoint. False when there is none of this name. */
  delete(name: string): boolean {
    this.#claims.keepOnly(name, undefined);
    return this.#objects.delete(name);
  }

  /** The store that keeps its checkpoint here under `name`. */
  store(name: string, url = `mem:${name}`): Store {
    return guardStore(new MemoryStore(this.#objects, this.#claims, name, url), url);
  }
}

/** The space of the scheme `mem:`. */
export const defaultMemoryStoreSpace = new MemoryStoreSpace();

/** The factory of `mem:` over one space. */
export function memoryStoreFactory(space: MemoryStoreSpace = defaultMemoryStoreSpace): StoreFactory {
  return (rest, url) => {
    if (rest === '') throw urlError('mem: needs a name', url);
    return space.store(rest, url);
  };
}

class MemoryStore implements Store {
  readonly url: string;
  readonly claims: StoreClaims;
  readonly #objects: Map<string, MemoryObject>;
  readonly #allClaims: MemoryClaims;
  readonly #name: string;

  constructor(objects: Map<string, MemoryObject>, claims: MemoryClaims, name: string, url: string) {
    this.#objects = objects;
    this.#allClaims = claims;
    this.#name = name;
    this.url = url;
    this.claims = claims.at(name);
  }

  async openWriter({ uuid }: StoreWriteOptions): Promise<StoreWriter> {
    return new MemoryWriter(this.url, (object) => {
      this.#objects.set(this.#name, object);
      this.#allClaims.keepOnly(this.#name, uuid);
    });
  }

  async remove(): Promise<void> {
    this.#allClaims.keepOnly(this.#name, undefined);
    this.#objects.delete(this.#name);
  }

  async openReader(): Promise<StoreReader> {
    const object = this.#objects.get(this.#name);
    if (object !== undefined) return new MemoryReader(object);
    throw new CheckpointError('CHKPT_NOT_FOUND', 'no checkpoint of this name', {
      details: { store: this.url },
    });
  }
}

class MemoryWriter implements StoreWriter {
  readonly #url: string;
  readonly #publish: (object: MemoryObject) => void;
  #chunks = new MemoryChunks();

  constructor(url: string, publish: (object: MemoryObject) => void) {
    this.#url = url;
    this.#publish = publish;
  }

  write(bytes: Uint8Array): Promise<void> {
    return this.writeAll([bytes]);
  }

  async writeAll(pieces: readonly Uint8Array[]): Promise<void> {
    try {
      await this.#chunks.appendLarge(pieces);
    } catch (error) {
      throw new CheckpointError('CHKPT_NO_MEMORY', 'cannot allocate memory for the checkpoint', {
        details: { store: this.#url },
        cause: error,
      });
    }
  }

  async commit(): Promise<void> {
    this.#publish(this.#chunks.seal());
    this.#chunks = new MemoryChunks();
  }

  async abort(): Promise<void> {
    this.#chunks = new MemoryChunks();
  }
}

class MemoryReader implements StoreReader {
  #object: MemoryObject | undefined;
  #position = 0;
  readonly byteLength: number;

  constructor(object: MemoryObject) {
    this.#object = object;
    this.byteLength = object.byteCount;
  }

  async read(target: Uint8Array): Promise<number> {
    const byteCount = await this.#copy(this.#position, target);
    this.#position += byteCount;
    return byteCount;
  }

  async readAt(offset: number, target: Uint8Array): Promise<number> {
    return await this.#copy(offset, target);
  }

  extents(): readonly StoreExtent[] | undefined {
    return this.#object?.chunks.map((view) => ({ bytes: view.length, view }));
  }

  async close(): Promise<void> {
    this.#object = undefined;
  }

  async #copy(offset: number, target: Uint8Array): Promise<number> {
    const object = this.#object;
    if (object === undefined) throw new CheckpointError('CHKPT_CLOSED', 'the reader is closed');
    const pieces: Uint8Array[] = [];
    let done = 0;
    for (
      let index = chunkAt(object, offset);
      index < object.chunks.length && done < target.length;
      index += 1
    ) {
      const start = offset + done - (object.offsets[index] ?? 0);
      const piece = object.chunks[index]?.subarray(start, start + target.length - done);
      if (piece === undefined || piece.length === 0) break;
      pieces.push(piece);
      done += piece.length;
    }
    return await copyPieces(target, pieces);
  }
}

/** Index of the chunk that holds the byte at `offset`: the last one that begins at or before it. */
function chunkAt(object: MemoryObject, offset: number): number {
  let low = 0;
  let high = object.offsets.length - 1;
  while (low < high) {
    const middle = Math.ceil((low + high) / 2);
    if ((object.offsets[middle] ?? 0) <= offset) low = middle;
    else high = middle - 1;
  }
  return low;
}
