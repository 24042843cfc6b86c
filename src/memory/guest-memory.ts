/**
 * Guest-physical memory of a virtual machine, owned or mapped by the addon, or attached from JavaScript.
 *
 * Addresses and lengths are bytes (`bigint` above the region table, `number` for one read or write). JavaScript never gets a
 * view of guest memory: `read` and `write` copy, on the main thread, and are meant for small things (a boot sector, a test).
 */
import { constants } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import type { MemoryRegion } from '../context/memory-frames.ts';
import { CheckpointError, fromSystemError } from '../errors/index.ts';
import { addressMax, memoryBytesMax, pageBytes, regionCountMax, threadsMax } from '../limits.ts';
import {
  awaitNative,
  callNative,
  type NativeMemory,
  type NativeRegion,
  nativeAddon,
} from '../native/index.ts';
import { isDetached } from '../util/detached.ts';
import type { MissingPages } from './missing-pages.ts';

/** A region as a caller gives it. */
export interface RegionSpec {
  /** Guest-physical address of the first byte, a multiple of 4096. */
  readonly base: bigint | number;
  /** A multiple of 4096, not zero. */
  readonly bytes: bigint | number;
}

export interface AllocateOptions {
  /**
   * `anonymous`: private memory (default). `memfd`: shareable with other processes. `hugetlb`: reserved 2 MiB pages.
   */
  readonly backing?: 'anonymous' | 'memfd' | 'hugetlb';
  /** Ask for transparent huge pages, default true: a load populates memory several times faster with them. */
  readonly hugePages?: boolean;
}

/** A file, or a part of it, that holds one region. */
export interface FileRegion {
  /** Path, or an open descriptor, which stays the caller's. */
  readonly file: string | number;
  /** Guest-physical address, default 0. */
  readonly base?: bigint | number;
  /** Bytes of the region; default: to the end of the file. */
  readonly bytes?: bigint | number;
  /** Where the region starts in the file, bytes, default 0. */
  readonly offset?: number;
}

/** `WebAssembly.Memory`, by shape: its namespace is in no type library that this package wants to depend on. */
export interface WasmMemory {
  readonly buffer: ArrayBuffer | SharedArrayBuffer;
  grow(pages: number): number;
}

/** Memory of this process that somebody else owns. */
export interface AttachedRegion {
  readonly base?: bigint | number;
  /** WebAssembly memory or a SharedArrayBuffer; an ArrayBuffer could be detached under the threads' hands and is refused. */
  readonly memory: WasmMemory | SharedArrayBuffer;
  /** Where the region starts in it, bytes, default 0. */
  readonly offset?: number;
  /** Default: to its end, rounded down to whole pages. */
  readonly bytes?: bigint | number;
}

/** Counts of pages. */
export interface MemoryScan {
  readonly pages: number;
  /** Pages that had to be read. */
  readonly present: number;
  /** Zero pages, untouched ones included. */
  readonly zero: number;
  /** Pages that are one 8-byte word repeated. */
  readonly fill: number;
}

export class GuestMemory implements AsyncDisposable {
  /** The region table, ascending. */
  readonly regions: readonly MemoryRegion[];
  /** Memory that somebody else owns, and may move while its guest runs. */
  readonly isAttached: boolean;
  /** Files that are mapped: other processes may write to the same memory. */
  readonly isMapped: boolean;
  readonly #native: NativeMemory;
  readonly #inFlight = new Set<Promise<unknown>>();
  readonly #kept = new Set<Promise<unknown>>();
  #lazy: MissingPages | undefined;
  #image: MissingPages | undefined;
  #onClosed: (() => Promise<void>) | undefined;
  #closed = false;
  #closing: Promise<void> | undefined;

  private constructor(
    native: NativeMemory,
    regions: readonly NativeRegion[],
    source: 'own' | 'attached' | 'mapped' = 'own',
  ) {
    this.#native = native;
    this.isAttached = source === 'attached';
    this.isMapped = source === 'mapped';
    this.regions = regions.map(([base, bytes]) => ({ base, bytes }));
  }

  /**
   * Allocates zeroed memory.
   *
   * Throws `RangeError` for regions that are not aligned, overlap or exceed the limits; `CHKPT_NO_MEMORY`.
   */
  static allocate(specs: readonly RegionSpec[], options: AllocateOptions = {}): GuestMemory {
    const regions = toRegions(specs);
    const backing = { anonymous: 0, memfd: 1, hugetlb: 2 }[options.backing ?? 'anonymous'];
    if (backing === undefined) throw new TypeError(`unknown backing ${String(options.backing)}`);
    const native = callNative(() =>
      nativeAddon().allocateMemory(regions, backing, options.hugePages ?? true),
    );
    return new GuestMemory(native, regions);
  }

