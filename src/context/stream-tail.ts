/** What follows END: the index, compared with what was read, and the footer. */
import { checkEqual, checkLimit, equalBytes, formatError, type Place, toCount } from '../format/bytes.ts';
import { footerBytes, frameTypeName, frameTypes } from '../format/constants.ts';
import { type EndRecord, tailBytesOf } from '../format/end.ts';
import { checkFooter, decodeFooter } from '../format/footer.ts';
import type { Frame, FrameQueue } from '../format/frame-queue.ts';
import { type IndexBuilder, parseIndexDocument } from '../format/index-document.ts';
import { groupPagesMax, type Region } from '../format/region-table.ts';
import { pieceBytes } from '../format/tag-frame.ts';
import { indexBytesMax } from '../limits.ts';
import { GrowingBytes } from '../util/growing-bytes.ts';
import type { IndexGroup } from './memory-frames.ts';

/** The memory context that was read. */
export interface MemoryExtent {
  /** Offset of the first page frame. */
  readonly start: number;
  /** Offset behind the last page frame. */
  readonly end: number;
  readonly regions: readonly Region[];
  /** Its BLOCK_INDEX frames; `undefined` when the sink did not tell. */
  readonly groups: readonly IndexGroup[] | undefined;
}

export interface TailInput {
  readonly queue: FrameQueue;
  /** Reads on; throws at the end of the stream. */
  fill(): Promise<void>;
}

/** Reads index and footer and compares them. Throws `CHKPT_DIGEST`, `CHKPT_FORMAT`, `CHKPT_TRUNCATED`. */
export async function readTail(
  end: EndRecord,
  endOffset: number,
  index: IndexBuilder,
  memory: MemoryExtent | undefined,
  input: TailInput,
): Promise<void> {
  if (end.tailBytes === 0) return;
  const { queue } = input;
  const indexOffset = queue.offset;
  const groups = memory === undefined ? [] : memory.groups;
  const document = await readIndex(end, groups === undefined ? undefined : index.build(groups), input);
  if (document !== undefined && memory !== undefined) checkGroups(document, index, memory, endOffset);

  const footerOffset = queue.offset;
  let bytes = queue.takeBytes(footerBytes);
  while (bytes === undefined) {
    await input.fill();
    bytes = queue.takeBytes(footerBytes);
  }
  const footer = decodeFooter(bytes, footerOffset, queue.binding.digest);
  const streamBytes = footerOffset + footerBytes;
  const indexBytes = footerOffset - indexOffset;
  checkFooter(footer, { endOffset, indexOffset, indexBytes, uuid: queue.binding.uuid, streamBytes });
}

/** Compares the index with `expected`, piece by piece; without it the whole document is returned instead. */
async function readIndex(
  end: EndRecord,
  expected: Uint8Array | undefined,
  input: TailInput,
): Promise<Uint8Array | undefined> {
  let document: GrowingBytes | undefined;
  let documentBytes = 0;
  let at = 0;
  do {
    const frame = await takeFrame(input);
    const place: Place = { frame: frame.header.sequence, offset: frame.offset };
    if (frame.header.type !== frameTypes.index) {
      throw formatError(`a ${frameTypeName(frame.header.type)} frame behind END`, place);
    }
    const stated = toCount(frame.header.arg1, 'length of the index', place);
    if (document === undefined) {
      documentBytes = stated;
      checkLimit(stated, indexBytesMax, 'length of the index', place);
      checkEqual(tailBytesOf(stated), end.tailBytes, 'bytes behind END', place);
      document = new GrowingBytes(stated);
    }
    checkEqual(stated, documentBytes, 'length of the index', place);
    checkEqual(frame.header.arg0, at, 'place of a piece of the index', place);
    checkEqual(frame.payload.length, pieceBytes(documentBytes, at), 'length of a piece of the index', place);
    at += frame.payload.length;
    if (expected === undefined) document.append(frame.payload);
    else if (!equalBytes(frame.payload, expected.subarray(at - frame.payload.length, at))) {
      throw formatError('the index does not say what was read', place);
    }
  } while (at < documentBytes);
  if (expected === undefined) return document.take();
  checkEqual(documentBytes, expected.length, 'length of the index', {});
  return undefined;
}

/** For a sink that did not tell its groups: contexts must be equal, groups must be possible. */
function checkGroups(
  document: Uint8Array,
  index: IndexBuilder,
  memory: MemoryExtent,
  endOffset: number,
): void {
  const place: Place = { offset: endOffset };
  const contexts = index.build([]);
  const same =
    equalBytes(document.subarray(0, 4), contexts.subarray(0, 4)) &&
    equalBytes(document.subarray(8, contexts.length), contexts.subarray(8));
  if (!same) throw formatError('the index does not say what was read', place);
  for (const { firstPage, pageCount, offset } of parseIndexDocument(document, endOffset, place).groups) {
    const region = memory.regions.find(
      (one) => firstPage >= one.firstPage && firstPage < one.firstPage + one.pageCount,
    );
    const inRegion = firstPage - (region?.firstPage ?? 0);
    const possible =
      region !== undefined &&
      inRegion % groupPagesMax === 0 &&
      pageCount === Math.min(groupPagesMax, region.pageCount - inRegion) &&
      offset >= memory.start &&
      offset < memory.end;
    if (!possible) throw formatError('the index names a group that cannot be', { ...place, page: firstPage });
  }
}

async function takeFrame({ queue, fill }: TailInput): Promise<Frame> {
  let frame = queue.take();
  while (frame === undefined) {
    await fill();
    frame = queue.take();
  }
  return frame;
}
