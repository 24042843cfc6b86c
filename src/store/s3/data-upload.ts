/**
 * A stream on its way into data objects: cut into parts, several of which are under way at a time.
 *
 * Bounds: `concurrency` + 1 buffers of `partBytes`, whatever the length of the stream. Bytes are copied once, off the main thread, into a
 * part; the socket sends from there. A stream of one part is one plain object. One with more parts than an object may have goes into
 * several objects.
 *
 * Every part is hashed (SHA-256) before it is sent, and the service refuses it unless it has received just that.
 */
import { createHash } from 'node:crypto';
import { setMaxListeners } from 'node:events';
import { CheckpointError } from '../../errors/index.ts';
import { copyPieces } from '../memory-chunks.ts';
import { type S3Data, s3ObjectCountMax } from './manifest.ts';
import type { S3Service, UploadedPart } from './service.ts';
import { sha256OfLarge } from './sha256.ts';

/** Most parts of one object: what services allow. */
export const partCountMax = 10_000;

export interface UploadLimits {
  readonly partBytes: number;
  readonly concurrency: number;
  /** Parts of one object; tests have smaller ones. */
  readonly partCount: number;
}

export class DataUpload {
  readonly #service: S3Service;
  readonly #prefix: string;
  readonly #nameOf: (index: number) => string;
  readonly #limits: UploadLimits;
  readonly #cancel = new AbortController();
  readonly #finished: S3Data[] = [];
  readonly #free: Uint8Array[] = [];
  readonly #underWay = new Set<Promise<void>>();
  #bufferCount = 0;
  #current: Uint8Array | undefined;
  #filled = 0;
  #object: OpenObject;
  #failure: unknown;