  /**
   * Maps files that hold the memory of a machine, shared with whoever else maps them (QEMU's memory-backend).
   *
   * Throws `CHKPT_MEMORY_SHORT` when a file is shorter than its region, `CHKPT_NOT_FOUND`, `CHKPT_PERMISSION`.
   */
  static async map(
    files: readonly FileRegion[],
    options: { readonly writable?: boolean } = {},
  ): Promise<GuestMemory> {
    return GuestMemory.#openFiles(files, 0, options.writable ?? true);
  }

  /**
   * Uses files as memory by reading and writing them, without mapping: for RAM images on disk that others may cut. With
   * `fresh` the files are empty and grow to the size of their regions; pages never written stay holes.
   */
  static async openFiles(
    files: readonly FileRegion[],
    options: { readonly writable?: boolean; readonly fresh?: boolean } = {},
  ): Promise<GuestMemory> {
    const fresh = options.fresh ?? false;
    return GuestMemory.#openFiles(files, fresh ? 2 : 1, fresh || (options.writable ?? false));
  }

  /** Uses memory of this process. Throws `CHKPT_MEMORY_SHORT`; later calls throw `CHKPT_MEMORY_DETACHED` if it shrank. */
  static attach(specs: readonly AttachedRegion[]): GuestMemory {
    const views = specs.map(viewOf);
    const regions = toRegions(
      specs.map((spec, i) => ({
        base: spec.base ?? 0n,
        bytes: spec.bytes ?? BigInt((views[i] as Uint8Array).length) & ~BigInt(pageBytes - 1),
      })),
    );
    return new GuestMemory(
      callNative(() => nativeAddon().attachMemory(regions, views)),
      regions,
      'attached',
    );
  }

  /** A region table with nothing behind it: loads into it verify and decode everything and store nothing. */
  static describe(specs: readonly RegionSpec[]): GuestMemory {
    const regions = toRegions(specs);
    return new GuestMemory(
      callNative(() => nativeAddon().describeMemory(regions)),
      regions,
    );
  }

  /** For `src/memory`: a clone of an image. `onClosed` is awaited when its memory was given back. */
  static cloned(
    native: NativeMemory,
    specs: readonly RegionSpec[],
    pages: MissingPages,
    onClosed: () => Promise<void>,
  ): GuestMemory {
    const memory = new GuestMemory(native, toRegions(specs));
    memory.#lazy = pages;
    memory.#image = pages;
    memory.#onClosed = onClosed;
    return memory;
  }

