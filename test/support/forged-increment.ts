/** A hand-made increment with every class of page. Its frames are at the places below; changes are those of `forged.ts`. */
import { StreamReader } from '../../src/context/stream-reader.ts';
import type { Digest64 } from '../../src/format/digest.ts';
import { ChainLoad, GuestMemory, PageDecoder } from '../../src/memory/index.ts';
import { forgedRegions } from './forged.ts';
import { pageOfKind } from './page-content.ts';
import { concat, StreamBuilder, types, u32, u64 } from './stream-builder.ts';
import { TestStore } from './test-store.ts';

export const incrementPlaces = {
  /** Pages 0 to 15: parent, stored, zero, fill, same as 1, same as 2, then the parent's. */
  block: 2,
  /** Pages 16 to 19, the rest of the first region. */
  parentRun: 3,
  /** The group of pages 0 to 19. */
  blockIndex: 4,
  /** Pages 20 to 35: zeros only. */
  zeroBlock: 5,
  /** Pages 36 to 51. */
  secondRun: 6,
  /** Page 52: same as page 3. */
  shortBlock: 7,
  close: 8,
} as const;

const stored = pageOfKind(9, 1) ?? new Uint8Array();
const fillWord = 0x0102_0304_0506_0708n;

/** Own pages of the increment that are not zero. */
export const incrementPages: ReadonlyMap<number, Uint8Array> = new Map([
  [1, stored],
  [3, Uint8Array.from(Buffer.concat(Array(512).fill(u64(fillWord))))],
  [4, stored],
  [52, Uint8Array.from(Buffer.concat(Array(512).fill(u64(fillWord))))],
]);
/** Own pages, zero ones included. */
export const ownPages: readonly number[] = [
  1,
  2,
  3,
  4,
  5,
  ...Array.from({ length: 16 }, (_, at) => 20 + at),
  52,
];

/** Payload of a raw PAGE_BLOCK. */
export function blockPayload(
  classes: readonly number[],
  words: readonly (number | bigint)[] = [],
  data: Uint8Array = new Uint8Array(),
): Uint8Array {
  const packed = classes.reduce((bits, code, index) => bits | (BigInt(code) << BigInt(4 * index)), 0n);
  return concat(u32(0, data.length), u64(packed), data, u64(...words));
}

export function soundIncrement(digest: Digest64): StreamBuilder {
  const built = new StreamBuilder(digest).child();
  built.contextOpen('memory', 1);
  built.regionTable(...forgedRegions.map(({ base, bytes }) => [base, bytes] as const));
  const classes = [4, 2, 0, 1, 3, 3, ...Array<number>(10).fill(4)];
  built.add(types.pageBlock, { arg0: 0, arg1: 16, payload: blockPayload(classes, [fillWord, 1, 2], stored) });
  built.parentRun(16, 4);
  built.add(types.blockIndex, {
    arg0: 0,
    arg1: 20,
    payload: (offsets) => concat(u64(offsets[incrementPlaces.block] ?? 0), u32(0, 0xffff_ffff)),
  });
  built.add(types.pageBlock, { arg0: 20, arg1: 16, payload: blockPayload(Array(16).fill(0)) });
  built.parentRun(36, 16);
  built.add(types.pageBlock, { arg0: 52, arg1: 1, payload: blockPayload([3], [3]) });
  return built.contextClose(53);
}

/**
 * Loads the members of a chain, newest first, into memory whose every byte is `before`. Gives the pages of that memory.
 */
export async function loadMembers(
  members: readonly Uint8Array[],
  digest: Digest64,
  before: number,
): Promise<Uint8Array[]> {
  const memory = GuestMemory.allocate(forgedRegions);
  const chain = new ChainLoad(53);
  try {
    for (const { base, bytes } of forgedRegions) {
      memory.write(base, new Uint8Array(Number(bytes)).fill(before));
    }
    for (const member of members) {
      const reader = new StreamReader(await new TestStore({}, member).openReader(), { digest });
      for await (const item of reader) {
        if (item.kind !== 'context-open' || item.contextKind !== 'memory') continue;
        await reader.readMemory(new PageDecoder(memory, { threads: 2, chain }));
      }
      chain.advance();
    }
    return forgedRegions.flatMap(({ base, bytes }) =>
      Array.from({ length: Number(bytes) / 4096 }, (_, page) =>
        memory.read(base + BigInt(4096 * page), 4096),
      ),
    );
  } finally {
    await memory.close();
  }
}
