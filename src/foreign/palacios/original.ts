/**
 * A checkpoint of an original as chkpt sees it. Its contexts keep their names and tags, as bytes; beside them stands what chkpt tells of
 * any machine (docs/format.md section 11), derived from what is there:
 *
 *     header       header (the original's text), then producer, region table, number of cores, vendor, …
 *     memory_img   region_size, num_regions; the blocks are the memory context `memory`, one region from address 0
 *     devices      num_devs, names, then the device table of chkpt
 *     …            contexts of devices, then guest_info<N>, vmcb_data<N>, vmcs_data<N>, as they come
 */
import { createHash } from 'node:crypto';
import { CheckpointError } from '../../errors/index.ts';
import { formatError } from '../../format/bytes.ts';
import { encodeUnknown, type ValueType } from '../../format/value.ts';
import { pageBytes } from '../../limits.ts';
import type { ForeignContent, ForeignContext, ForeignTag } from '../foreign-format.ts';
import { isBeside } from './beside.ts';
import { checkContext, kindOfContext } from './check-context.ts';
import { decodeDeviceTable } from './device-table.ts';
import { decodeImageHead, encodeImageHead, type ImageBlocks, imageBytes } from './image-layout.ts';
import type { PalaciosContext, PalaciosRecord } from './record.ts';
import {
  devicesContext,
  devicesSchema,
  headerContext,
  headerTexts,
  memoryImageContext,
  memoryImageSchema,
  schemaOfContext,
} from './schema.ts';

/** Of an original, without the blocks of its memory. */
export interface Original {
  /** All but `memory_img`, in the order of the stream. */
  readonly contexts: readonly PalaciosContext[];
  readonly blocks: ImageBlocks | undefined;
}

const memoryContext = 'memory';
const vendors = { SVM: 'AuthenticAMD', VMX: 'GenuineIntel' } as const;
const corePattern = /^(?:guest_info|vmcb_data|vmcs_data)(0|[1-9][0-9]*)$/;

/**
 * What chkpt makes of it. Throws `CHKPT_FORMAT`, `CHKPT_TRUNCATED`, `CHKPT_TRAILING_DATA`, `CHKPT_LIMIT` where it is none. `sample` is
 * some of the memory, for the identity: the same files give the same.
 */
export function contentOfOriginal(original: Original, sample: Uint8Array): ForeignContent {
  const contexts = nativeContexts(original);
  const { blocks } = original;
  const regions = blocks === undefined ? undefined : [{ base: 0n, bytes: BigInt(imageBytes(blocks)) }];
  return {
    uuid: uuidOf(contexts, sample),
    createdMs: 0,
    contexts,
    memory: regions === undefined ? undefined : { name: memoryContext, at: contexts.length, regions },
  };
}

/** The original that `contentOfOriginal` made this of; `undefined` when it made it of none. */
export function originalOf({ contexts, memory }: ForeignContent): Original | undefined {
  // Names that would be taken for what chkpt adds.
  if (contexts.some(({ name }) => isBeside(name))) return undefined;
  const own = contexts.filter(({ name }) => name !== memoryImageContext).map(ownRecords);
  const image = contexts.find(({ name }) => name === memoryImageContext);
  if ((image === undefined) !== (memory === undefined)) return undefined;
  try {
    const head = image === undefined ? undefined : ownRecords(image);
    if (head !== undefined) checkContext(head, memoryImageSchema);
    const blocks = head === undefined ? undefined : decodeImageHead(head.records);
    const original = { contexts: inStreamOrder(own), blocks };
    const again = contentOfOriginal(original, new Uint8Array());
    const isSame = isEqualContent(again, contexts, memory);
    return isSame ? original : undefined;
  } catch (error) {
    if (error instanceof CheckpointError) return undefined;
    throw error;
  }
}

/** Tags that are bytes: those that chkpt adds never are. */
function ownRecords({ name, tags }: ForeignContext): PalaciosContext {
  const records = tags
    .filter(({ type }) => type === 'bytes')
    .map(({ name: tag, data }): PalaciosRecord => ({ tag, data }));
  return { name, records };
}

/** Devices, header, cores: the header comes third in the stream. */
function inStreamOrder(contexts: readonly PalaciosContext[]): PalaciosContext[] {
  const header = contexts.filter(({ name }) => name === headerContext);
  const cores = contexts.filter(({ name }) => corePattern.test(name));
  const devices = contexts.filter((context) => !header.includes(context) && !cores.includes(context));
  return [...devices, ...header, ...cores];
}

