/**
 * The writing end of a stream: knows where the next frame goes, collects small frames into large writes,
 * hashes header digests into the root digest, and tells the store where segments begin and end.
 *
 * Ownership: small frames are copied into a batch buffer that is used again only after the store's write
 * resolved; large pieces and slabs go to the store as they are. Units: bytes. Calls come one at a time; after
 * one has failed the owner only aborts.
 */
import { createHash, type Hash } from 'node:crypto';
import { CheckpointError } from '../errors/index.ts';
import { pad8 } from '../format/bytes.ts';
import { frameHeaderBytes } from '../format/constants.ts';
import { type FrameArguments, headerDigestBytes, sealFrame, sealHeader } from '../format/frame-builder.ts';
import { type FrameBinding, frameBytes } from '../format/frame-header.ts';
import type { CommitSummary, DirectOutput, MemoryHandOver, Segment, StoreWriter } from '../store/store.ts';
import { allocateAligned } from '../util/aligned-buffer.ts';
import type { SlabBatch, StreamPosition } from './memory-frames.ts';
import { callStore } from './store-call.ts';

interface OpenSegment {
  readonly startOffset: number;
  frames: number;
  readonly hash: Hash;
}

const batchBytesDefault = 256 * 1024;

export class FrameOutput {
  readonly #writer: StoreWriter;
  readonly #store: string | undefined;
  readonly #binding: FrameBinding;
  readonly #rootHash: Hash = createHash('sha256');
  readonly #segments: boolean;
  #batch: Uint8Array = allocateAligned(batchBytesDefault);
  #batched = 0;
  #offset = 0;
  #sequence = 0;
  #segment: OpenSegment | undefined;
  #rootDone = false;
  /** Of the memory context. */
  #direct: DirectOutput | undefined;

  constructor(writer: StoreWriter, binding: FrameBinding, store: string | undefined) {
    this.#writer = writer;
    this.#binding = binding;
    this.#store = store;
    this.#segments = writer.beginSegment !== undefined || writer.endSegment !== undefined;
  }

