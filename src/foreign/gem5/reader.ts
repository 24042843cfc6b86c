/**
 * A load from a gem5 checkpoint. All files are opened before memory is read: a save may replace the checkpoint then, and what is open
 * stays readable.
 */
import { CheckpointError, withDetails } from '../../errors/index.ts';
import { gem5ManifestBytesMax, gem5TextBytesMax, pageBytes } from '../../limits.ts';
import { type GuestMemory, GzipImage, memberCount, memberEntryBytes } from '../../memory/index.ts';
import { throwIfAborted } from '../../store/failure.ts';
import { errnoOf, type OpenFile } from '../../store/file-system.ts';
import { closeReadable, openForReading } from '../../store/readable-file.ts';
import type { ForeignContent, ForeignMemoryOptions, ForeignReading } from '../foreign-format.ts';
import type { Gem5Folder } from './folder.ts';
import { importedContexts } from './import.ts';
import { type IniDocument, parseIni } from './ini.ts';
import { basesOf, type MemoryStore, memorySection, readStores, regionsOf } from './machine.ts';
import { type Gem5Manifest, type ManifestStore, manifestError, parseManifest, sha256 } from './manifest.ts';
import { isManifestName, textName } from './names.ts';
import { readOwnSections } from './own-sections.ts';
import { loadStoreStreams, type StoreStream } from './store-streams.ts';

export interface Gem5ReadOptions {
  /** The machine, where a checkpoint has several. */
  readonly system: string | undefined;
  /** Where the memory stores lie, where the checkpoint does not say so. */
  readonly bases: readonly bigint[] | undefined;
}

/** How often a checkpoint may be replaced while it is being opened. */
const replacementCountMax = 16;

interface OpenStore {
  readonly file: OpenFile;
  readonly bytes: number;
  readonly name: string;
  /** Of memory. */
  readonly rangeBytes: bigint;
}

export async function openGem5Reading(
  folder: Gem5Folder,
  options: Gem5ReadOptions,
  signal: AbortSignal | undefined,
): Promise<ForeignReading> {
  let cause: unknown;
  for (let count = 0; count < replacementCountMax; count += 1) {
    throwIfAborted(signal, folder.store);
    const text = await readText(folder);
    try {
      return await openText(folder, text, options);
    } catch (error) {
      // Damage, or a checkpoint that was replaced meanwhile: then m5.cpt is another one now, or a manifest that was listed is gone.
      if (sha256(await readText(folder)) === sha256(text) && errnoOf(error) !== 'CHKPT_NOT_FOUND')
        throw error;
      cause = error;
    }
  }
  throw new CheckpointError('CHKPT_IO', 'the checkpoint was replaced again and again while it was read', {
    details: folder.details(textName),
    cause,
  });
}

/** The bytes of m5.cpt. Throws `CHKPT_NOT_FOUND`, `CHKPT_LIMIT`. */
export function readText(folder: Gem5Folder): Promise<Uint8Array> {
  return folder.read(textName, gem5TextBytesMax, () => {
    return new CheckpointError('CHKPT_LIMIT', 'm5.cpt is too long', { details: folder.details(textName) });
  });
}

async function openText(
  folder: Gem5Folder,
  text: Uint8Array,
  options: Gem5ReadOptions,
): Promise<ForeignReading> {
  const details = { store: folder.store, path: folder.pathOf(textName) };
  const manifest = await readManifest(folder, text);
  const document = parseIni(text, details);
  const { stores, content } = readContent(document, text, options, details);
  if (manifest !== undefined) checkManifest(manifest, stores, details);
  const files = await openStores(folder, stores);
  try {
    return new Gem5Reading(folder, content, files, manifest);
  } catch (error) {
    await closeStores(folder, files);
    throw error;
  }
}

/** The manifest of this m5.cpt; `undefined` when there is none at all. Throws `CHKPT_MANIFEST` when there are only others. */
async function readManifest(folder: Gem5Folder, text: Uint8Array): Promise<Gem5Manifest | undefined> {
  let failure: unknown;
  const digest = sha256(text);
  const names = (await folder.entries()).filter(isManifestName);
  for (const name of names) {
    const details = folder.details(name);
    try {
      const bytes = await folder.read(name, gem5ManifestBytesMax, () =>
        manifestError('it is too long', details),
      );
      const manifest = parseManifest(bytes, details);
      if (manifest.text.digest === digest && manifest.text.bytes === text.length) return manifest;
      failure ??= manifestError('m5.cpt is not the one that it belongs to', details);
    } catch (error) {
      failure = error;
    }
  }
  if (failure !== undefined) throw failure;
  return undefined;
}

function readContent(
  document: IniDocument,
  text: Uint8Array,
  { system, bases }: Gem5ReadOptions,
  details: { store: string; path: string },
): { readonly stores: readonly MemoryStore[]; readonly content: ForeignContent } {
  const section = memorySection(document, system, details);
  const stores = section === undefined ? [] : readStores(document, section, details);
  const own = readOwnSections(document, details);
  if (own !== undefined) {
    const { memory } = own;
    if ((memory === undefined) !== (stores.length === 0)) {
      throw new CheckpointError('CHKPT_FORMAT', 'm5.cpt: [chkpt] and the memory stores do not fit', {
        details,
      });
    }
    const regions =
      memory === undefined ? undefined : regionsOf(stores, memory.bases, details, memory.stores);
    return {
      stores,
      content: { ...own, memory: memory && regions && { name: memory.name, at: memory.at, regions } },
    };
  }
  const places = stores.length === 0 ? [] : (bases ?? basesOf(stores, details));
  const regions = regionsOf(stores, places, details);
  const contexts = importedContexts({ document, text, regions, system }, details);
  const memory = stores.length === 0 ? undefined : { name: 'memory', at: contexts.length, regions };
  return { stores, content: { uuid: uuidOf(text), createdMs: 0, contexts, memory } };
}