function isEqualContent(
  again: ForeignContent,
  contexts: readonly ForeignContext[],
  memory: ForeignContent['memory'],
): boolean {
  const sameTags = (left: readonly ForeignTag[], right: readonly ForeignTag[]): boolean =>
    left.length === right.length &&
    left.every(({ name, type, data }, index) => {
      const other = right[index];
      return other?.name === name && other.type === type && Buffer.compare(data, other.data) === 0;
    });
  const sameContexts =
    contexts.length === again.contexts.length &&
    again.contexts.every(({ name, tags }, index) => {
      const other = contexts[index];
      return other?.name === name && sameTags(tags, other.tags);
    });
  if (!sameContexts || again.memory === undefined || memory === undefined) {
    return sameContexts && again.memory === memory;
  }
  const [region, ...more] = memory.regions;
  return (
    memory.name === again.memory.name &&
    memory.at === again.memory.at &&
    more.length === 0 &&
    region?.base === 0n &&
    region.bytes === again.memory.regions[0]?.bytes
  );
}

function nativeContexts({ contexts, blocks }: Original): ForeignContext[] {
  const names = new Set(contexts.map(({ name }) => name));
  if (names.size !== contexts.length) throw formatError('a context comes twice', {});
  for (const reserved of [memoryContext, memoryImageContext]) {
    if (names.has(reserved)) throw formatError('a context with the name of memory', { context: reserved });
  }
  const find = (name: string): PalaciosContext | undefined =>
    contexts.find((context) => context.name === name);
  const header = find(headerContext);
  if (header === undefined) throw formatError('the context header is missing', { context: headerContext });
  const cores = checkCores(contexts);
  const table = find(devicesContext);
  const ofDevices = contexts.filter(
    ({ name }) => name !== headerContext && name !== devicesContext && !corePattern.test(name),
  );
  const devices = table === undefined ? undefined : checkDevices(table, ofDevices);
  // What an older save has left behind a record has a better name than that.
  for (const context of contexts) checkTagsOnce(context);
  const skipped = (blocks === undefined ? 1 : 0) + (devices === undefined ? 2 : 0) + cores.skipped;
  return [
    withTags(header, headerTags(header, { blocks, skipped, coreCount: cores.count })),
    ...(blocks === undefined
      ? []
      : [withTags({ name: memoryImageContext, records: encodeImageHead(blocks) }, [])]),
    ...(table === undefined ? [] : [withTags(table, tableTags(devices ?? []))]),
    ...ofDevices.map((context) => withTags(context, [])),
    ...contexts.filter(({ name }) => corePattern.test(name)).map((context) => withTags(context, [])),
  ];
}

type Added = readonly [tag: string, type: ValueType, value: unknown];

function withTags({ name, records }: PalaciosContext, added: readonly Added[]): ForeignContext {
  return {
    name,
    tags: [
      ...records.map(({ tag, data }): ForeignTag => ({ name: tag, type: 'bytes', data })),
      ...added.map(
        ([tag, type, value]): ForeignTag => ({ name: tag, type, data: encodeUnknown(type, value, {}) }),
      ),
    ],
  };
}

function checkTagsOnce({ name, records }: PalaciosContext): void {
  const tags = new Set<string>();
  for (const { tag } of records) {
    if (tags.has(tag)) throw formatError('a tag comes twice', { context: name, tag });
    tags.add(tag);
  }
}

/** Throws unless each core's state is whole and they are numbered from 0. */
function checkCores(contexts: readonly PalaciosContext[]): {
  readonly count: number;
  readonly skipped: number;
} {
  const cores = contexts.filter(({ name }) => corePattern.test(name));
  for (const context of cores) checkContext(context, schemaOfContext(context.name) ?? []);
  const names = new Set(cores.map(({ name }) => name));
  let count = 0;
  while (names.has(`guest_info${count}`)) count += 1;
  let known = 0;
  for (let index = 0; index < count; index += 1) {
    for (const part of ['guest_info', 'vmcb_data', 'vmcs_data']) if (names.has(`${part}${index}`)) known += 1;
  }
  if (known !== cores.length)
    throw formatError('the state of a core is missing', { context: `guest_info${count}` });
  if (count === 0) return { count, skipped: 4 };
  return { count, skipped: known === count ? 8 : 0 };
}

