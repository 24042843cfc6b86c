/**
 * What is in a checkpoint, without reading its guest memory where the store has random access: footer → END →
 * index, tags on demand. Without an index the frames are hopped over from the first one on; without random
 * access the stream is read once as a whole, and its values are kept.
 *
 * Everything that is looked at is verified and bound to its place, but only a whole read (`verified`) proves
 * that nothing else is damaged. Calls come one at a time. The reader stays the caller's.
 */
import { CheckpointError, withDetails } from '../errors/index.ts';
import type { EndCounts } from '../format/end.ts';
import type { IndexContext, IndexTag } from '../format/index-document.ts';
import type { PageGroup } from '../format/page-sequence.ts';
import type { Region } from '../format/region-table.ts';
import type { StreamHeader } from '../format/stream-header.ts';
import { hexOf } from '../format/uuid.ts';
import { decodeValue, type TypedValue } from '../format/value.ts';
import type { Integrity, StoredShares, StoreReader } from '../store/store.ts';
import { FrameAccess, type ReadAt } from './frame-access.ts';
import { readIndexMap } from './inspect-index.ts';
import { scanMap } from './inspect-scan.ts';
import type { MemoryFrameSink } from './memory-frames.ts';
import { skipMemorySink } from './portable-sink.ts';
import { StreamReader, type StreamReaderOptions, type StreamSummary } from './stream-reader.ts';

/** How the facts were found. */
export type InspectionSource = 'index' | 'scan' | 'read';

export interface Inspection {
  readonly source: InspectionSource;
  /** True when every byte of the stream was read and verified. */
  readonly verified: boolean;
  /** What it is worth that no error was found. */
  readonly integrity: Integrity;
  /** Bytes that it takes in the store, where it shares some with other checkpoints. */
  readonly shares?: StoredShares | undefined;
  readonly header: StreamHeader;
  /** Root digest as END states it, hexadecimal. */
  readonly root: string;
  readonly counts: EndCounts;
  /** Bytes of the whole stream. */
  readonly bytes: number;
  /** In stream order, with their tags. */
  readonly contexts: readonly IndexContext[];
  /** Regions of guest memory; empty when the checkpoint has none. */
  readonly regions: readonly Region[];
  readonly groups: readonly PageGroup[];
  /** Reads one value. Throws `CHKPT_NO_CONTEXT`, `CHKPT_NO_TAG`, errors of kind `damaged`. */
  readTag(context: string, tag: string): Promise<TypedValue>;
  /** The same, as the bytes that stand in the stream. */
  readBytes(context: string, tag: string): Promise<Uint8Array>;
}

type Found = Omit<Inspection, 'integrity' | 'shares'>;

/** Throws every error of kind `damaged`, `CHKPT_VERSION`, and the store's. */
export async function inspectStream(reader: StoreReader, options: StreamReaderOptions): Promise<Inspection> {
  try {
    const readAt = reader.readAt?.bind(reader);
    const found =
      readAt === undefined
        ? await inspectByReading(reader, options)
        : await inspectByAccess(readAt, reader.byteLength, options);
    return { ...found, integrity: reader.integrity ?? 'detect', shares: await reader.shares?.() };
  } catch (error) {
    throw withDetails(error, { store: options.store });
  }
}

async function inspectByAccess(
  readAt: ReadAt,
  byteLength: number | undefined,
  options: StreamReaderOptions,
): Promise<Found> {
  const access = await FrameAccess.open(readAt, options);
  const indexed = byteLength === undefined ? undefined : await readIndexMap(access, byteLength);
  const { end, contexts, regions, groups, bytes } = indexed ?? (await scanMap(access, byteLength));
  return {
    source: indexed === undefined ? 'scan' : 'index',
    verified: false,
    header: access.header,
    root: hexOf(end.root),
    counts: end.counts,
    bytes,
    contexts,
    regions,
    groups,
    ...valueReaders(contexts, options.store, (tag) => access.value(tag)),
  };
}

interface ReadContext extends IndexContext {
  readonly tags: IndexTag[];
}

async function inspectByReading(reader: StoreReader, options: StreamReaderOptions): Promise<Found> {
  const stream = new StreamReader(reader, options);
  const contexts: ReadContext[] = [];
  const values = new Map<IndexTag, Uint8Array>();
  let regions: readonly Region[] = [];
  let groups: readonly PageGroup[] = [];
  let summary: StreamSummary | undefined;
  for await (const item of stream) {
    if (item.kind === 'end') summary = item.summary;
    else if (item.kind === 'context-open') {
      const { name, contextKind: kind, offset } = item;
      contexts.push({ name, kind, offset, tags: [] });
      if (kind !== 'memory') continue;
      regions = item.regions;
      await stream.readMemory(tellGroups(skipMemorySink(options.digest), (found) => (groups = found)));
    } else if (item.kind === 'tag') {
      const tag = { name: item.name, type: item.type, dataBytes: item.data.length, offset: item.offset };
      contexts.at(-1)?.tags.push(tag);
      values.set(tag, item.data);
    }
  }
  if (summary === undefined) throw new TypeError('a stream ends with END');
  const { header, root, counts, bytes } = summary;
  const readers = valueReaders(
    contexts,
    options.store,
    async (tag) => values.get(tag)?.slice() ?? new Uint8Array(),
  );
  return {
    source: 'read',
    verified: true,
    header,
    root,
    counts,
    bytes,
    contexts,
    regions,
    groups,
    ...readers,
  };
}

function valueReaders(
  contexts: readonly IndexContext[],
  store: string | undefined,
  read: (tag: IndexTag) => Promise<Uint8Array>,
): Pick<Inspection, 'readTag' | 'readBytes'> {
  const readFound = async (found: IndexTag, context: string): Promise<Uint8Array> => {
    try {
      return await read(found);
    } catch (error) {
      throw withDetails(error, { store, context });
    }
  };
  return {
    async readTag(context, tag) {
      const found = findTag(contexts, context, tag, store);
      return decodeValue(found.type, await readFound(found, context));
    },
    async readBytes(context, tag) {
      return await readFound(findTag(contexts, context, tag, store), context);
    },
  };
}

function tellGroups(sink: MemoryFrameSink, tell: (groups: readonly PageGroup[]) => void): MemoryFrameSink {
  return {
    async consume(...parameters) {
      const result = await sink.consume(...parameters);
      tell(result.groups ?? []);
      return result;
    },
  };
}

function findTag(
  contexts: readonly IndexContext[],
  context: string,
  tag: string,
  store: string | undefined,
): IndexTag {
  const found = contexts.find(({ name }) => name === context);
  if (found === undefined) {
    throw new CheckpointError('CHKPT_NO_CONTEXT', 'no such context', { details: { store, context, tag } });
  }
  const value = found.tags.find(({ name }) => name === tag);
  if (value !== undefined) return value;
  throw new CheckpointError('CHKPT_NO_TAG', 'no such tag', { details: { store, context, tag } });
}
