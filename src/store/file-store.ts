/**
 * `file:path`: one file that is the stream, byte for byte.
 *
 * A save writes a temporary beside the target and renames it over the target when everything is on stable
 * storage. Whoever opens the target finds the older checkpoint or the newer one, whole, whatever happens in
 * between.
 */
import { basename, dirname } from 'node:path';
import { CheckpointError, type ErrorDetails, fromSystemError } from '../errors/index.ts';
import { hostEnvironment, type StoreEnvironment } from './environment.ts';
import { saveFailure, throwIfAborted } from './failure.ts';
import { FileClaims } from './file-claims.ts';
import { errnoOf, type FileStatus } from './file-system.ts';
import { FileTemporaries } from './file-temporaries.ts';
import { publish } from './publish.ts';
import { closeReadable, openForReading, type ReadableFile, readAtPosition } from './readable-file.ts';
import type {
  DirectOutput,
  Store,
  StoreExtent,
  StoreFactory,
  StoreReader,
  StoreWriteOptions,
  StoreWriter,
} from './store.ts';
import { TemporaryFile } from './temporary-file.ts';
import { filePath } from './url.ts';

/** The factory of `file:`, over the host's files unless told otherwise. */
export function fileStoreFactory(environment: StoreEnvironment = hostEnvironment): StoreFactory {
  return (rest, url) => new FileStore(filePath(rest, url), url, environment);
}

class FileStore implements Store {
  readonly url: string;
  readonly claims: FileClaims;
  readonly #path: string;
  readonly #environment: StoreEnvironment;
  readonly #temporaries: FileTemporaries;

  constructor(path: string, url: string, environment: StoreEnvironment) {
    this.url = url;
    this.#path = path;
    this.#environment = environment;
    this.#temporaries = new FileTemporaries(environment, dirname(path), basename(path));
    this.claims = new FileClaims(environment.fileSystem, dirname(path), basename(path), url);
  }

  async openWriter(options: StoreWriteOptions): Promise<StoreWriter> {
    await this.#refuseSpecialFile();
    // Claims as of now, not after the commit: then there may be some on what somebody else has saved here since.
    const claims = this.claims.among(await this.#temporaries.collect(), options.uuid);
    const { fileSystem, processes } = this.#environment;
    const entry = this.#temporaries.names.make(options.uuid, processes.pid, 'tmp');
    const file = await TemporaryFile.create(fileSystem, this.#temporaries.pathOf(entry), this.url);
    return new FileStoreWriter({
      environment: this.#environment,
      temporaries: this.#temporaries,
      dropClaims: () => this.claims.remove(claims),
      file,
      entry,
      path: this.#path,
      store: this.url,
      options,
    });
  }

  async openReader(): Promise<StoreReader> {
    const opened = await openForReading(this.#environment.fileSystem, this.#path, this.url);
    return new FileStoreReader(opened, { store: this.url, path: this.#path });
  }

  async remove(): Promise<void> {
    await this.#refuseSpecialFile();
    const { fileSystem } = this.#environment;
    try {
      const claims = this.claims.among(await this.#temporaries.entries());
      await fileSystem.unlink(this.#path);
      await fileSystem.fsyncDirectory(dirname(this.#path));
      await this.claims.remove(claims);
    } catch (error) {
      if (errnoOf(error) === 'ENOENT') return;
      throw fromSystemError(error, 'cannot remove the checkpoint', { store: this.url, path: this.#path });
    }
  }

  /** A rename over a device or a FIFO would replace it; over a folder it would fail after all the work. */
  async #refuseSpecialFile(): Promise<void> {
    const details = { store: this.url, path: this.#path };
    let status: FileStatus;
    try {
      status = await this.#environment.fileSystem.status(this.#path);
    } catch (error) {
      if (errnoOf(error) === 'ENOENT') return;
      throw fromSystemError(error, 'cannot look at the target', details);
    }
    if (status.kind === 'file' || status.kind === 'link') return;
    const what =
      status.kind === 'directory' ? 'this is a folder; use dir: for it' : 'this is no regular file';
    throw new CheckpointError('CHKPT_STORE_URL', what, { details });
  }
}

interface FileSave {
  readonly environment: StoreEnvironment;
  readonly temporaries: FileTemporaries;
  /** Removes the claims on what was here when the save began. */
  readonly dropClaims: () => Promise<void>;
  readonly file: TemporaryFile;
  /** Name of the temporary in its folder. */
  readonly entry: string;
  readonly path: string;
  readonly store: string;
  readonly options: StoreWriteOptions;
}

class FileStoreWriter implements StoreWriter {
  readonly #save: FileSave;
  #isPublished = false;

  constructor(save: FileSave) {
    this.#save = save;
  }

  write(bytes: Uint8Array): Promise<void> {
    return this.#save.file.append([bytes]);
  }

  writeAll(pieces: readonly Uint8Array[]): Promise<void> {
    return this.#save.file.append(pieces);
  }

  direct(): DirectOutput | undefined {
    return this.#save.file.direct();
  }

  async commit(): Promise<void> {
    const { environment, temporaries, file, path, store, options } = this.#save;
    await file.finish();
    throwIfAborted(options.signal, store);
    const older = this.#olderEntry();
    await publish(
      environment.fileSystem,
      {
        folder: dirname(path),
        temporary: file.path,
        inode: file.inode,
        target: path,
        older: temporaries.pathOf(older),
      },
      store,
    );
    this.#isPublished = true;
    await temporaries.remove(older);
    await this.#save.dropClaims();
  }

  async abort(): Promise<void> {
    if (this.#isPublished) return;
    const { temporaries, file, entry, store } = this.#save;
    await file.abandon();
    const failures = [await temporaries.remove(this.#olderEntry()), await temporaries.remove(entry)];
    const failure = failures.find((error) => error !== undefined);
    if (failure !== undefined) {
      throw saveFailure(failure, 'cannot remove a temporary', { store, path: file.path });
    }
  }

  #olderEntry(): string {
    const { environment, temporaries, options } = this.#save;
    return temporaries.names.make(options.uuid, environment.processes.pid, 'old');
  }
}

class FileStoreReader implements StoreReader {
  readonly byteLength: number;
  readonly #opened: ReadableFile;
  readonly #details: ErrorDetails;
  #position = 0;

  constructor(opened: ReadableFile, details: ErrorDetails) {
    this.#opened = opened;
    this.#details = details;
    this.byteLength = opened.bytes;
  }

  async read(target: Uint8Array): Promise<number> {
    const byteCount = await this.readAt(this.#position, target);
    this.#position += byteCount;
    return byteCount;
  }

  readAt(offset: number, target: Uint8Array): Promise<number> {
    return readAtPosition(this.#opened.file, target, offset, this.#details);
  }

  extents(): readonly StoreExtent[] | undefined {
    const { descriptor } = this.#opened.file;
    return descriptor === undefined ? undefined : [{ bytes: this.byteLength, descriptor, position: 0 }];
  }

  skip(byteCount: number): void {
    this.#position += byteCount;
  }

  close(): Promise<void> {
    return closeReadable(this.#opened.file, this.#details);
  }
}
