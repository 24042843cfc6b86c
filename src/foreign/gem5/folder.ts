/**
 * The folder of a gem5 checkpoint, and what saves leave in it:
 *
 *     m5.cpt                                   the checkpoint; replaced last, in one step
 *     system.physmem.store0.pmem               its memory; with a UUID in its name where there was a checkpoint before
 *     chkpt.manifest.json                      the same: it belongs to the m5.cpt whose digest it holds
 *     chkpt.report.json                        what became of a skeleton
 *     .tmp-UUID-PID/                           what a save is writing; its files get a second name here before m5.cpt is replaced
 *     .m5.cpt.UUID.PID.old                     the m5.cpt that is being replaced; it goes last, after what it names
 *     .m5.cpt.UUID.PID.tmp                     the same of one that is being removed
 *
 * What an m5.cpt names belongs to it. A file of a save that is over, which no m5.cpt names, is found by its second name in the work
 * folder, one of a checkpoint that was replaced or removed by the m5.cpt that was, and one of a checkpoint that was replaced before its
 * save was over by its manifest (orphans.ts). Nothing else is ever removed. Best effort: what remains is tried again by the next save.
 */
import { type ErrorDetails, fromSystemError } from '../../errors/index.ts';
import { gem5TextBytesMax } from '../../limits.ts';
import { isLeftBehind, type StoreEnvironment } from '../../store/environment.ts';
import { errnoOf } from '../../store/file-system.ts';
import { FileTemporaries } from '../../store/file-temporaries.ts';
import { closeReadable, openForReading, readAtPosition } from '../../store/readable-file.ts';
import { type IniDocument, parseIni } from './ini.ts';
import { isStoreFileName } from './machine.ts';
import { parseManifest, sha256 } from './manifest.ts';
import { isManifestName, reportNameOf, textName, workPidIn } from './names.ts';
import { removeOrphans } from './orphans.ts';
import { isOwnSection } from './own-sections.ts';

const storePattern = /\.store[0-9]+$/;

/** A name, and what it was the name of. */
export interface ListedFile {
  readonly entry: string;
  readonly inode: bigint;
}

/** Not cut where gem5 has got to: it says how many stores it has, and has them, or is one of chkpt without memory. */
function isWhole(document: IniDocument): boolean {
  const sections = [...document.sections];
  const said = sections.reduce((sum, section) => sum + Number(section.get('nbr_of_stores') ?? 0), 0);
  const there = sections.filter(
    (section) => storePattern.test(section.name) && section.get('filename') !== undefined,
  );
  return there.length >= said && (said > 0 || sections.some(({ name }) => isOwnSection(name)));
}

export class Gem5Folder {
  readonly environment: StoreEnvironment;
  readonly path: string;
  readonly store: string;
  readonly temporaries: FileTemporaries;

  constructor(environment: StoreEnvironment, path: string, store: string) {
    this.environment = environment;
    this.path = path;
    this.store = store;
    this.temporaries = new FileTemporaries(environment, path, textName);
  }

  pathOf(entry: string): string {
    return `${this.path}/${entry}`;
  }

  details(entry: string): ErrorDetails {
    return { store: this.store, path: this.pathOf(entry) };
  }

  /** All bytes of a file. Throws `CHKPT_NOT_FOUND`, `CHKPT_LIMIT` as `limit` gives it, … */
  async read(entry: string, most: number, limit: () => Error): Promise<Uint8Array> {
    const { file, bytes } = await openForReading(this.environment.fileSystem, this.pathOf(entry), this.store);
    try {
      if (bytes > most) throw limit();
      const content = new Uint8Array(bytes);
      let done = 0;
      while (done < bytes) {
        const read = await readAtPosition(file, content.subarray(done), done, this.details(entry));
        if (read === 0) break;
        done += read;
      }
      return content.subarray(0, done);
    } finally {
      await closeReadable(file, this.details(entry));
    }
  }

  /** Names in the folder. Throws `CHKPT_NOT_FOUND`. */
  async entries(): Promise<string[]> {
    try {
      return await this.environment.fileSystem.readdir(this.path);
    } catch (error) {
      throw fromSystemError(error, 'cannot list the folder', { store: this.store, path: this.path });
    }
  }

