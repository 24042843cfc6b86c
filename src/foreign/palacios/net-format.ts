/**
 * `palacios+net:`: a checkpoint as an original sends and receives it, memory first. Every byte goes from the sender to the receiver and
 * its end is the end of the connection, so that a save which resolves says no more than that the peer has closed in good order.
 */
import { type FileHandle, open, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { CheckpointError, fromSystemError } from '../../errors/index.ts';
import { formatError } from '../../format/bytes.ts';
import type { GuestMemory } from '../../memory/index.ts';
import { awaitNative, callNative, nativeAddon } from '../../native/index.ts';
import { throwIfAborted } from '../../store/failure.ts';
import type { Link } from '../../transport/link.ts';
import type {
  ForeignContent,
  ForeignFormat,
  ForeignMemoryOptions,
  ForeignReading,
  ForeignWriter,
} from '../foreign-format.ts';
import { makeScratchFolder } from '../scratch.ts';
import { isBeside } from './beside.ts';
import { checkContext } from './check-context.ts';
import { isZeroPiece, readImageRegions, wirePieces } from './image-file.ts';
import {
  blockBytesDefault,
  blocksOf,
  decodeImageHead,
  encodeImageHead,
  type ImageBlocks,
  imageBytes,
} from './image-layout.ts';
import { encodeKeyFrame } from './key-frame.ts';
import { openLink, type PalaciosAddress, type PalaciosLink, type PalaciosLinkOptions } from './net-link.ts';
import { digestOf, type ImageSource, PalaciosReading } from './reading.ts';
import { encodeRecordHead, encodeRecords, type PalaciosContext } from './record.ts';
import { blockTag, memoryImageContext, memoryImageSchema } from './schema.ts';
import { blockBytesIn, checkBlocks, fromPalacios, type TranslatedContent, toPalacios } from './translate.ts';
import { WireReader } from './wire-reader.ts';

export interface PalaciosNetOptions extends PalaciosLinkOptions {
  /** As for folders: blocks of memory that came from no original. */
  readonly blockBytes?: number | undefined;
  /**
   * Whether contexts that no original knows follow the last one; default true. An original has closed the connection by then, and a save
   * ends with `CHKPT_UNACKNOWLEDGED`; without them a checkpoint of chkpt's does not come back.
   */
  readonly beside?: boolean | undefined;
  /** Told when a context is closed by another name than it was opened by, as the PCI bus of an original does. */
  readonly onClosingName?: ((context: string, close: string) => void) | undefined;
}

const pieceBytes = 1024 * 1024;
const closeMs = 10_000;
const pciFunctionName = /-\d+\.\d+-\d+$/;
const lastBarTag = 'BAR-5';

/**
 * A context between its frames. The PCI bus of an original uses one buffer for the name of a function and those of its BARs, and closes
 * by what it holds then: so it is sent, byte for byte; what closes a context means nothing to a reader.
 */
export function encodeWireContext(context: PalaciosContext): Uint8Array[] {
  const { name, records } = context;
  const isFunction = pciFunctionName.test(name) && records.at(-1)?.tag === lastBarTag;
  return [encodeKeyFrame(name), ...encodeRecords(context), encodeKeyFrame(isFunction ? lastBarTag : name)];
}

/**
 * Ends the stream and waits until the peer has closed too. Throws `CHKPT_UNACKNOWLEDGED` when it does not, or not in good order: whether
 * it has everything nobody knows then.
 */
export async function finishLink(link: Link, url: string): Promise<void> {
  try {
    await link.end();
    link.idleMs = closeMs;
    if ((await link.read(new Uint8Array(1))) !== 0) throw new TypeError('the receiver has said something');
    link.destroy();
  } catch (error) {
    const what = 'everything was sent, and the receiver has not closed the connection in good order';
    throw new CheckpointError('CHKPT_UNACKNOWLEDGED', what, { details: { store: url }, cause: error });
  }
}

export class PalaciosNetFormat implements ForeignFormat {
  readonly #address: PalaciosAddress;
  readonly #url: string;
  readonly #options: PalaciosNetOptions;

  constructor(address: PalaciosAddress, url: string, options: PalaciosNetOptions = {}) {
    this.#address = address;
    this.#url = url;
    this.#options = options;
  }

  async createWriter({ signal }: { signal?: AbortSignal | undefined }): Promise<ForeignWriter> {
    const link = await openLink(this.#address, this.#options, { url: this.#url, signal });
    return new NetWriter(link, this.#url, this.#options);
  }

  async openReading({ signal }: { signal?: AbortSignal | undefined }): Promise<ForeignReading> {
    const link = await openLink(this.#address, this.#options, { url: this.#url, signal });
    const memory = new ArrivedMemory();
    try {
      const reader = new WireReader(link, this.#url);
      const content = await readCheckpoint(reader, memory, this.#options);
      link.destroy();
      return new PalaciosReading(content, memory, this.#url);
    } catch (error) {
      link.reset();
      await memory.close();
      throw error;
    }
  }
}

class NetWriter implements ForeignWriter {
  readonly #link: PalaciosLink;
  readonly #url: string;
  readonly #options: PalaciosNetOptions;
  #memory: { readonly blocks: ImageBlocks; readonly digest: bigint } | undefined;

  constructor(link: PalaciosLink, url: string, options: PalaciosNetOptions) {
    this.#link = link;
    this.#url = url;
    this.#options = options;
  }

  async memory(_name: string, image: GuestMemory, options: ForeignMemoryOptions): Promise<void> {
    const blockBytes = blockBytesIn(options.before) ?? this.#options.blockBytes ?? blockBytesDefault;
    const blocks = blocksOf(image, blockBytes);
    // Beside sending: whoever receives gives up when nothing comes for long.
    const digesting = digestOf(image, options);
    // Whoever waits below gets its error; it may fail while blocks are on their way.
    digesting.catch(() => undefined);
    try {
      await this.#sendBlocks(image, blocks, options);
    } finally {
      await Promise.allSettled([digesting]);
    }
    this.#memory = { blocks, digest: await digesting };
  }

  async #sendBlocks(image: GuestMemory, blocks: ImageBlocks, options: ForeignMemoryOptions): Promise<void> {
    const { blockBytes } = blocks;
    const frame = encodeKeyFrame(memoryImageContext);
    const head = encodeRecords({ name: memoryImageContext, records: encodeImageHead(blocks) });
    await this.#link.writeAll([frame, ...head]);
    let pages = 0;
    for (let index = 0; index < blocks.blockCount; index += 1) {
      await this.#link.write(encodeRecordHead(blockTag(index), blockBytes));
      for (const { bytes, pageCount } of wirePieces(image, index, blocks, pieceBytes)) {
        throwIfAborted(options.signal, this.#url);
        await this.#link.write(bytes);
        pages += pageCount;
        options.onPages?.(pages);
      }
    }
    await this.#link.write(frame);
  }

  async commit(content: ForeignContent): Promise<number> {
    const { beside = true } = this.#options;
    const sent = this.#memory?.blocks;
    const { contexts, blocks } = toPalacios(content, this.#memory?.digest, sent?.blockBytes);
    checkBlocks(blocks, sent, this.#url);
    for (const context of contexts) {
      if (beside || !isBeside(context.name)) await this.#link.writeAll(encodeWireContext(context));
    }
    const { bytesWritten } = this.#link;
    await finishLink(this.#link, this.#url);
    return bytesWritten;
  }

  async abort(): Promise<void> {
    this.#link.reset();
  }
}

/** Reads contexts to the end of the connection. Throws errors of kind `damaged`. */
async function readCheckpoint(
  reader: WireReader,
  memory: ArrivedMemory,
  options: PalaciosNetOptions,
): Promise<TranslatedContent> {
  const contexts: PalaciosContext[] = [];
  let blocks: ImageBlocks | undefined;
  for (let name = await reader.open(); name !== undefined; name = await reader.open()) {
    if (name === 'memory_bitmap_bits' || name === 'memory_page') {
      throw new CheckpointError(
        'CHKPT_UNSUPPORTED',
        'this is a live migration: receive it with receivePalacios',
        {
          details: reader.place,
        },
      );
    }
    if (name === memoryImageContext) {
      if (blocks !== undefined) throw formatError('memory comes twice', reader.place);
      blocks = await readMemory(reader, memory);
    } else contexts.push(await readContext(reader, name, options));
  }
  return fromPalacios({ contexts, blocks }, await memory.sample());
}

/** A context that is open. */
export async function readContext(
  reader: WireReader,
  name: string,
  { onClosingName }: Pick<PalaciosNetOptions, 'onClosingName'>,
): Promise<PalaciosContext> {
  return await reader.records(name, (close) => {
    const text = Buffer.from(close).toString('latin1');
    if (text !== Buffer.from(name).toString('latin1')) onClosingName?.(name, text);
  });
}

async function readMemory(reader: WireReader, memory: ArrivedMemory): Promise<ImageBlocks> {
  const records = [];
  for (const [tag, bytes] of memoryImageSchema) {
    await reader.expect(memoryImageContext, tag, bytes);
    records.push({ tag, data: Uint8Array.from(await reader.take(bytes)) });
  }
  checkContext({ name: memoryImageContext, records }, memoryImageSchema);
  const blocks = decodeImageHead(records);
  await memory.begin(imageBytes(blocks));
  const buffer = new Uint8Array(pieceBytes);
  for (let index = 0; index < blocks.blockCount; index += 1) {
    await reader.expect(memoryImageContext, blockTag(index), blocks.blockBytes);
    for (let done = 0; done < blocks.blockBytes; ) {
      const piece = buffer.subarray(0, Math.min(pieceBytes, blocks.blockBytes - done));
      await reader.fill(piece);
      await memory.put(index * blocks.blockBytes + done, piece);
      done += piece.length;
    }
  }
  await reader.close(memoryImageContext);
  return blocks;
}

/** Memory that has come, in a file without a name: it comes first, and where it belongs is known last. */
class ArrivedMemory implements ImageSource {
  #file: FileHandle | undefined;
  #bytes = 0;

  /** Nothing is taken for what was announced: the file has holes. */
  async begin(byteCount: number): Promise<void> {
    let home: string | undefined;
    try {
      home = await makeScratchFolder(tmpdir());
      this.#file = await open(join(home, 'memory'), 'wx+', 0o600);
      await this.#file.truncate(byteCount);
    } catch (error) {
      throw fromSystemError(error, 'no room for memory');
    } finally {
      if (home !== undefined) await rm(home, { recursive: true, force: true });
    }
    this.#bytes = byteCount;
  }

  async put(position: number, piece: Uint8Array): Promise<void> {
    if (isZeroPiece(piece)) return;
    try {
      for (let done = 0; done < piece.length; ) {
        const result = await this.#file?.write(piece, done, piece.length - done, position + done);
        done += result?.bytesWritten ?? 0;
      }
    } catch (error) {
      throw fromSystemError(error, 'no room for memory');
    }
  }

  /** See `sampleImage`. */
  async sample(): Promise<Uint8Array> {
    const count = 64;
    const sample = new Uint8Array(Math.min(this.#bytes, count * 4096));
    for (let at = 0; at < sample.length; at += 4096) {
      const page = Math.floor(
        ((this.#bytes / 4096 - 1) * (at / 4096)) / Math.max(sample.length / 4096 - 1, 1),
      );
      await this.#read(sample.subarray(at, at + 4096), page * 4096);
    }
    return sample;
  }

  async #read(target: Uint8Array, position: number): Promise<void> {
    try {
      await this.#file?.read(target, 0, target.length, position);
    } catch (error) {
      throw fromSystemError(error, 'cannot read memory again');
    }
  }

  async fill(image: GuestMemory, options: ForeignMemoryOptions & { readonly store: string }): Promise<void> {
    const file = this.#file;
    if (file === undefined) return;
    await readImageRegions(image, options, async (address, bytes) => {
      const addon = nativeAddon();
      const work = callNative(() =>
        addon.rangeFromFile(image.native, BigInt(address), BigInt(bytes), file.fd, address),
      );
      await image.hold(awaitNative(work));
    });
  }

  async close(): Promise<void> {
    const file = this.#file;
    this.#file = undefined;
    await file?.close();
  }
}
