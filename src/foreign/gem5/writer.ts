/**
 * A save into a gem5 checkpoint. In this order:
 *
 *     memory stores into the work folder, fsync each
 *     m5.cpt and manifest into the work folder, fsync each
 *     stores and manifest get their names in the folder (link), fsync the folder
 *     m5.cpt of the work folder → m5.cpt, fsync the folder       from here on the checkpoint is the new one
 *     remove what the older m5.cpt named, and the work folder
 */
import { dirname } from 'node:path';
import { CheckpointError, fromSystemError } from '../../errors/index.ts';
import { type GuestMemory, GzipImage } from '../../memory/index.ts';
import { flushFailure, saveFailure, throwIfAborted } from '../../store/failure.ts';
import { errnoOf } from '../../store/file-system.ts';
import { publish } from '../../store/publish.ts';
import { TemporaryFile } from '../../store/temporary-file.ts';
import type { ForeignContent, ForeignMemoryOptions, ForeignWriter } from '../foreign-format.ts';
import type { Gem5Document } from './document.ts';
import type { Gem5Folder } from './folder.ts';
import { serializeIni } from './ini.ts';
import { type ManifestStore, serializeManifest, sha256 } from './manifest.ts';
import { isManifestName, reportNameOf, textName, workName } from './names.ts';
import { removeOrphans } from './orphans.ts';

const folderMode = 0o700;
const generationCountMax = 1000;
/** How often other saves may take the names of this one's files while it makes them. */
const collisionCountMax = 16;
const manifestWorkName = 'manifest';
const reportWorkName = 'report';

export interface Gem5Save {
  readonly folder: Gem5Folder;
  /** Makes the text of the checkpoint. */
  readonly document: Gem5Document;
  readonly uuid: string;
  readonly signal: AbortSignal | undefined;
  /** Told what the document reports when the checkpoint is there. */
  readonly onSaved?: ((report: object | undefined) => void) | undefined;
}

/** A store that was written, before its file has a name. */
interface Written {
  readonly work: string;
  readonly bytes: number;
  readonly members: Uint8Array;
}

/** Makes the folder when there is none, clears what crashes left, and makes the work folder. */
export async function openGem5Writer(save: Gem5Save): Promise<ForeignWriter> {
  const { folder, uuid } = save;
  const { fileSystem, processes } = folder.environment;
  const isNew = await makeFolder(folder);
  const work = workName(uuid, processes.pid);
  try {
    if (!isNew) await folder.collect();
    await fileSystem.mkdir(folder.pathOf(work), folderMode);
  } catch (error) {
    if (isNew) await fileSystem.rmdir(folder.path).catch(() => undefined);
    if (errnoOf(error) !== 'EEXIST')
      throw fromSystemError(error, 'cannot create a folder', folder.details(work));
    throw new CheckpointError('CHKPT_IO', 'another save with this UUID is running', {
      details: folder.details(work),
      cause: error,
    });
  }
  return new Gem5Writer(save, work, isNew);
}

async function makeFolder(folder: Gem5Folder): Promise<boolean> {
  try {
    await folder.environment.fileSystem.mkdir(folder.path, folderMode);
    return true;
  } catch (error) {
    if (errnoOf(error) === 'EEXIST') return false;
    throw fromSystemError(error, 'cannot create the folder', { store: folder.store, path: folder.path });
  }
}

class Gem5Writer implements ForeignWriter {
  readonly #save: Gem5Save;
  readonly #work: string;
  /** This save made the folder of the checkpoint. */
  readonly #isNew: boolean;
  readonly #written: Written[] = [];
  /** Names that this save has made in the folder. */
  readonly #linked: string[] = [];
  #memberBytes = memberBytesOf(0n);
  #file: TemporaryFile | undefined;
  #textInode: bigint | undefined;
  #isPublished = false;

  constructor(save: Gem5Save, work: string, isNew: boolean) {
    this.#save = save;
    this.#work = work;
    this.#isNew = isNew;
  }

