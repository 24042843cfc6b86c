/** Claims of the checkpoints at one key: an object each, made where there is none (`If-None-Match: *`), so that of several one succeeds. */
import { randomBytes } from 'node:crypto';
import type { ErrorDetails } from '../../errors/index.ts';
import { type Claim, parseClaim, type StoreClaims, serializeClaim } from '../claims.ts';
import { isInDoubt, s3Failure, statusOf } from './failure.ts';
import { claimKey, type S3Place } from './place.ts';
import type { S3Service } from './service.ts';
import { sha256Of } from './sha256.ts';

const textBytesMax = 4096;
const attemptsMax = 4;

export class S3Claims implements StoreClaims {
  readonly #place: S3Place;
  readonly #service: () => Promise<S3Service>;
  readonly #details: ErrorDetails;

  constructor(place: S3Place, service: () => Promise<S3Service>, details: ErrorDetails) {
    this.#place = place;
    this.#service = service;
    this.#details = details;
  }

  async find(uuid: string): Promise<Claim | undefined> {
    const object = await this.#read(claimKey(this.#place, uuid));
    return object === undefined ? undefined : parseClaim(uuid, object);
  }

  async take(claim: Claim): Promise<Claim | undefined> {
    const key = claimKey(this.#place, claim.uuid);
    const service = await this.#service();
    // By the token ours is known again when its answer was lost.
    const token = randomBytes(16).toString('hex');
    const text = serializeClaim(claim);
    const body = Buffer.from(`${text.trimEnd().slice(0, -1)},"token":"${token}"}\n`);
    for (let attempt = 1; ; attempt += 1) {
      try {
        await service.put(key, body, sha256Of(body), 'none');
        return undefined;
      } catch (error) {
        const isConflict = statusOf(error) === 412 || statusOf(error) === 409;
        if (!isConflict && !isInDoubt(error)) throw s3Failure(error, 'cannot write a claim', this.#details);
        const there = await this.#read(key);
        if (there !== undefined) {
          return Buffer.from(there).equals(body) ? undefined : parseClaim(claim.uuid, there);
        }
        // Withdrawn meanwhile, or never written.
        if (attempt >= attemptsMax) throw s3Failure(error, 'cannot write a claim', this.#details);
      }
    }
  }

  async withdraw(uuid: string): Promise<void> {
    const key = claimKey(this.#place, uuid);
    try {
      await (await this.#service()).remove(key);
    } catch (error) {
      throw s3Failure(error, 'cannot remove a claim', this.#details);
    }
  }

  async #read(key: string): Promise<Uint8Array | undefined> {
    try {
      return (await (await this.#service()).readSmall(key, textBytesMax))?.bytes;
    } catch (error) {
      throw s3Failure(error, 'cannot read a claim', this.#details);
    }
  }
}
