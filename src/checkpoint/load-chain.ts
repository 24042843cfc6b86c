/** Reading the memory of a chain, newest member first: into a guest, or into digests of its pages. */
import { openCheckpoint as openInStore } from '../context/checkpoint.ts';
import type { LoadCheckpoint } from '../context/load-checkpoint.ts';
import type { StreamSummary } from '../context/stream-reader.ts';
import { CheckpointError } from '../errors/index.ts';
import { pageBytes } from '../limits.ts';
import { checkpointDigest } from '../memory/digest.ts';
import {
  ChainLoad,
  type DecodeOptions,
  type GuestMemory,
  PageDecoder,
  PageDigests,
  type PageSet,
} from '../memory/index.ts';
import type { Store } from '../store/index.ts';
import { type ChainMember, type ChainOptions, describeMember, findAncestors } from './parent.ts';
import { memoryContext } from './vm-plan.ts';

export interface ChainTarget {
  /** Undefined: digests only. */
  readonly memory: GuestMemory | undefined;
  readonly pageDigests?: PageDigests | undefined;
  readonly threads?: number | undefined;
  readonly signal?: AbortSignal | undefined;
  /** How many pages of `member` were read. */
  readonly onPages?: ((pageCount: number, member: ChainMember) => void) | undefined;
}

/**
 * The chain of the checkpoint that is being loaded from `store`: itself, its parent, and so on; empty when it stands alone. Throws
 * `CHKPT_PARENT_MISSING`, `CHKPT_PARENT_FOREIGN`, `CHKPT_PARENT_CYCLE`, errors of kind `damaged`.
 */
export async function chainOf(
  checkpoint: LoadCheckpoint,
  store: Store,
  options: ChainOptions,
): Promise<ChainMember[]> {
  if (checkpoint.header.parent === undefined) return [];
  const newest = await describeMember(store, options);
  if (newest.uuid !== checkpoint.uuid) {
    throw new CheckpointError('CHKPT_PARENT_FOREIGN', 'the checkpoint was replaced while it was loaded', {
      details: { store: store.url, expected: checkpoint.uuid, actual: newest.uuid },
    });
  }
  return [newest, ...(await findAncestors(newest, options))];
}

/**
 * Loads the memory of `checkpoint`, reads the rest of it, and fills what it leaves to its parents. `members`: what `chainOf` gave.
 * All of them are verified as a whole when it resolves. `onPages` is told pages of the memory done, of all members together.
 */
export async function loadChainMemory(
  checkpoint: LoadCheckpoint,
  members: readonly ChainMember[],
  memory: GuestMemory,
  options: {
    readonly threads?: number | undefined;
    readonly signal?: AbortSignal | undefined;
    readonly onPages: (pageCount: number) => void;
    /** Pages that stay what they are in memory. */
    readonly leaveAlone?: PageSet | undefined;
  },
): Promise<StreamSummary> {
  const { threads, signal, onPages, leaveAlone } = options;
  const [newest, ...ancestors] = members;
  const pageCount = Number(memory.byteLength) / pageBytes;
  if (newest === undefined) {
    const alone = leaveAlone && new ChainLoad(pageCount);
    if (leaveAlone !== undefined) alone?.leaveAlone(leaveAlone);
    await checkpoint.loadMemory(memoryContext, new PageDecoder(memory, { threads, onPages, chain: alone }));
    checkResolved(alone);
    return await checkpoint.finish();
  }
  const shareOf = chainShares(members);
  const chain = new ChainLoad(pageCount);
  if (leaveAlone !== undefined) chain.leaveAlone(leaveAlone);
  const target: ChainTarget = {
    memory,
    threads,
    signal,
    onPages: (pages, member) => onPages(Math.floor(pageCount * shareOf(member, pages / pageCount))),
  };
  await checkpoint.loadMemory(memoryContext, decoderOf(chain, target, tellPages(target, newest)));
  checkResolved(chain);
  const summary = await checkpoint.finish();
  chain.advance();
  await loadAncestors(ancestors, chain, target);
  return summary;
}

