/** Translates a checkpoint of another format into a native stream that is being read. */
import { StreamWriter } from '../context/stream-writer.ts';
import { CheckpointError } from '../errors/index.ts';
import type { Digest64 } from '../format/digest.ts';
import { checkpointDigest } from '../memory/digest.ts';
import { PageEncoder } from '../memory/index.ts';
import type { Integrity, StoreReader, StoreReadOptions } from '../store/index.ts';
import { BytePipe } from './byte-pipe.ts';
import type { ForeignFormat, ForeignMemory, ForeignReading } from './foreign-format.ts';
import { openScratch } from './scratch.ts';

/** Of the frames between image and stream, or one for each thread and one: few, because a load has buffers of its own. */
const slabCount = 3;

export class ForeignStoreReader implements StoreReader {
  readonly byteLength = undefined;
  readonly integrity: Integrity;
  readonly #url: string;
  readonly #format: ForeignFormat;
  readonly #reading: ForeignReading;
  readonly #codec: 'raw' | 'lz4';
  readonly #signal: AbortSignal;
  readonly #onMemoryDigest: StoreReadOptions['onMemoryDigest'];
  readonly #pipe = new BytePipe();
  readonly #stop = new AbortController();
  readonly #translation: Promise<void>;

  private constructor(
    url: string,
    format: ForeignFormat,
    reading: ForeignReading,
    digest: Digest64,
    { signal, purpose, onMemoryDigest }: StoreReadOptions,
  ) {
    this.#onMemoryDigest = onMemoryDigest;
    this.#url = url;
    this.#format = format;
    this.#reading = reading;
    this.integrity = reading.integrity;
    this.#codec = purpose === 'keep' ? 'lz4' : 'raw';
    this.#signal = signal === undefined ? this.#stop.signal : AbortSignal.any([signal, this.#stop.signal]);
    this.#translation = this.#translate(digest).catch((error: unknown) => this.#pipe.fail(error));
  }

  static async open(
    url: string,
    format: ForeignFormat,
    options: StoreReadOptions,
  ): Promise<ForeignStoreReader> {
    const digest = await checkpointDigest();
    const reading = await format.openReading({ signal: options.signal });
    return new ForeignStoreReader(url, format, reading, digest, options);
  }

  async read(target: Uint8Array): Promise<number> {
    return await this.#pipe.read(target);
  }

  async close(): Promise<void> {
    this.#stop.abort();
    this.#pipe.fail(new CheckpointError('CHKPT_CLOSED', 'the load has ended'));
    await this.#translation;
    await this.#reading.close();
  }

  async #translate(digest: Digest64): Promise<void> {
    const { uuid, createdMs, contexts, memory } = this.#reading;
    const target = {
      write: (bytes: Uint8Array) => this.#pipe.write(bytes),
      commit: async () => this.#pipe.end(),
      abort: async () => undefined,
    };
    const stream = await StreamWriter.open(target, { uuid, createdMs, digest, store: this.#url });
    for (const [index, { name, tags }] of contexts.entries()) {
      if (memory?.at === index) await this.#writeMemory(stream, memory);
      await stream.openContext(name);
      await stream.tags(tags.map(({ name: tag, type, data }) => ({ tag, type, data })));
      await stream.closeContext();
    }
    if (memory !== undefined && memory.at >= contexts.length) await this.#writeMemory(stream, memory);
    await stream.finish();
  }

  async #writeMemory(stream: StreamWriter, { name, regions }: ForeignMemory): Promise<void> {
    const image = await openScratch(regions, this.#format.scratchFolder);
    try {
      await this.#reading.readMemory(image, { signal: this.#signal });
      if (this.#onMemoryDigest !== undefined) this.#onMemoryDigest(await image.digest());
      await stream.memory(name, new PageEncoder(image, { codec: this.#codec, slabCount }), this.#signal);
    } finally {
      await image.close();
    }
  }
}
