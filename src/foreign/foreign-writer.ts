/** Translates a native stream that is being written into another format. */
import { StreamReader, type StreamSummary } from '../context/stream-reader.ts';
import { CheckpointError } from '../errors/index.ts';
import type { Digest64 } from '../format/digest.ts';
import type { Region } from '../format/region-table.ts';
import { checkpointDigest } from '../memory/digest.ts';
import { GuestMemory, PageDecoder } from '../memory/index.ts';
import type {
  CommitSummary,
  MemoryHandOver,
  Segment,
  StoreWriteOptions,
  StoreWriter,
} from '../store/index.ts';
import { BytePipe } from './byte-pipe.ts';
import type {
  ForeignContext,
  ForeignFormat,
  ForeignMemory,
  ForeignTag,
  ForeignWriter,
} from './foreign-format.ts';
import { openScratch } from './scratch.ts';

/** What a stream turned out to hold. */
interface Translated {
  readonly contexts: readonly ForeignContext[];
  readonly memory: ForeignMemory | undefined;
  readonly summary: StreamSummary;
}

export class ForeignStoreWriter implements StoreWriter {
  storedBytes: number | undefined;
  readonly #url: string;
  readonly #format: ForeignFormat;
  readonly #writer: ForeignWriter;
  readonly #signal: AbortSignal | undefined;
  readonly #onMemoryDigest: StoreWriteOptions['onMemoryDigest'];
  readonly #pipe = new BytePipe();
  readonly #stop = new AbortController();
  readonly #translation: Promise<Translated>;
  #valueContexts = 0;
  /** Memory that came by its own way. */
  #memory: ForeignMemory | undefined;

  private constructor(
    url: string,
    format: ForeignFormat,
    writer: ForeignWriter,
    digest: Digest64,
    { signal, onMemoryDigest }: StoreWriteOptions,
  ) {
    this.#onMemoryDigest = onMemoryDigest;
    this.#url = url;
    this.#format = format;
    this.#writer = writer;
    this.#signal = signal === undefined ? this.#stop.signal : AbortSignal.any([signal, this.#stop.signal]);
    this.#translation = this.#translate(digest);
    // A write that waits hears of it, and whoever commits.
    this.#translation.catch((error: unknown) => this.#pipe.fail(error));
  }

  static async open(
    url: string,
    format: ForeignFormat,
    options: StoreWriteOptions,
  ): Promise<ForeignStoreWriter> {
    const digest = await checkpointDigest();
    const { uuid, signal } = options;
    const writer = await format.createWriter({ uuid, signal });
    return new ForeignStoreWriter(url, format, writer, digest, options);
  }

  async beginSegment({ kind }: Segment): Promise<void> {
    if (kind === 'values') this.#valueContexts += 1;
  }

  async write(bytes: Uint8Array): Promise<void> {
    await this.#pipe.write(bytes);
  }

  async takeMemory(name: string, { image, threads, onPages }: MemoryHandOver): Promise<boolean> {
    if (!(image instanceof GuestMemory)) return false;
    this.#memory = { name, at: this.#valueContexts, regions: image.regions };
    await this.#writer.memory(name, image, { signal: this.#signal, threads, onPages });
    return true;
  }

  async commit(summary: CommitSummary): Promise<void> {
    this.#pipe.end();
    const { contexts, memory = this.#memory, summary: read } = await this.#translation;
    if (read.root !== summary.root)
      throw new TypeError('the stream has another root digest than its summary');
    const { uuid, createdMs } = read.header;
    this.storedBytes = await this.#writer.commit({ uuid, createdMs, contexts, memory });
  }

  async abort(): Promise<void> {
    this.#stop.abort();
    this.#pipe.fail(new CheckpointError('CHKPT_ABORTED', 'the save was dropped'));
    await this.#translation.catch(() => undefined);
    await this.#writer.abort();
  }

  async #translate(digest: Digest64): Promise<Translated> {
    const source = {
      byteLength: undefined,
      read: (target: Uint8Array) => this.#pipe.read(target),
      close: async () => undefined,
    };
    const stream = new StreamReader(source, { digest, store: this.#url, answers: false });
    const contexts: { name: string; tags: ForeignTag[] }[] = [];
    let memory: ForeignMemory | undefined;
    for await (const item of stream) {
      if (item.kind === 'header') this.#checkAlone(item.header.parent?.uuid);
      else if (item.kind === 'end') return { contexts, memory, summary: item.summary };
      else if (item.kind === 'tag') contexts.at(-1)?.tags.push(item);
      else if (item.kind === 'context-open' && item.contextKind === 'values') {
        contexts.push({ name: item.name, tags: [] });
      } else if (item.kind === 'context-open') {
        const regions = await this.#decodeMemory(stream, item.name, item.regions, contexts);
        memory = { name: item.name, at: contexts.length, regions };
      }
    }
    throw new TypeError('a stream ends with END');
  }

  async #decodeMemory(
    stream: StreamReader,
    name: string,
    regions: readonly Region[],
    before: readonly ForeignContext[],
  ): Promise<ForeignMemory['regions']> {
    const specs = regions.map(({ base, bytes }) => ({ base, bytes }));
    const image = await openScratch(specs, this.#format.scratchFolder);
    try {
      await stream.readMemory(new PageDecoder(image));
      if (this.#onMemoryDigest !== undefined) this.#onMemoryDigest(await image.digest());
      await this.#writer.memory(name, image, { signal: this.#signal, before });
      return image.regions;
    } finally {
      await image.close();
    }
  }

  #checkAlone(parent: string | undefined): void {
    if (parent === undefined) return;
    const what = `an increment (of ${parent}) cannot be kept in this format: save all of it, or flatten the chain`;
    throw new CheckpointError('CHKPT_UNSUPPORTED', what, { details: { store: this.#url } });
  }
}
