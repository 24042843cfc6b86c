/**
 * Claims of the checkpoints at one place among files: `NAME.UUID.continued`, or `UUID.continued` inside a `dir:` checkpoint. Made by
 * exclusive creation, so that of several claims one succeeds; the UUID in the name makes that of another checkpoint no obstacle.
 */
import { CheckpointError, fromSystemError } from '../errors/index.ts';
import { type Claim, parseClaim, type StoreClaims, serializeClaim } from './claims.ts';
import { flushFailure } from './failure.ts';
import { errnoOf, type FileSystem } from './file-system.ts';
import { openForReading, readAtPosition } from './readable-file.ts';
import { TemporaryFile } from './temporary-file.ts';
import { isUuid, stemOf, uuidText } from './temporary-names.ts';

const namePattern = new RegExp(`^(${uuidText})\\.continued$`);
const textBytesMax = 4096;

export class FileClaims implements StoreClaims {
  readonly #fileSystem: FileSystem;
  readonly #folder: string;
  readonly #store: string;
  readonly #prefix: string;

  /** `name`: that of the checkpoint in `folder`, or nothing when the folder is the checkpoint. */
  constructor(fileSystem: FileSystem, folder: string, name: string | undefined, store: string) {
    this.#fileSystem = fileSystem;
    this.#folder = folder;
    this.#store = store;
    this.#prefix = name === undefined ? '' : `${stemOf(name)}.`;
  }

  async find(uuid: string): Promise<Claim | undefined> {
    const path = this.#pathOf(uuid);
    try {
      const { file } = await openForReading(this.#fileSystem, path, this.#store);
      try {
        const text = new Uint8Array(textBytesMax + 1);
        const byteCount = await readAtPosition(file, text, 0, { store: this.#store, path });
        return parseClaim(uuid, text.subarray(0, byteCount));
      } finally {
        await file.close();
      }
    } catch (error) {
      if (error instanceof CheckpointError && error.code === 'CHKPT_NOT_FOUND') return undefined;
      throw fromSystemError(error, 'cannot read a claim', { store: this.#store, path });
    }
  }

  async take(claim: Claim): Promise<Claim | undefined> {
    const path = this.#pathOf(claim.uuid);
    let file: TemporaryFile;
    try {
      file = await TemporaryFile.create(this.#fileSystem, path, this.#store);
    } catch (error) {
      if (error instanceof CheckpointError && errnoOf(error.cause) === 'EEXIST') {
        // It may have been withdrawn since: then nobody has it, and who asks again gets it.
        return (await this.find(claim.uuid)) ?? parseClaim(claim.uuid, new Uint8Array(0));
      }
      throw error;
    }
    try {
      await file.append([Buffer.from(serializeClaim(claim))]);
      await file.finish();
      await this.#flushFolder();
      return undefined;
    } catch (error) {
      await file.abandon();
      await this.#fileSystem.unlink(path).catch(() => undefined);
      throw error;
    }
  }

  async withdraw(uuid: string): Promise<void> {
    const path = this.#pathOf(uuid);
    try {
      await this.#fileSystem.unlink(path);
    } catch (error) {
      if (errnoOf(error) === 'ENOENT') return;
      throw fromSystemError(error, 'cannot remove a claim', { store: this.#store, path });
    }
    await this.#flushFolder();
  }

  /** Those of the entries of the folder that are claims of this place, except the one on `uuid`. */
  among(entries: readonly string[], uuid?: string): string[] {
    return entries.filter((entry) => {
      const found = entry.startsWith(this.#prefix)
        ? namePattern.exec(entry.slice(this.#prefix.length))?.[1]
        : undefined;
      return found !== undefined && found !== uuid;
    });
  }

  /** Removes claims on checkpoints that are not here any more. Best effort: a claim that stays harms nobody. */
  async remove(entries: readonly string[]): Promise<void> {
    for (const entry of entries) {
      await this.#fileSystem.unlink(`${this.#folder}/${entry}`).catch(() => undefined);
    }
  }

  async #flushFolder(): Promise<void> {
    try {
      await this.#fileSystem.fsyncDirectory(this.#folder);
    } catch (error) {
      throw flushFailure(error, 'cannot flush the folder', { store: this.#store, path: this.#folder });
    }
  }

  #pathOf(uuid: string): string {
    if (!isUuid(uuid)) throw new TypeError(`not a UUID: ${uuid}`);
    return `${this.#folder}/${this.#prefix}${uuid}.continued`;
  }
}
