/**
 * Streams made by hand, field by field from docs/format.md and without the encoders of src/format. Every
 * field can be set to anything; digests, offsets, counts, index and footer are right for what was set unless
 * they are set too. So a test forges one field of a stream whose digests all match.
 */
import { createHash } from 'node:crypto';
import type { Digest64 } from '../../src/format/digest.ts';

export const types = {
  contextOpen: 1,
  contextClose: 2,
  tag: 3,
  tagMore: 4,
  regionTable: 0x10,
  zeroRun: 0x11,
  pageBlock: 0x12,
  parentRun: 0x14,
  blockIndex: 0x8000_0013,
  end: 0x20,
  index: 0x8000_0021,
} as const;

type Whole = number | bigint;

/** A frame to be laid out. Fields left out get the value that is right in their place. */
export interface DraftFrame {
  type: number;
  arg0?: Whole;
  arg1?: Whole;
  /** A function gets the offsets of the frames before this one. */
  payload?: Uint8Array | ((offsets: readonly number[]) => Uint8Array);
  flags?: number;
  sequence?: Whole;
  /** What the header says, when it is to differ from the payload. */
  payloadBytes?: Whole;
  /** Value of the padding bytes. */
  padding?: number;
  payloadDigest?: bigint;
  headerDigest?: bigint;
  /** What the digest is bound to, when it is to differ. */
  bind?: { uuid?: Uint8Array; epoch?: bigint; offset?: number };
}

export interface LayoutPosition {
  readonly uuid: Uint8Array;
  readonly epoch: bigint;
  readonly sequence: number;
  readonly offset: number;
}

/** Frames with their headers. */
export interface Layout {
  readonly bytes: Uint8Array;
  /** Header digests, 8 bytes each. */
  readonly digests: Uint8Array;
  readonly offsets: readonly number[];
}

export function pad8(byteCount: number): number {
  return byteCount + ((8 - (byteCount % 8)) % 8);
}

export function concat(...pieces: readonly Uint8Array[]): Uint8Array {
  return Uint8Array.from(Buffer.concat(pieces));
}

export function u64(...values: readonly Whole[]): Uint8Array {
  const bytes = Buffer.alloc(8 * values.length);
  for (const [index, value] of values.entries())
    bytes.writeBigUInt64LE(BigInt.asUintN(64, BigInt(value)), 8 * index);
  return Uint8Array.from(bytes);
}

export function u32(...values: readonly number[]): Uint8Array {
  const bytes = Buffer.alloc(4 * values.length);
  for (const [index, value] of values.entries()) bytes.writeUInt32LE(value % 2 ** 32, 4 * index);
  return Uint8Array.from(bytes);
}

export function padded(bytes: Uint8Array, value = 0): Uint8Array {
  return concat(bytes, new Uint8Array(pad8(bytes.length) - bytes.length).fill(value));
}

/** Lays frames out from a position on. */
export function layOut(drafts: readonly DraftFrame[], start: LayoutPosition, digest: Digest64): Layout {
  const pieces: Uint8Array[] = [];
  const digests: Uint8Array[] = [];
  const offsets: number[] = [];
  let { offset } = start;
  for (const [index, draft] of drafts.entries()) {
    const payload = typeof draft.payload === 'function' ? draft.payload(offsets) : draft.payload;
    const content = padded(payload ?? new Uint8Array(), draft.padding);
    const bound = concat(
      u32(draft.type, draft.flags ?? 0),
      u64(draft.payloadBytes ?? payload?.length ?? 0, draft.sequence ?? start.sequence + index),
      u64(draft.arg0 ?? 0, draft.arg1 ?? 0, draft.payloadDigest ?? digest(content)),
    );
    const { uuid = start.uuid, epoch = start.epoch, offset: place = offset } = draft.bind ?? {};
    const headerDigest = u64(draft.headerDigest ?? digest(concat(uuid, u64(epoch, place), bound)));
    pieces.push(bound, headerDigest, content);
    digests.push(headerDigest);
    offsets.push(offset);
    offset += 56 + content.length;
  }
  return { bytes: concat(...pieces), digests: concat(...digests), offsets };
}

/** Payload of a TAG frame. */
export function tagPayload(
  tag: string | Uint8Array,
  data: Uint8Array,
  dataBytes: Whole = data.length,
): Uint8Array {
  const name = typeof tag === 'string' ? Buffer.from(tag) : tag;
  return concat(u64(name.length), padded(name), u64(dataBytes), data.subarray(0, 1 << 20));
}

/** Counts of END, in its order. */
export interface BuiltCounts {
  contexts: Whole;
  tags: Whole;
  pages: Whole;
  zeroPages: Whole;
  fillPages: Whole;
  storedPages: Whole;
  samePages: Whole;
  parentPages: Whole;
  encodedBytes: Whole;
}

export interface BuiltHeader {
  magic: Uint8Array;
  major: number;
  minor: number;
  headerBytes: number;
  uuid: Uint8Array;
  parentUuid: Uint8Array;
  epoch: bigint;
  flags: Whole;
  parentRoot: Uint8Array;
  createdMs: Whole;
  reserved: Uint8Array;
}