/** Throws `CHKPT_MANIFEST` unless it is that of these stores. */
function checkManifest(
  manifest: Gem5Manifest,
  stores: readonly MemoryStore[],
  details: { store: string; path: string },
): void {
  if (manifest.stores.length !== stores.length)
    throw manifestError('it has another number of memory stores', details);
  for (const [index, { file, bytes }] of stores.entries()) {
    const told = manifest.stores[index];
    const members = memberCount(bytes, manifest.memberBytes);
    if (told?.file !== file || told.members.length !== members * memberEntryBytes) {
      throw manifestError(`${file} is another memory store there`, details);
    }
  }
}

async function openStores(folder: Gem5Folder, stores: readonly MemoryStore[]): Promise<OpenStore[]> {
  const opened: OpenStore[] = [];
  try {
    for (const { file: name, bytes: rangeBytes } of stores)
      opened.push({ name, rangeBytes, ...(await openStore(folder, name)) });
    return opened;
  } catch (error) {
    await closeStores(folder, opened);
    throw error;
  }
}

async function openStore(folder: Gem5Folder, name: string): Promise<{ file: OpenFile; bytes: number }> {
  try {
    return await openForReading(folder.environment.fileSystem, folder.pathOf(name), folder.store);
  } catch (error) {
    if (!(error instanceof CheckpointError) || error.code !== 'CHKPT_NOT_FOUND') throw error;
    // m5.cpt is there, so there is a checkpoint: it is not whole.
    throw new CheckpointError('CHKPT_TRUNCATED', 'a memory store is not there', {
      details: folder.details(name),
      cause: error,
    });
  }
}

async function closeStores(folder: Gem5Folder, stores: readonly OpenStore[]): Promise<void> {
  for (const { file, name } of stores) await closeReadable(file, folder.details(name));
}

class Gem5Reading implements ForeignReading {
  readonly uuid: string;
  readonly createdMs: number;
  readonly contexts: ForeignContent['contexts'];
  readonly memory: ForeignContent['memory'];
  readonly integrity: 'none' | 'detect';
  readonly #folder: Gem5Folder;
  readonly #stores: readonly OpenStore[];
  readonly #manifest: Gem5Manifest | undefined;

  constructor(
    folder: Gem5Folder,
    { uuid, createdMs, contexts, memory }: ForeignContent,
    stores: readonly OpenStore[],
    manifest: Gem5Manifest | undefined,
  ) {
    this.uuid = uuid;
    this.createdMs = createdMs;
    this.contexts = contexts;
    this.memory = memory;
    this.integrity = manifest === undefined ? 'none' : 'detect';
    this.#folder = folder;
    this.#stores = stores;
    this.#manifest = manifest;
    for (const [index, { name, bytes }] of stores.entries()) {
      const told = manifest?.stores[index]?.bytes ?? bytes;
      if (told === bytes) continue;
      const code = bytes < told ? 'CHKPT_TRUNCATED' : 'CHKPT_TRAILING_DATA';
      throw new CheckpointError(code, 'a memory store has not the length that the manifest says', {
        details: { ...folder.details(name), expected: told, actual: bytes },
      });
    }
  }

  async readMemory(image: GuestMemory, options: ForeignMemoryOptions): Promise<void> {
    const files = this.#files();
    const manifest = this.#manifest;
    if (manifest === undefined) return await loadStoreStreams(image, files, options);
    const gzip = new GzipImage(image, options);
    for (const [index, { pages, descriptor, failure }] of files.entries()) {
      const { members } = manifest.stores[index] as ManifestStore;
      try {
        await gzip.loadMembers(pages, descriptor, members, manifest.memberBytes);
      } catch (error) {
        throw failure(error);
      }
    }
  }

  #files(): StoreStream[] {
    let first = 0;
    return this.#stores.map(({ file: { descriptor }, bytes, name, rangeBytes }) => {
      const details = this.#folder.details(name);
      if (descriptor === undefined) {
        throw new CheckpointError('CHKPT_UNSUPPORTED', 'memory comes out of files', { details });
      }
      const pages = { first, count: Number(rangeBytes) / pageBytes };
      first += pages.count;
      return { pages, descriptor, fileBytes: bytes, failure: (error) => withDetails(error, details) };
    });
  }

  async close(): Promise<void> {
    await closeStores(this.#folder, this.#stores);
  }
}

/** A UUID that the same m5.cpt always has: of the kind whose bits are anybody's. */
function uuidOf(text: Uint8Array): string {
  const digest = sha256(text);
  const variant = (Number.parseInt(digest.slice(16, 17), 16) & 3) | 8;
  const parts = [digest.slice(0, 8), digest.slice(8, 12), `8${digest.slice(13, 16)}`];
  return [...parts, `${variant.toString(16)}${digest.slice(17, 20)}`, digest.slice(20, 32)].join('-');
}
