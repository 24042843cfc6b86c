/**
 * `palacios+file:`, `palacios+textfile:`, `palacios+dir:`: a folder with a file for each context, byte for byte as an original writes
 * and reads it. What is written is published as a whole; what is read is opened for reading only, and all of it has to make sense.
 */
import { randomUUID } from 'node:crypto';
import { basename } from 'node:path';
import { CheckpointError, type ErrorDetails, fromSystemError } from '../../errors/index.ts';
import { formatError } from '../../format/bytes.ts';
import { decodeName } from '../../format/names.ts';
import { contextCountMax, valueBytesMax } from '../../limits.ts';
import type { GuestMemory } from '../../memory/index.ts';
import { hostEnvironment, type StoreEnvironment } from '../../store/environment.ts';
import { saveFailure, throwIfAborted } from '../../store/failure.ts';
import { closeReadable, openForReading } from '../../store/readable-file.ts';
import { TemporaryFile } from '../../store/temporary-file.ts';
import type {
  ForeignContent,
  ForeignFormat,
  ForeignMemoryOptions,
  ForeignReading,
  ForeignWriter,
} from '../foreign-format.ts';
import { deviceCountMax } from './device-table.ts';
import { decodeFiles, type PalaciosForm } from './form.ts';
import { type ImageFile, readBlocks, readExactly, readImage, sampleImage, writeImage } from './image-file.ts';
import { blockBytesDefault, blocksOf, type ImageBlocks } from './image-layout.ts';
import { FolderPlace, removeFolder } from './publish-folder.ts';
import { digestOf, type ImageSource, PalaciosReading } from './reading.ts';
import type { PalaciosContext } from './record.ts';
import { deviceNameBytes, devicesContext, headerContext, memoryImageContext, type Schema } from './schema.ts';
import { blockBytesIn, checkBlocks, fromPalacios, toPalacios } from './translate.ts';

export interface PalaciosFolderOptions {
  /**
   * Bytes of a block of memory that came from no original, whole pages; default 128 MiB, which original builds have unless they were
   * built with another size: they load no other.
   */
  readonly blockBytes?: number | undefined;
  /** What the contexts of devices hold, by name, for `palacios+dir:`, where their length does not tell. */
  readonly devices?: ReadonlyMap<string, Schema> | undefined;
  readonly environment?: StoreEnvironment | undefined;
}

/** Files are waited for: for several ones it takes no longer than for one. */
const filesAtOnce = 8;

/** How often a checkpoint may be replaced while it is being read. */
const replacementCountMax = 16;

interface Folder {
  readonly form: PalaciosForm;
  readonly place: FolderPlace;
  readonly environment: StoreEnvironment;
  readonly store: string;
  readonly blockBytes: number;
  readonly devices: ReadonlyMap<string, Schema>;
}

export class PalaciosFolderFormat implements ForeignFormat {
  readonly scratchFolder: string;
  readonly #folder: Folder;

  /** `path`: absolute, without a slash at its end. */
  constructor(form: PalaciosForm, path: string, store: string, options: PalaciosFolderOptions = {}) {
    const { blockBytes = blockBytesDefault, devices = new Map(), environment = hostEnvironment } = options;
    if (!Number.isSafeInteger(blockBytes) || blockBytes < 4096 || blockBytes % 4096 !== 0) {
      throw new RangeError('blockBytes must be whole pages');
    }
    const place = new FolderPlace(environment, path, store);
    this.#folder = { form, place, environment, store, blockBytes, devices };
    this.scratchFolder = path.slice(0, path.length - basename(path).length) || '/';
  }

