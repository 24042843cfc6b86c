/**
 * The folder of a gem5 checkpoint, and what saves leave in it:
 *
 *     m5.cpt                                   the checkpoint; replaced last, in one step
 *     system.physmem.store0.pmem               its memory; with a UUID in its name where there was a checkpoint before
 *     chkpt.manifest.json                      the same: it belongs to the m5.cpt whose digest it holds
 *     chkpt.report.json                        what became of a skeleton
 *     .tmp-UUID-PID/                           what a save is writing; its files get a second name here before m5.cpt is replaced
 *     .m5.cpt.UUID.PID.old                     the m5.cpt that is being replaced; it goes last, after what it names
 *
 * What an m5.cpt names belongs to it. A file of a save that is over, which no m5.cpt names, is found by its second name in the work
 * folder, and one of a checkpoint that was replaced by the m5.cpt that was. Nothing else is ever removed. Best effort: what remains is
 * tried again by the next save.
 */
import { type ErrorDetails, fromSystemError } from '../../errors/index.ts';
import { gem5TextBytesMax } from '../../limits.ts';
import { isLeftBehind, type StoreEnvironment } from '../../store/environment.ts';
import { errnoOf } from '../../store/file-system.ts';
import { FileTemporaries } from '../../store/file-temporaries.ts';
import { closeReadable, openForReading, readAtPosition } from '../../store/readable-file.ts';
import { pidText, uuidText } from '../../store/temporary-names.ts';
import { parseIni } from './ini.ts';
import { isStoreFileName } from './machine.ts';
import { parseManifest, sha256 } from './manifest.ts';

export const textName = 'm5.cpt';
const workPattern = new RegExp(`^\\.tmp-${uuidText}-(${pidText})$`);
const manifestPattern = new RegExp(`^chkpt(?:\\.${uuidText}(?:\\.[1-9][0-9]{0,2})?)?\\.manifest\\.json$`);

export function isManifestName(entry: string): boolean {
  return manifestPattern.test(entry);
}

/** The file beside a manifest that tells people what became of a skeleton. */
export function reportNameOf(manifest: string): string {
  return manifest.replace(/manifest\.json$/, 'report.json');
}

export function workName(uuid: string, pid: number): string {
  return `.tmp-${uuid}-${pid}`;
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

  /** Files in the folder that an m5.cpt here names, its manifests included; `undefined` when that cannot be told. */
  async named(text = textName): Promise<Set<string> | undefined> {
    try {
      const bytes = await this.read(text, gem5TextBytesMax, () => new RangeError('too long'));
      const files = new Set<string>();
      for (const section of parseIni(bytes).sections) {
        const file = section.get('filename');
        if (/\.store[0-9]+$/.test(section.name) && isStoreFileName(file)) files.add(file);
      }
      for (const entry of (await this.entries()).filter(isManifestName)) {
        if (await this.#belongs(entry, sha256(bytes))) files.add(entry).add(reportNameOf(entry));
      }
      return files;
    } catch (error) {
      return errnoOf(error) === 'CHKPT_NOT_FOUND' ? new Set() : undefined;
    }
  }

  /** Removes what saves left behind that are over. Resolves to what was in the folder before. */
  async collect(): Promise<readonly string[]> {
    const entries = await this.temporaries.entries();
    for (const { entry, role } of await this.temporaries.leftBehind(entries)) {
      if (role === 'old') await this.removeReplaced(entry);
      else await this.temporaries.remove(entry);
    }
    for (const entry of entries) {
      const pid = workPattern.exec(entry)?.[1];
      if (pid === undefined) continue;
      if (!(await isLeftBehind(this.environment, this.pathOf(entry), Number(pid)))) continue;
      const named = await this.named();
      if (named !== undefined && (await this.#removeSecondNames(entry, entries, named)))
        await this.removeWork(entry);
    }
    return entries;
  }

  /** Removes what a replaced m5.cpt names and the one that is here does not, then itself: while it is there it says what is left. */
  async removeReplaced(older: string): Promise<void> {
    if ((await this.#inodeOf(textName).catch(() => undefined)) === undefined) return;
    const [files, named] = [await this.named(older), await this.named()];
    if (named === undefined) return;
    try {
      for (const entry of files ?? []) if (!named.has(entry)) await this.removeFile(entry);
    } catch {
      return this.temporaries.postpone(older);
    }
    await this.temporaries.remove(older);
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

  async #belongs(manifest: string, digest: string): Promise<boolean> {
    try {
      const bytes = await this.read(manifest, gem5TextBytesMax, () => new RangeError('too long'));
      return parseManifest(bytes, {}).text.digest === digest;
    } catch {
      return false;
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

  /** Files of the checkpoint's folder that are also in a work folder, but for those that are named. False when some remain. */
  async #removeSecondNames(
    work: string,
    entries: readonly string[],
    named: ReadonlySet<string>,
  ): Promise<boolean> {
    const { fileSystem } = this.environment;
    try {
      for (const file of await fileSystem.readdir(this.pathOf(work))) {
        const { inode } = await fileSystem.status(this.pathOf(`${work}/${file}`));
        for (const entry of entries) {
          if (named.has(entry) || !/(?:\.pmem|^chkpt.*\.json)$/.test(entry)) continue;
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
