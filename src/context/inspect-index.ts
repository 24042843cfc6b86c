/** Footer → END → index: where everything is, in a handful of reads. */
import { checkEqual, type Place, toCount } from '../format/bytes.ts';
import { endPayloadBytes, footerBytes, frameTypes, streamHeaderBytes } from '../format/constants.ts';
import { decodeEnd, type EndRecord } from '../format/end.ts';
import { checkFooter, decodeFooter, hasFooterMagic } from '../format/footer.ts';
import { frameBytes } from '../format/frame-header.ts';
import { illegalFrame, placeOf } from '../format/frame-order.ts';
import type { Frame } from '../format/frame-queue.ts';
import { type IndexContext, type IndexDocument, parseIndexDocument } from '../format/index-document.ts';
import { decodeRegionTable, type Region } from '../format/region-table.ts';
import { pieceBytes } from '../format/tag-frame.ts';
import { indexBytesMax } from '../limits.ts';
import { GrowingBytes } from '../util/growing-bytes.ts';
import type { FrameAccess } from './frame-access.ts';

/** Where everything in a stream is. */
export interface StreamMap extends IndexDocument {
  readonly end: EndRecord;
  readonly regions: readonly Region[];
  /** Bytes of the whole stream. */
  readonly bytes: number;
}

/** Reads the index; `undefined` when the stream has none, or ends in something else than a footer. */
export async function readIndexMap(access: FrameAccess, byteLength: number): Promise<StreamMap | undefined> {
  const footerOffset = byteLength - footerBytes;
  if (footerOffset < streamHeaderBytes + frameBytes(endPayloadBytes)) return undefined;
  const footerAt = await access.bytes(footerOffset, footerBytes);
  if (!hasFooterMagic(footerAt)) return undefined;
  const footer = decodeFooter(footerAt, footerOffset, access.digest);
  const frame = await access.frame(footer.endOffset);
  if (frame.header.type !== frameTypes.end) throw illegalFrame(frame, 'where the footer has END');
  const end = decodeEnd(frame);
  const indexOffset = frame.offset + frame.byteCount;
  checkFooter(footer, {
    endOffset: frame.offset,
    indexOffset,
    indexBytes: footerOffset - indexOffset,
    uuid: access.uuid,
    streamBytes: byteLength,
  });
  checkEqual(end.tailBytes, byteLength - indexOffset, 'bytes behind END', placeOf(frame));
  const document = parseIndexDocument(
    await readDocument(access, frame, footerOffset),
    frame.offset,
    placeOf(frame),
  );
  checkCounts(document.contexts, end, placeOf(frame));
  const memory = document.contexts.find((context) => context.kind === 'memory');
  const regions = memory === undefined ? [] : await readRegions(access, memory.offset);
  return { ...document, end, regions, bytes: byteLength };
}

/** Throws `CHKPT_FORMAT` when END counts other contexts or tags. */
export function checkCounts(contexts: readonly IndexContext[], end: EndRecord, place: Place): void {
  checkEqual(contexts.length, end.counts.contexts, 'number of contexts in the index', place);
  const tags = contexts.reduce((count, context) => count + context.tags.length, 0);
  checkEqual(tags, end.counts.tags, 'number of tags in the index', place);
}

/** The region table behind the CONTEXT_OPEN frame at `offset`. */
export async function readRegions(access: FrameAccess, offset: number): Promise<readonly Region[]> {
  const open = await access.frameHeader(offset);
  if (open.type !== frameTypes.contextOpen)
    throw illegalFrame({ header: open, offset }, 'where a context begins');
  const frame = await access.frame(offset + frameBytes(open.payloadBytes), open.sequence + 1);
  if (frame.header.type !== frameTypes.regionTable) throw illegalFrame(frame, 'in place of a region table');
  return decodeRegionTable(frame.header, frame.payload, placeOf(frame));
}

async function readDocument(access: FrameAccess, end: Frame, footerOffset: number): Promise<Uint8Array> {
  let { sequence } = end.header;
  let offset = end.offset + end.byteCount;
  let document: GrowingBytes | undefined;
  let documentBytes = 0;
  do {
    sequence += 1;
    const frame = await access.frame(offset, sequence);
    const place = placeOf(frame);
    if (frame.header.type !== frameTypes.index) throw illegalFrame(frame, 'behind END');
    if (document === undefined) {
      documentBytes = Math.min(toCount(frame.header.arg1, 'length of the index', place), indexBytesMax);
      document = new GrowingBytes(documentBytes);
    }
    checkEqual(frame.header.arg1, documentBytes, 'length of the index', place);
    checkEqual(frame.header.arg0, document.length, 'place of a piece of the index', place);
    const expected = pieceBytes(documentBytes, document.length);
    checkEqual(frame.payload.length, expected, 'length of a piece of the index', place);
    document.append(frame.payload);
    offset += frame.byteCount;
  } while (!document.isComplete);
  checkEqual(offset, footerOffset, 'end of the index', { frame: sequence, offset });
  return document.take();
}
