/**
 * What saves into `s3:` that were killed, or have lost an answer, leave behind: unfinished uploads, data objects that no manifest names,
 * claims on checkpoints that are not there.
 *
 * An object store has no processes to ask. A save that runs has uploads, and data without a manifest, too: so only what is older than
 * `olderThanMs` is garbage, and a manifest is read again just before something that it does not name is removed. Where a manifest cannot
 * be read nothing of it is touched.
 */
import { throwIfAborted } from '../failure.ts';
import { uuidText } from '../temporary-names.ts';
import { parseStoreUrl } from '../url.ts';
import { s3Failure } from './failure.ts';
import { defaultS3Host } from './host.ts';
import { isDataName } from './manifest.ts';
import { folderMark, parsePrefix, type S3Place } from './place.ts';
import { type PlaceState, readPlace } from './place-state.ts';
import type { S3Service } from './service.ts';

export interface S3Leftover {
  readonly path: string;
  readonly kind: 'object' | 'upload';
  readonly bytes: number;
}

export interface S3CollectOptions {
  readonly remove: boolean;
  readonly olderThanMs: number;
  readonly signal?: AbortSignal | undefined;
}

const claimPattern = new RegExp(`^(${uuidText})\\.continued$`);

/** Looks at every key that begins with that of `url`. Throws `CHKPT_STORE_URL`, `CHKPT_NOT_FOUND`, `CHKPT_PERMISSION`, … */
export async function collectS3(url: string, options: S3CollectOptions): Promise<S3Leftover[]> {
  const place = parsePrefix(parseStoreUrl(url).rest, url);
  try {
    const service = await defaultS3Host.service(place, url);
    return await new Collection(service, place, url, options).run();
  } catch (error) {
    throw s3Failure(error, 'cannot look for leftovers', { store: url });
  }
}

/** A key as that of something in the folder of a checkpoint. */
interface Belonging {
  /** Key of the manifest. */
  readonly key: string;
  readonly name: string;
}

class Collection {
  readonly #service: S3Service;
  readonly #place: S3Place;
  readonly #url: string;
  readonly #options: S3CollectOptions;
  readonly #leftovers: S3Leftover[] = [];
  readonly #limitMs: number;

  constructor(service: S3Service, place: S3Place, url: string, options: S3CollectOptions) {
    this.#service = service;
    this.#place = place;
    this.#url = url;
    this.#options = options;
    this.#limitMs = Date.now() - options.olderThanMs;
  }

  async run(): Promise<S3Leftover[]> {
    const { signal } = this.#options;
    // Before the objects: data of a save that ends meanwhile is not taken for garbage.
    for await (const { key, id, startedMs } of this.#service.uploads(this.#place.key, signal)) {
      throwIfAborted(signal, this.#url);
      const found = belongingOf(key);
      if (found === undefined || !isDataName(found.name) || !this.#isOld(startedMs)) continue;
      const bytes = await this.#service.uploadBytes(key, id);
      if (this.#options.remove) await this.#service.abortUpload(key, id);
      this.#add('upload', key, bytes);
    }
    for await (const { key, bytes, changedMs } of this.#service.objects(this.#place.key, signal)) {
      throwIfAborted(signal, this.#url);
      const found = belongingOf(key);
      if (found === undefined || !this.#isOld(changedMs) || !(await this.#isUnused(found))) continue;
      if (this.#options.remove) await this.#service.remove(key);
      this.#add('object', key, bytes);
    }
    return this.#leftovers;
  }

  #isOld(timeMs: number): boolean {
    return timeMs <= this.#limitMs;
  }

  /** By the manifest as it is now: a save beside us may publish at any moment. */
  async #isUnused({ key, name }: Belonging): Promise<boolean> {
    const claimed = claimPattern.exec(name)?.[1];
    if (claimed === undefined && !isDataName(name)) return false;
    const state = await this.#stateOf(key);
    if (state.kind === 'empty') return true;
    if (state.kind !== 'checkpoint') return false;
    const { uuid, objects, kept } = state.manifest;
    if (claimed !== undefined) return claimed !== uuid;
    const isKept = kept.some((one) => one.name === name && one.untilMs > Date.now());
    return !isKept && !objects.some((one) => one.name === name);
  }

  async #stateOf(key: string): Promise<PlaceState> {
    const { signal } = this.#options;
    return await readPlace(this.#service, { ...this.#place, key }, { store: this.#url, path: key }, signal);
  }

  #add(kind: S3Leftover['kind'], key: string, bytes: number): void {
    this.#leftovers.push({ path: `s3://${this.#place.bucket}/${key}`, kind, bytes });
  }
}

function belongingOf(key: string): Belonging | undefined {
  const at = key.lastIndexOf(folderMark);
  if (at <= 0) return undefined;
  return { key: key.slice(0, at), name: key.slice(at + folderMark.length) };
}

/** True for a URL that `collectS3` takes. */
export function isS3Url(url: string): boolean {
  return parseStoreUrl(url).scheme === 's3';
}

/** Throws `RangeError`. */
export function checkAge(olderThanMs: number): void {
  if (!(Number.isSafeInteger(olderThanMs) && olderThanMs >= 0))
    throw new RangeError(`not an age: ${olderThanMs} ms`);
}

/** A day: longer than a save takes. */
export const leftoverAgeMsDefault = 24 * 3600 * 1000;