function headerTags(
  header: PalaciosContext,
  facts: { readonly blocks: ImageBlocks | undefined; readonly skipped: number; readonly coreCount: number },
): Added[] {
  checkContext(header, schemaOfContext(headerContext) ?? []);
  const text = Buffer.from(header.records[0]?.data ?? []).toString('latin1');
  const vendor = (Object.keys(headerTexts) as (keyof typeof headerTexts)[]).find(
    (key) => headerTexts[key] === text,
  );
  if (vendor === undefined)
    throw formatError('no header of Palacios', { context: headerContext, tag: 'header' });
  const bytes = facts.blocks === undefined ? [] : [BigInt(imageBytes(facts.blocks))];
  return [
    ['producer', 'string', text],
    ['vm.id', 'string', ''],
    ['options.skip', 'u32', facts.skipped],
    ['page.bytes', 'u32', pageBytes],
    ['region.base', 'u64[]', BigUint64Array.from(bytes, () => 0n)],
    ['region.bytes', 'u64[]', BigUint64Array.from(bytes)],
    ['core.count', 'u32', facts.coreCount],
    ['cpu.vendor', 'string', vendors[vendor]],
    ['cpu.model', 'string', ''],
  ];
}

interface DeviceRow {
  readonly id: string;
  readonly kind: string;
  readonly contexts: readonly string[];
}

/** The devices of the table, then those that are saved and not in it: PCI and IDE, which an original never loads. */
function checkDevices(table: PalaciosContext, contexts: readonly PalaciosContext[]): DeviceRow[] {
  checkContext(table, devicesSchema(Math.floor((table.records[1]?.data.length ?? 0) / 32)));
  const ids = decodeDeviceTable(table.records);
  const kinds = new Map(contexts.map((context) => [context.name, kindOfContext(context) ?? '']));
  const rows = ids.map((id): DeviceRow => {
    const kind = kinds.get(id);
    if (kind === undefined) throw formatError('a device of the table has no context', { context: id });
    kinds.delete(id);
    return { id, kind: kindName(kind), contexts: [id] };
  });
  const others = new Map<string, DeviceRow>();
  for (const [name, kind] of kinds) {
    const owner = ownerOf(name, others);
    if (owner === undefined) others.set(name, { id: name, kind: kindName(kind), contexts: [name] });
    else
      others.set(owner.id, {
        ...owner,
        kind: ownerKind(owner.kind, kind),
        contexts: [...owner.contexts, name],
      });
  }
  return [...rows, ...others.values()];
}

/** The device of a context `<id>-<channel>`, `<id>-<channel>-<drive>` or `<id>-<bus>.<device>-<function>`. */
function ownerOf(name: string, devices: ReadonlyMap<string, DeviceRow>): DeviceRow | undefined {
  const [, id] = /^(.*?)-[0-9]+(?:-[0-9]+|\.[0-9]+-[0-9]+)?$/.exec(name) ?? [];
  return id === undefined ? undefined : devices.get(id);
}

const kindName = (kind: string): string => (kind === 'no state' ? '' : kind);

/** An IDE controller has no state of its own. */
function ownerKind(own: string, part: string): string {
  return own === '' && part.startsWith('IDE') ? 'IDE' : own;
}

function tableTags(devices: readonly DeviceRow[]): Added[] {
  return [
    ['count', 'u32', devices.length],
    ...devices.flatMap(({ id, kind, contexts }, index): Added[] => [
      [`device.${index}.id`, 'string', id],
      [`device.${index}.class`, 'string', kind],
      [`device.${index}.contexts`, 'u32', contexts.length],
      ...contexts.map((name, part): Added => [`device.${index}.context.${part}`, 'string', name]),
    ]),
  ];
}

/** A UUID of version 8: bits of a digest. */
function uuidOf(contexts: readonly ForeignContext[], sample: Uint8Array): string {
  const hash = createHash('sha256');
  for (const { name, tags } of contexts) {
    for (const { name: tag, data } of tags) {
      hash.update(JSON.stringify([name, tag, data.length]));
      hash.update(data);
    }
  }
  const hex = hash.update(sample).digest('hex');
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-8${hex.slice(13, 16)}-a${hex.slice(17, 20)}-${hex.slice(20, 32)}`;
}
