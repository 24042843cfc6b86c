/**
 * The same without an index: hops from frame header to frame header, and reads payloads only of the frames
 * that name something. Payloads of guest memory and further pieces of values are passed over unread.
 */
import { CheckpointError } from '../errors/index.ts';
import { checkEqual, checkLimit, formatError, type Place, toCount } from '../format/bytes.ts';
import {
  type ContextKind,
  footerBytes,
  frameTypes,
  isUnknownOptionalType,
  streamHeaderBytes,
} from '../format/constants.ts';
import { decodeEnd, type EndRecord } from '../format/end.ts';
import { decodeFooter } from '../format/footer.ts';
import { type FrameHeader, frameBytes } from '../format/frame-header.ts';
import { contextKindOf, illegalFrame } from '../format/frame-order.ts';
import type { IndexContext, IndexTag } from '../format/index-document.ts';
import { decodeName } from '../format/names.ts';
import { isPageFrameType, type PageGroup } from '../format/page-sequence.ts';
import { decodeRegionTable, type Region } from '../format/region-table.ts';
import { parseTagFrame, pieceBytes } from '../format/tag-frame.ts';
import { contextCountMax, tagCountMax } from '../limits.ts';
import type { FrameAccess } from './frame-access.ts';
import { checkCounts, type StreamMap } from './inspect-index.ts';

interface ScannedContext extends IndexContext {
  readonly kind: ContextKind;
  readonly tags: IndexTag[];
}

/** Hops through the whole stream. `byteLength`: bytes of the stream, when the store knows. */
export async function scanMap(access: FrameAccess, byteLength: number | undefined): Promise<StreamMap> {
  const scan = new Scan(access);
  const end = await scan.run();
  await checkTail(access, end, scan.offset, byteLength);
  return { ...scan.found, end, bytes: scan.offset + end.tailBytes };
}

class Scan {
  readonly #access: FrameAccess;
  readonly #contexts: ScannedContext[] = [];
  readonly #names = new Set<string>();
  readonly #groups: PageGroup[] = [];
  #regions: readonly Region[] = [];
  #open: ScannedContext | undefined;
  #tagCount = 0;
  #sequence = 0;
  #offset = streamHeaderBytes;

  constructor(access: FrameAccess) {
    this.#access = access;
  }

  /** Offset of the next frame. */
  get offset(): number {
    return this.#offset;
  }

  get found(): Pick<StreamMap, 'contexts' | 'groups' | 'regions'> {
    return { contexts: this.#contexts, groups: this.#groups, regions: this.#regions };
  }

  async run(): Promise<EndRecord> {
    for (;;) {
      const header = await this.#access.frameHeader(this.#offset, this.#sequence);
      if (header.type === frameTypes.end) return await this.#finish(header);
      await this.#visit(header);
    }
  }

  async #visit(header: FrameHeader): Promise<void> {
    const placed = { header, offset: this.#offset };
    const open = this.#open;
    if (isUnknownOptionalType(header.type)) return this.#pass(header);
    if (open === undefined) {
      if (header.type !== frameTypes.contextOpen) throw illegalFrame(placed, 'between contexts');
      return await this.#openContext();
    }
    if (header.type === frameTypes.contextClose) {
      this.#open = undefined;
      return this.#pass(header);
    }
    if (open.kind === 'values') {
      if (header.type !== frameTypes.tag) throw illegalFrame(placed, 'in a value context');
      return await this.#addTag(open);
    }
    if (!isPageFrameType(header.type)) throw illegalFrame(placed, 'in a memory context');
    if (header.type === frameTypes.blockIndex) this.#addGroup(header);
    this.#pass(header);
  }

  async #openContext(): Promise<void> {
    const frame = await this.#access.frame(this.#offset, this.#sequence);
    const { offset } = frame;
    const place = this.#place();
    const name = decodeName(frame.payload, place);
    const kind = contextKindOf(frame);
    if (this.#names.has(name)) throw formatError(`context ${name} stands twice`, place);
    checkLimit(this.#contexts.length + 1, contextCountMax, 'the number of contexts', place);
    this.#names.add(name);
    this.#open = { name, kind, offset, tags: [] };
    this.#contexts.push(this.#open);
    this.#pass(frame.header);
    if (kind === 'memory') await this.#readRegions();
  }

  async #readRegions(): Promise<void> {
    if (this.#regions.length > 0) throw formatError('a second memory context', this.#place());
    const frame = await this.#access.frame(this.#offset, this.#sequence);
    if (frame.header.type !== frameTypes.regionTable) throw illegalFrame(frame, 'in place of a region table');
    this.#regions = decodeRegionTable(frame.header, frame.payload, this.#place());
    this.#pass(frame.header);
  }

  async #addTag(context: ScannedContext): Promise<void> {
    const frame = await this.#access.frame(this.#offset, this.#sequence);
    const { tag, type, dataBytes } = parseTagFrame(frame);
    this.#tagCount += 1;
    checkLimit(this.#tagCount, tagCountMax, 'the number of tags', this.#place());
    context.tags.push({ name: tag, type, dataBytes, offset: frame.offset });
    this.#pass(frame.header);
    for (let at = pieceBytes(dataBytes, 0); at < dataBytes; ) {
      const more = await this.#access.frameHeader(this.#offset, this.#sequence);
      if (more.type !== frameTypes.tagMore) {
        throw illegalFrame({ header: more, offset: this.#offset }, 'inside a value');
      }
      checkEqual(more.payloadBytes, pieceBytes(dataBytes, at), 'length of a piece of a value', this.#place());
      at += more.payloadBytes;
      this.#pass(more);
    }
  }

  #addGroup(header: FrameHeader): void {
    const place = this.#place();
    const firstPage = toCount(header.arg0, 'first page of a group', place);
    const pageCount = toCount(header.arg1, 'page count of a group', place);
    this.#groups.push({ firstPage, pageCount, offset: this.#offset });
  }

  async #finish(header: FrameHeader): Promise<EndRecord> {
    if (this.#open !== undefined) throw illegalFrame({ header, offset: this.#offset }, 'inside a context');
    const frame = await this.#access.frame(this.#offset, this.#sequence);
    const end = decodeEnd(frame);
    checkCounts(this.#contexts, end, this.#place());
    this.#pass(header);
    return end;
  }

  #pass(header: FrameHeader): void {
    this.#offset += frameBytes(header.payloadBytes);
    this.#sequence += 1;
  }

  #place(): Place {
    return { frame: this.#sequence, offset: this.#offset };
  }
}

/** The stream must end where END says, with a footer when it says so. */
async function checkTail(
  access: FrameAccess,
  end: EndRecord,
  tailOffset: number,
  byteLength: number | undefined,
): Promise<void> {
  const streamBytes = tailOffset + end.tailBytes;
  if (byteLength !== undefined ? byteLength > streamBytes : await access.hasByteAt(streamBytes)) {
    throw new CheckpointError('CHKPT_TRAILING_DATA', 'bytes follow the end of the checkpoint', {
      details: { offset: streamBytes },
    });
  }
  if (end.tailBytes === 0) return;
  const footerOffset = streamBytes - footerBytes;
  decodeFooter(await access.bytes(footerOffset, footerBytes), footerOffset, access.digest);
}
