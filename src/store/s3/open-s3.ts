/** How `s3:` stores are made. What this file declares names no type of the SDK: whoever has not installed it can compile against chkpt. */
import { guardStore } from '../guard.ts';
import type { Store, StoreFactory } from '../store.ts';
import { parseStoreUrl, urlError } from '../url.ts';
import { defaultS3Host } from './host.ts';
import { parsePlace, type S3Settings } from './place.ts';
import { S3Store } from './s3-store.ts';

/** The factory of `s3:`. `settings` hold where the URL says nothing. */
export function s3StoreFactory(settings: S3Settings = {}): StoreFactory {
  return (rest, url) => new S3Store(parsePlace(rest, url, settings), url, defaultS3Host);
}

/** A store with settings that are not in its URL: `s3://bucket/key`. Throws `CHKPT_STORE_URL`. */
export function openS3Store(url: string, settings: S3Settings = {}): Store {
  const { scheme, rest } = parseStoreUrl(url);
  if (scheme !== 's3') throw urlError('not an s3: URL', url);
  return guardStore(s3StoreFactory(settings)(rest, url), url);
}
