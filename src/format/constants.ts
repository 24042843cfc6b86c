/**
 * The fixed numbers of docs/format.md. Bounds that a producer could wish to raise are in `src/limits.ts`
 * instead. Units: bytes.
 */

/**
 * First bytes of a stream: a byte above 127, CR LF and a lone LF, so that a text-mode transfer is noticed.
 */
export const streamMagic: Readonly<Uint8Array> = Uint8Array.of(
  0x89,
  0x43,
  0x4b,
  0x50,
  0x0d,
  0x0a,
  0x1a,
  0x0a,
);

/** First bytes of the footer. */
export const footerMagic: Readonly<Uint8Array> = Uint8Array.of(
  0x8a,
  0x43,
  0x4b,
  0x50,
  0x0d,
  0x0a,
  0x1a,
  0x0a,
);

/** First bytes of a stream that is encrypted (docs/encryption.md). */
export const sealMagic: Readonly<Uint8Array> = Uint8Array.of(0x8c, 0x43, 0x4b, 0x53, 0x0d, 0x0a, 0x1a, 0x0a);

export const majorVersion = 1;
/** Of a checkpoint without parent, and of one with a parent. */
export const minorVersions = { alone: 0, increment: 1 } as const;

export const streamHeaderBytes = 128;
export const frameHeaderBytes = 56;
export const footerBytes = 64;
export const uuidBytes = 16;
export const rootDigestBytes = 32;
export const endPayloadBytes = 104;

/** Types of frames. The top bit says that a reader may pass a type it does not know. */
export const frameTypes = {
  contextOpen: 0x0000_0001,
  contextClose: 0x0000_0002,
  tag: 0x0000_0003,
  tagMore: 0x0000_0004,
  regionTable: 0x0000_0010,
  zeroRun: 0x0000_0011,
  pageBlock: 0x0000_0012,
  parentRun: 0x0000_0014,
  blockIndex: 0x8000_0013,
  end: 0x0000_0020,
  index: 0x8000_0021,
} as const;

const nameOfFrameType: ReadonlyMap<number, string> = new Map([
  [frameTypes.contextOpen, 'CONTEXT_OPEN'],
  [frameTypes.contextClose, 'CONTEXT_CLOSE'],
  [frameTypes.tag, 'TAG'],
  [frameTypes.tagMore, 'TAG_MORE'],
  [frameTypes.regionTable, 'REGION_TABLE'],
  [frameTypes.zeroRun, 'ZERO_RUN'],
  [frameTypes.pageBlock, 'PAGE_BLOCK'],
  [frameTypes.parentRun, 'PARENT_RUN'],
  [frameTypes.blockIndex, 'BLOCK_INDEX'],
  [frameTypes.end, 'END'],
  [frameTypes.index, 'INDEX'],
]);

/** Name of the format document, or the number for a type it does not have. */
export function frameTypeName(type: number): string {
  return nameOfFrameType.get(type) ?? `0x${type.toString(16).padStart(8, '0')}`;
}

/** True for a type that this version knows. */
export function isKnownFrameType(type: number): boolean {
  return nameOfFrameType.has(type);
}

/** True for a type that this version does not know and may pass over. */
export function isUnknownOptionalType(type: number): boolean {
  return type >= 0x8000_0000 && !nameOfFrameType.has(type);
}

/** Kind of a context, as arg1 of CONTEXT_OPEN and in the index. */
export const contextKinds = { values: 0, memory: 1 } as const;
export type ContextKind = keyof typeof contextKinds;
