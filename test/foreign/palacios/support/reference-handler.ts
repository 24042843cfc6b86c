/** What stands at the other end of `user:`. */
import {
  type PalaciosUserHandler,
  type PalaciosUserOptions,
  palaciosUserStore,
  type Store,
} from '../../../../src/index.ts';

/**
 * The reference handler, from the description: a file for each context, tag and data one behind the other, no lengths. It opens what it
 * is asked for, and answers a read that goes beyond the end with -1.
 */
export class ReferenceHandler {
  readonly files = new Map<string, Buffer>();
  readonly #open = new Map<bigint, { readonly name: string; at: number }>();
  #handles = 0n;
  readonly requests: Buffer[] = [];

  readonly handle: PalaciosUserHandler = (bytes) => {
    const request = Buffer.from(bytes);
    this.requests.push(request);
    const type = request.readInt32LE(8);
    const xfer = Number(request.readBigInt64LE(16));
    const handle = request.readBigUInt64LE(24);
    const buffer = request.subarray(48, 48 + Number(request.readBigUInt64LE(32)));
    const tagBytes = Number(request.readBigUInt64LE(40));
    if (type === 3) {
      this.#handles += 1n;
      const name = buffer.subarray(0, -1).toString('utf8');
      if (!this.files.has(name)) this.files.set(name, Buffer.alloc(0));
      this.#open.set(this.#handles, { name, at: 0 });
      return this.#answer(type, 0, this.#handles, Buffer.alloc(0));
    }
    const context = this.#open.get(handle);
    if (context === undefined) throw new Error('no such handle');
    const file = this.files.get(context.name) ?? Buffer.alloc(0);
    if (type === 4) {
      this.#open.delete(handle);
      return this.#answer(type, 0, handle, Buffer.alloc(0));
    }
    if (type === 5) {
      const kept = context.at === 0 ? buffer : Buffer.concat([file, buffer]);
      this.files.set(context.name, Buffer.from(kept));
      context.at = kept.length;
      return this.#answer(type, buffer.length - tagBytes, handle, Buffer.alloc(0));
    }
    const start = context.at + tagBytes;
    const isThere =
      start + xfer <= file.length && file.subarray(context.at, start).equals(buffer.subarray(0, tagBytes));
    if (!isThere) return this.#answer(type, -1, handle, Buffer.alloc(0));
    context.at = start + xfer;
    return this.#answer(type, xfer, handle, file.subarray(start, start + xfer));
  };

  get openCount(): number {
    return this.#open.size;
  }

  #answer(type: number, xfer: number, handle: bigint, buffer: Buffer): Buffer {
    const head = Buffer.alloc(48);
    head.writeBigUInt64LE(BigInt(48 + buffer.length), 0);
    head.writeInt32LE(type, 8);
    head.writeBigInt64LE(BigInt(xfer), 16);
    head.writeBigUInt64LE(handle, 24);
    head.writeBigUInt64LE(BigInt(buffer.length), 32);
    return Buffer.concat([head, buffer]);
  }
}

/** A store whose handler takes what was committed, as a transaction of its own: of a save that is dropped nothing is seen. */
export function committingUserStore(committed: ReferenceHandler, options: PalaciosUserOptions = {}): Store {
  const draft = new ReferenceHandler();
  for (const [name, file] of committed.files) draft.files.set(name, file);
  const store = palaciosUserStore(draft.handle, options);
  const { openWriter } = store;
  store.openWriter = async (writeOptions) => {
    draft.files.clear();
    const writer = await openWriter.call(store, writeOptions);
    const { commit } = writer;
    writer.commit = async (summary) => {
      await commit.call(writer, summary);
      committed.files.clear();
      for (const [name, file] of draft.files) committed.files.set(name, file);
    };
    return writer;
  };
  return store;
}
