/**
 * The commit: a manifest is put where there is none (`If-None-Match: *`), or in the place of exactly the one that was read (`If-Match`).
 *
 * Of several at once each replaces the one before it, so that every manifest knows which objects it has made useless. An answer can be
 * lost, and the SDK repeats requests: after any failure the place is read back. The token says whether the manifest there is this one, and
 * the history of another one whether this one was there before it.
 */
import { setTimeout as delay } from 'node:timers/promises';
import { CheckpointError, type ErrorDetails } from '../../errors/index.ts';
import { isInDoubt, nameOf, s3Failure, statusOf } from './failure.ts';
import { type S3Manifest, serializeManifest } from './manifest.ts';
import type { S3Place } from './place.ts';
import { type PlaceState, readPlace, refuseForeign } from './place-state.ts';
import type { S3Service, WriteCondition } from './service.ts';
import { sha256Of } from './sha256.ts';

/** Of saves beside each other one succeeds each time. */
const conflictsMax = 40;
/** The SDK has repeated each of them already. */
const failuresMax = 4;
const delayMsMax = 400;

/** The manifest was refused, and will not be there later either: nothing refers to its objects. */
export class NotPublished extends Error {
  override readonly cause: CheckpointError;

  constructor(cause: CheckpointError) {
    super(cause.message);
    this.cause = cause;
  }
}

/**
 * Resolves to what was replaced, `undefined` when that is not known any more. `make`: the manifest that follows `state`; its token is
 * always the same.
 *
 * Throws `NotPublished`; else it is in doubt: `CHKPT_UNACKNOWLEDGED`.
 */
export async function publish(
  service: S3Service,
  place: S3Place,
  make: (state: PlaceState) => S3Manifest,
  details: ErrorDetails,
): Promise<PlaceState | undefined> {
  const attempt = new Publication(service, place, make, details);
  for (let index = 0; ; index += 1) {
    if (index > 0) await delay(Math.min(delayMsMax, 10 * 2 ** index) * Math.random());
    const done = await attempt.next();
    if (done !== undefined) return done.replaced;
    if (attempt.isExhausted) throw attempt.verdict();
  }
}

class Publication {
  readonly #service: S3Service;
  readonly #place: S3Place;
  readonly #make: (state: PlaceState) => S3Manifest;
  readonly #details: ErrorDetails;
  /** Condition of a request that may have been done, or may be done yet. */
  #doubtful: string | undefined;
  #conflicts = 0;
  #failures = 0;
  #isQuoted = false;
  /** ETag of the manifest that the service said is another one. */
  #refused: string | undefined;
  #failure: unknown;
  /** In whose place the manifest was put, or perhaps: by their tokens. */
  readonly #attempted = new Map<string, PlaceState>();

  constructor(
    service: S3Service,
    place: S3Place,
    make: (state: PlaceState) => S3Manifest,
    details: ErrorDetails,
  ) {
    this.#service = service;
    this.#place = place;
    this.#make = make;
    this.#details = details;
  }

  get isExhausted(): boolean {
    return this.#conflicts >= conflictsMax || this.#failures >= failuresMax;
  }

  /** `undefined`: to be tried again. */
  async next(): Promise<{ readonly replaced: PlaceState | undefined } | undefined> {
    const state = await this.#look();
    if (state === undefined) return undefined;
    const manifest = this.#make(state);
    if (state.kind === 'checkpoint') {
      const { token, history } = state.manifest;
      if (token === manifest.token) return { replaced: this.#attempted.get(history[0] ?? '') };
      if (history.includes(manifest.token)) return { replaced: undefined };
    }
    // Where the place has not changed, it was the form of the ETag that was refused.
    if (this.#refused !== undefined && this.#refused === etagOf(state)) this.#isQuoted = !this.#isQuoted;
    this.#refused = undefined;
    const condition = conditionOf(state, this.#isQuoted);
    // Of a condition that does not hold any more nothing can come.
    if (this.#doubtful !== describe(condition)) this.#doubtful = undefined;
    if (this.#failure !== undefined && isFinal(this.#failure)) throw this.verdict();
    this.#attempted.set(state.kind === 'checkpoint' ? state.manifest.token : '', state);
    try {
      const body = Buffer.from(serializeManifest(manifest));
      await this.#service.put(this.#place.key, body, sha256Of(body), condition);
      return { replaced: state };
    } catch (error) {
      this.#failure = error;
      if (isConflict(error)) this.#conflicts += 1;
      else this.#failures += 1;
      if (isInDoubt(error)) this.#doubtful = describe(condition);
      if (statusOf(error) === 412) this.#refused = etagOf(state);
      return undefined;
    }
  }

  verdict(): CheckpointError | NotPublished {
    const details = this.#details;
    if (this.#doubtful !== undefined) {
      const what = 'nobody knows whether the checkpoint is there: the answer to its commit was lost';
      return new CheckpointError('CHKPT_UNACKNOWLEDGED', what, { details, cause: this.#failure });
    }
    if (isConflict(this.#failure)) {
      const what =
        'other saves replace the checkpoint all the time, or the service refuses conditional writes';
      return new NotPublished(new CheckpointError('CHKPT_IO', what, { details, cause: this.#failure }));
    }
    return new NotPublished(s3Failure(this.#failure, 'cannot write the manifest', details));
  }

  async #look(): Promise<PlaceState | undefined> {
    try {
      const state = await readPlace(this.#service, this.#place, this.#details);
      refuseForeign(state, this.#details);
      return state;
    } catch (error) {
      this.#failure ??= error;
      this.#failures += 1;
      if (isInDoubt(error)) return undefined;
      throw this.verdict();
    }
  }
}

/** Asking again would change nothing. */
function isFinal(error: unknown): boolean {
  return statusOf(error) !== undefined && !isInDoubt(error) && !isConflict(error);
}

/** Of a manifest that was removed meanwhile, AWS says that there is no such key. */
function isConflict(error: unknown): boolean {
  const status = statusOf(error);
  return status === 409 || status === 412 || (status === 404 && nameOf(error) !== 'NoSuchBucket');
}

function etagOf(state: PlaceState): string | undefined {
  return state.kind === 'checkpoint' || state.kind === 'damaged' ? state.etag : undefined;
}

function conditionOf(state: PlaceState, isQuoted: boolean): WriteCondition {
  return state.kind === 'checkpoint' || state.kind === 'damaged' ? { etag: state.etag, isQuoted } : 'none';
}

function describe(condition: WriteCondition): string {
  return condition === 'none' ? 'none' : condition.etag;
}