  /**
   * Files in the folder that surely belong to an m5.cpt here: memory that it names, and the manifests that hold its digest. `undefined`
   * when that cannot be told, as of an m5.cpt that gem5 is writing.
   */
  async named(text = textName): Promise<Set<string> | undefined> {
    try {
      const bytes = await this.read(text, gem5TextBytesMax, () => new RangeError('too long'));
      const document = parseIni(bytes);
      if (!isWhole(document)) return undefined;
      const files = new Set<string>();
      for (const section of document.sections) {
        const file = section.get('filename');
        if (storePattern.test(section.name) && isStoreFileName(file) && file.endsWith('.pmem'))
          files.add(file);
      }
      for (const entry of (await this.entries()).filter(isManifestName)) {
        if ((await this.#manifestDigest(entry)) === sha256(bytes)) files.add(entry).add(reportNameOf(entry));
      }
      return files;
    } catch (error) {
      return errnoOf(error) === 'CHKPT_NOT_FOUND' ? new Set() : undefined;
    }
  }

  /**
   * What nobody may remove: files of the m5.cpt here, of those that saves which still run may put back, and manifests that cannot be read.
   * `undefined` when that cannot be told.
   */
  async kept(): Promise<Set<string> | undefined> {
    const kept = await this.named();
    if (kept === undefined) return undefined;
    const entries = await this.temporaries.entries();
    const dead = new Set((await this.temporaries.leftBehind(entries)).map(({ entry }) => entry));
    for (const entry of entries) {
      if (this.temporaries.names.parse(entry)?.role === 'old' && !dead.has(entry)) {
        const files = await this.named(entry);
        if (files === undefined) return undefined;
        for (const file of files) kept.add(file);
      } else if (isManifestName(entry) && (await this.#manifestDigest(entry)) === 'unreadable') {
        kept.add(entry).add(reportNameOf(entry));
      }
    }
    // A save that could not publish has put one of them back meanwhile.
    const again = await this.named();
    if (again === undefined) return undefined;
    for (const file of again) kept.add(file);
    return kept;
  }

  /** Removes what saves left behind that are over. Resolves to what was in the folder before. */
  async collect(): Promise<readonly string[]> {
    const entries = await this.temporaries.entries();
    for (const { entry, role } of await this.temporaries.leftBehind(entries)) {
      if (role === 'old') await this.removeReplaced(entry);
      else await this.removeRemoved(entry).catch(() => undefined);
    }
    for (const entry of entries) {
      const pid = workPidIn(entry);
      if (pid === undefined || !(await isLeftBehind(this.environment, this.pathOf(entry), pid))) continue;
      const kept = await this.kept().catch(() => undefined);
      if (kept !== undefined && (await this.#removeSecondNames(entry, entries, kept)))
        await this.removeWork(entry);
    }
    await removeOrphans(this);
    return entries;
  }

  /**
   * Removes what a replaced m5.cpt names, or was seen to name, and nobody else does; then itself: while it is there it says what is left.
   * REQUIRES: the save that replaced it is over.
   */
  async removeReplaced(older: string, seen: ReadonlySet<string> = new Set()): Promise<void> {
    // From here on it protects nothing.
    this.temporaries.postpone(older);
    try {
      if ((await this.#inodeOf(textName)) === undefined) return;
      const files = await this.named(older);
      if (files === undefined) return;
      const listed = await this.list(new Set([...files, ...seen]));
      const kept = await this.kept();
      if (kept === undefined) return;
      let failed = false;
      for (const one of listed) {
        if (!kept.has(one.entry)) await this.removeListed(one).catch(() => (failed = true));
      }
      if (!failed) await this.temporaries.remove(older);
    } catch {
      // The next save tries again.
    }
  }

  /** Removes what an m5.cpt that is no checkpoint any more names, and nobody else does; then itself. Throws what the file system does. */
  async removeRemoved(removed: string): Promise<void> {
    const files = await this.named(removed);
    if (files === undefined) return;
    const listed = await this.list(files);
    const kept = await this.kept();
    if (kept === undefined) return;
    for (const one of listed) if (!kept.has(one.entry)) await this.removeListed(one);
    await this.removeFile(removed);
  }

  /** Those of them that are there, as they are before it is looked which ones are kept. */
  async list(entries: Iterable<string>): Promise<ListedFile[]> {
    const listed: ListedFile[] = [];
    for (const entry of entries) {
      const inode = await this.#inodeOf(entry);
      if (inode !== undefined) listed.push({ entry, inode });
    }
    return listed;
  }

  /** Unless another file has that name since: names come back, and somebody else may be removing the same. */
  async removeListed({ entry, inode }: ListedFile): Promise<void> {
    if ((await this.#inodeOf(entry)) === inode) await this.removeFile(entry);
  }

  /** Removes a folder of files. Resolves to the error when something remains. */
  async removeWork(entry: string): Promise<unknown> {
    const { fileSystem } = this.environment;
    try {
      for (const file of await fileSystem.readdir(this.pathOf(entry))) {
        await this.removeFile(`${entry}/${file}`);
      }
      await fileSystem.rmdir(this.pathOf(entry));
      return undefined;
    } catch (error) {
      return errnoOf(error) === 'ENOENT' ? undefined : error;
    }
  }

  /** What is gone is gone. */
  async removeFile(entry: string): Promise<void> {
    try {
      await this.environment.fileSystem.unlink(this.pathOf(entry));
    } catch (error) {
      if (errnoOf(error) !== 'ENOENT') throw error;
    }
  }

  /** Digest of the m5.cpt that a manifest belongs to; `undefined` when it is gone. Throws when it cannot be read now. */
  async #manifestDigest(manifest: string): Promise<string | 'unreadable' | undefined> {
    try {
      const bytes = await this.read(manifest, gem5TextBytesMax, () => new RangeError('too long'));
      return parseManifest(bytes, {}).text.digest;
    } catch (error) {
      const code = errnoOf(error);
      if (code === 'CHKPT_NOT_FOUND') return undefined;
      if (code === 'CHKPT_MANIFEST' || code === 'CHKPT_VERSION') return 'unreadable';
      throw error;
    }
  }

  /** `undefined`: it is gone, maybe as the second name of another file. */
  async #inodeOf(entry: string): Promise<bigint | undefined> {
    try {
      return (await this.environment.fileSystem.status(this.pathOf(entry))).inode;
    } catch (error) {
      if (errnoOf(error) === 'ENOENT') return undefined;
      throw error;
    }
  }

  /** Files of the checkpoint's folder that are also in a work folder, but for those that are kept. False when some remain. */
  async #removeSecondNames(
    work: string,
    entries: readonly string[],
    kept: ReadonlySet<string>,
  ): Promise<boolean> {
    const { fileSystem } = this.environment;
    try {
      for (const file of await fileSystem.readdir(this.pathOf(work))) {
        const { inode } = await fileSystem.status(this.pathOf(`${work}/${file}`));
        for (const entry of entries) {
          if (kept.has(entry) || !/(?:\.pmem|^chkpt.*\.json)$/.test(entry)) continue;
          if ((await this.#inodeOf(entry)) === inode) await this.removeFile(entry);
        }
      }
      return true;
    } catch {
      // The next save tries again: the work folder, which is the evidence, stays.
      return false;
    }
  }
}