  /** Where the next frame goes. */
  get position(): StreamPosition {
    const { uuid, epoch } = this.#binding;
    return { uuid, epoch, sequence: this.#sequence, offset: this.#offset };
  }

  async beginSegment(segment: Segment): Promise<void> {
    if (!this.#segments) return;
    this.#segment = { startOffset: this.#offset, frames: 0, hash: createHash('sha256') };
    await callStore(this.#store, 'beginning a segment', async () => this.#writer.beginSegment?.(segment));
  }

  async endSegment(): Promise<void> {
    const segment = this.#segment;
    if (segment === undefined) return;
    this.#segment = undefined;
    await this.flush();
    const summary = {
      bytes: this.#offset - segment.startOffset,
      frames: segment.frames,
      digest: segment.hash.digest('hex'),
    };
    await callStore(this.#store, 'ending a segment', async () => this.#writer.endSegment?.(summary));
  }

  /** Writes the stream header, which the root digest starts with. */
  async header(bytes: Uint8Array): Promise<void> {
    this.#rootHash.update(bytes);
    await this.raw(bytes);
  }

  /** Writes a small number of bytes that are no frame. */
  async raw(bytes: Uint8Array): Promise<void> {
    (await this.#reserve(bytes.length)).set(bytes);
    this.#batched += bytes.length;
    this.#offset += bytes.length;
  }

  /** Writes a frame; `fill` puts exactly `payloadBytes` bytes into the payload. */
  async frame(frame: FrameArguments, payloadBytes = 0, fill?: (payload: Uint8Array) => void): Promise<void> {
    const byteCount = frameBytes(payloadBytes);
    const target = await this.#reserve(byteCount);
    fill?.(target.subarray(frameHeaderBytes, frameHeaderBytes + payloadBytes));
    sealFrame(target, frame, payloadBytes, this.#sequence, this.#offset, this.#binding);
    this.#batched += byteCount;
    this.#count(headerDigestBytes(target), 1, byteCount);
  }

  /** Writes a frame whose payload goes to the store from where it stands, when it needs no padding. */
  async frameAround(frame: FrameArguments, payload: Uint8Array): Promise<void> {
    if (payload.length !== pad8(payload.length) || payload.buffer instanceof SharedArrayBuffer) {
      return await this.frame(frame, payload.length, (target) => target.set(payload));
    }
    const target = await this.#reserve(frameHeaderBytes);
    const digest = this.#binding.digest(payload);
    sealHeader(target, frame, payload.length, digest, this.#sequence, this.#offset, this.#binding);
    this.#batched += frameHeaderBytes;
    const headerDigest = headerDigestBytes(target).slice();
    await this.flush();
    await this.#write(payload);
    this.#count(headerDigest, 1, frameHeaderBytes + payload.length);
  }

  /** True: the store took the memory, and its frames are not to be written. */
  async takeMemory(name: string, memory: MemoryHandOver): Promise<boolean> {
    const writer = this.#writer;
    if (writer.takeMemory === undefined) return false;
    return (
      (await callStore(this.#store, 'taking memory', async () => writer.takeMemory?.(name, memory))) === true
    );
  }

  /** Where the store takes frames that a source writes itself, from here on. REQUIRES: flushed. */
  direct(): DirectOutput | undefined {
    this.#direct = this.#writer.direct?.();
    return this.#direct;
  }

  /** Passes whole frames through to the store. The slabs are not released here. */
  async slabs({ pieces, frameCount, digests, written }: SlabBatch): Promise<void> {
    const byteCount = written ?? pieces.reduce((sum, piece) => sum + piece.length, 0);
    if (digests.length !== 8 * frameCount || byteCount % 8 !== 0) {
      throw new CheckpointError(
        'CHKPT_INTERNAL',
        'a memory source handed out slabs that are not whole frames',
      );
    }
    if (written === undefined) {
      await this.flush();
      await this.#writeAll(pieces);
    } else this.#direct?.wrote(written);
    this.#count(digests, frameCount, byteCount);
  }

  /** The root digest; frames written from now on are not part of it. */
  sealRoot(): Uint8Array {
    this.#rootDone = true;
    return this.#rootHash.digest();
  }

  async flush(): Promise<void> {
    if (this.#batched === 0) return;
    const bytes = this.#batch.subarray(0, this.#batched);
    this.#batched = 0;
    await this.#write(bytes);
  }

  /** Returns how many bytes the checkpoint takes in the store. */
  async commit(summary: CommitSummary): Promise<number> {
    await callStore(this.#store, 'committing', () => this.#writer.commit(summary));
    return this.#writer.storedBytes ?? summary.bytes;
  }

  async abort(): Promise<void> {
    await callStore(this.#store, 'aborting', () => this.#writer.abort());
  }

  async #reserve(byteCount: number): Promise<Uint8Array> {
    if (this.#batched + byteCount > this.#batch.length) await this.flush();
    if (byteCount > this.#batch.length) this.#batch = allocateAligned(byteCount);
    return this.#batch.subarray(this.#batched, this.#batched + byteCount);
  }

  async #write(bytes: Uint8Array): Promise<void> {
    await callStore(this.#store, 'writing', () => this.#writer.write(bytes));
  }

  async #writeAll(pieces: readonly Uint8Array[]): Promise<void> {
    const writer = this.#writer;
    if (writer.writeAll === undefined) {
      for (const piece of pieces) if (piece.length > 0) await this.#write(piece);
      return;
    }
    await callStore(this.#store, 'writing', async () => writer.writeAll?.(pieces));
  }

  #count(digests: Uint8Array, frameCount: number, byteCount: number): void {
    if (!this.#rootDone) this.#rootHash.update(digests);
    if (this.#segment !== undefined) {
      this.#segment.frames += frameCount;
      this.#segment.hash.update(digests);
    }
    this.#sequence += frameCount;
    this.#offset += byteCount;
  }
}
