/** A hand-made stream with everything in it, and ways to change it, for tests of readers. */

import { StreamReader } from '../../src/context/stream-reader.ts';
import { CheckpointError } from '../../src/errors/index.ts';
import type { Digest64 } from '../../src/format/digest.ts';
import { PageDecoder } from '../../src/memory/index.ts';
import { hasNativeAddon } from '../../src/native/index.ts';
import { pageOfKind } from './page-content.ts';
import { PageEncoder } from './page-encoder.ts';
import { readStream } from './read-stream.ts';
import { type DraftFrame, StreamBuilder } from './stream-builder.ts';
import { TestStore } from './test-store.ts';

/** Places of its frames. */
export const places = {
  openPic: 0,
  irr: 1,
  name: 2,
  closePic: 3,
  openMemory: 4,
  regionTable: 5,
  /** Pages 0 to 15: two stored pages, one fill, one same; LZ4. */
  block: 6,
  /** The group of pages 0 to 19. */
  blockIndex: 8,
  /** Pages 16 to 19, the rest of the first region. */
  zeroRun: 7,
  /** Pages 20 to 35: one page of noise, raw. */
  rawBlock: 9,
  closeMemory: 12,
  openPit: 13,
  counter: 14,
  closePit: 15,
} as const;

const kinds: Readonly<Record<number, number>> = { 0: 5, 1: 6, 2: 3, 3: 5, 20: 9 };

export function forgedPage(page: number): Uint8Array | undefined {
  return pageOfKind(kinds[page] ?? 0, page);
}

/** Regions of 20 and 33 pages. */
export const forgedRegions = [
  { base: 0n, bytes: 20n * 4096n },
  { base: 0x10_0000n, bytes: 33n * 4096n },
];

export function soundStream(digest: Digest64): StreamBuilder {
  const built = new StreamBuilder(digest);
  built
    .contextOpen('pic')
    .tag('irr', 3, Uint8Array.of(7))
    .tag('name', 1, Buffer.from('8259A'))
    .contextClose();
  built.contextOpen('memory', 1);
  built.regionTable(...forgedRegions.map(({ base, bytes }) => [base, bytes] as const));
  addPages(built);
  built.contextClose(53);
  built.contextOpen('pit').tag('counter', 6, new Uint8Array(8)).contextClose();
  return built;
}

/** Block indexes name places by frame number, which the encoder counts from its own first frame. */
function addPages(built: StreamBuilder): void {
  const before = built.frames.length;
  for (const draft of new PageEncoder(forgedRegions, forgedPage).frames) {
    const { payload } = draft;
    const moved =
      typeof payload === 'function'
        ? (offsets: readonly number[]) => payload(offsets.slice(before))
        : payload;
    built.frames.push(moved === undefined ? draft : { ...draft, payload: moved });
  }
}

/** The frame at a place. */
export function frameAt(built: StreamBuilder, place: number): DraftFrame {
  const frame = built.frames[place];
  if (frame === undefined) throw new RangeError(`no frame ${place}`);
  return frame;
}

/** Its payload, as a Buffer that may be changed in place. */
export function payloadAt(built: StreamBuilder, place: number): Buffer {
  const frame = frameAt(built, place);
  if (!(frame.payload instanceof Uint8Array)) throw new TypeError('a payload that is laid out later');
  const copy = Buffer.from(frame.payload);
  frame.payload = copy;
  return copy;
}

/** A change to a stream. */
export type Change = (built: StreamBuilder) => unknown;

/** The error with which the whole stream is refused after a change; digests are right again. */
export async function forgedError(digest: Digest64, change: Change): Promise<CheckpointError> {
  const built = soundStream(digest);
  change(built);
  return errorOfBoth(built.build(), digest);
}

/** The error with which the portable reader refuses a stream; with the addon, the native one must give the same at the same place. */
export async function errorOfBoth(bytes: Uint8Array, digest: Digest64): Promise<CheckpointError> {
  const portable = await errorOf(() => readStream(bytes, digest));
  if (hasNativeAddon()) {
    const native = await errorOf(() => readNatively(bytes, digest));
    const place = ({ code, details }: CheckpointError): string => `${code} at ${details.offset}`;
    if (place(native) !== place(portable)) {
      throw new Error(
        `native says ${native.code}: ${native.message}; portable ${portable.code}: ${portable.message}`,
      );
    }
  }
  return portable;
}

export async function errorOf(read: () => Promise<unknown>): Promise<CheckpointError> {
  try {
    await read();
  } catch (error) {
    if (error instanceof CheckpointError) return error;
    throw error;
  }
  throw new Error('loaded');
}

async function readNatively(bytes: Uint8Array, digest: Digest64): Promise<void> {
  const reader = new StreamReader(await new TestStore({}, bytes).openReader(), { digest });
  for await (const item of reader) {
    if (item.kind === 'context-open' && item.contextKind === 'memory') {
      await reader.readMemory(new PageDecoder(undefined, { threads: 2 }));
    }
  }
}

/** A frame more at a place. */
export function insert(at: number, type: number, fields: Omit<DraftFrame, 'type'> = {}): Change {
  return (built) => built.frames.splice(at, 0, { type, ...fields });
}

/** A frame less. */
export function remove(at: number): Change {
  return (built) => built.frames.splice(at, 1);
}

/** Other fields in a frame. */
export function set(at: number, fields: Partial<DraftFrame>): Change {
  return (built) => Object.assign(frameAt(built, at), fields);
}

/** Other bytes in a payload. */
export function poke(at: number, offset: number, ...bytes: number[]): Change {
  return (built) => payloadAt(built, at).set(bytes, offset);
}

/** Another index document. */
export function redocument(change: (document: Uint8Array) => Uint8Array): Change {
  return (built) => Object.assign(built, { document: change });
}
