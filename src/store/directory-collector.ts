/**
 * What saves leave behind in the folder of a `dir:` checkpoint, and its removal:
 *
 *     .tmp-UUID-PID                      a generation that is being written
 *     .MANIFEST.json.UUID.PID.tmp        the manifest of a generation that is not published yet
 *     .MANIFEST.json.UUID.PID.old        the manifest that is being replaced
 *     UUID                               a generation; in use when MANIFEST.json names it
 *
 * A generation is removed only on evidence: a manifest left behind by a save that is over names it, and
 * MANIFEST.json does not. Other folders are never touched, whatever they are called. The evidence goes last,
 * so that a removal that stops half-way is found by the next one.
 *
 * Everything is best effort: what remains is tried again by the next save.
 */
import { CheckpointError } from '../errors/index.ts';
import { isLeftBehind, type StoreEnvironment } from './environment.ts';
import { errnoOf } from './file-system.ts';
import { FileTemporaries } from './file-temporaries.ts';
import { manifestName, readManifest } from './manifest-file.ts';
import { pidText, type TemporaryName, uuidText } from './temporary-names.ts';

const workPattern = new RegExp(`^\\.tmp-${uuidText}-(${pidText})$`);

/** The name of the folder that a save writes into. */
export function workName(uuid: string, pid: number): string {
  return `.tmp-${uuid}-${pid}`;
}

/** Which generation a manifest names; `unknown` when it cannot be read. */
export type NamedGeneration = { readonly generation: string } | 'none' | 'unknown';

export class DirectoryCollector {
  /** The temporaries of MANIFEST.json. */
  readonly manifests: FileTemporaries;
  readonly #environment: StoreEnvironment;
  readonly #path: string;
  readonly #store: string;
  readonly #unremoved = new Set<string>();

  constructor(environment: StoreEnvironment, path: string, store: string) {
    this.#environment = environment;
    this.#path = path;
    this.#store = store;
    this.manifests = new FileTemporaries(environment, path, manifestName);
  }

  /**
   * Removes what nobody uses any more; `finished` are manifests of our own save that is over. Resolves to what was in the folder
   * before.
   */
  async collect(finished: readonly string[] = []): Promise<readonly string[]> {
    const entries = await this.manifests.entries();
    await this.#collectWork(entries);
    const markers = await this.#markers(entries, finished);
    for (const marker of markers.leftBehind) {
      // MANIFEST.json is read for each one: a save that runs beside us may publish at any moment.
      const isDone = await this.#removeGenerationOf(marker, markers.uuidsInUse);
      if (isDone) await this.manifests.remove(marker.entry);
      else this.manifests.postpone(marker.entry);
    }
    return entries;
  }

  /** What MANIFEST.json names now. */
  published(): Promise<NamedGeneration> {
    return this.#generationIn(manifestName);
  }

  /**
   * Removes a folder of files. Resolves to the error when something remains; then the next `collect()` tries
   * again.
   */
  async removeWork(entry: string): Promise<unknown> {
    const failure = await this.#removeFolder(entry);
    if (failure === undefined) this.#unremoved.delete(entry);
    else this.#unremoved.add(entry);
    return failure;
  }

  /** Removes a generation that nothing refers to. False when something remains. */
  async removeGeneration(generation: string): Promise<boolean> {
    return (await this.#removeFolder(generation)) === undefined;
  }

  async #removeFolder(entry: string): Promise<unknown> {
    const { fileSystem } = this.#environment;
    const path = `${this.#path}/${entry}`;
    try {
      // Another save may be removing the same: what is gone is gone.
      for (const file of await fileSystem.readdir(path)) {
        await fileSystem.unlink(`${path}/${file}`).catch(unlessMissing);
      }
      await fileSystem.rmdir(path);
      return undefined;
    } catch (error) {
      return errnoOf(error) === 'ENOENT' ? undefined : error;
    }
  }

  async #collectWork(entries: readonly string[]): Promise<void> {
    for (const entry of entries) {
      const pid = workPattern.exec(entry)?.[1];
      if (pid === undefined) continue;
      const path = `${this.#path}/${entry}`;
      if (this.#unremoved.has(entry) || (await isLeftBehind(this.#environment, path, Number(pid)))) {
        await this.removeWork(entry);
      }
    }
  }

  async #markers(entries: readonly string[], finished: readonly string[]): Promise<Markers> {
    const others = entries.filter((entry) => !finished.includes(entry));
    const own = finished.flatMap((entry) => this.manifests.names.parse(entry) ?? []);
    const leftBehind = [...(await this.manifests.leftBehind(others)), ...own];
    const known = new Set(leftBehind.map(({ entry }) => entry));
    const inUse = others.flatMap((entry) =>
      known.has(entry) ? [] : (this.manifests.names.parse(entry) ?? []),
    );
    return { leftBehind, uuidsInUse: new Set(inUse.map(({ uuid }) => uuid)) };
  }

  /** True when the marker has done its duty. */
  async #removeGenerationOf(marker: TemporaryName, uuidsInUse: ReadonlySet<string>): Promise<boolean> {
    const named = await this.#generationIn(marker.entry);
    if (named === 'unknown') return false;
    if (named === 'none') return true;
    const published = await this.published();
    if (published === 'unknown') return false;
    if (published === 'none') {
      // Without MANIFEST.json the replaced one is all there is to restore by hand.
      if (marker.role === 'old') return false;
    } else if (published.generation === named.generation) {
      return true;
    }
    const uuid = named.generation.slice(0, uuidCharacters);
    if (uuidsInUse.has(uuid)) return false;
    return await this.removeGeneration(named.generation);
  }

  async #generationIn(entry: string): Promise<NamedGeneration> {
    try {
      return await readManifest(this.#environment.fileSystem, `${this.#path}/${entry}`, this.#store);
    } catch (error) {
      if (!(error instanceof CheckpointError)) return 'unknown';
      if (error.code === 'CHKPT_NOT_FOUND') return 'none';
      // A marker cut short by a crash names nothing: its generation was never renamed.
      return error.code === 'CHKPT_MANIFEST' && entry !== manifestName ? 'none' : 'unknown';
    }
  }
}

const uuidCharacters = 36;

function unlessMissing(error: unknown): void {
  if (errnoOf(error) !== 'ENOENT') throw error;
}

interface Markers {
  readonly leftBehind: TemporaryName[];
  /** Checkpoints that other saves are publishing. */
  readonly uuidsInUse: ReadonlySet<string>;
}