export class StreamBuilder {
  readonly digest: Digest64;
  readonly header: BuiltHeader = {
    magic: Uint8Array.of(0x89, 0x43, 0x4b, 0x50, 0x0d, 0x0a, 0x1a, 0x0a),
    major: 1,
    minor: 0,
    headerBytes: 128,
    uuid: Uint8Array.from({ length: 16 }, (_, index) => 0xa0 + index),
    parentUuid: new Uint8Array(16),
    epoch: 0n,
    flags: 0,
    parentRoot: new Uint8Array(32),
    createdMs: 0,
    reserved: new Uint8Array(16),
  };
  /** Frames before END. */
  frames: DraftFrame[] = [];
  /** Fields of END that are to differ. */
  end: Omit<DraftFrame, 'type'> = {};
  counts: Partial<BuiltCounts> = {};
  root: Uint8Array | undefined;
  /** False: no index, no footer. */
  hasIndex = true;
  /** The index document, when it is to differ. */
  document: Uint8Array | ((document: Uint8Array) => Uint8Array) | undefined;
  /** Fields of INDEX frame `n`, when they are to differ. */
  indexFrames: Partial<DraftFrame>[] = [];
  /** The u64 fields of the footer between magic and digest, when they are to differ: byte offset → value. */
  footer: Record<number, Whole> = {};
  /** Bytes behind the stream. */
  trailing: Uint8Array = new Uint8Array();
  #ordinal = 0;
  #openCount = 0;

  constructor(digest: Digest64) {
    this.digest = digest;
  }

  add(type: number, fields: Omit<DraftFrame, 'type'> = {}): this {
    this.frames.push({ type, ...fields });
    return this;
  }

