/**
 * Writes a stream that goes by into a store, in the segments that a save would have made: the stream header, one for each context, and
 * what follows the last one. Bytes pass through uncopied, except what has to be seen whole and is cut by a border of two reads.
 *
 * Frame headers are verified before their lengths are believed; payloads, order and root digest are for whoever reads the stream behind
 * this one. Nothing is visible in the store before `commit`.
 */
import { createHash, type Hash } from 'node:crypto';
import { formatError, pad8, toCount } from '../format/bytes.ts';
import { footerBytes, frameHeaderBytes, frameTypes, streamHeaderBytes } from '../format/constants.ts';
import type { Digest64 } from '../format/digest.ts';
import { decodeFrameHeader, FrameBinding, frameBytes } from '../format/frame-header.ts';
import { contextKindOf } from '../format/frame-order.ts';
import { decodeName } from '../format/names.ts';
import { checkMagic, decodeStreamHeader, type StreamHeader } from '../format/stream-header.ts';
import { parseUuid } from '../format/uuid.ts';
import { nameBytesMax } from '../limits.ts';
import type { Segment, StoreWriter } from '../store/store.ts';
import { callStore } from './store-call.ts';
import type { StreamSummary } from './stream-reader.ts';

/** What stands together: the stream header, a frame, or the footer. */
interface Unit {
  readonly byteCount: number;
  /** The segment that begins with it. */
  readonly segment?: Segment;
  /** Of a frame. */
  readonly digest?: Uint8Array;
  /** Of END: bytes that follow it. */
  readonly tailBytes?: number;
}

/** More bytes than are here have to be seen. */
type Wanted = number;

interface OpenSegment {
  readonly offset: number;
  frames: number;
  readonly hash: Hash;
}

export class SegmentSplitter {
  readonly #digest: Digest64;
  readonly #open: (header: StreamHeader) => Promise<StoreWriter>;
  readonly #store: string;
  /** The start of a unit that has not been seen as far as is wanted. */
  readonly #pending = new Uint8Array(frameHeaderBytes + pad8(nameBytesMax));
  #pendingBytes = 0;
  /** Where the next unit begins in the stream, and its number when it is a frame. */
  #offset = 0;
  #sequence = 0;
  /** Bytes of the last unit that have not come yet. */
  #rest = 0;
  /** Bytes behind END that are no unit yet; `undefined` before END. */
  #tailBytes: number | undefined;
  #binding: FrameBinding | undefined;
  #header: StreamHeader | undefined;
  #writer: StoreWriter | undefined;
  #segment: OpenSegment | undefined;

  /** `open` gets the verified stream header and makes the writer, which is the splitter's from then on. `store`: for errors. */
  constructor(digest: Digest64, store: string, open: (header: StreamHeader) => Promise<StoreWriter>) {
    this.#digest = digest;
    this.#store = store;
    this.#open = open;
  }