  async memory(_name: string, image: GuestMemory, options: ForeignMemoryOptions): Promise<void> {
    const parts = this.#save.document.cut(image.regions);
    this.#memberBytes = memberBytesOf(image.byteLength);
    const gzip = new GzipImage(image, options);
    for (const [index, part] of parts.entries()) {
      const work = `store${index}`;
      const file = await this.#create(work);
      const output = file.direct();
      if (output === undefined || output.descriptor === 'discard') {
        throw new CheckpointError('CHKPT_UNSUPPORTED', 'memory goes into files', {
          details: this.#details(work),
        });
      }
      const members = await gzip.save(part, output.descriptor, this.#memberBytes);
      const bytes = bytesOfMembers(members);
      output.wrote(bytes);
      await file.finish();
      this.#written.push({ work, bytes, members });
    }
  }

  async commit(content: ForeignContent): Promise<number> {
    const { folder, document, signal, onSaved } = this.#save;
    throwIfAborted(signal, folder.store);
    let bytes = await this.#nameFiles(content);
    // Another save was in the folder with the same idea: by now it shows.
    for (let count = 0; bytes === undefined && count < collisionCountMax; count += 1) {
      await this.#takeBack();
      throwIfAborted(signal, folder.store);
      bytes = await this.#nameFiles(content);
    }
    if (bytes === undefined) {
      const what = 'other saves have published here again and again';
      throw new CheckpointError('CHKPT_IO', what, { details: folder.details('') });
    }
    await this.#flush(folder.path);
    await this.#publish();
    onSaved?.(document.report);
    return bytes;
  }

  /** Writes what is no memory, and gives all files their names. Resolves to the bytes of all; `undefined`: a name was taken meanwhile. */
  async #nameFiles(content: ForeignContent): Promise<number | undefined> {
    const { folder, document, uuid, signal } = this.#save;
    const suffix = freeSuffix(await folder.entries(), uuid);
    const files = this.#written.map((_, index) => document.fileName(index, suffix));
    const text = serializeIni(document.make(content, files));
    this.#textInode = await this.#write(textName, text);
    const stores = this.#written.map(({ bytes, members }, index): ManifestStore => {
      return { file: files[index] as string, bytes, members };
    });
    const digest = { bytes: text.length, digest: sha256(text) };
    const manifest = serializeManifest({ uuid, text: digest, memberBytes: this.#memberBytes, stores });
    await this.#write(manifestWorkName, Buffer.from(manifest, 'latin1'));
    const { report } = document;
    if (report !== undefined) {
      await this.#write(reportWorkName, Buffer.from(`${JSON.stringify(report, undefined, 2)}\n`));
    }
    throwIfAborted(signal, folder.store);
    const name = `chkpt${suffix}.manifest.json`;
    const links = this.#written.map(({ work }, index): [string, string] => [work, files[index] as string]);
    if (report !== undefined) links.push([reportWorkName, reportNameOf(name)]);
    links.push([manifestWorkName, name]);
    for (const [work, entry] of links) if (!(await this.#link(work, entry))) return undefined;
    return this.#written.reduce((sum, { bytes }) => sum + bytes, text.length + manifest.length);
  }

  /** Everything but memory, and all names. */
  async #takeBack(): Promise<void> {
    const { folder } = this.#save;
    for (let entry = this.#linked.at(-1); entry !== undefined; entry = this.#linked.at(-1)) {
      await folder.removeFile(entry);
      this.#linked.pop();
    }
    for (const entry of [textName, manifestWorkName, reportWorkName]) {
      await folder.removeFile(`${this.#work}/${entry}`);
    }
  }

  async abort(): Promise<void> {
    if (this.#isPublished) return;
    const { folder } = this.#save;
    await this.#file?.abandon();
    // The switch could not be undone: what m5.cpt names stays.
    if (!(await this.#isNamed())) {
      for (const entry of this.#linked) await folder.removeFile(entry).catch(() => undefined);
      await folder.removeFile(this.#olderName()).catch(() => undefined);
    }
    const failure = await folder.removeWork(this.#work);
    if (this.#isNew) await folder.environment.fileSystem.rmdir(folder.path).catch(() => undefined);
    if (failure !== undefined) throw saveFailure(failure, 'cannot remove a temporary', this.#details(''));
  }

  async #publish(): Promise<void> {
    const { folder } = this.#save;
    const replaced = await folder.named();
    const older = this.#olderName();
    const files = {
      folder: folder.path,
      temporary: folder.pathOf(`${this.#work}/${textName}`),
      inode: this.#textInode ?? 0n,
      target: folder.pathOf(textName),
      older: folder.pathOf(older),
    };
    if (replaced?.size === 0) await this.#flushParent();
    const outcome = await publish(folder.environment.fileSystem, files, folder.store);
    this.#isPublished = true;
    // From here on everything is best effort: the next save removes what stays.
    if (outcome === 'kept' && replaced !== undefined) await folder.removeReplaced(older, replaced);
    else
      for (const entry of [...(replaced ?? []), older]) await folder.removeFile(entry).catch(() => undefined);
    await folder.removeWork(this.#work);
    await removeOrphans(folder);
  }

  #olderName(): string {
    const { folder, uuid } = this.#save;
    return folder.temporaries.names.make(uuid, folder.environment.processes.pid, 'old');
  }

  /** True unless m5.cpt is certainly another file than the one this save wrote. */
  async #isNamed(): Promise<boolean> {
    const { folder } = this.#save;
    if (this.#textInode === undefined) return false;
    try {
      return (await folder.environment.fileSystem.status(folder.pathOf(textName))).inode === this.#textInode;
    } catch (error) {
      return errnoOf(error) !== 'ENOENT';
    }
  }

  async #create(entry: string): Promise<TemporaryFile> {
    const { folder } = this.#save;
    const path = folder.pathOf(`${this.#work}/${entry}`);
    this.#file = await TemporaryFile.create(folder.environment.fileSystem, path, folder.store);
    return this.#file;
  }

  async #write(entry: string, bytes: Uint8Array): Promise<bigint> {
    const file = await this.#create(entry);
    await file.append([bytes]);
    await file.finish();
    return file.inode;
  }

  /** False: the name is taken. */
  async #link(work: string, entry: string): Promise<boolean> {
    const { folder } = this.#save;
    try {
      await folder.environment.fileSystem.link(folder.pathOf(`${this.#work}/${work}`), folder.pathOf(entry));
    } catch (error) {
      if (errnoOf(error) === 'EEXIST') return false;
      throw saveFailure(error, 'cannot give a file its name', folder.details(entry));
    }
    this.#linked.push(entry);
    return true;
  }

  async #flush(path: string): Promise<void> {
    const { folder } = this.#save;
    try {
      await folder.environment.fileSystem.fsyncDirectory(path);
    } catch (error) {
      throw flushFailure(error, 'cannot flush the folder', { store: folder.store, path });
    }
  }

  /** Makes the folder of the checkpoint itself durable. */
  async #flushParent(): Promise<void> {
    try {
      await this.#flush(dirname(this.#save.folder.path));
    } catch (error) {
      if (!this.#isNew && errnoOf((error as Error).cause) === 'EACCES') return;
      throw error;
    }
  }

  #details(entry: string): { store: string; path: string } {
    const { folder } = this.#save;
    return { store: folder.store, path: folder.pathOf(`${this.#work}/${entry}`) };
  }
}

/** Members are larger where their table would be long: it is read as a whole. */
function memberBytesOf(memoryBytes: bigint): number {
  return memoryBytes <= 256n << 30n ? 256 * 1024 : 4 * 1024 * 1024;
}

function bytesOfMembers(members: Uint8Array): number {
  const view = new DataView(members.buffer, members.byteOffset, members.byteLength);
  let sum = 0;
  for (let at = 0; at < members.length; at += 12) sum += view.getUint32(at, true);
  return sum;
}

/** What the names of this checkpoint's files have in them: nothing where there was none before. */
function freeSuffix(entries: readonly string[], uuid: string): string {
  const files = entries.filter(
    (entry) => entry === textName || entry.endsWith('.pmem') || isManifestName(entry),
  );
  if (files.length === 0) return '';
  for (let count = 1; count < generationCountMax; count += 1) {
    const suffix = count === 1 ? `.${uuid}` : `.${uuid}.${count}`;
    if (!files.some((file) => file.includes(`${suffix}.`))) return suffix;
  }
  throw new CheckpointError('CHKPT_IO', 'too many checkpoints of this UUID');
}