/** Pages that were left out are zeros in the checkpoint: no other page is said to equal one. */
function checkResolved(chain: ChainLoad | undefined): void {
  if (chain?.deferred() !== true) return;
  throw new CheckpointError('CHKPT_FORMAT', 'a page is said to equal one that was left out', {
    details: { context: memoryContext },
  });
}

/**
 * How much of a chain is done, 0 to 1, when `part` of `member` is and all members before it are. They count by their bytes, so
 * that a hundred small increments are not most of the way to the large checkpoint that they build on.
 */
export function chainShares(members: readonly ChainMember[]): (member: ChainMember, part: number) => number {
  const bytesBefore = new Map<ChainMember, number>();
  let bytes = 0;
  for (const member of members) {
    bytesBefore.set(member, bytes);
    bytes += member.bytes;
  }
  return (member, part) => ((bytesBefore.get(member) ?? 0) + part * member.bytes) / bytes;
}

/**
 * Fills what `chain` has not got yet with the memory of `members`, nearest ancestor first. Throws errors of kind `damaged`,
 * `CHKPT_PARENT_FOREIGN` when a member is not what it was when the chain was looked at.
 */
export async function loadAncestors(
  members: readonly ChainMember[],
  chain: ChainLoad,
  target: ChainTarget,
): Promise<void> {
  for (const member of members) {
    await readMember(member, chain, target);
    await resolveDeferred(member, chain, target);
    chain.advance();
  }
}

/** The second read of the member that was just loaded, where it has put off pages. */
export async function resolveDeferred(
  member: Pick<ChainMember, 'store'>,
  chain: ChainLoad,
  target: ChainTarget,
): Promise<void> {
  if (!chain.deferred()) return;
  const checkpoint = await openMember(member, target);
  try {
    await checkpoint.loadMemory(memoryContext, decoderOf(chain, target, { resolve: true }));
  } finally {
    await checkpoint.close();
  }
}

/** Digests of the pages of the checkpoint that `members` ends in: itself first, then its ancestors. */
export async function digestsOfChain(
  members: readonly ChainMember[],
  options: Omit<ChainTarget, 'memory' | 'pageDigests'> & { readonly key?: PageDigests | undefined } = {},
): Promise<PageDigests> {
  const bytes = members[0]?.regions.reduce((sum, region) => sum + region.bytes, 0n) ?? 0n;
  const pageCount = Number(bytes) / pageBytes;
  const pageDigests = new PageDigests(pageCount, options.key);
  await loadAncestors(members, new ChainLoad(pageCount), { ...options, memory: undefined, pageDigests });
  return pageDigests;
}

async function readMember(member: ChainMember, chain: ChainLoad, target: ChainTarget): Promise<void> {
  const checkpoint = await openMember(member, target);
  try {
    await checkpoint.loadMemory(memoryContext, decoderOf(chain, target, tellPages(target, member)));
    const { root } = await checkpoint.finish();
    if (checkpoint.uuid === member.uuid && root === member.root) return;
    throw new CheckpointError('CHKPT_PARENT_FOREIGN', 'the checkpoint has changed while the chain was read', {
      details: { store: member.store.url, expected: member.root, actual: root },
    });
  } finally {
    await checkpoint.close();
  }
}

async function openMember({ store }: Pick<ChainMember, 'store'>, { signal }: ChainTarget) {
  return await openInStore(store, { mode: 'load', digest: await checkpointDigest(), signal });
}

function tellPages({ onPages }: ChainTarget, member: ChainMember): Pick<DecodeOptions, 'onPages'> {
  return { onPages: onPages === undefined ? undefined : (pages) => onPages(pages, member) };
}

function decoderOf(chain: ChainLoad, target: ChainTarget, options: DecodeOptions): PageDecoder {
  const { memory, pageDigests, threads } = target;
  return new PageDecoder(memory, { ...options, chain, pageDigests, threads });
}
