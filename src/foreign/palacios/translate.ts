/**
 * Between checkpoints of chkpt and contexts of an original. What came from an original becomes what it was, byte for byte; of others an
 * original gets what it has a place for, and the whole stands beside it (`beside.ts`). docs/palacios.md has the mapping.
 */
import { CheckpointError } from '../../errors/index.ts';
import { formatError } from '../../format/bytes.ts';
import { memoryBytesMax } from '../../limits.ts';
import type { Integrity } from '../../store/index.ts';
import type { ForeignContent, ForeignContext } from '../foreign-format.ts';
import {
  besideContext,
  besideSchema,
  contentBeside,
  decodeBeside,
  encodeBeside,
  isBeside,
} from './beside.ts';
import { checkContext } from './check-context.ts';
import { encodeDeviceTable } from './device-table.ts';
import { encodeGuestInfo } from './guest-info.ts';
import { blockBytesDefault, blocksFor, type ImageBlocks, imageBytes } from './image-layout.ts';
import { contentOfOriginal, type Original, originalOf } from './original.ts';
import type { PalaciosContext } from './record.ts';
import { devicesContext, headerContext, headerTexts, memoryImageContext } from './schema.ts';

/** A checkpoint that was read, and what is known of its memory. */
export interface TranslatedContent extends ForeignContent {
  readonly integrity: Integrity;
  /** `GuestMemory.digest` of memory, where it was kept. */
  readonly memoryDigest: bigint | undefined;
}

/** The contexts that are written, in the order of a stream. `blockBytes`: of memory that came from no original. */
export function toPalacios(
  content: ForeignContent,
  memoryDigest: bigint | undefined,
  blockBytes: number = blockBytesDefault,
): Original {
  const original = originalOf(content);
  if (original !== undefined) return original;
  const blocks =
    content.memory === undefined ? undefined : blocksFor(endOf(content.memory.regions), blockBytes);
  return { contexts: [...knownContexts(content), ...encodeBeside(content, memoryDigest)], blocks };
}

/** Bytes of a block as contexts say that stand before memory: those of the original that they came from. */
export function blockBytesIn(contexts: readonly ForeignContext[] | undefined): number | undefined {
  const image = contexts?.find(({ name }) => name === memoryImageContext);
  const data = image?.tags.find(({ name, type }) => name === 'region_size' && type === 'bytes')?.data;
  if (data?.length !== 8) return undefined;
  const bytes = new DataView(data.buffer, data.byteOffset, 8).getBigUint64(0, true);
  return bytes >= 4096n && bytes % 4096n === 0n && bytes <= memoryBytesMax ? Number(bytes) : undefined;
}

/** Throws `CHKPT_UNSUPPORTED` when memory was written in other blocks than the original had that it came from. */
export function checkBlocks(
  blocks: ImageBlocks | undefined,
  written: ImageBlocks | undefined,
  store: string,
): void {
  if (blocks?.blockBytes === written?.blockBytes) return;
  const what = `memory had blocks of ${blocks?.blockBytes} bytes, which was told behind it: give them as blockBytes`;
  throw new CheckpointError('CHKPT_UNSUPPORTED', what, { details: { store } });
}

/** What an original has a place for: no device of chkpt has the state of one of its own. */
function knownContexts({ contexts }: ForeignContent): PalaciosContext[] {
  const find = (name: string): ForeignContext | undefined =>
    contexts.find((context) => context.name === name);
  const vendor = find(headerContext)?.tags.find(({ name }) => name === 'cpu.vendor')?.data;
  const text = Buffer.from(vendor ?? []).toString() === 'GenuineIntel' ? headerTexts.VMX : headerTexts.SVM;
  return [
    ...(find(devicesContext) === undefined ? [] : [encodeDeviceTable([])]),
    { name: headerContext, records: [{ tag: 'header', data: Buffer.from(text) }] },
    ...guestInfos(find),
  ];
}

/** Of all cores, or of none. */
function guestInfos(find: (name: string) => ForeignContext | undefined): PalaciosContext[] {
  const infos: PalaciosContext[] = [];
  for (let core = find('core0'); core !== undefined; core = find(`core${infos.length}`)) {
    const tags = [...core.tags, ...(find(`${core.name}.arch`)?.tags ?? [])];
    const values = new Map(tags.map(({ name, data }) => [name, data]));
    const info = encodeGuestInfo(infos.length, (tag) => values.get(tag));
    if (info === undefined) return [];
    infos.push(info);
  }
  return infos;
}

/** The checkpoint in these contexts. Throws errors of kind `damaged`, `CHKPT_VERSION`. `sample`: see `contentOfOriginal`. */
export function fromPalacios(original: Original, sample: Uint8Array): TranslatedContent {
  const names = new Set<string>();
  for (const { name } of original.contexts) {
    if (names.has(name)) throw formatError('a context comes twice', { context: name });
    names.add(name);
  }
  const index = original.contexts.find(({ name }) => name === besideContext);
  if (index === undefined) {
    const orphan = original.contexts.find(({ name }) => isBeside(name));
    if (orphan !== undefined) throw formatError('the context chkpt is missing', { context: orphan.name });
    return { ...contentOfOriginal(original, sample), integrity: 'none', memoryDigest: undefined };
  }
  checkContext(index, besideSchema(index.records[1]?.data.length ?? 0));
  const content = contentBeside(decodeBeside(index), original.contexts);
  checkKnown(content, original);
  return { ...content, integrity: 'detect' };
}

/** What an original would load must be what chkpt loads. */
function checkKnown(content: ForeignContent, { contexts, blocks }: Original): void {
  const known = contexts.filter(({ name }) => !isBeside(name));
  const expected = new Map(knownContexts(content).map((context) => [context.name, context]));
  const wrong = known.find((context) => !isEqual(context, expected.get(context.name)));
  if (wrong !== undefined || known.length !== expected.size) {
    throw new CheckpointError('CHKPT_DIGEST', 'what an original reads is not what stands beside it', {
      details: { context: wrong?.name },
    });
  }
  const end = content.memory === undefined ? 0n : endOf(content.memory.regions);
  const isThere = blocks === undefined ? content.memory === undefined : content.memory !== undefined;
  if (!isThere || (blocks !== undefined && BigInt(imageBytes(blocks)) < end)) {
    throw formatError('memory is not what stands beside it', { context: besideContext });
  }
}

function isEqual(left: PalaciosContext, right: PalaciosContext | undefined): boolean {
  return (
    right !== undefined &&
    left.records.length === right.records.length &&
    left.records.every(({ tag, data }, index) => {
      const other = right.records[index];
      return other?.tag === tag && Buffer.compare(data, other.data) === 0;
    })
  );
}

function endOf(regions: readonly { readonly base: bigint; readonly bytes: bigint }[]): bigint {
  return regions.reduce((end, { base, bytes }) => (base + bytes > end ? base + bytes : end), 0n);
}
