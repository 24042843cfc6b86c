/**
 * `s3://bucket/key`: a checkpoint in an object store.
 *
 *     KEY                              the manifest: the commit
 *     KEY.objects/UUID.TOKEN.N         data objects: the stream, one behind the other
 *     KEY.objects/UUID.continued       a machine goes on from the checkpoint UUID
 *
 * Data objects have names that were never there before, and never change. docs/s3.md has the promises, and
 * docs/decisions/0018-object-store.md why it is so.
 */
import { CheckpointError, type ErrorDetails } from '../../errors/index.ts';
import type { StoreClaims } from '../claims.ts';
import type { Store, StoreReader, StoreReadOptions, StoreWriteOptions, StoreWriter } from '../store.ts';
import { s3Failure, statusOf } from './failure.ts';
import type { S3Host } from './host.ts';
import type { S3Manifest } from './manifest.ts';
import { claimKey, dataPrefix, limitsOf, type S3Place } from './place.ts';
import { readPlace, refuseForeign } from './place-state.ts';
import type { RangeSource } from './range-read.ts';
import { S3Claims } from './s3-claims.ts';
import { S3Reader } from './s3-reader.ts';
import { heldName, S3Writer } from './s3-writer.ts';
import type { S3Service } from './service.ts';

/** Saves beside us replace what we are about to open; so often. */
const openAttemptsMax = 5;

export class S3Store implements Store {
  readonly url: string;
  readonly claims: StoreClaims;
  readonly #place: S3Place;
  readonly #host: S3Host;
  readonly #details: ErrorDetails;
  readonly #partCount: number | undefined;

  /** `partCount`: parts of one object; tests have smaller ones. */
  constructor(place: S3Place, url: string, host: S3Host, partCount?: number) {
    this.url = url;
    this.#place = place;
    this.#host = host;
    this.#details = { store: url };
    this.#partCount = partCount;
    this.claims = new S3Claims(place, () => this.#service(), this.#details);
  }

  async openWriter(options: StoreWriteOptions): Promise<StoreWriter> {
    const service = await this.#service();
    // Before all the work: rights, bucket, and what is there.
    await this.#attempt('cannot look at the place', async () => {
      refuseForeign(await readPlace(service, this.#place, this.#details, options.signal), this.#details);
    });
    return new S3Writer({
      service,
      place: this.#place,
      openObjects: this.#host.openObjects,
      details: this.#details,
      options,
      partCount: this.#partCount,
    });
  }

  async openReader({ signal }: StoreReadOptions = {}): Promise<StoreReader> {
    const service = await this.#service();
    const { openObjects } = this.#host;
    return await this.#attempt('cannot open', async () => {
      for (let attempt = 1; ; attempt += 1) {
        const manifest = await this.#readManifest(service, signal);
        const sources = this.#sourcesOf(manifest);
        const names = sources.map(({ key }) => heldName(this.#place, key));
        if (!openObjects.hold(names)) {
          // Another one has taken its place already, or nothing.
          if (attempt >= openAttemptsMax) throw this.#missing(this.#place.key);
          continue;
        }
        try {
          const missing = await firstMissing(service, sources, signal);
          if (missing === undefined) {
            const release = (): Promise<void> => openObjects.release(names);
            const limits = limitsOf(this.#place.settings);
            return new S3Reader(service, sources, { ...limits, signal, details: this.#details, release });
          }
          const now = await this.#readManifest(service, signal);
          if (now.token === manifest.token || attempt >= openAttemptsMax) throw this.#missing(missing);
        } catch (error) {
          await openObjects.release(names);
          throw error;
        }
        await openObjects.release(names);
      }
    });
  }

  async remove(): Promise<void> {
    const service = await this.#service();
    await this.#attempt('cannot remove the checkpoint', async () => {
      const state = await readPlace(service, this.#place, this.#details);
      if (state.kind === 'empty') return;
      refuseForeign(state, this.#details);
      // First: what has no manifest is no checkpoint, whatever is left of it.
      await service.remove(this.#place.key);
      if (state.kind !== 'checkpoint') return;
      const { objects, kept, uuid } = state.manifest;
      for (const { name } of [...objects, ...kept]) {
        const key = `${dataPrefix(this.#place)}${name}`;
        await this.#host.openObjects.remove(heldName(this.#place, key), () => service.remove(key));
      }
      await service.remove(claimKey(this.#place, uuid)).catch(() => undefined);
    });
  }

  async #readManifest(service: S3Service, signal: AbortSignal | undefined): Promise<S3Manifest> {
    const state = await readPlace(service, this.#place, this.#details, signal);
    if (state.kind === 'checkpoint') return state.manifest;
    if (state.kind !== 'empty') throw state.failure;
    throw new CheckpointError('CHKPT_NOT_FOUND', 'no checkpoint at this key', { details: this.#details });
  }

  #sourcesOf({ objects }: S3Manifest): RangeSource[] {
    const prefix = dataPrefix(this.#place);
    return objects.map(({ name, bytes, etag }) => ({ key: `${prefix}${name}`, bytes, etag }));
  }

  #missing(key: string): CheckpointError {
    return new CheckpointError('CHKPT_MANIFEST', 'an object of the checkpoint is missing, or another one', {
      details: { ...this.#details, path: key },
    });
  }

  async #service(): Promise<S3Service> {
    return await this.#host.service(this.#place, this.url);
  }

  async #attempt<Result>(what: string, work: () => Promise<Result>): Promise<Result> {
    try {
      return await work();
    } catch (error) {
      throw s3Failure(error, what, this.#details);
    }
  }
}

/** Key of the first object that is not as the manifest says. */
async function firstMissing(
  service: S3Service,
  sources: readonly RangeSource[],
  signal: AbortSignal | undefined,
): Promise<string | undefined> {
  for (const { key, etag, bytes } of sources) {
    try {
      if ((await service.head(key, etag, signal))?.bytes !== bytes) return key;
    } catch (error) {
      if (statusOf(error) !== 412) throw error;
      return key;
    }
  }
  return undefined;
}
