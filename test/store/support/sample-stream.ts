/**
 * Streams for store tests: segments of noise, made from a seed, and the calls that save and load them. Stores
 * do not look inside, but for one that cuts memory into frames: it has some, half of them the same for every seed. None of this is a
 * real checkpoint.
 */
import { createHash } from 'node:crypto';
import type { CommitSummary, Segment, SegmentSummary, Store, StoreWriter } from '../../../src/store/index.ts';

export interface SampleSegment {
  readonly segment: Segment;
  readonly bytes: Uint8Array;
  readonly summary: SegmentSummary;
}

export interface SampleStream {
  readonly segments: readonly SampleSegment[];
  /** All segments, one after the other. */
  readonly bytes: Uint8Array;
  readonly summary: CommitSummary;
}

const defaultSegments: readonly (readonly [Segment['kind'], string, number])[] = [
  ['start', 'start', 128],
  ['values', 'header', 333],
  ['values', 'pic0', 0],
  ['memory', 'memory', 5000],
  ['end', 'end', 168],
];

/** A stream that is the same for the same seed, and different for another. */
export function sampleStream(seed: string, segments = defaultSegments): SampleStream {
  const made = segments.map(([kind, name, byteCount], index) => {
    const bytes = noise(`${seed}/${index}`, byteCount);
    if (kind === 'memory') frame(bytes);
    return {
      segment: { kind, name },
      bytes,
      summary: { bytes: byteCount, frames: Math.ceil(byteCount / 64), digest: sha256(bytes) },
    };
  });
  const bytes = Buffer.concat(made.map((segment) => segment.bytes));
  const uuid = sha256(Buffer.from(seed)).replace(/^(.{8})(.{4})(.{4})(.{4})(.{12}).*$/, '$1-$2-$3-$4-$5');
  return {
    segments: made,
    bytes,
    summary: { uuid, parent: undefined, epoch: 0n, root: sha256(bytes), bytes: bytes.length },
  };
}

/** One segment of so many bytes, no two KiB of which are the same; quicker to make than noise. */
export function longStream(seed: string, byteCount: number): SampleStream {
  const stream = sampleStream(seed, [['memory', 'memory', 4096]]);
  const [{ segment, summary, bytes: noisy }] = stream.segments as [SampleSegment];
  const bytes = new Uint8Array(byteCount);
  for (let at = 0; at < byteCount; at += noisy.length) bytes.set(noisy.subarray(0, byteCount - at), at);
  const view = new DataView(bytes.buffer);
  for (let at = 0; at + 8 <= byteCount; at += 1024) view.setFloat64(at, at);
  const whole = { segment, bytes, summary: { ...summary, bytes: byteCount } };
  return { segments: [whole], bytes, summary: { ...stream.summary, bytes: byteCount } };
}

/** Makes frames of noise, as far as whole ones go. */
function frame(bytes: Uint8Array): void {
  const [headerBytes, payloadBytes] = [56, 1000];
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  for (let at = 0, index = 0; at + headerBytes + payloadBytes <= bytes.length; index += 1) {
    view.setUint32(at, 0x12, true);
    view.setUint32(at + 4, 0, true);
    view.setBigUint64(at + 8, BigInt(payloadBytes), true);
    at += headerBytes;
    if (index % 2 === 1) bytes.set(noise(`every seed/${index}`, payloadBytes), at);
    at += payloadBytes;
  }
}

/** Bytes that look random and are the same for the same seed. */
export function noise(seed: string, byteCount: number): Uint8Array {
  const pieces: Buffer[] = [];
  for (let made = 0, index = 0; made < byteCount; made += 64, index += 1) {
    pieces.push(createHash('sha512').update(`${seed}#${index}`).digest());
  }
  return Uint8Array.from(Buffer.concat(pieces).subarray(0, byteCount));
}

/** Saves a stream whole. */
export async function save(store: Store, stream: SampleStream): Promise<void> {
  const writer = await store.openWriter({ uuid: stream.summary.uuid });
  await writeSegments(writer, stream);
  await writer.commit(stream.summary);
}

/**
 * Everything of a save but its commit. The memory of each write is spoilt as soon as its promise resolves.
 */
export async function writeSegments(
  writer: StoreWriter,
  stream: SampleStream,
  writeBytes = 2048,
): Promise<void> {
  for (const { segment, bytes, summary } of stream.segments) {
    await writer.beginSegment?.(segment);
    for (let start = 0; start < bytes.length; start += writeBytes) {
      const slab = bytes.slice(start, start + writeBytes);
      await writer.write(slab);
      slab.fill(0xee);
    }
    await writer.endSegment?.(summary);
  }
}

/** Loads a stream whole, front to back. */
export async function load(store: Store, readBytes = 4096): Promise<Uint8Array> {
  const reader = await store.openReader();
  try {
    const pieces: Uint8Array[] = [];
    for (;;) {
      const target = new Uint8Array(readBytes);
      const byteCount = await reader.read(target);
      if (byteCount === 0) return Buffer.concat(pieces);
      pieces.push(target.subarray(0, byteCount));
    }
  } finally {
    await reader.close();
  }
}

/** True when both have the same bytes; a failing `expect` of long arrays would print them all. */
export function isSame(left: Uint8Array, right: Uint8Array): boolean {
  return Buffer.compare(left, right) === 0;
}

function sha256(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex');
}
