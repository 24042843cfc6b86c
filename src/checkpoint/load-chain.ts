/** Reading the memory of a chain, newest member first: into a guest, or into digests of its pages. */
import { openCheckpoint as openInStore } from '../context/checkpoint.ts';
import { CheckpointError } from '../errors/index.ts';
import { pageBytes } from '../limits.ts';
import {
  ChainLoad,
  type DecodeOptions,
  type GuestMemory,
  PageDecoder,
  PageDigests,
} from '../memory/index.ts';
import { checkpointDigest } from './digest.ts';
import type { ChainMember } from './parent.ts';
import { memoryContext } from './vm-plan.ts';

export interface ChainTarget {
  /** Undefined: digests only. */
  readonly memory: GuestMemory | undefined;
  readonly pageDigests?: PageDigests | undefined;
  readonly threads?: number | undefined;
  readonly signal?: AbortSignal | undefined;
  readonly onPages?: ((pageCount: number) => void) | undefined;
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
    await checkpoint.loadMemory(memoryContext, decoderOf(chain, target, { onPages: target.onPages }));
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

function decoderOf(chain: ChainLoad, target: ChainTarget, options: DecodeOptions): PageDecoder {
  const { memory, pageDigests, threads } = target;
  return new PageDecoder(memory, { ...options, chain, pageDigests, threads });
}