  /** `nameOf`: names of the objects, by number, behind `prefix`. */
  constructor(service: S3Service, prefix: string, nameOf: (index: number) => string, limits: UploadLimits) {
    this.#service = service;
    this.#prefix = prefix;
    this.#nameOf = nameOf;
    this.#limits = limits;
    // One for each part under way.
    setMaxListeners(0, this.#cancel.signal);
    this.#object = this.#openObject();
  }

  /** When it resolves the pieces are not read any more. Throws what a part has failed with. */
  async append(pieces: readonly Uint8Array[]): Promise<void> {
    for (let [index, start] = [0, 0]; index < pieces.length; ) {
      this.#throwFailure();
      // Only now: the last part of the stream is not known to be it before.
      if (this.#filled === this.#limits.partBytes) await this.#sendPart();
      const part = this.#current ?? (await this.#takeBuffer());
      this.#current = part;
      const taken: Uint8Array[] = [];
      let room = part.length - this.#filled;
      while (room > 0 && index < pieces.length) {
        const piece = (pieces[index] as Uint8Array).subarray(start, start + room);
        taken.push(piece);
        room -= piece.length;
        start += piece.length;
        if (start < (pieces[index] as Uint8Array).length) continue;
        index += 1;
        start = 0;
      }
      this.#filled += await copyPieces(part.subarray(this.#filled), taken);
    }
  }

  /** Everything is stored: the objects in order. Nothing refers to them yet. */
  async finish(): Promise<S3Data[]> {
    this.#throwFailure();
    if (this.#filled > 0 && this.#object.partCount === 0) await this.#putWhole();
    else {
      if (this.#filled > 0) await this.#sendPart();
      await this.#completeObject();
    }
    this.#free.length = 0;
    return this.#finished;
  }

  /** Removes everything. Throws the first error of what may remain. */
  async abandon(): Promise<void> {
    this.#failure ??= new CheckpointError('CHKPT_CLOSED', 'the save was dropped');
    this.#cancel.abort();
    await Promise.all(this.#underWay);
    this.#free.length = 0;
    this.#current = undefined;
    const failures: unknown[] = [];
    const attempt = async (work: () => Promise<void>): Promise<void> => {
      await work().catch((error: unknown) => failures.push(error));
    };
    const { key, creating } = this.#object;
    if (creating !== undefined) {
      await attempt(async () => await this.#abortUploads(key));
      await attempt(async () => await this.#service.remove(key));
    } else if (this.#object.isPut) {
      await attempt(async () => await this.#service.remove(key));
    }
    while (this.#finished.length > 0) {
      const { name } = this.#finished[0] as S3Data;
      await attempt(async () => await this.#service.remove(`${this.#prefix}${name}`));
      this.#finished.shift();
    }
    if (failures.length > 0) throw failures[0];
  }

  /** The one that is known, and any whose answer was lost. */
  async #abortUploads(key: string): Promise<void> {
    const known = await this.#object.creating?.catch(() => undefined);
    this.#object = this.#openObject();
    if (known !== undefined) return await this.#service.abortUpload(key, known);
    for await (const upload of this.#service.uploads(key)) await this.#service.abortUpload(key, upload.id);
  }

  #openObject(): OpenObject {
    const index = this.#finished.length;
    return {
      key: `${this.#prefix}${this.#nameOf(index)}`,
      index,
      parts: [],
      digests: [],
      partCount: 0,
      bytes: 0,
    };
  }

  async #takeBuffer(): Promise<Uint8Array> {
    for (;;) {
      this.#throwFailure();
      const free = this.#free.pop();
      if (free !== undefined) return free;
      if (this.#bufferCount <= this.#limits.concurrency) {
        this.#bufferCount += 1;
        return new Uint8Array(this.#limits.partBytes);
      }
      await Promise.race(this.#underWay);
    }
  }

  /** Begins to send the current part; waits only where the object is full. */
  async #sendPart(): Promise<void> {
    if (this.#object.partCount === this.#limits.partCount) await this.#completeObject();
    const object = this.#object;
    const part = this.#takeCurrent();
    if (part === undefined) return;
    object.partCount += 1;
    object.bytes += part.length;
    object.creating ??= this.#service.createUpload(object.key);
    const sending = this.#upload(object, object.partCount, part)
      .catch((error: unknown) => {
        this.#failure ??= error;
        this.#cancel.abort();
      })
      .finally(() => {
        this.#underWay.delete(sending);
        this.#free.push(new Uint8Array(part.buffer));
      });
    this.#underWay.add(sending);
  }

  async #upload(object: OpenObject, number: number, part: Uint8Array): Promise<void> {
    const [upload, digest] = await Promise.all([object.creating as Promise<string>, sha256OfLarge(part)]);
    object.digests[number - 1] = digest;
    object.parts[number - 1] = await this.#service.uploadPart(
      object.key,
      upload,
      number,
      part,
      digest.toString('hex'),
      this.#cancel.signal,
    );
  }

  async #putWhole(): Promise<void> {
    const object = this.#object;
    const part = this.#takeCurrent();
    if (part === undefined) return;
    object.isPut = true;
    const digest = await sha256OfLarge(part);
    const etag = await this.#service.put(object.key, part, digest.toString('hex'));
    this.#addFinished(object, [digest], part.length, etag);
  }

  async #completeObject(): Promise<void> {
    await Promise.all(this.#underWay);
    this.#throwFailure();
    const object = this.#object;
    if (object.creating === undefined) return;
    let failure: unknown;
    try {
      await this.#service.completeUpload(object.key, await object.creating, object.parts);
    } catch (error) {
      failure = error;
    }
    // Also when the answer was lost: nobody else writes this key. What is there is what counts.
    const state = await this.#service.head(object.key);
    if (state === undefined && failure !== undefined) throw failure;
    if (state?.bytes !== object.bytes) {
      throw new CheckpointError('CHKPT_IO', 'the service has made an object of another length', {
        details: { path: object.key, expected: object.bytes, actual: state?.bytes },
        ...(failure === undefined ? {} : { cause: failure }),
      });
    }
    this.#addFinished(object, object.digests, object.bytes, state.etag);
  }

  #addFinished(object: OpenObject, digests: readonly Uint8Array[], bytes: number, etag: string): void {
    const hash = createHash('sha256');
    for (const digest of digests) hash.update(digest);
    const { partBytes } = this.#limits;
    this.#finished.push({
      name: this.#nameOf(object.index),
      bytes,
      etag,
      partBytes,
      digest: hash.digest('hex'),
    });
    this.#object = this.#openObject();
    if (this.#finished.length > s3ObjectCountMax) {
      throw new CheckpointError(
        'CHKPT_UNSUPPORTED',
        'the checkpoint needs too many objects: use larger parts',
      );
    }
  }

  #takeCurrent(): Uint8Array | undefined {
    const part = this.#current?.subarray(0, this.#filled);
    this.#current = undefined;
    this.#filled = 0;
    return part;
  }

  #throwFailure(): void {
    if (this.#failure !== undefined) throw this.#failure;
  }
}

/** One that is being written. */
interface OpenObject {
  readonly key: string;
  readonly index: number;
  readonly parts: UploadedPart[];
  readonly digests: Buffer[];
  partCount: number;
  bytes: number;
  /** Of the multipart upload, once there is one. */
  creating?: Promise<string>;
  /** Written, or perhaps, in one request. */
  isPut?: boolean;
}
