/**
 * Bytes of a stream on their way to become frames: the synchronous half of every reader.
 *
 * The owner reads into `space()`, says how much with `filled()`, and takes frames off the front. `undefined`
 * means "need more bytes" and takes nothing; an exception means damage and ends the queue. At end of input a
 * queue that cannot give what its owner needs is a truncated stream.
 *
 * Ownership: the queue owns its buffer. What it hands out are views of it, valid until the next `space()`.
 * The buffer grows only when it is full of bytes that were really read, up to the largest frame.
 */
import { framePayloadBytesMax } from '../limits.ts';
import { type AlignedAllocator, allocateAligned } from '../util/aligned-buffer.ts';
import { frameHeaderBytes, streamHeaderBytes } from './constants.ts';
import type { Digest64 } from './digest.ts';
import {
  checkPayload,
  decodeFrameHeader,
  FrameBinding,
  type FrameHeader,
  frameBytes,
} from './frame-header.ts';
import { checkMagic, decodeStreamHeader, type StreamHeader } from './stream-header.ts';
import { parseUuid } from './uuid.ts';

/** A frame whose header and payload match their digests. Its views are valid until the next `space()`. */
export interface Frame {
  readonly header: FrameHeader;
  /** Offset of its first byte in the stream. */
  readonly offset: number;
  /** Bytes of the frame, header and padding included. */
  readonly byteCount: number;
  /** Without padding. */
  readonly payload: Uint8Array;
  /** Header digest as its 8 bytes. */
  readonly digest: Uint8Array;
}

/** Bytes a reader asks its store for at once. */
export const readBytesDefault = 256 * 1024;

// Above this, room for half a buffer is more than the largest frame.
const bufferBytesMax = 2 * frameBytes(framePayloadBytesMax);
// Kernel copies are fastest to where a cache line starts.
const readAlignment = 64;

export class FrameQueue {
  readonly #digest: Digest64;
  readonly #allocator: AlignedAllocator | undefined;
  /** The aligned buffer; `#buffer` is another one only while a leftover is being used up. */
  #own: Uint8Array;
  #buffer: Uint8Array;
  #start = 0;
  #end = 0;
  #offset = 0;
  #sequence = 0;
  #binding: FrameBinding | undefined;
  #header: FrameHeader | undefined;

  /** Reads go into a buffer of `bufferBytes` at first. */
  constructor(digest: Digest64, bufferBytes: number, allocator?: AlignedAllocator) {
    this.#digest = digest;
    this.#allocator = allocator;
    this.#own = allocateAligned(bufferBytes, allocator);
    this.#buffer = this.#own;
  }

  /** Offset in the stream of the first byte not taken yet. */
  get offset(): number {
    return this.#offset;
  }

  /** Sequence number of the next frame. */
  get sequence(): number {
    return this.#sequence;
  }

  /** Bytes read but not taken yet. Valid until the next `space()`. */
  get buffered(): Uint8Array {
    return this.#buffer.subarray(this.#start, this.#end);
  }

  /** What frames are bound to. REQUIRES: the stream header was taken, or `continueAt` called. */
  get binding(): FrameBinding {
    if (this.#binding === undefined) throw new TypeError('no stream header yet');
    return this.#binding;
  }

  /** Makes the queue start inside a stream. */
  continueAt(binding: FrameBinding, sequence: number, offset: number): void {
    this.#binding = binding;
    this.#sequence = sequence;
    this.#offset = offset;
  }

  /**
   * Where to read the next bytes; never empty. Moves what is buffered, so views handed out before become
   * invalid.
   */
  space(): Uint8Array {
    if (this.#start === this.#end) {
      this.#buffer = this.#own;
      this.#start = 0;
      this.#end = 0;
    }
    if (this.#end === this.#buffer.length) this.#makeRoom();
    return this.#buffer.subarray(this.#end);
  }

  /** `byteCount` bytes were read into the start of `space()`. */
  filled(byteCount: number): void {
    if (byteCount > this.#buffer.length - this.#end) throw new RangeError('more bytes than there was space');
    this.#end += byteCount;
  }

  /**
   * Another reader took `frameCount` frames of `byteCount` bytes, starting with what is buffered here, and
   * gives back what it read too much. `leftover` is the queue's from now on.
   */
  resume(frameCount: number, byteCount: number, leftover: Uint8Array): void {
    this.#buffer = leftover;
    this.#start = 0;
    this.#end = leftover.length;
    this.#sequence += frameCount;
    this.#offset += byteCount;
    this.#header = undefined;
  }

  /** The stream header and its bytes; binds the frames that follow to it. */
  takeStreamHeader(): { readonly header: StreamHeader; readonly bytes: Uint8Array } | undefined {
    checkMagic(this.buffered);
    const bytes = this.takeBytes(streamHeaderBytes);
    if (bytes === undefined) return undefined;
    const header = decodeStreamHeader(bytes, this.#digest);
    this.#binding = new FrameBinding(parseUuid(header.uuid), header.epoch, this.#digest);
    return { header, bytes };
  }

  /** Header of the next frame, checked; the frame stays. */
  peek(): FrameHeader | undefined {
    if (this.#header === undefined && this.#end - this.#start >= frameHeaderBytes) {
      this.#header = decodeFrameHeader(this.buffered, this.#sequence, this.#offset, this.binding);
    }
    return this.#header;
  }

  /** The next frame, header and payload checked. */
  take(): Frame | undefined {
    const header = this.peek();
    if (header === undefined) return undefined;
    const byteCount = frameBytes(header.payloadBytes);
    if (this.#end - this.#start < byteCount) return undefined;

    const frame = this.buffered.subarray(0, byteCount);
    checkPayload(header, frame.subarray(frameHeaderBytes), this.#offset, this.#digest);
    const offset = this.#offset;
    this.takeBytes(byteCount);
    this.#sequence += 1;
    this.#header = undefined;
    return {
      header,
      offset,
      byteCount,
      payload: frame.subarray(frameHeaderBytes, frameHeaderBytes + header.payloadBytes),
      digest: frame.subarray(frameHeaderBytes - 8, frameHeaderBytes),
    };
  }

  /** The next bytes as they are. */
  takeBytes(byteCount: number): Uint8Array | undefined {
    if (this.#end - this.#start < byteCount) return undefined;
    const bytes = this.#buffer.subarray(this.#start, this.#start + byteCount);
    this.#start += byteCount;
    this.#offset += byteCount;
    return bytes;
  }

  #makeRoom(): void {
    const length = this.#end - this.#start;
    const start = (readAlignment - (length % readAlignment)) % readAlignment;
    const cramped = length > this.#own.length / 2 && this.#own.length < bufferBytesMax;
    if (cramped || start + length >= this.#own.length) {
      this.#own = allocateAligned(
        Math.max(2 * this.#own.length, length + 2 * readAlignment),
        this.#allocator,
      );
    }
    if (this.#own === this.#buffer) this.#own.copyWithin(start, this.#start, this.#end);
    else this.#own.set(this.buffered, start);
    this.#buffer = this.#own;
    this.#start = start;
    this.#end = start + length;
  }
}
