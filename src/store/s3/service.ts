/**
 * The requests that `s3:` makes of a service, one method each. They throw what the SDK throws; who calls says what that means
 * (failure.ts). What a service answers is checked here before it is believed, and no memory is allocated by a size that it names.
 */
import { setTimeout as delay } from 'node:timers/promises';
import type { S3Client } from '@aws-sdk/client-s3';
import { CheckpointError } from '../../errors/index.ts';
import { isByteCount } from '../manifest-rules.ts';
import { isTransient, statusOf } from './failure.ts';
import { isEtag } from './manifest.ts';
import type { Sdk } from './sdk.ts';

/** An object as it is now. */
export interface ObjectState {
  readonly bytes: number;
  readonly etag: string;
}

/** A small object, read whole. */
export interface SmallObject {
  readonly bytes: Uint8Array;
  readonly etag: string;
}

/** An answer with a whole object, whose body is not read yet. */
interface Whole {
  readonly body: unknown;
  /** As the answer says; it may not. */
  readonly length: number | undefined;
  readonly etag: string;
}

/** When an object may be written: there is none, or exactly this one. */
export type WriteCondition = 'none' | { readonly etag: string; readonly isQuoted: boolean };

export interface UploadedPart {
  readonly PartNumber: number;
  readonly ETag: string;
}

export interface ListedObject {
  readonly key: string;
  readonly bytes: number;
  readonly changedMs: number;
}

export interface ListedUpload {
  readonly key: string;
  readonly id: string;
  readonly startedMs: number;
}

/** Pages of one list; a service that goes on for ever is stopped. */
const pageCountMax = 100_000;
/** Of small objects. */
const bodyAttemptsMax = 4;
const bodyDelayMs = 20;

export class S3Service {
  readonly #sdk: Sdk;
  readonly #client: S3Client;
  readonly #bucket: string;
  readonly #store: string;

  constructor(sdk: Sdk, client: S3Client, bucket: string, store: string) {
    this.#sdk = sdk;
    this.#client = client;
    this.#bucket = bucket;
    this.#store = store;
  }

