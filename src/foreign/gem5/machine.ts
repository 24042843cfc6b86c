/**
 * The sections that gem5 itself reads of a machine of which nothing is known but its memory, and what a checkpoint of gem5 says of its
 * memory. docs/gem5.md has the keys.
 */
import type { MemoryRegion } from '../../context/memory-frames.ts';
import { CheckpointError, type ErrorDetails } from '../../errors/index.ts';
import { memoryBytesMax, pageBytes, regionCountMax } from '../../limits.ts';
import type { PageRange } from '../../memory/index.ts';
import { IniDocument, type IniSection } from './ini.ts';
import { joinList, SectionReader } from './values.ts';
import { versionTags } from './version-tags.ts';

/** One memory store: a range of memory in a file of its own. */
export interface MemoryStore {
  /** Base name of the file. */
  readonly file: string;
  readonly bytes: bigint;
}

/** Where the memory of a PC goes on above its hole, and how much is below. */
const aboveHole = 4n << 30n;
const belowHole = 3n << 30n;
const u32Max = 0xffff_ffff;

/** A file base name: neither hidden nor a path. */
const fileNamePattern = /^[A-Za-z0-9_][A-Za-z0-9_.+-]{0,199}$/;

/** The least document that gem5 reads memory from. `createdMs` 0: not known. */
export function bareMachine(system: string, createdMs: number): IniDocument {
  const document = new IniDocument([`## checkpoint generated: ${timeText(createdMs)}`]);
  document.add('root').set('FullSystem', 'true');
  const globals = document.add('root.globals');
  globals.set('curTick', '0');
  globals.set('version_tags', joinList(versionTags));
  document.add(system).set('quiesceEndTick_0', '0');
  return document;
}

/** Adds the memory of a machine: the stores in ascending order of their addresses. */
export function addMemory(document: IniDocument, system: string, stores: readonly MemoryStore[]): void {
  const memory = document.add(`${system}.physmem`);
  memory.set('lal_addr', '');
  memory.set('lal_cid', '');
  memory.set('nbr_of_stores', `${stores.length}`);
  for (const [index, { file, bytes }] of stores.entries()) {
    const store = document.add(storeSection(`${system}.physmem`, index));
    store.set('store_id', `${index}`);
    store.set('filename', file);
    store.set('range_size', `${bytes}`);
  }
}

/** Which section holds the memory; `undefined` when none does. `system`: of which machine, when there are several. */
export function memorySection(
  document: IniDocument,
  system: string | undefined,
  details: ErrorDetails,
): IniSection | undefined {
  const found = [...document.sections].filter((section) => section.get('nbr_of_stores') !== undefined);
  const chosen = system === undefined ? found : found.filter(({ name }) => name.startsWith(`${system}.`));
  if (chosen.length > 1) {
    const what = `there are several machines (${chosen.map(({ name }) => name).join(' ')}): say which, ?system=NAME`;
    throw new CheckpointError('CHKPT_UNSUPPORTED', what, { details });
  }
  return chosen[0];
}

/** The stores of a memory section in the order of the machine's ranges. Throws `CHKPT_FORMAT`. */
export function readStores(document: IniDocument, memory: IniSection, details: ErrorDetails): MemoryStore[] {
  const reader = new SectionReader(memory, details);
  const count = reader.count('nbr_of_stores', u32Max);
  if (count > regionCountMax) throw reader.fault(`nbr_of_stores is more than ${regionCountMax}`);
  const stores = new Array<MemoryStore | undefined>(count).fill(undefined);
  const files = new Set<string>();
  for (let index = 0; index < count; index += 1) {
    const section = document.section(storeSection(memory.name, index));
    if (section === undefined) throw reader.fault(`there is no section ${storeSection(memory.name, index)}`);
    const { id, store, fault } = readStore(new SectionReader(section, details));
    if (id >= count || stores[id] !== undefined) throw fault(`store_id ${id} is none of ${count}, or taken`);
    if (files.has(store.file)) throw fault(`filename ${store.file} is taken`);
    files.add(store.file);
    stores[id] = store;
  }
  return stores.filter((store) => store !== undefined);
}

/**
 * Where the stores of a checkpoint lie that does not say so, because the machine's configuration does: from 0 on, and what is second
 * above the hole of a PC. Throws `CHKPT_UNSUPPORTED` for more.
 */
