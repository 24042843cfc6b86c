/**
 * A segment that is in several files: its own, and packs. The map says which run of which file follows which; docs/stores.md has its
 * form. Untrusted: it is checked as a whole before the first byte is read.
 */
import type { ErrorDetails } from '../errors/index.ts';
import { fromNative, hasNativeAddon, type NativePooledSource, nativeAddon } from '../native/index.ts';
import type { OpenFile } from './file-system.ts';
import { manifestError } from './manifest-rules.ts';
import { readAtPosition } from './readable-file.ts';

const runBytes = 24;
/** Most bytes of one read by native code, which are copied once. */
const readBytesMax = 4 * 1024 * 1024;

/** One open file of a checkpoint. */
export interface PartFile {
  readonly file: OpenFile;
  readonly bytes: number;
  readonly details: ErrorDetails;
}

/** Where the bytes of a segment are. Who opened the files closes them. */
export interface PooledFiles {
  readonly own: PartFile;
  /** By number. */
  readonly packs: readonly PartFile[];
  readonly map: Uint8Array;
  /** Of the map, for errors. */
  readonly details: ErrorDetails;
}

/** Where a byte of a segment is: in `file` at `position`, and as far as `end` of the segment. */
interface Place {
  readonly file: PartFile;
  readonly position: number;
  readonly end: number;
}

export class PooledPart {
  readonly #files: PooledFiles;
  readonly #bytes: number;
  /** Of each run: where its own bytes begin in the segment and in their file, and where those of its pack begin in the segment. */
  readonly #starts: Float64Array;
  readonly #ownAt: Float64Array;
  readonly #pooledStarts: Float64Array;
  #source: NativePooledSource | 'none' | undefined;

  /** `bytes`: of the segment. Throws `CHKPT_MANIFEST` when the map does not make it of these files. */
  constructor(files: PooledFiles, bytes: number) {
    const { map, own, packs, details } = files;
    const wrong = (what: string): Error => manifestError(`the map of a context is wrong: ${what}`, details);
    if (map.length % runBytes !== 0) throw wrong('length');
    const count = map.length / runBytes;
    this.#starts = new Float64Array(count + 1);
    this.#ownAt = new Float64Array(count + 1);
    this.#pooledStarts = new Float64Array(count);
    this.#files = files;
    this.#bytes = bytes;
    const view = new DataView(map.buffer, map.byteOffset, map.byteLength);
    let [position, ownAt] = [0, 0];
    for (let index = 0; index < count; index += 1) {
      const { ownBytes, offset, pack, pooled } = runAt(view, index);
      const packFile = packs[pack];
      if (ownBytes > own.bytes - ownAt) throw wrong('it has more than the file of the context');
      if (packFile === undefined) throw wrong('it names a pack that is none of the checkpoint');
      if (pooled === 0 || offset + pooled > packFile.bytes) throw wrong('it names a place outside of a pack');
      this.#starts[index] = position;
      this.#ownAt[index] = ownAt;
      this.#pooledStarts[index] = position + ownBytes;
      position += ownBytes + pooled;
      ownAt += ownBytes;
    }
    this.#starts[count] = position;
    this.#ownAt[count] = ownAt;
    if (position + own.bytes - ownAt !== bytes) throw wrong('it does not make the bytes of the context');
  }

  /** Reads at `offset` of the segment, below its end; at least one byte. */
  async read(offset: number, target: Uint8Array): Promise<number> {
    const wanted = Math.min(target.length, this.#bytes - offset);
    const first = this.#placeOf(offset);
    // What lies in one file needs no detour.
    if (offset + wanted <= first.end) return await readFrom(first, target.subarray(0, wanted));
    const source = this.source();
    if (source === undefined) return await readFrom(first, target.subarray(0, first.end - offset));
    const byteCount = Math.min(wanted, readBytesMax);
    let bytes: Uint8Array;
    try {
      bytes = await source.read(offset, byteCount);
    } catch (error) {
      throw fromNative(error, this.#files.details);
    }
    target.set(bytes);
    return byteCount;
  }

  /** For native threads; `undefined` where they cannot read. */
  source(): NativePooledSource | undefined {
    this.#source ??= this.#open() ?? 'none';
    return this.#source === 'none' ? undefined : this.#source;
  }

  /** Nothing is read afterwards. */
  close(): void {
    if (this.#source !== undefined && this.#source !== 'none') this.#source.close();
    this.#source = 'none';
  }

  #open(): NativePooledSource | undefined {
    const { own, packs, map } = this.#files;
    const describe = ({ file, bytes }: PartFile): { descriptor: number; bytes: number } => {
      return { descriptor: file.descriptor ?? -1, bytes };
    };
    const files = [own, ...packs].map(describe);
    if (!hasNativeAddon() || files.some(({ descriptor }) => descriptor < 0)) return undefined;
    try {
      const context = { bytes: this.#bytes, own: describe(own), packs: packs.map(describe), map };
      return new (nativeAddon().PooledSource)(context);
    } catch {
      // No descriptors to spare: JavaScript reads.
      return undefined;
    }
  }

  #placeOf(offset: number): Place {
    const index = lastAtOrBelow(this.#starts, offset);
    const start = this.#starts[index] ?? 0;
    const pooledStart = this.#pooledStarts[index] ?? this.#bytes;
    if (offset < pooledStart) {
      const position = (this.#ownAt[index] ?? 0) + offset - start;
      return { file: this.#files.own, position, end: pooledStart };
    }
    const { map, packs, own } = this.#files;
    const { offset: packOffset, pack } = runAt(
      new DataView(map.buffer, map.byteOffset, map.byteLength),
      index,
    );
    const position = packOffset + offset - pooledStart;
    return { file: packs[pack] ?? own, position, end: this.#starts[index + 1] ?? this.#bytes };
  }
}

interface Run {
  /** Bytes of the own file in front of it. */
  readonly ownBytes: number;
  readonly offset: number;
  readonly pack: number;
  readonly pooled: number;
}

function runAt(view: DataView, index: number): Run {
  const at = index * runBytes;
  return {
    ownBytes: u64At(view, at),
    offset: u64At(view, at + 8),
    pack: view.getUint32(at + 16, true),
    pooled: view.getUint32(at + 20, true),
  };
}

/** Without bigints, of which there would be thousands. Numbers above 2^53 come out inexact, and above every bound. */
function u64At(view: DataView, at: number): number {
  return view.getUint32(at, true) + 2 ** 32 * view.getUint32(at + 4, true);
}

function lastAtOrBelow(values: Float64Array, wanted: number): number {
  let [low, high] = [0, values.length - 1];
  while (low < high) {
    const middle = Math.ceil((low + high) / 2);
    if ((values[middle] ?? 0) <= wanted) low = middle;
    else high = middle - 1;
  }
  return low;
}

async function readFrom({ file, position }: Place, target: Uint8Array): Promise<number> {
  const byteCount = await readAtPosition(file.file, target, position, file.details);
  if (byteCount > 0) return byteCount;
  throw manifestError('a file became shorter while it was read', file.details);
}
