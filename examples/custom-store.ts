/**
 * A store of your own: `gzip:path` keeps a checkpoint as one gzip file, which any other tool can unpack.
 *
 *     registerStore('gzip', gzipStoreFactory);
 *     await saveVm(vm, 'gzip:/ckpt/vm.chkpt.gz');
 *
 * In a program of your own import from 'chkpt'. This file runs the conformance suite in
 * test/store/conformance.test.ts.
 */
import { createWriteStream } from 'node:fs';
import { open, rename, rm } from 'node:fs/promises';
import { dirname } from 'node:path';
import { pipeline } from 'node:stream';
import { pipeline as pipelineEnd } from 'node:stream/promises';
import { createGunzip, createGzip } from 'node:zlib';
import { CheckpointError } from '../src/errors/index.ts';
import type { Store, StoreFactory, StoreReader, StoreWriter } from '../src/store/index.ts';

export const gzipStoreFactory: StoreFactory = (rest, url) => {
  if (rest === '')
    throw new CheckpointError('CHKPT_STORE_URL', 'gzip: needs a path', { details: { store: url } });
  return gzipStore(rest, url);
};

function gzipStore(path: string, url: string): Store {
  return {
    url,
    openWriter: async ({ uuid }) => new GzipWriter(`${path}.${uuid}.tmp`, path),
    async openReader() {
      try {
        const file = await open(path);
        return new GzipReader(file.createReadStream());
      } catch (error) {
        // Every other error becomes CHKPT_STORE_FAILED, with this one as its cause.
        if (!(error instanceof Error && 'code' in error && error.code === 'ENOENT')) throw error;
        throw new CheckpointError('CHKPT_NOT_FOUND', 'no checkpoint here', {
          details: { store: url },
          cause: error,
        });
      }
    },
  };
}

/** No random access: `readAt` and `byteLength` are left out. Segments do not interest it either. */
class GzipWriter implements StoreWriter {
  readonly #temporary: string;
  readonly #path: string;
  readonly #gzip = createGzip({ level: 1 });
  readonly #written: Promise<void>;

  constructor(temporary: string, path: string) {
    this.#temporary = temporary;
    this.#path = path;
    const file = createWriteStream(temporary, { flags: 'wx', mode: 0o600, flush: true });
    this.#written = pipelineEnd(this.#gzip, file);
    this.#written.catch(() => undefined); // reported by the call that waits for it
  }

  /** Resolves when zlib has read all of `bytes`, and not before: the caller uses the memory again at once. */
  write(bytes: Uint8Array): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#gzip.write(bytes, (error) => (error ? reject(error) : resolve()));
    });
  }

  /** Visible in one step, and durable: file, then name. */
  async commit(): Promise<void> {
    this.#gzip.end();
    await this.#written;
    await rename(this.#temporary, this.#path);
    const folder = await open(dirname(this.#path));
    await folder.sync().finally(() => folder.close());
  }

  async abort(): Promise<void> {
    this.#gzip.destroy();
    await this.#written.catch(() => undefined);
    await rm(this.#temporary, { force: true });
  }
}

class GzipReader implements StoreReader {
  readonly byteLength = undefined;
  readonly #chunks: AsyncIterator<Uint8Array>;
  #rest = new Uint8Array(0);

  constructor(file: NodeJS.ReadableStream) {
    const gunzip = pipeline(file, createGunzip(), () => undefined);
    this.#chunks = gunzip[Symbol.asyncIterator]() as AsyncIterator<Uint8Array>;
  }

  async read(target: Uint8Array): Promise<number> {
    while (this.#rest.length === 0) {
      const next = await this.#chunks.next();
      if (next.done) return 0;
      this.#rest = next.value as Uint8Array<ArrayBuffer>;
    }
    const byteCount = Math.min(target.length, this.#rest.length);
    target.set(this.#rest.subarray(0, byteCount));
    this.#rest = this.#rest.subarray(byteCount);
    return byteCount;
  }

  async close(): Promise<void> {
    await this.#chunks.return?.();
  }
}
