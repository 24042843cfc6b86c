/**
 * A checkpoint format of somebody else as a store: saves are translated out of the native stream, loads into it, so that everything that
 * works with a store works with it. Memory goes by its own way where it can (`StoreWriter.takeMemory`), else through a scratch file.
 */
import type { Store, StoreReader, StoreReadOptions, StoreWriteOptions, StoreWriter } from '../store/index.ts';
import type { ForeignFormat } from './foreign-format.ts';
import { ForeignStoreReader } from './foreign-reader.ts';
import { ForeignStoreWriter } from './foreign-writer.ts';

export class ForeignStore implements Store {
  readonly url: string;
  readonly readsFrames = true;
  readonly remove?: () => Promise<void>;
  readonly #format: ForeignFormat;

  constructor(url: string, format: ForeignFormat) {
    this.url = url;
    this.#format = format;
    if (format.remove !== undefined) this.remove = async () => await format.remove?.();
  }

  async openWriter(options: StoreWriteOptions): Promise<StoreWriter> {
    return await ForeignStoreWriter.open(this.url, this.#format, options);
  }

  async openReader(options: StoreReadOptions = {}): Promise<StoreReader> {
    return await ForeignStoreReader.open(this.url, this.#format, options);
  }
}