  /** Takes the next bytes; when it resolves they are no longer read. Throws errors of kind `damaged`, and those of the store. */
  async push(bytes: Uint8Array): Promise<void> {
    let at = await this.#completePending(bytes);
    let from = at;
    while (at < bytes.length) {
      if (this.#rest > 0) {
        const count = Math.min(this.#rest, bytes.length - at);
        this.#rest -= count;
        at += count;
        continue;
      }
      // What follows the end is an error, which is for the reader to tell.
      if (this.#tailBytes === 0) break;
      const unit = this.#unitOf(bytes.subarray(at));
      if (typeof unit === 'number') {
        await this.#write(bytes.subarray(from, at));
        this.#pending.set(bytes.subarray(at));
        this.#pendingBytes = bytes.length - at;
        return;
      }
      if (unit.segment !== undefined) {
        await this.#write(bytes.subarray(from, at));
        from = at;
      }
      await this.#enter(unit);
    }
    await this.#write(bytes.subarray(from, at));
  }

  /** Makes the checkpoint visible. REQUIRES: the stream was read to its end, and is sound. */
  async commit({ header, root, bytes }: StreamSummary): Promise<void> {
    await this.#endSegment();
    const { uuid, epoch, parent } = header;
    const summary = { uuid, epoch, parent: parent?.uuid, root, bytes };
    await callStore(this.#store, 'committing', async () => this.#writer?.commit(summary));
  }

  /** Drops everything written. Does nothing after `commit`. */
  async abort(): Promise<void> {
    await callStore(this.#store, 'aborting', async () => this.#writer?.abort());
  }

  /** Goes on with a unit that a border of two reads has cut; how many of the bytes it took. */
  async #completePending(bytes: Uint8Array): Promise<number> {
    let at = 0;
    while (this.#pendingBytes > 0) {
      const unit = this.#unitOf(this.#pending.subarray(0, this.#pendingBytes));
      if (typeof unit !== 'number') {
        await this.#enter(unit);
        await this.#write(this.#pending.subarray(0, this.#pendingBytes));
        this.#rest -= this.#pendingBytes;
        this.#pendingBytes = 0;
        return at;
      }
      if (at === bytes.length) return at;
      const more = bytes.subarray(at, at + unit - this.#pendingBytes);
      this.#pending.set(more, this.#pendingBytes);
      this.#pendingBytes += more.length;
      at += more.length;
    }
    return at;
  }

  #unitOf(bytes: Uint8Array): Unit | Wanted {
    if (this.#binding === undefined) return this.#startOf(bytes);
    if (this.#tailBytes === footerBytes) return { byteCount: footerBytes };
    if (bytes.length < frameHeaderBytes) return frameHeaderBytes;
    const header = decodeFrameHeader(bytes, this.#sequence, this.#offset, this.#binding);
    const place = { frame: header.sequence, offset: this.#offset };
    const byteCount = frameBytes(header.payloadBytes);
    const digest = bytes.subarray(frameHeaderBytes - 8, frameHeaderBytes);
    if (this.#tailBytes !== undefined) {
      if (byteCount > this.#tailBytes - footerBytes)
        throw formatError('a frame reaches into the footer', place);
      return { byteCount, digest };
    }
    if (header.type === frameTypes.end) {
      const tailBytes = toCount(header.arg1, 'the number of bytes behind END', place);
      if (tailBytes !== 0 && tailBytes < footerBytes)
        throw formatError('END announces no room for the footer', place);
      return { byteCount, digest, tailBytes, segment: { kind: 'end', name: 'end' } };
    }
    if (header.type !== frameTypes.contextOpen) return { byteCount, digest };
    if (header.payloadBytes > nameBytesMax) throw formatError('a name is too long', place);
    if (bytes.length < byteCount) return byteCount;
    const kind = contextKindOf({ header, offset: this.#offset });
    const name = decodeName(bytes.subarray(frameHeaderBytes, frameHeaderBytes + header.payloadBytes), place);
    return { byteCount, digest, segment: { kind, name } };
  }

  #startOf(bytes: Uint8Array): Unit | Wanted {
    checkMagic(bytes);
    if (bytes.length < streamHeaderBytes) return streamHeaderBytes;
    this.#header = decodeStreamHeader(bytes.subarray(0, streamHeaderBytes), this.#digest);
    return { byteCount: streamHeaderBytes, segment: { kind: 'start', name: 'start' } };
  }

  async #enter({ byteCount, segment, digest, tailBytes }: Unit): Promise<void> {
    const header = this.#header;
    if (this.#binding === undefined && header !== undefined) {
      this.#binding = new FrameBinding(parseUuid(header.uuid), header.epoch, this.#digest);
      this.#writer = await this.#open(header);
    }
    if (segment !== undefined) await this.#beginSegment(segment);
    if (digest !== undefined) {
      this.#sequence += 1;
      this.#segment?.hash.update(digest);
      if (this.#segment !== undefined) this.#segment.frames += 1;
    }
    if (this.#tailBytes !== undefined) this.#tailBytes -= byteCount;
    this.#tailBytes ??= tailBytes;
    this.#offset += byteCount;
    this.#rest = byteCount;
  }

  async #beginSegment(segment: Segment): Promise<void> {
    await this.#endSegment();
    this.#segment = { offset: this.#offset, frames: 0, hash: createHash('sha256') };
    await callStore(this.#store, 'beginning a segment', async () => this.#writer?.beginSegment?.(segment));
  }

  async #endSegment(): Promise<void> {
    const segment = this.#segment;
    if (segment === undefined) return;
    this.#segment = undefined;
    const { frames, hash, offset } = segment;
    const summary = { bytes: this.#offset - offset, frames, digest: hash.digest('hex') };
    await callStore(this.#store, 'ending a segment', async () => this.#writer?.endSegment?.(summary));
  }

  async #write(bytes: Uint8Array): Promise<void> {
    if (bytes.length === 0) return;
    await callStore(this.#store, 'writing', async () => this.#writer?.write(bytes));
  }
}