  contextOpen(name: string, kind: 0 | 1 = 0): this {
    this.#openCount = 0;
    return this.add(types.contextOpen, { arg0: this.#ordinal, arg1: kind, payload: Buffer.from(name) });
  }

  contextClose(count: number = this.#openCount): this {
    return this.add(types.contextClose, { arg0: this.#ordinal++, arg1: count });
  }

  /** `type`: code of the value type. */
  tag(name: string, type: number, data: Uint8Array): this {
    this.#openCount += 1;
    this.add(types.tag, { arg0: type, payload: tagPayload(name, data) });
    for (let at = 1 << 20; at < data.length; at += 1 << 20) {
      this.add(types.tagMore, { arg0: at, payload: data.subarray(at, at + (1 << 20)) });
    }
    return this;
  }

  regionTable(...regions: readonly (readonly [base: Whole, bytes: Whole])[]): this {
    return this.add(types.regionTable, { arg0: regions.length, arg1: 4096, payload: u64(...regions.flat()) });
  }

  zeroRun(firstPage: number, pageCount: number): this {
    return this.add(types.zeroRun, { arg0: firstPage, arg1: pageCount });
  }

  parentRun(firstPage: number, pageCount: number): this {
    return this.add(types.parentRun, { arg0: firstPage, arg1: pageCount });
  }

  /** Names a parent: everything behind is an increment. */
  child(): this {
    Object.assign(this.header, {
      minor: 1,
      parentUuid: Uint8Array.from({ length: 16 }, (_, index) => 0xc0 + index),
      parentRoot: Uint8Array.from({ length: 32 }, (_, index) => index),
      epoch: 7n,
    });
    return this;
  }

  /** The whole stream. */
  build(): Uint8Array {
    return this.buildParts().bytes;
  }

  /** The whole stream, and where its frames (END and INDEX too) lie. */
  buildParts(): {
    readonly bytes: Uint8Array;
    readonly offsets: readonly number[];
    readonly endOffset: number;
  } {
    const { uuid, epoch } = this.header;
    const header = this.#headerBytes();
    const body = layOut(this.frames, { uuid, epoch, sequence: 0, offset: 128 }, this.digest);
    const endOffset = 128 + body.bytes.length;
    const root = this.root ?? createHash('sha256').update(header).update(body.digests).digest();
    const document = this.hasIndex ? this.#documentFor(body.offsets) : new Uint8Array();
    const tail = this.#tail(document, endOffset + 56 + 104);
    const counts = { ...this.#countFrames(), ...this.counts };
    const endFrame: DraftFrame = {
      type: types.end,
      arg0: this.frames.length,
      arg1: this.hasIndex ? tail.bytes.length + 64 : 0,
      payload: concat(root, u64(...Object.values(counts))),
      ...this.end,
    };
    const position = { uuid, epoch, sequence: this.frames.length, offset: endOffset };
    const end = layOut([endFrame], position, this.digest);
    const footer = this.hasIndex ? this.#footerBytes(endOffset, tail.bytes.length) : new Uint8Array();
    return {
      bytes: concat(header, body.bytes, end.bytes, tail.bytes, footer, this.trailing),
      offsets: [...body.offsets, endOffset, ...tail.offsets],
      endOffset,
    };
  }

  #headerBytes(): Uint8Array {
    const h = this.header;
    const start = Buffer.alloc(8);
    start.writeUInt16LE(h.major, 0);
    start.writeUInt16LE(h.minor, 2);
    start.writeUInt32LE(h.headerBytes, 4);
    const fields = concat(
      h.magic,
      start,
      h.uuid,
      h.parentUuid,
      u64(h.epoch, h.flags),
      h.parentRoot,
      u64(h.createdMs),
      h.reserved,
    );
    return concat(fields, u64(this.digest(fields)));
  }

  #tail(document: Uint8Array, offset: number): Layout {
    const drafts: DraftFrame[] = [];
    for (let at = 0; at < document.length; at += 1 << 20) {
      const payload = document.subarray(at, at + (1 << 20));
      const changes = this.indexFrames[drafts.length] ?? {};
      drafts.push({ type: types.index, arg0: at, arg1: document.length, payload, ...changes });
    }
    const { uuid, epoch } = this.header;
    return layOut(drafts, { uuid, epoch, sequence: this.frames.length + 1, offset }, this.digest);
  }

  #footerBytes(endOffset: number, indexBytes: number): Uint8Array {
    const indexOffset = endOffset + 56 + 104;
    const fields = Buffer.from(
      concat(
        Uint8Array.of(0x8a, 0x43, 0x4b, 0x50, 0x0d, 0x0a, 0x1a, 0x0a),
        u64(endOffset, indexOffset, indexBytes),
        this.header.uuid,
        u64(indexOffset + indexBytes + 64),
      ),
    );
    for (const [at, value] of Object.entries(this.footer)) fields.writeBigUInt64LE(BigInt(value), Number(at));
    return concat(fields, u64(this.digest(fields)));
  }

  #documentFor(offsets: readonly number[]): Uint8Array {
    const right = indexDocument(this.frames, offsets);
    return typeof this.document === 'function' ? this.document(right) : (this.document ?? right);
  }

  #countFrames(): BuiltCounts {
    const counts = {
      contexts: 0,
      tags: 0,
      pages: 0,
      zeroPages: 0,
      fillPages: 0,
      storedPages: 0,
      samePages: 0,
      parentPages: 0,
    };
    let encodedBytes = 0;
    for (const { type, arg1, payload } of this.frames) {
      if (type === types.contextOpen) counts.contexts += 1;
      if (type === types.tag) counts.tags += 1;
      if (type !== types.zeroRun && type !== types.parentRun && type !== types.pageBlock) continue;
      const pages = Number(BigInt.asUintN(48, BigInt(arg1 ?? 0)));
      counts.pages += pages;
      if (type === types.zeroRun) counts.zeroPages += pages;
      if (type === types.parentRun) counts.parentPages += pages;
      if (type !== types.pageBlock || !(payload instanceof Uint8Array) || payload.length < 16) continue;
      const view = Buffer.from(payload);
      encodedBytes += view.readUInt32LE(4);
      const classes = view.readBigUInt64LE(8);
      for (let page = 0; page < Math.min(pages, 16); page++) {
        const name = (['zeroPages', 'fillPages', 'storedPages', 'samePages', 'parentPages'] as const)[
          Number((classes >> BigInt(4 * page)) & 0xfn)
        ];
        if (name !== undefined) counts[name] += 1;
      }
    }
    return { ...counts, encodedBytes };
  }
}

/** The index document of frames as far as they are well-formed. */
export function indexDocument(frames: readonly DraftFrame[], offsets: readonly number[]): Uint8Array {
  const contexts: { head: Uint8Array; kind: number; name: Uint8Array; tags: Uint8Array[] }[] = [];
  const groups: Uint8Array[] = [];
  for (const [index, { type, arg0 = 0, arg1 = 0, payload }] of frames.entries()) {
    const offset = offsets[index] ?? 0;
    const bytes = Buffer.from(payload instanceof Uint8Array ? payload : []);
    if (type === types.contextOpen) {
      contexts.push({ head: u64(offset), kind: Number(arg1), name: bytes, tags: [] });
    } else if (type === types.tag && bytes.length >= 16) {
      const name = bytes.subarray(8, 8 + Number(bytes.readBigUInt64LE(0) & 0xffn));
      const dataBytes = bytes.readBigUInt64LE(Math.min(8 + pad8(name.length), bytes.length - 8));
      const entry = concat(
        u64(offset, dataBytes),
        u32(Number(BigInt(arg0) & 0xffn), name.length),
        padded(name),
      );
      contexts.at(-1)?.tags.push(entry);
    } else if (type === types.blockIndex) {
      groups.push(u64(arg0, arg1, offset));
    }
  }
  const entries = contexts.map(({ head, kind, name, tags }) =>
    concat(head, u32(kind, tags.length), u64(name.length), padded(name), ...tags),
  );
  return concat(u32(contexts.length, groups.length), ...entries, ...groups);
}