  async createWriter({
    uuid,
    signal,
  }: {
    uuid: string;
    signal?: AbortSignal | undefined;
  }): Promise<ForeignWriter> {
    const { place, environment, form, store } = this.#folder;
    await checkReplaceable(this.#folder);
    await place.collect();
    const temporary = place.temporary(uuid, 'tmp');
    try {
      await environment.fileSystem.mkdir(temporary, form.folderMode);
    } catch (error) {
      throw fromSystemError(error, 'cannot create a folder', { store, path: temporary });
    }
    return new FolderWriter(this.#folder, uuid, temporary, signal);
  }

  async openReading({ signal }: { signal?: AbortSignal | undefined }): Promise<ForeignReading> {
    return await openReading(this.#folder, signal);
  }

  async remove(): Promise<void> {
    const { place } = this.#folder;
    await place.collect();
    if ((await place.entries()) === undefined) return;
    await checkReplaceable(this.#folder);
    // Not `old`: of one that is removed nothing is to be kept.
    await place.remove(place.temporary(randomUUID(), 'tmp'));
  }
}

/** What is replaced or removed must be a checkpoint, or nothing. */
async function checkReplaceable({ place, store }: Folder): Promise<void> {
  const entries = await place.entries();
  if (entries === undefined || entries.length === 0 || entries.includes(headerContext)) return;
  throw new CheckpointError('CHKPT_STORE_URL', 'the folder holds something else than a Palacios checkpoint', {
    details: { store, path: place.path },
  });
}

class FolderWriter implements ForeignWriter {
  readonly #folder: Folder;
  readonly #uuid: string;
  readonly #temporary: string;
  readonly #signal: AbortSignal | undefined;
  readonly #open = new Set<TemporaryFile>();
  #bytes = 0;
  #memory: { readonly blocks: ImageBlocks; readonly digest: bigint } | undefined;
  #isPublished = false;

  constructor(folder: Folder, uuid: string, temporary: string, signal: AbortSignal | undefined) {
    this.#folder = folder;
    this.#uuid = uuid;
    this.#temporary = temporary;
    this.#signal = signal;
  }

  async memory(_name: string, image: GuestMemory, options: ForeignMemoryOptions): Promise<void> {
    const { form, store } = this.#folder;
    const blocks = blocksOf(image, blockBytesIn(options.before) ?? this.#folder.blockBytes);
    await this.#writeFile(memoryImageContext, async (file) => {
      await writeImage(file, form, image, blocks, { ...options, store });
    });
    this.#memory = { blocks, digest: await digestOf(image, options) };
  }

  async commit(content: ForeignContent): Promise<number> {
    const { place, store, form } = this.#folder;
    const written = this.#memory?.blocks;
    const { contexts, blocks } = toPalacios(content, this.#memory?.digest, written?.blockBytes);
    checkBlocks(blocks, written, store);
    for (let at = 0; at < contexts.length; at += filesAtOnce) {
      throwIfAborted(this.#signal, store);
      const writing = contexts
        .slice(at, at + filesAtOnce)
        .map((context) =>
          this.#writeFile(context.name, async (file) => await file.append(form.encode(context))),
        );
      // None is under way when one has failed.
      const failed = (await Promise.allSettled(writing)).find(({ status }) => status === 'rejected');
      if (failed !== undefined) throw (failed as PromiseRejectedResult).reason;
    }
    throwIfAborted(this.#signal, store);
    await checkReplaceable(this.#folder);
    await place.publish(this.#temporary, place.temporary(this.#uuid, 'old'));
    this.#isPublished = true;
    return this.#bytes;
  }

  async abort(): Promise<void> {
    if (this.#isPublished) return;
    for (const file of this.#open) await file.abandon();
    const { environment, store } = this.#folder;
    try {
      await removeFolder(environment.fileSystem, this.#temporary);
    } catch (error) {
      throw saveFailure(error, 'cannot remove a temporary', { store, path: this.#temporary });
    }
  }

  async #writeFile(name: string, write: (file: TemporaryFile) => Promise<void>): Promise<void> {
    const { environment, store } = this.#folder;
    const file = await TemporaryFile.create(environment.fileSystem, `${this.#temporary}/${name}`, store);
    this.#open.add(file);
    await write(file);
    await file.finish();
    this.#bytes += file.byteCount;
    this.#open.delete(file);
  }
}

/** Reads and checks everything but memory, whose file stays open. */
async function openReading(folder: Folder, signal: AbortSignal | undefined): Promise<PalaciosReading> {
  const { form, devices, store } = folder;
  throwIfAborted(signal, store);
  const { files, image } = await readFolder(folder);
  try {
    const contexts = inStreamOrder(decodeFiles(form, files, devices));
    const blocks = image === undefined ? undefined : await readBlocks(image, form);
    const sample = image === undefined ? new Uint8Array() : await sampleImage(image);
    const content = fromPalacios({ contexts, blocks }, sample);
    return new PalaciosReading(content, imageSource(image, blocks, form), store);
  } catch (error) {
    if (image !== undefined) await closeReadable(image.file, image.details);
    throw error;
  }
}

function imageSource(
  image: ImageFile | undefined,
  blocks: ImageBlocks | undefined,
  form: PalaciosForm,
): ImageSource {
  let isClosed = false;
  return {
    fill: async (target, options) => {
      if (image !== undefined && blocks !== undefined) await readImage(image, form, target, blocks, options);
    },
    close: async () => {
      if (isClosed || image === undefined) return;
      isClosed = true;
      await closeReadable(image.file, image.details);
    },
  };
}

interface FolderFiles {
  /** By the name of the context, all but memory. */
  readonly files: ReadonlyMap<string, Uint8Array>;
  readonly image: ImageFile | undefined;
}

/** Reads all of the folder, of one checkpoint: when it was replaced meanwhile, once more. */
async function readFolder(folder: Folder): Promise<FolderFiles> {
  const { environment, place, store } = folder;
  const details = { store, path: place.path };
  // A folder that was removed gives its inode to the next one.
  const identity = async (): Promise<string> => {
    const { inode, changedMs } = await environment.fileSystem.status(place.path);
    return `${inode} ${changedMs}`;
  };
  for (let count = 0; count < replacementCountMax; count += 1) {
    let before: string | undefined;
    let image: ImageFile | undefined;
    try {
      // What it is, before what is in it: names of one are not to be read from another.
      before = await identity();
      const entries = await place.entries();
      if (entries === undefined || entries.length === 0) throw nothingHere(details);
      image = entries.includes(memoryImageContext) ? await openFile(folder, memoryImageContext) : undefined;
      const files = await readFiles(folder, entries);
      if ((await identity()) === before) return { files, image };
      throw new CheckpointError('CHKPT_IO', 'the checkpoint was replaced while it was read', { details });
    } catch (error) {
      if (image !== undefined) await closeReadable(image.file, image.details);
      // Damage, or a checkpoint that was replaced meanwhile: then the folder is another one now.
      const after = await identity().catch(() => undefined);
      if (after === before) throw fromSystemError(error, 'cannot read the folder', details);
    }
    if ((await place.entries()) === undefined) throw nothingHere(details);
  }
  throw new CheckpointError('CHKPT_IO', 'the checkpoint was replaced again and again while it was read', {
    details,
  });
}

function nothingHere(details: ErrorDetails): CheckpointError {
  return new CheckpointError('CHKPT_NOT_FOUND', 'there is no checkpoint here', { details });
}

async function readFiles(folder: Folder, entries: readonly string[]): Promise<Map<string, Uint8Array>> {
  const { form, store } = folder;
  const files = new Map<string, Uint8Array>();
  if (entries.length > contextCountMax + 1) {
    throw new CheckpointError('CHKPT_LIMIT', 'too many contexts', {
      details: { store, actual: entries.length },
    });
  }
  const names = entries.filter((entry) => entry !== memoryImageContext).sort();
  const room = { left: form.scale * valueBytesMax + valueBytesMax };
  for (let at = 0; at < names.length; at += filesAtOnce) {
    const some = names.slice(at, at + filesAtOnce);
    const reading = await Promise.allSettled(some.map((name) => readFile(folder, name, room)));
    for (const [index, result] of reading.entries()) {
      if (result.status === 'rejected') throw result.reason;
      files.set(some[index] ?? '', result.value);
    }
  }
  return files;
}

/** `room`: for bytes of all files together. */
async function readFile(folder: Folder, name: string, room: { left: number }): Promise<Uint8Array> {
  decodeName(Buffer.from(name), { context: name });
  const { file, bytes, details } = await openFile(folder, name);
  try {
    room.left -= bytes;
    // Tags and lengths take room too, and there are not many of them.
    if (room.left < 0) {
      throw new CheckpointError('CHKPT_LIMIT', 'more values than a checkpoint may have', { details });
    }
    const content = new Uint8Array(bytes);
    await readExactly(file, content, 0, details);
    return content;
  } finally {
    await closeReadable(file, details);
  }
}

async function openFile({ environment, place, store }: Folder, name: string): Promise<ImageFile> {
  const path = `${place.path}/${name}`;
  try {
    return { ...(await openForReading(environment.fileSystem, path, store)), details: { store, path } };
  } catch (error) {
    if (!(error instanceof CheckpointError) || error.code !== 'CHKPT_STORE_URL') throw error;
    throw formatError('something in the folder is no file', { context: name });
  }
}

/** Names have no order of their own: the table says that of its devices; parts of a device follow it. */
function inStreamOrder(contexts: readonly PalaciosContext[]): PalaciosContext[] {
  const table = contexts.find(({ name }) => name === devicesContext)?.records[1]?.data ?? new Uint8Array();
  const rows = new Map<string, number>();
  // More than these are refused when the table is read.
  const rowCount = Math.min(Math.floor(table.length / deviceNameBytes), deviceCountMax);
  for (let row = 0; row < rowCount; row += 1) {
    const id = table.subarray(row * deviceNameBytes, (row + 1) * deviceNameBytes);
    const name = Buffer.from(id).toString('utf8').replace(/\0.*$/s, '');
    if (!rows.has(name)) rows.set(name, row);
  }
  const rankOf = (name: string): number => {
    const [, part, index] = /^(guest_info|vmcb_data|vmcs_data)([0-9]+)$/.exec(name) ?? [];
    if (name === devicesContext) return -1;
    if (part !== undefined) return 1e9 + 2 * Number(index) + (part === 'guest_info' ? 0 : 1);
    if (name === headerContext) return 1e8;
    return rows.get(name) ?? 1e7;
  };
  const ranks = new Map(contexts.map(({ name }) => [name, rankOf(name)]));
  const rank = ({ name }: PalaciosContext): number => ranks.get(name) ?? 0;
  return [...contexts].sort((left, right) => rank(left) - rank(right));
}