  /**
   * Reads an object of at most `bytesMax` bytes; of a longer one, one byte more. `undefined` when there is none. A body that ends early is
   * asked for again: the SDK repeats only what had no answer. Where an answer does not say how long it is, the service is asked: a cut
   * manifest would be taken for a damaged one, and be replaced. Throws `CHKPT_LINK_LOST` for one that is never whole.
   */
  async readSmall(key: string, bytesMax: number, signal?: AbortSignal): Promise<SmallObject | undefined> {
    for (let attempt = 1; ; attempt += 1) {
      const answer = await this.#getWhole(key, signal);
      if (answer === undefined) return undefined;
      try {
        const bytes = await collect(answer.body, bytesMax);
        if (bytes.length > bytesMax || bytes.length === (await this.#lengthOf(key, answer, signal)))
          return { bytes, etag: answer.etag };
        throw new CheckpointError('CHKPT_LINK_LOST', 'the body of an answer ends early', {
          details: { store: this.#store, path: key },
        });
      } catch (error) {
        if (!isTransient(error) || attempt >= bodyAttemptsMax) throw error;
      }
      await delay(bodyDelayMs * 2 ** attempt * (0.5 + Math.random() / 2));
    }
  }

  /** Of the object that was answered with; `undefined` when it is not there any more. */
  async #lengthOf(key: string, { etag, length }: Whole, signal?: AbortSignal): Promise<number | undefined> {
    if (length !== undefined) return length;
    try {
      return (await this.head(key, etag, signal))?.bytes;
    } catch (error) {
      if (statusOf(error) === 412) return undefined;
      throw error;
    }
  }

  async #getWhole(key: string, signal?: AbortSignal): Promise<Whole | undefined> {
    try {
      const command = new this.#sdk.GetObjectCommand(this.#at(key));
      const { Body, ContentLength, ETag } = await this.#client.send(command, optionsOf(signal));
      return { body: Body, length: ContentLength, etag: this.#etagOf(ETag, key) };
    } catch (error) {
      if (isNoSuchKey(error)) return undefined;
      throw error;
    }
  }

  /** Length and identity of an object; `undefined` when there is none. With `etag`: 412 when it is another one. */
  async head(key: string, etag?: string, signal?: AbortSignal): Promise<ObjectState | undefined> {
    const command = new this.#sdk.HeadObjectCommand({
      ...this.#at(key),
      ...(etag === undefined ? {} : { IfMatch: `"${etag}"` }),
    });
    try {
      const { ContentLength, ETag } = await this.#client.send(command, optionsOf(signal));
      if (!isByteCount(ContentLength)) throw this.#broken(`the length ${ContentLength}`, key);
      return { bytes: ContentLength, etag: this.#etagOf(ETag, key) };
    } catch (error) {
      if (statusOf(error) === 404) return undefined;
      throw error;
    }
  }

  /**
   * Bytes `offset` to `offset + byteCount` of exactly this object. Throws `CHKPT_IO` when the answer is another range, or the whole
   * object, or not of an object of `objectBytes`.
   */
  async readRange(
    object: { readonly key: string; readonly etag: string; readonly bytes: number },
    offset: number,
    byteCount: number,
    signal?: AbortSignal,
  ): Promise<AsyncIterable<Uint8Array>> {
    const last = offset + byteCount - 1;
    const command = new this.#sdk.GetObjectCommand({
      ...this.#at(object.key),
      Range: `bytes=${offset}-${last}`,
      IfMatch: `"${object.etag}"`,
    });
    const { Body, ContentRange, ETag, $metadata } = await this.#client.send(command, optionsOf(signal));
    const isRight =
      $metadata.httpStatusCode === 206 &&
      ContentRange === `bytes ${offset}-${last}/${object.bytes}` &&
      this.#etagOf(ETag, object.key) === object.etag;
    if (isRight) return bodyOf(Body);
    (Body as { destroy?: () => void } | undefined)?.destroy?.();
    const answer = `${$metadata.httpStatusCode}, ${String(ContentRange).slice(0, 64)}`;
    throw this.#broken(`${answer} for bytes ${offset}-${last}/${object.bytes}`, object.key);
  }

  /** Resolves to the ETag. `sha256`, hex, is of the body; the service checks it. */
  async put(key: string, body: Uint8Array, sha256: string, condition?: WriteCondition): Promise<string> {
    const command = new this.#sdk.PutObjectCommand({ ...this.#at(key), Body: body, ...headersOf(condition) });
    return this.#etagOf((await this.#sendHashed(command, sha256)).ETag, key);
  }

  async createUpload(key: string): Promise<string> {
    const command = new this.#sdk.CreateMultipartUploadCommand(this.#at(key));
    const { UploadId } = await this.#client.send(command);
    if (typeof UploadId === 'string' && UploadId !== '' && UploadId.length <= 2048) return UploadId;
    throw this.#broken('no upload id', key);
  }

  async uploadPart(
    key: string,
    upload: string,
    number: number,
    body: Uint8Array,
    sha256: string,
    signal: AbortSignal,
  ): Promise<UploadedPart> {
    const command = new this.#sdk.UploadPartCommand({
      ...this.#at(key),
      UploadId: upload,
      PartNumber: number,
      Body: body,
    });
    const { ETag } = await this.#sendHashed(command, sha256, signal);
    return { PartNumber: number, ETag: `"${this.#etagOf(ETag, key)}"` };
  }

  async completeUpload(key: string, upload: string, parts: readonly UploadedPart[]): Promise<void> {
    const command = new this.#sdk.CompleteMultipartUploadCommand({
      ...this.#at(key),
      UploadId: upload,
      MultipartUpload: { Parts: [...parts] },
    });
    await this.#client.send(command);
  }

  /** Does nothing when there is no such upload. */
  async abortUpload(key: string, upload: string): Promise<void> {
    try {
      await this.#client.send(
        new this.#sdk.AbortMultipartUploadCommand({ ...this.#at(key), UploadId: upload }),
      );
    } catch (error) {
      if (statusOf(error) !== 404) throw error;
    }
  }

  /** Does nothing when there is no such object. */
  async remove(key: string): Promise<void> {
    try {
      await this.#client.send(new this.#sdk.DeleteObjectCommand(this.#at(key)));
    } catch (error) {
      if (!isNoSuchKey(error)) throw error;
    }
  }

  /** All objects whose key begins with `prefix`. */
  async *objects(prefix: string, signal?: AbortSignal): AsyncGenerator<ListedObject> {
    let token: string | undefined;
    for (let page = 0; page < pageCountMax; page += 1) {
      const command = new this.#sdk.ListObjectsV2Command({
        Bucket: this.#bucket,
        Prefix: prefix,
        ...(token === undefined ? {} : { ContinuationToken: token }),
      });
      const answer = await this.#client.send(command, optionsOf(signal));
      for (const { Key, Size, LastModified } of answer.Contents ?? []) {
        if (typeof Key !== 'string' || !Key.startsWith(prefix))
          throw this.#broken('a key not asked for', prefix);
        yield { key: Key, bytes: isByteCount(Size) ? Size : 0, changedMs: timeOf(LastModified) };
      }
      token = answer.NextContinuationToken;
      if (answer.IsTruncated !== true || token === undefined) return;
    }
    throw this.#broken('a list without end', prefix);
  }

  /** All unfinished uploads of objects whose key begins with `prefix`. */
  async *uploads(prefix: string, signal?: AbortSignal): AsyncGenerator<ListedUpload> {
    let marker = {};
    for (let page = 0; page < pageCountMax; page += 1) {
      const command = new this.#sdk.ListMultipartUploadsCommand({
        Bucket: this.#bucket,
        Prefix: prefix,
        ...marker,
      });
      const answer = await this.#client.send(command, optionsOf(signal));
      for (const { Key, UploadId, Initiated } of answer.Uploads ?? []) {
        if (typeof Key !== 'string' || !Key.startsWith(prefix))
          throw this.#broken('a key not asked for', prefix);
        if (typeof UploadId === 'string') yield { key: Key, id: UploadId, startedMs: timeOf(Initiated) };
      }
      if (answer.IsTruncated !== true) return;
      marker = { KeyMarker: answer.NextKeyMarker, UploadIdMarker: answer.NextUploadIdMarker };
    }
    throw this.#broken('a list without end', prefix);
  }

  /** Bytes of the parts of an unfinished upload, as far as the first page tells. */
  async uploadBytes(key: string, upload: string): Promise<number> {
    const answer = await this.#client.send(
      new this.#sdk.ListPartsCommand({ ...this.#at(key), UploadId: upload }),
    );
    return (answer.Parts ?? []).reduce((sum, { Size }) => sum + (isByteCount(Size) ? Size : 0), 0);
  }

  #at(key: string): { Bucket: string; Key: string } {
    return { Bucket: this.#bucket, Key: key };
  }

  /** Sends a body whose SHA-256 is known: the signer takes it from the header, and hashes nothing on this thread. */
  async #sendHashed<Output extends object>(
    command: { readonly middlewareStack: unknown },
    sha256: string,
    signal?: AbortSignal,
  ): Promise<Output & { ETag?: string }> {
    (command.middlewareStack as HashingStack).add(
      (next) => (args) => {
        const { request } = args;
        if (request?.headers !== undefined) request.headers['x-amz-content-sha256'] = sha256;
        return next(args);
      },
      { step: 'build', name: 'chkptContentSha256' },
    );
    const send = this.#client.send.bind(this.#client) as unknown as Send<Output>;
    return await send(command, optionsOf(signal));
  }

  #etagOf(value: unknown, key: string): string {
    const etag = typeof value === 'string' ? value.replace(/^"(.*)"$/, '$1') : value;
    if (isEtag(etag)) return etag;
    throw this.#broken('no ETag that could be used', key);
  }

  #broken(what: string, key: string): CheckpointError {
    return new CheckpointError('CHKPT_IO', `the service answers with ${what}`, {
      details: { store: this.#store, path: key },
    });
  }
}

