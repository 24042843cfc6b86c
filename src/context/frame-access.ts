/**
 * Frames at any place of a stream, for stores with random access. Each frame is verified against its place.
 *
 * Ownership: bytes handed out are views of a buffer that the next call may reuse. Calls come one at a time.
 */
import { CheckpointError } from '../errors/index.ts';
import { checkEqual, formatError } from '../format/bytes.ts';
import { frameHeaderBytes, frameTypes, streamHeaderBytes } from '../format/constants.ts';
import type { Digest64 } from '../format/digest.ts';
import {
  checkPayload,
  decodeFrameHeader,
  FrameBinding,
  type FrameHeader,
  frameBytes,
} from '../format/frame-header.ts';
import { illegalFrame, placeOf } from '../format/frame-order.ts';
import type { Frame } from '../format/frame-queue.ts';
import type { IndexTag } from '../format/index-document.ts';
import { checkMagic, decodeStreamHeader, type StreamHeader } from '../format/stream-header.ts';
import { parseTagFrame, parseTagMoreFrame } from '../format/tag-frame.ts';
import { parseUuid } from '../format/uuid.ts';
import { checkValue } from '../format/value.ts';
import { GrowingBytes } from '../util/growing-bytes.ts';
import { callStore, checkAborted } from './store-call.ts';

/** `StoreReader.readAt`, bound to its reader. */
export type ReadAt = (offset: number, target: Uint8Array) => Promise<number>;

export interface FrameAccessOptions {
  readonly digest: Digest64;
  readonly store?: string | undefined;
  readonly signal?: AbortSignal | undefined;
}

// Enough for a header and the small frames behind it, little to waste when the next frame is 64 KiB further
// on.
const windowBytes = 4096;

export class FrameAccess {
  readonly header: StreamHeader;
  readonly #source: ByteSource;
  readonly #binding: FrameBinding;

  private constructor(source: ByteSource, header: StreamHeader, digest: Digest64) {
    this.#source = source;
    this.header = header;
    this.#binding = new FrameBinding(parseUuid(header.uuid), header.epoch, digest);
  }

  /** Reads and verifies the stream header. */
  static async open(readAt: ReadAt, options: FrameAccessOptions): Promise<FrameAccess> {
    const source = new ByteSource(readAt, options);
    const bytes = await source.available(0, streamHeaderBytes);
    checkMagic(bytes);
    if (bytes.length < streamHeaderBytes) throw source.truncated(bytes.length);
    return new FrameAccess(source, decodeStreamHeader(bytes, options.digest), options.digest);
  }

  get uuid(): Uint8Array {
    return this.#binding.uuid;
  }

  get digest(): Digest64 {
    return this.#binding.digest;
  }

  /** `byteCount` bytes at `offset`. Throws `CHKPT_TRUNCATED` when the stream ends before. */
  async bytes(offset: number, byteCount: number): Promise<Uint8Array> {
    return await this.#source.exact(offset, byteCount);
  }

  /** True when the stream has a byte at `offset`. */
  async hasByteAt(offset: number): Promise<boolean> {
    return (await this.#source.available(offset, 1)).length > 0;
  }

  /** Header of the frame at `offset`, verified. `sequence`: the one it must have, when known. */
  async frameHeader(offset: number, sequence?: number): Promise<FrameHeader> {
    const bytes = await this.bytes(offset, frameHeaderBytes);
    return decodeFrameHeader(bytes, sequence, offset, this.#binding);
  }

  /** The frame at `offset`, header and payload verified. */
  async frame(offset: number, sequence?: number): Promise<Frame> {
    const header = await this.frameHeader(offset, sequence);
    const byteCount = frameBytes(header.payloadBytes);
    const frame = await this.bytes(offset, byteCount);
    checkPayload(header, frame.subarray(frameHeaderBytes), offset, this.digest);
    return {
      header,
      offset,
      byteCount,
      payload: frame.subarray(frameHeaderBytes, frameHeaderBytes + header.payloadBytes),
      digest: frame.subarray(frameHeaderBytes - 8, frameHeaderBytes),
    };
  }

  /** The value of a tag. Owned by the receiver. */
  async value(tag: IndexTag): Promise<Uint8Array> {
    let frame = await this.frame(tag.offset);
    if (frame.header.type !== frameTypes.tag) throw illegalFrame(frame, 'where the index has a tag');
    const found = parseTagFrame(frame);
    const place = { ...placeOf(frame), tag: tag.name };
    if (found.tag !== tag.name || found.type !== tag.type)
      throw formatError('the index has another tag here', place);
    checkEqual(found.dataBytes, tag.dataBytes, 'length of a value in the index', place);
    const value = new GrowingBytes(tag.dataBytes);
    value.append(found.piece);
    while (!value.isComplete) {
      frame = await this.frame(frame.offset + frame.byteCount, frame.header.sequence + 1);
      value.append(parseTagMoreFrame(frame, tag.dataBytes, value.length));
    }
    checkValue(tag.type, value.take(), place);
    return value.take();
  }
}

/** Reads through a small window, so that neighbours cost one read. */
class ByteSource {
  readonly #readAt: ReadAt;
  readonly #options: FrameAccessOptions;
  #window = new Uint8Array(0);
  #windowOffset = 0;

  constructor(readAt: ReadAt, options: FrameAccessOptions) {
    this.#readAt = readAt;
    this.#options = options;
  }

  async exact(offset: number, byteCount: number): Promise<Uint8Array> {
    const bytes = await this.available(offset, byteCount);
    if (bytes.length < byteCount) throw this.truncated(offset + bytes.length);
    return bytes;
  }

  /** At most `byteCount` bytes at `offset`: fewer only at the end of the stream. */
  async available(offset: number, byteCount: number): Promise<Uint8Array> {
    const at = offset - this.#windowOffset;
    if (at < 0 || at + byteCount > this.#window.length) {
      this.#window = await this.#read(offset, Math.max(byteCount, windowBytes));
      this.#windowOffset = offset;
      return this.#window.subarray(0, byteCount);
    }
    return this.#window.subarray(at, at + byteCount);
  }

  truncated(offset: number): CheckpointError {
    return new CheckpointError('CHKPT_TRUNCATED', 'the stream ends early', {
      details: { store: this.#options.store, offset },
    });
  }

  async #read(offset: number, byteCount: number): Promise<Uint8Array<ArrayBuffer>> {
    const { store, signal } = this.#options;
    const target = new Uint8Array(byteCount);
    let length = 0;
    while (length < byteCount) {
      checkAborted(signal, store);
      const rest = target.subarray(length);
      const count = await callStore(store, 'reading', () => this.#readAt(offset + length, rest));
      if (!Number.isInteger(count) || count < 0 || count > rest.length) {
        throw new CheckpointError('CHKPT_STORE_FAILED', 'the store read an impossible number of bytes', {
          details: { store, actual: count },
        });
      }
      if (count === 0) break;
      length += count;
    }
    return target.subarray(0, length);
  }
}
