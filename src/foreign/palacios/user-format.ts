/**
 * A checkpoint that a handler keeps, by the messages that an original sends to its user process (`user:`). chkpt is the VMM here: it asks,
 * one message at a time, and the handler answers. What contexts there are and how long a value is the handler is not asked: that is
 * known from the schema, or stands in `chkpt`, which is written first.
 */
import { CheckpointError } from '../../errors/index.ts';
import { formatError } from '../../format/bytes.ts';
import { valueBytesMax } from '../../limits.ts';
import type { GuestMemory } from '../../memory/index.ts';
import { throwIfAborted } from '../../store/failure.ts';
import { guardStore } from '../../store/guard.ts';
import type { Store } from '../../store/index.ts';
import type {
  ForeignContent,
  ForeignFormat,
  ForeignMemoryOptions,
  ForeignReading,
  ForeignWriter,
} from '../foreign-format.ts';
import { ForeignStore } from '../foreign-store.ts';
import { besideContext, decodeBeside, documentBytesMax, schemasOf } from './beside.ts';
import { decodeDeviceTable, deviceCountMax } from './device-table.ts';
import { isZeroPiece, piecesOf, wirePieces } from './image-file.ts';
import {
  blockBytesDefault,
  blocksOf,
  decodeImageHead,
  encodeImageHead,
  type ImageBlocks,
} from './image-layout.ts';
import { digestOf, type ImageSource, PalaciosReading } from './reading.ts';
import type { PalaciosContext, PalaciosRecord } from './record.ts';
import {
  blockTag,
  deviceNameBytes,
  devicesContext,
  guestInfoSchema,
  headerContext,
  headerSchema,
  memoryImageContext,
  memoryImageSchema,
  type Schema,
  vmcbSchema,
  vmcsSchema,
} from './schema.ts';
import { blockBytesIn, checkBlocks, fromPalacios, toPalacios } from './translate.ts';
import { type PalaciosUserHandler, UserStream } from './user-stream.ts';

export interface PalaciosUserOptions {
  /** What errors name; default `user:`. */
  readonly url?: string | undefined;
  /** As for folders. */
  readonly blockBytes?: number | undefined;
  /** What the contexts of devices hold, by name, in the order of the stream: needed for a checkpoint of an original that has any. */
  readonly devices?: ReadonlyMap<string, Schema> | undefined;
}

/** Blocks of memory go in one message each. */
const blockBytesMax = valueBytesMax;
const pieceBytes = 1024 * 1024;

/** An original numbers cores with fewer. */
const coreCountMax = 256;

function checkBlockBytes(blockBytes: number): void {
  const isWhole = Number.isSafeInteger(blockBytes) && blockBytes >= 4096 && blockBytes % 4096 === 0;
  if (!isWhole || blockBytes > blockBytesMax)
    throw new RangeError('blockBytes must be whole pages, at most 256 MiB');
}

/** A store whose checkpoint the handler keeps. It must not be used twice at a time. */
export function palaciosUserStore(handler: PalaciosUserHandler, options: PalaciosUserOptions = {}): Store {
  if (typeof handler !== 'function') throw new TypeError('the handler is not a function');
  const { url = 'user:' } = options;
  return guardStore(new ForeignStore(url, new UserFormat(new UserStream(handler, url), url, options)), url);
}

class UserFormat implements ForeignFormat {
  readonly #stream: UserStream;
  readonly #url: string;
  readonly #options: PalaciosUserOptions;

  constructor(stream: UserStream, url: string, options: PalaciosUserOptions) {
    checkBlockBytes(options.blockBytes ?? blockBytesDefault);
    this.#stream = stream;
    this.#url = url;
    this.#options = options;
  }