interface HashingStack {
  add(middleware: (next: Next) => Next, options: { step: 'build'; name: string }): void;
}
type Next = (args: { request?: { headers?: Record<string, string> } }) => Promise<unknown>;
type Send<Output> = (command: unknown, options: object) => Promise<Output & { ETag?: string }>;

/** Bare: Ceph compares the text of a conditional write with an ETag that has no quotes; others take both. */
function headersOf(condition: WriteCondition | undefined): { IfMatch?: string; IfNoneMatch?: string } {
  if (condition === undefined) return {};
  if (condition === 'none') return { IfNoneMatch: '*' };
  return { IfMatch: condition.isQuoted ? `"${condition.etag}"` : condition.etag };
}

function optionsOf(signal: AbortSignal | undefined): { abortSignal?: AbortSignal } {
  return signal === undefined ? {} : { abortSignal: signal };
}

async function collect(body: unknown, bytesMax: number): Promise<Uint8Array> {
  const pieces: Uint8Array[] = [];
  let byteCount = 0;
  for await (const chunk of bodyOf(body)) {
    const piece = chunk.subarray(0, bytesMax + 1 - byteCount);
    pieces.push(piece);
    byteCount += piece.length;
    // Leaving the loop ends the connection.
    if (byteCount > bytesMax) break;
  }
  return Buffer.concat(pieces);
}

async function* bodyOf(body: unknown): AsyncGenerator<Uint8Array> {
  if (body === undefined || body === null) return;
  for await (const chunk of body as AsyncIterable<Uint8Array>) yield chunk;
}

function isNoSuchKey(error: unknown): boolean {
  return statusOf(error) === 404 && (error as { name?: string }).name !== 'NoSuchBucket';
}

function timeOf(value: unknown): number {
  return value instanceof Date ? value.getTime() : Number.NaN;
}