export function basesOf(stores: readonly MemoryStore[], details: ErrorDetails): bigint[] {
  if (stores.length === 1) return [0n];
  if (stores.length === 2 && (stores[0]?.bytes ?? 0n) <= aboveHole) return [0n, aboveHole];
  const what = `where ${stores.length} memory stores lie is known to the machine alone: say so, ?bases=ADDRESS,ADDRESS`;
  throw new CheckpointError('CHKPT_UNSUPPORTED', what, { details });
}

/**
 * The region table. `counts`: how many stores each region has; default one. Throws `CHKPT_FORMAT` when ranges overlap,
 * `CHKPT_UNSUPPORTED` for ranges that are no whole pages.
 */
export function regionsOf(
  stores: readonly MemoryStore[],
  bases: readonly bigint[],
  details: ErrorDetails,
  counts: readonly number[] = bases.map(() => 1),
): MemoryRegion[] {
  const fault = (code: 'CHKPT_FORMAT' | 'CHKPT_UNSUPPORTED', what: string): CheckpointError =>
    new CheckpointError(code, what, { details });
  if (counts.reduce((sum, count) => sum + count, 0) !== stores.length)
    throw fault('CHKPT_FORMAT', `${stores.length} stores do not fit ${bases.length} addresses`);
  let [end, next] = [0n, 0];
  return bases.map((base, index) => {
    let bytes = 0n;
    const [first] = stores.slice(next);
    for (const last = next + (counts[index] as number); next < last; next += 1) {
      const store = stores[next] as MemoryStore;
      if (store.bytes % BigInt(pageBytes) !== 0n || base % BigInt(pageBytes) !== 0n) {
        throw fault('CHKPT_UNSUPPORTED', `the range of ${store.file} is not made of whole pages`);
      }
      bytes += store.bytes;
    }
    if (base < end) throw fault('CHKPT_FORMAT', `the range of ${first?.file} overlaps the one before`);
    end = base + bytes;
    return { base, bytes };
  });
}

/** Memory of a guest that goes into one store. */
export interface StorePart extends PageRange {
  /** Of its region, in the table of regions. */
  readonly region: number;
  readonly bytes: bigint;
}

/**
 * The memory of a guest as stores: one for each region; of one that begins at 0 and is larger than what a PC has below its hole, the rest
 * in a store of its own, as a PC of gem5 has it.
 */
export function storesOfPc(regions: readonly MemoryRegion[]): StorePart[] {
  return cutRegions(
    regions,
    regions.map(({ base, bytes }) =>
      base === 0n && bytes > belowHole ? [belowHole, bytes - belowHole] : [bytes],
    ),
  );
}

/** How many stores each region has. */
export function countStores(parts: readonly StorePart[]): number[] {
  const counts: number[] = [];
  for (const { region } of parts) counts[region] = (counts[region] ?? 0) + 1;
  return counts;
}

/** `sizes`: of the parts of each region, bytes. REQUIRES: those of a region add up to it, and are whole pages. */
export function cutRegions(
  regions: readonly MemoryRegion[],
  sizes: readonly (readonly bigint[])[],
): StorePart[] {
  let first = 0;
  return regions.flatMap((_, region) =>
    (sizes[region] ?? []).map((bytes) => {
      const part = { region, bytes, first, count: Number(bytes / BigInt(pageBytes)) };
      first += part.count;
      return part;
    }),
  );
}

export function storeSection(memory: string, index: number): string {
  return `${memory}.store${index}`;
}

/** True for a base name without surprises. */
export function isStoreFileName(name: unknown): name is string {
  return typeof name === 'string' && fileNamePattern.test(name);
}

interface ReadStore {
  readonly id: number;
  readonly store: MemoryStore;
  readonly fault: (what: string) => CheckpointError;
}

function readStore(reader: SectionReader): ReadStore {
  const file = reader.text('filename');
  if (!isStoreFileName(file)) throw reader.fault('filename is no plain name of a file in this folder');
  const bytes = reader.unsigned('range_size', memoryBytesMax);
  if (bytes === 0n) throw reader.fault('range_size is 0');
  return {
    id: reader.count('store_id', u32Max),
    store: { file, bytes },
    fault: (what) => reader.fault(what),
  };
}

/** As C's ctime writes it, in UTC. */
function timeText(ms: number): string {
  const [day = '', date = '', month = '', year = '', time = ''] = new Date(ms)
    .toUTCString()
    .replace(',', '')
    .split(' ');
  return `${day} ${month} ${date.replace(/^0/, ' ')} ${time} ${year}`;
}
