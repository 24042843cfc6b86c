/** A save into an `s3:` place: data objects under names that nobody else has, then the manifest. */
import { randomBytes } from 'node:crypto';
import { CheckpointError, type ErrorDetails } from '../../errors/index.ts';
import { throwIfAborted } from '../failure.ts';
import type { CommitSummary, StoreWriteOptions, StoreWriter } from '../store.ts';
import { DataUpload, partCountMax } from './data-upload.ts';
import { s3Failure } from './failure.ts';
import {
  dataName,
  type S3Data,
  type S3Kept,
  type S3Manifest,
  s3HistoryCountMax,
  s3KeptCountMax,
} from './manifest.ts';
import type { OpenObjects } from './open-objects.ts';
import { claimKey, dataPrefix, limitsOf, type S3Place } from './place.ts';
import type { PlaceState } from './place-state.ts';
import { NotPublished, publish } from './publish.ts';
import type { S3Service } from './service.ts';

export interface S3Save {
  readonly service: S3Service;
  readonly place: S3Place;
  readonly openObjects: OpenObjects;
  readonly details: ErrorDetails;
  readonly options: StoreWriteOptions;
  /** Parts of one object; tests have smaller ones. */
  readonly partCount?: number | undefined;
}

export class S3Writer implements StoreWriter {
  readonly #save: S3Save;
  readonly #token = randomBytes(16).toString('hex');
  readonly #upload: DataUpload;
  /** Whether the manifest is there, or may be: then its objects stay. */
  #isPublished = false;

  constructor(save: S3Save) {
    this.#save = save;
    const { service, place, options, partCount = partCountMax } = save;
    const limits = { ...limitsOf(place.settings), partCount };
    const nameOf = (index: number): string => dataName(options.uuid, this.#token, index);
    this.#upload = new DataUpload(service, dataPrefix(place), nameOf, limits);
  }

  async write(bytes: Uint8Array): Promise<void> {
    await this.writeAll([bytes]);
  }

  async writeAll(pieces: readonly Uint8Array[]): Promise<void> {
    await this.#attempt('cannot store a part', () => this.#upload.append(pieces));
  }

  async commit(summary: CommitSummary): Promise<void> {
    const { service, place, details, options } = this.#save;
    const objects = await this.#attempt('cannot store the data', () => this.#upload.finish());
    throwIfAborted(options.signal, details.store ?? '');
    const nowMs = Date.now();
    const make = (state: PlaceState): S3Manifest => this.#manifest(summary, objects, state, nowMs);
    // From here on it may be there, whatever is heard of it.
    this.#isPublished = true;
    let replaced: PlaceState | undefined;
    try {
      replaced = await publish(service, place, make, details);
    } catch (error) {
      if (!(error instanceof NotPublished)) throw error;
      this.#isPublished = false;
      throw error.cause;
    }
    if (replaced?.kind === 'checkpoint') await this.#removeReplaced(replaced.manifest, make(replaced));
  }

  async abort(): Promise<void> {
    if (this.#isPublished) return;
    await this.#attempt('cannot remove what was stored', () => this.#upload.abandon());
  }

  #manifest(
    summary: CommitSummary,
    objects: readonly S3Data[],
    state: PlaceState,
    nowMs: number,
  ): S3Manifest {
    const replaced = state.kind === 'checkpoint' ? state.manifest : undefined;
    const untilMs = nowMs + 1000 * (this.#save.place.settings.keepSeconds ?? 0);
    const kept: S3Kept[] =
      replaced === undefined
        ? []
        : [...replaced.objects.map(({ name }) => ({ name, untilMs })), ...replaced.kept];
    const { uuid, parent, epoch, root, bytes } = summary;
    return {
      uuid,
      parent: parent ?? null,
      epoch: epoch.toString(),
      root,
      bytes,
      token: this.#token,
      objects,
      kept: kept.filter((one) => one.untilMs > nowMs).slice(0, s3KeptCountMax),
      history:
        replaced === undefined ? [] : [replaced.token, ...replaced.history].slice(0, s3HistoryCountMax),
    };
  }

  /** What nobody needs any more. Best effort: what remains is found by `chkpt gc`. */
  async #removeReplaced(replaced: S3Manifest, current: S3Manifest): Promise<void> {
    const { service, place } = this.#save;
    const kept = new Set(current.kept.map(({ name }) => name));
    for (const { name } of [...replaced.objects, ...replaced.kept]) {
      if (!kept.has(name)) await this.#removeData(name);
    }
    if (replaced.uuid === current.uuid) return;
    await service.remove(claimKey(place, replaced.uuid)).catch(() => undefined);
  }

  async #removeData(name: string): Promise<void> {
    const { service, place, openObjects } = this.#save;
    const key = `${dataPrefix(place)}${name}`;
    await openObjects.remove(heldName(place, key), () => service.remove(key));
  }

  async #attempt<Result>(what: string, work: () => Promise<Result>): Promise<Result> {
    const { details, options } = this.#save;
    try {
      return await work();
    } catch (error) {
      if (options.signal?.aborted) {
        throw new CheckpointError('CHKPT_ABORTED', 'aborted', { details, cause: options.signal.reason });
      }
      throw s3Failure(error, what, details);
    }
  }
}

/** Name of an object among those of all buckets, for `OpenObjects`. */
export function heldName(place: S3Place, key: string): string {
  return `${place.settings.endpoint ?? ''} ${place.bucket}/${key}`;
}