  async createWriter({ signal }: { signal?: AbortSignal | undefined }): Promise<ForeignWriter> {
    return new UserWriter(this.#stream.under(signal), this.#url, this.#options, signal);
  }

  async openReading({ signal }: { signal?: AbortSignal | undefined }): Promise<ForeignReading> {
    throwIfAborted(signal, this.#url);
    return await new UserReader(this.#stream.under(signal), this.#url, this.#options).open();
  }
}

class UserWriter implements ForeignWriter {
  readonly #stream: UserStream;
  readonly #url: string;
  readonly #options: PalaciosUserOptions;
  readonly #signal: AbortSignal | undefined;
  #memory: { readonly blocks: ImageBlocks; readonly digest: bigint } | undefined;
  #bytes = 0;

  constructor(
    stream: UserStream,
    url: string,
    options: PalaciosUserOptions,
    signal: AbortSignal | undefined,
  ) {
    this.#stream = stream;
    this.#url = url;
    this.#options = options;
    this.#signal = signal;
  }

  async memory(_name: string, image: GuestMemory, options: ForeignMemoryOptions): Promise<void> {
    const { signal, threads, onPages } = options;
    const blockBytes = blockBytesIn(options.before) ?? this.#options.blockBytes ?? blockBytesDefault;
    if (blockBytes > blockBytesMax) {
      throw new CheckpointError('CHKPT_UNSUPPORTED', 'blocks of memory are longer than a message may be', {
        details: { store: this.#url, expected: blockBytesMax, actual: blockBytes },
      });
    }
    const blocks = blocksOf(image, blockBytes);
    const digest = await digestOf(image, { threads });
    await this.#write(memoryImageContext, async (write) => {
      for (const record of encodeImageHead(blocks)) await write(record);
      let pages = 0;
      for (let index = 0; index < blocks.blockCount; index += 1) {
        throwIfAborted(signal, this.#url);
        const pieces = [...wirePieces(image, index, blocks, blockBytes)];
        await write({ tag: blockTag(index), data: Buffer.concat(pieces.map(({ bytes }) => bytes)) });
        pages += pieces.reduce((sum, { pageCount }) => sum + pageCount, 0);
        onPages?.(pages);
      }
    });
    this.#memory = { blocks, digest };
  }

  async commit(content: ForeignContent): Promise<number> {
    const written = this.#memory?.blocks;
    const { contexts, blocks } = toPalacios(content, this.#memory?.digest, written?.blockBytes);
    checkBlocks(blocks, written, this.#url);
    for (const { name, records } of contexts) {
      throwIfAborted(this.#signal, this.#url);
      await this.#write(name, async (write) => {
        for (const record of records) await write(record);
      });
    }
    return this.#bytes;
  }

  /** What the handler has it keeps: the protocol has no word for taking back. */
  async abort(): Promise<void> {}

  async #write(
    name: string,
    body: (write: (record: PalaciosRecord) => Promise<void>) => Promise<void>,
  ): Promise<void> {
    const handle = await this.#stream.open(name);
    if (handle === undefined) {
      throw new CheckpointError('CHKPT_STORE_FAILED', 'the handler does not open a context', {
        details: { store: this.#url, context: name },
      });
    }
    try {
      await body(async (record) => {
        await this.#stream.write(handle, record, name);
        this.#bytes += record.data.length;
      });
    } finally {
      await this.#stream.close(handle, name);
    }
  }
}

/** Asks for what there may be, in the order of the stream. */
class UserReader {
  readonly #stream: UserStream;
  readonly #url: string;
  readonly #devices: ReadonlyMap<string, Schema>;
  #valueBytes = 0;

  constructor(stream: UserStream, url: string, { devices = new Map() }: PalaciosUserOptions) {
    this.#stream = stream;
    this.#url = url;
    this.#devices = devices;
  }

  async open(): Promise<PalaciosReading> {
    const contexts: PalaciosContext[] = [];
    const schemas = new Map(this.#devices);
    const index = await this.#readIndex();
    if (index !== undefined) {
      contexts.push(index);
      for (const [name, schema] of schemasOf(decodeBeside(index))) schemas.set(name, schema);
    }
    const blocks = await this.#readBlocks();
    const table = await this.#readTable();
    if (table !== undefined) contexts.push(table);
    const inTable = table === undefined ? [] : decodeDeviceTable(table.records);
    const unknown = inTable.find((id) => !schemas.has(id));
    if (unknown !== undefined) {
      const what = 'the handler tells no lengths: say what this device holds (devices)';
      throw new CheckpointError('CHKPT_UNSUPPORTED', what, {
        details: { store: this.#url, context: unknown },
      });
    }
    for (const [name, schema] of schemas) {
      const context = await this.#read(name, schema);
      if (context !== undefined) contexts.push(context);
    }
    const header = await this.#read(headerContext, headerSchema);
    if (header === undefined) {
      throw new CheckpointError('CHKPT_NOT_FOUND', 'the handler has no checkpoint', {
        details: { store: this.#url },
      });
    }
    contexts.push(header, ...(await this.#readCores()));
    const content = fromPalacios({ contexts, blocks }, new Uint8Array());
    return new PalaciosReading(content, new UserImage(blocks, this.#stream), this.#url);
  }

  async #read(name: string, schema: Schema): Promise<PalaciosContext | undefined> {
    const handle = await this.#stream.open(name);
    if (handle === undefined) return undefined;
    try {
      const records: PalaciosRecord[] = [];
      for (const [tag, bytes] of schema) {
        const data = await this.#stream.read(handle, tag, bytes, name);
        // A handler that opens whatever it is asked for has nothing in it.
        if (data === undefined && records.length === 0) return undefined;
        if (data === undefined) throw formatError('the handler has no such value', { context: name, tag });
        this.#valueBytes += data.length;
        if (this.#valueBytes > valueBytesMax)
          throw this.#tooMuch('more values than a checkpoint may have', valueBytesMax);
        records.push({ tag, data });
      }
      return { name, records };
    } finally {
      await this.#stream.close(handle, name);
    }
  }

  #tooMuch(what: string, expected: number): CheckpointError {
    return new CheckpointError('CHKPT_LIMIT', what, { details: { store: this.#url, expected } });
  }

  async #readIndex(): Promise<PalaciosContext | undefined> {
    const head = await this.#read(besideContext, [['bytes', 8]]);
    const bytes = head?.records[0]?.data;
    if (bytes === undefined) return undefined;
    const documentBytes = new DataView(bytes.buffer, bytes.byteOffset, 8).getBigUint64(0, true);
    if (documentBytes > BigInt(documentBytesMax)) {
      throw new CheckpointError('CHKPT_LIMIT', 'the document is too long', {
        details: { context: besideContext, actual: documentBytes },
      });
    }
    return await this.#read(besideContext, [
      ['bytes', 8],
      ['document', Number(documentBytes)],
      ['sha256', 32],
    ]);
  }

  async #readBlocks(): Promise<ImageBlocks | undefined> {
    const head = await this.#read(memoryImageContext, memoryImageSchema);
    const blocks = head === undefined ? undefined : decodeImageHead(head.records);
    if (blocks === undefined || blocks.blockBytes <= blockBytesMax) return blocks;
    throw new CheckpointError('CHKPT_LIMIT', 'a block of memory is longer than a message may be', {
      details: { context: memoryImageContext, expected: blockBytesMax, actual: blocks.blockBytes },
    });
  }

  async #readTable(): Promise<PalaciosContext | undefined> {
    const head = await this.#read(devicesContext, [['num_devs', 4]]);
    const count = head?.records[0]?.data;
    if (count === undefined) return undefined;
    const deviceCount = new DataView(count.buffer, count.byteOffset, 4).getUint32(0, true);
    if (deviceCount > deviceCountMax) {
      throw new CheckpointError('CHKPT_LIMIT', 'more devices than any machine has', {
        details: { context: devicesContext, tag: 'num_devs', actual: deviceCount },
      });
    }
    return await this.#read(devicesContext, [
      ['num_devs', 4],
      ['names', deviceNameBytes * deviceCount],
    ]);
  }

  async #readCores(): Promise<PalaciosContext[]> {
    const contexts: PalaciosContext[] = [];
    for (let index = 0; ; index += 1) {
      const info = await this.#read(`guest_info${index}`, guestInfoSchema);
      if (info === undefined) return contexts;
      if (index >= coreCountMax) throw this.#tooMuch('more cores than any machine has', coreCountMax);
      contexts.push(info);
      for (const [name, schema] of [
        ['vmcb_data', vmcbSchema],
        ['vmcs_data', vmcsSchema],
      ] as const) {
        const context = await this.#read(`${name}${index}`, schema);
        if (context !== undefined) contexts.push(context);
      }
    }
  }
}

/** Blocks of memory, asked for one after the other. */
class UserImage implements ImageSource {
  readonly #blocks: ImageBlocks | undefined;
  readonly #stream: UserStream;

  constructor(blocks: ImageBlocks | undefined, stream: UserStream) {
    this.#blocks = blocks;
    this.#stream = stream;
  }

  async fill(
    image: GuestMemory,
    { signal, onPages, store }: ForeignMemoryOptions & { readonly store: string },
  ): Promise<void> {
    const blocks = this.#blocks;
    if (blocks === undefined) return;
    const missing = formatError('the handler has no such block of memory', { context: memoryImageContext });
    const stream = this.#stream.under(signal);
    const handle = await stream.open(memoryImageContext);
    if (handle === undefined) throw missing;
    try {
      for (const [tag, bytes] of memoryImageSchema) await stream.read(handle, tag, bytes, memoryImageContext);
      let pages = 0;
      for (let index = 0; index < blocks.blockCount; index += 1) {
        throwIfAborted(signal, store);
        const data = await stream.read(handle, blockTag(index), blocks.blockBytes, memoryImageContext);
        if (data === undefined) throw missing;
        pages += placeBlock(image, index, blocks, data);
        onPages?.(pages);
      }
    } finally {
      await stream.close(handle, memoryImageContext);
    }
  }

  async close(): Promise<void> {}
}

/** Resolves to how many pages of the image the block has. */
function placeBlock(image: GuestMemory, index: number, blocks: ImageBlocks, data: Uint8Array): number {
  const first = index * blocks.blockBytes;
  let pages = 0;
  for (const { address, bytes, isMemory } of piecesOf(image.regions, index, blocks, pieceBytes)) {
    if (!isMemory) continue;
    const piece = data.subarray(address - first, address - first + bytes);
    if (!isZeroPiece(piece)) image.write(address, piece);
    pages += bytes / 4096;
  }
  return pages;
}