  static async #openFiles(
    files: readonly FileRegion[],
    mode: number,
    writable: boolean,
  ): Promise<GuestMemory> {
    const handles: FileHandle[] = [];
    try {
      const descriptors: number[] = [];
      const specs: RegionSpec[] = [];
      for (const file of files) {
        const handle = typeof file.file === 'string' ? await openFile(file.file, writable) : undefined;
        if (handle !== undefined) handles.push(handle);
        descriptors.push(handle?.fd ?? (file.file as number));
        specs.push({ base: file.base ?? 0n, bytes: file.bytes ?? (await bytesToEnd(file, handle)) });
      }
      const regions = toRegions(specs);
      const offsets = files.map((file) => checkOffset(file.offset ?? 0));
      const native = callNative(() =>
        nativeAddon().openFileMemory(regions, descriptors, offsets, mode, writable),
      );
      return new GuestMemory(native, regions, mode === 0 ? 'mapped' : 'own');
    } finally {
      for (const handle of handles) await handle.close();
    }
  }

  /** All regions together, bytes. */
  get byteLength(): bigint {
    return this.regions.reduce((sum, region) => sum + region.bytes, 0n);
  }

  get pageCount(): number {
    return Number(this.byteLength / BigInt(pageBytes));
  }

  /** For `src/memory` and adapters. Throws `CHKPT_CLOSED`. */
  get native(): NativeMemory {
    if (this.#closed) throw new CheckpointError('CHKPT_CLOSED', 'guest memory is closed');
    return this.#native;
  }

  /**
   * Copies guest memory at `address` into a new array, or into `target`. Throws `RangeError` outside the regions, and
   * `CHKPT_UNSUPPORTED` while pages still come from another host (post-copy), or, of this range, from a store that only JavaScript can
   * read (lazy load): `bring` it first.
   */
  read(address: bigint | number, target: Uint8Array | number): Uint8Array {
    const bytes = typeof target === 'number' ? new Uint8Array(checkOffset(target)) : checkBytes(target);
    const place = this.#checkRange(address, bytes.length);
    this.#lazy?.checkTouch?.(place, bytes.length);
    callNative(() => this.native.read(place, bytes));
    this.#lazy?.check();
    return bytes;
  }

  /** Copies `source` to guest memory at `address`. Throws as `read`, and `CHKPT_PERMISSION`. */
  write(address: bigint | number, source: Uint8Array): void {
    const bytes = checkBytes(source);
    const place = this.#checkRange(address, bytes.length);
    this.#lazy?.checkTouch?.(place, bytes.length);
    callNative(() => this.native.write(place, bytes));
  }

  /**
   * Resolves when the pages of a range are there: of a lazy load they are fetched, and then stay; other memory has them. Throws
   * `RangeError`; rejects with what has made the load fail, and with `CHKPT_UNSUPPORTED` while pages come from another host.
   */
  async bring(address: bigint | number, byteCount: number): Promise<void> {
    const place = this.#checkRange(address, checkOffset(byteCount));
    if (this.#lazy?.want === undefined) this.#lazy?.checkTouch?.();
    this.#lazy?.want?.(place, byteCount);
    await this.hold(awaitNative(this.native.touch(place, byteCount)));
    await this.hold(this.#lazy?.settle?.(place, byteCount) ?? Promise.resolve());
  }

  /** Classifies every page. For memory nobody writes to. Threads: 1 to 64. */
  async scan(options: { readonly threads?: number } = {}): Promise<MemoryScan> {
    return this.hold(awaitNative(this.native.scan(checkThreads(options.threads))));
  }

  /** 64-bit digest of region table and content, equal for equal content whatever the backing. Not cryptographic. */
  async digest(options: { readonly threads?: number } = {}): Promise<bigint> {
    return this.hold(awaitNative(this.native.digest(checkThreads(options.threads))));
  }

  /** Counts the pages that may hold something, by page-table walks and file holes: memory is not read. */
  async countPresent(): Promise<number> {
    return this.hold(awaitNative(this.native.presence()));
  }

  /**
   * True when both attach the same bytes of this process, whatever has become of their buffers: WebAssembly memory that grows gets
   * another buffer, and mostly stays where it is. Throws `CHKPT_CLOSED`.
   */
  sharesBytesWith(other: GuestMemory): boolean {
    return this.native.sharesBytesWith(other.native);
  }

  /** Work that uses this memory: `close()` waits for it. */
  async hold<T>(work: Promise<T>): Promise<T> {
    this.#inFlight.add(work);
    try {
      const result = await work;
      this.#lazy?.check();
      return result;
    } finally {
      this.#inFlight.delete(work);
    }
  }

  /** What the memory holds is wanted until `done` settles; guests may write, loads wait. For `src/memory`. */
  keepUntil(done: Promise<unknown>): void {
    this.#kept.add(done);
    void this.hold(done.finally(() => this.#kept.delete(done)));
  }

  /** Resolves when all content may be replaced. For `src/memory`. */
  async replaceable(): Promise<void> {
    await Promise.allSettled([...this.#kept]);
  }

  /** Pages of this memory are brought by `pages` from now on. For `src/memory`. */
  async replaceMissingPages(pages: MissingPages | undefined): Promise<void> {
    const before = this.#lazy;
    this.#lazy = pages;
    await before?.close();
  }

  /** Of a clone: rejects with what has made its image fail. Whatever is loaded into it, its pages come from there first. */
  async checkImage(): Promise<void> {
    await this.#image?.checkSettled?.();
  }

  /** Who brings the pages that are missing; `undefined` when none ever were. */
  get missingPages(): MissingPages | undefined {
    return this.#lazy;
  }

  /** Waits for what is in flight, then gives the memory back. Harmless when called twice. */
  async close(): Promise<void> {
    this.#closed = true;
    this.#closing ??= this.#close();
    await this.#closing;
  }

  async #close(): Promise<void> {
    await this.#lazy?.close();
    await Promise.allSettled([...this.#inFlight]);
    await this.#native.close();
    await this.#onClosed?.();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #checkRange(address: bigint | number, bytes: number): bigint {
    const first = toBigInt(address, 'address');
    const end = first + BigInt(bytes);
    let reached = first;
    for (const region of this.regions) {
      if (region.base <= reached && reached < region.base + region.bytes)
        reached = region.base + region.bytes;
    }
    if (end > reached) throw new RangeError(`no guest memory at ${first} to ${end}`);
    return first;
  }
}

function toBigInt(value: bigint | number, name: string): bigint {
  if (typeof value === 'bigint') {
    if (value < 0n) throw new RangeError(`${name} must not be negative`);
    return value;
  }
  if (typeof value !== 'number') throw new TypeError(`${name} must be a bigint or an integer`);
  if (!Number.isSafeInteger(value) || value < 0)
    throw new RangeError(`${name} must be a safe integer, not negative`);
  return BigInt(value);
}

/** Checks the region table as docs/format.md section 6 demands. */
export function toRegions(specs: readonly RegionSpec[]): NativeRegion[] {
  if (!Array.isArray(specs)) throw new TypeError('regions must be an array');
  if (specs.length === 0 || specs.length > regionCountMax) {
    throw new RangeError(`1 to ${regionCountMax} regions expected, not ${specs.length}`);
  }
  let end = 0n;
  let total = 0n;
  return specs.map((spec) => {
    const base = toBigInt(spec.base, 'base');
    const bytes = toBigInt(spec.bytes, 'bytes');
    if (base % BigInt(pageBytes) !== 0n || bytes % BigInt(pageBytes) !== 0n || bytes === 0n) {
      throw new RangeError(`region at ${base} with ${bytes} bytes is not made of whole pages`);
    }
    if (base < end) throw new RangeError(`region at ${base} overlaps the one before or is out of order`);
    end = base + bytes;
    total += bytes;
    if (end > addressMax || total > memoryBytesMax)
      throw new RangeError(`region at ${base} exceeds the limits`);
    return [base, bytes] as const;
  });
}

function viewOf(spec: AttachedRegion): Uint8Array {
  const buffer = isWasmMemory(spec.memory) ? spec.memory.buffer : spec.memory;
  if (!isWasmMemory(spec.memory) && !(buffer instanceof SharedArrayBuffer)) {
    throw new TypeError('attach takes WebAssembly.Memory or SharedArrayBuffer');
  }
  const offset = checkOffset(spec.offset ?? 0);
  if (offset > buffer.byteLength) throw new RangeError(`offset ${offset} is behind the end of the memory`);
  return new Uint8Array(buffer, offset);
}

function isWasmMemory(memory: unknown): memory is WasmMemory {
  const { WebAssembly } = globalThis as unknown as { WebAssembly?: { Memory: new () => WasmMemory } };
  return WebAssembly !== undefined && memory instanceof WebAssembly.Memory;
}

function checkOffset(offset: number): number {
  if (!Number.isSafeInteger(offset) || offset < 0)
    throw new RangeError('a safe integer, not negative, expected');
  return offset;
}

function checkBytes(bytes: Uint8Array): Uint8Array {
  if (!(bytes instanceof Uint8Array)) throw new TypeError('a Uint8Array expected');
  if (isDetached(bytes)) throw new TypeError('the Uint8Array is detached or out of bounds');
  return bytes;
}

/** Threads of a pipeline: what the caller says, or the number of processors. */
export function checkThreads(threads: number | undefined): number {
  const chosen = threads ?? Math.min(availableParallelism(), threadsMax);
  if (!Number.isInteger(chosen) || chosen < 1 || chosen > threadsMax) {
    throw new RangeError(`threads must be 1 to ${threadsMax}`);
  }
  return chosen;
}

async function openFile(path: string, writable: boolean): Promise<FileHandle> {
  try {
    return await open(path, writable ? constants.O_RDWR : constants.O_RDONLY);
  } catch (error) {
    throw fromSystemError(error, `cannot open ${path}`, { path });
  }
}

async function bytesToEnd(file: FileRegion, handle: FileHandle | undefined): Promise<bigint> {
  if (handle === undefined) throw new TypeError('a region on a descriptor needs its bytes');
  const { size } = await handle.stat();
  const rest = size - (file.offset ?? 0);
  if (rest <= 0 || rest % pageBytes !== 0) {
    throw new CheckpointError('CHKPT_MEMORY_SHORT', `${rest} bytes are not a whole number of pages`, {
      details: { path: typeof file.file === 'string' ? file.file : undefined },
    });
  }
  return BigInt(rest);
}
