/** Everything that `chkpt info` tells, as one plain object with the key names of docs/cli.md. */
import { memberOf } from '../checkpoint/parent.ts';
import { regionsOf, type VmHeader } from '../checkpoint/vm-header.ts';
import { decodeSkip, type MemoryTotals, type OpenInspection, type Store } from '../index.ts';
import { pageBytes } from '../limits.ts';
import type { Integrity, StoredShares } from '../store/index.ts';
import { type ChainFacts, chainFactsOf } from './chain-facts.ts';
import { readDevices, readHeader } from './machine-facts.ts';
import type { RegionBytes } from './memory-argument.ts';
import { ratioOf, timeText } from './units.ts';

export interface CheckpointFacts {
  readonly store: string;
  readonly uuid: string;
  readonly parent: { readonly uuid: string; readonly root: string } | null;
  /** A u64, decimal. */
  readonly epoch: string;
  /** ISO 8601; `null` when not told. */
  readonly created: string | null;
  readonly format: string;
  readonly producer: string | null;
  readonly id: string | null;
  readonly cpu: { readonly vendor: string; readonly model: string } | null;
  readonly cores: number | null;
  readonly skip: readonly string[] | null;
  readonly regions: readonly { readonly base: number; readonly bytes: number; readonly pages: number }[];
  /** Memory that is not stored as the machine had it. */
  readonly scrubbed: readonly { readonly base: number; readonly bytes: number; readonly how: string }[];
  readonly memoryBytes: number;
  readonly pages: Readonly<Record<PageClass, number>>;
  readonly encodedBytes: number;
  readonly checkpointBytes: number;
  /** Bytes of its files, with a pool: those that only it uses, and those that others use too. */
  readonly stored: StoredShares | null;
  /** Memory to checkpoint. */
  readonly ratio: number | null;
  /** Stored pages to their encoded bytes: what the codec achieved. */
  readonly codecRatio: number | null;
  readonly devices:
    | readonly { readonly id: string; readonly class: string; readonly contexts: readonly string[] }[]
    | null;
  readonly contexts: readonly ContextFacts[];
  readonly root: string;
  readonly integrity: Integrity;
  readonly verified: boolean;
  /** How the facts were found. */
  readonly source: 'index' | 'scan' | 'read';
  /** Itself and its parents, nearest first; the last one has the error that ends the chain, if one does. */
  readonly chain: readonly ChainFacts[];
}

export interface ContextFacts {
  readonly name: string;
  readonly kind: 'values' | 'memory';
  readonly tags: number;
  /** Bytes of all values, or of the guest memory. */
  readonly bytes: number;
}

export const pageClasses = ['total', 'zero', 'fill', 'stored', 'same', 'parent'] as const;
export type PageClass = (typeof pageClasses)[number];

/** Counts of pages as documents tell them. */
export function pagesOf(counts: Omit<MemoryTotals, 'encodedBytes'>): Readonly<Record<PageClass, number>> {
  const { pages: total, zeroPages, fillPages, storedPages, samePages, parentPages } = counts;
  return {
    total,
    zero: zeroPages,
    fill: fillPages,
    stored: storedPages,
    same: samePages,
    parent: parentPages,
  };
}

/**
 * Reads the header and the device table, and looks at the parents: in `parents`, else where they were. Throws errors of kind
 * `damaged`; what is wrong with a parent is one of the facts.
 */
export async function factsOf(
  store: Store,
  inspection: OpenInspection,
  parents: readonly Store[],
): Promise<CheckpointFacts> {
  const header = await readHeader(inspection);
  const devices = await readDevices(inspection);
  const { counts, bytes: checkpointBytes } = inspection;
  const memoryBytes = counts.pages * pageBytes;
  const member = await memberOf(store, inspection);
  return {
    store: inspection.url,
    uuid: inspection.header.uuid,
    parent: inspection.header.parent ?? null,
    epoch: String(inspection.header.epoch),
    created: timeText(inspection.header.createdMs),
    format: `1.${inspection.header.minor}`,
    ...machineOf(header),
    regions: regionsIn(inspection, header).map(({ base, bytes }) => ({
      base: Number(base),
      bytes: Number(bytes),
      pages: Number(bytes / BigInt(pageBytes)),
    })),
    scrubbed: member.scrubbed.map(({ base, bytes, how }) => ({
      base: Number(base),
      bytes: Number(bytes),
      how,
    })),
    memoryBytes,
    pages: pagesOf(counts),
    encodedBytes: counts.encodedBytes,
    checkpointBytes,
    stored: inspection.shares ?? null,
    ratio: ratioOf(memoryBytes, checkpointBytes),
    codecRatio: ratioOf(counts.storedPages * pageBytes, counts.encodedBytes),
    devices: devices?.map(({ id, deviceClass, contexts }) => ({ id, class: deviceClass, contexts })) ?? null,
    contexts: contextsOf(inspection, memoryBytes),
    root: inspection.root,
    integrity: inspection.integrity,
    verified: inspection.verified,
    source: inspection.source,
    chain: await chainFactsOf(member, { parents }),
  };
}

type MachineFacts = Pick<CheckpointFacts, 'producer' | 'id' | 'cpu' | 'cores' | 'skip'>;

function machineOf(header: VmHeader | undefined): MachineFacts {
  if (header === undefined) return { producer: null, id: null, cpu: null, cores: null, skip: null };
  const { producer, vm, cpu, core, options } = header;
  return { producer, id: vm.id, cpu, cores: core.count, skip: decodeSkip(options.skip) };
}

/** Those of the memory that is there; of the header when memory was skipped. */
function regionsIn({ regions }: OpenInspection, header: VmHeader | undefined): readonly RegionBytes[] {
  return regions.length > 0 || header === undefined ? regions : regionsOf(header);
}

/** Lengths and offsets are below 2^53 by the limits of the format, so numbers hold them exactly. */
export function contextsOf({ contexts }: OpenInspection, memoryBytes: number): ContextFacts[] {
  return contexts.map(({ name, kind, tags }) => ({
    name,
    kind,
    tags: tags.length,
    bytes: kind === 'memory' ? memoryBytes : tags.reduce((sum, { dataBytes }) => sum + dataBytes, 0),
  }));
}
