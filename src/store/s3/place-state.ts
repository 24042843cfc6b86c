/** What is at the key of an `s3:` checkpoint now, and who may put something else there. */
import { CheckpointError, type ErrorDetails } from '../../errors/index.ts';
import { looksLikeManifest, parseManifest, type S3Manifest, s3ManifestBytesMax } from './manifest.ts';
import type { S3Place } from './place.ts';
import type { S3Service } from './service.ts';

/** `damaged`: a manifest that cannot be read. Where it is one of a newer version that is meant, too. */
export type PlaceState =
  | { readonly kind: 'empty' }
  | { readonly kind: 'checkpoint'; readonly manifest: S3Manifest; readonly etag: string }
  | { readonly kind: 'damaged'; readonly failure: CheckpointError; readonly etag: string }
  | { readonly kind: 'foreign'; readonly failure: CheckpointError };

/** Reads it. Throws what the service throws. */
export async function readPlace(
  service: S3Service,
  place: S3Place,
  details: ErrorDetails,
  signal?: AbortSignal,
): Promise<PlaceState> {
  const object = await service.readSmall(place.key, s3ManifestBytesMax, signal);
  if (object === undefined) return { kind: 'empty' };
  try {
    return { kind: 'checkpoint', manifest: parseManifest(object.bytes, details), etag: object.etag };
  } catch (error) {
    if (!(error instanceof CheckpointError)) throw error;
    if (!looksLikeManifest(object.bytes)) return { kind: 'foreign', failure: error };
    return { kind: 'damaged', failure: error, etag: object.etag };
  }
}

/** What is not a checkpoint is not replaced: buckets hold other things, too. Throws `CHKPT_STORE_URL`. */
export function refuseForeign(state: PlaceState, details: ErrorDetails): void {
  if (state.kind !== 'foreign') return;
  throw new CheckpointError(
    'CHKPT_STORE_URL',
    'the object at this key is no checkpoint; choose another key',
    {
      details,
      cause: state.failure,
    },
  );
}
