/** A chain of checkpoints made one: the values of the newest, and the memory that the chain amounts to. */
import { hostname } from 'node:os';
import { openCheckpoint as openInStore } from '../context/checkpoint.ts';
import type { LoadCheckpoint } from '../context/load-checkpoint.ts';
import type { SaveCheckpoint } from '../context/save-checkpoint.ts';
import { CheckpointError } from '../errors/index.ts';
import { pageBytes } from '../limits.ts';
import { checkpointDigest } from '../memory/digest.ts';
import { ChainLoad, type EncodeOptions, GuestMemory, PageDecoder, PageEncoder } from '../memory/index.ts';
import { type Claim, type Store, type StoreClaims, TeeStore } from '../store/index.ts';
import { loadAncestors } from './load-chain.ts';
import { type TwoKeyOptions, toStore, toTarget } from './open.ts';
import { Operation, type Progress } from './operation.ts';
import {
  type ChainMember,
  type ChainOptions,
  checkPlace,
  describeMember,
  findAncestors,
  parentState,
  replacesState,
} from './parent.ts';
import { abortedOr } from './save-vm.ts';
import { inspectCheckpoint } from './verify.ts';
import { headerContext } from './vm-header.ts';
import { memoryContext } from './vm-plan.ts';

export interface FlattenOptions
  extends ChainOptions,
    TwoKeyOptions,
    Pick<EncodeOptions, 'codec' | 'acceleration' | 'dedup' | 'threads'> {
  /** UUID of the new checkpoint, text form; default random. */
  readonly uuid?: string | undefined;
  /** Milliseconds since 1970-01-01T00:00:00Z; default: that of the newest member. */
  readonly createdMs?: number | undefined;
  readonly onProgress?: ((progress: Progress) => void) | undefined;
}

export interface FlattenReport {
  readonly url: string;
  readonly uuid: string;
  /** Root digest, hexadecimal. */
  readonly root: string;
  /** The checkpoint whose content it has: children of that one take it for their parent. */
  readonly replaces: string;
  /** Members of the chain, the newest included. */
  readonly members: number;
  readonly memoryBytes: number;
  readonly checkpointBytes: number;
  readonly elapsedMs: number;
}

/**
 * Saves what the chain that ends in `source` amounts to as a checkpoint without parent. Every member is verified as a whole. It may be
 * saved over `source` itself: children of `source` then find it in that one's place. Takes free memory of the guest's size.
 *
 * Rejects with `CHKPT_PARENT_*`, errors of kind `damaged` and of the stores; then `target` is what it was.
 */
export function flattenCheckpoint(
  source: string | Store,
  target: string | Store,
  options: FlattenOptions = {},
): Operation<FlattenReport> {
  return new Operation<FlattenReport>(async (report) => {
    const begin = performance.now();
    const newest = await describeMember(toStore(source, options.key), options);
    const ancestors = await findAncestors(newest, options);
    const to = toTarget(target, options);
    // The members between the two would be left without it.
    for (const ancestor of ancestors) checkPlace(ancestor, to);
    const digest = await checkpointDigest();
    const { uuid, createdMs = newest.createdMs, signal } = options;
    const from = await openInStore(newest.store, { mode: 'load', digest, signal });
    let memory: GuestMemory | undefined;
    try {
      if (newest.regions.length > 0) memory = GuestMemory.allocate(newest.regions);
      const memoryBytes = Number(memory?.byteLength ?? 0n);
      const saving = await openInStore(to, { mode: 'save', digest, uuid, createdMs, signal });
      try {
        const onPages = (pages: number): void =>
          report({ phase: 'memory', memoryBytesDone: pages * pageBytes, memoryBytes });
        await copyContexts(newest, ancestors, { from, to: saving, memory, options, onPages });
        report({ phase: 'commit', memoryBytesDone: memoryBytes, memoryBytes });
        const { root, bytes } = await commitClaimed(saving, newest, to);
        return {
          url: to.url,
          uuid: saving.uuid,
          root,
          replaces: newest.uuid,
          members: 1 + ancestors.length,
          memoryBytes,
          checkpointBytes: bytes,
          elapsedMs: performance.now() - begin,
        };
      } catch (error) {
        await saving.abort();
        throw error;
      }
    } catch (error) {
      throw abortedOr(error, signal);
    } finally {
      await from.close();
      await memory?.close();
    }
  }, options.onProgress);
}

interface SourceClaim {
  /** Of somebody who goes on with it; or ours, which nobody keeps. */
  readonly claim: Claim | undefined;
  readonly isOurs: boolean;
}

/**
 * It is the same machine: who goes on with it, goes on with this one. Between looking whether it is claimed and the commit nobody
 * else may claim it, so it is claimed by the flatten meanwhile.
 */
async function commitClaimed(
  saving: SaveCheckpoint,
  { store, uuid }: ChainMember,
  to: Store,
): ReturnType<SaveCheckpoint['commit']> {
  const { claim, isOurs } = await claimSource(store, uuid);
  // Where we could not claim it the result is claimed until it is known that nobody has meanwhile.
  const inherited = isOurs ? undefined : (claim ?? (store.claims && claimOfFlatten(uuid)));
  try {
    // Before the commit: there is no moment in which it could be continued a second time.
    if (inherited !== undefined)
      await forEachPlace(to, (claims) => claims.take({ ...inherited, uuid: saving.uuid }));
    const committed = await saving.commit();
    const isUnclaimed =
      claim === undefined && inherited !== undefined && (await isStillUnclaimed(store, uuid));
    if (isUnclaimed) await forEachPlace(to, (claims) => claims.withdraw(saving.uuid)).catch(() => undefined);
    return committed;
  } catch (error) {
    if (inherited !== undefined) {
      await forEachPlace(to, (claims) => claims.withdraw(saving.uuid)).catch(() => undefined);
    }
    throw error;
  } finally {
    // In its own place it is gone already. One that stays can be forced.
    if (isOurs) await store.claims?.withdraw(uuid).catch(() => undefined);
  }
}

/** Neither claimed nor ours: it lies where nothing can be written, so not in the place of the result. */
async function claimSource({ claims }: Store, uuid: string): Promise<SourceClaim> {
  const claim = await claims?.find(uuid);
  if (claims === undefined || claim !== undefined) return { claim, isOurs: false };
  try {
    const earlier = await claims.take(claimOfFlatten(uuid));
    return { claim: earlier, isOurs: earlier === undefined };
  } catch (error) {
    if (!(error instanceof CheckpointError) || error.code !== 'CHKPT_PERMISSION') throw error;
    return { claim: undefined, isOurs: false };
  }
}

function claimOfFlatten(uuid: string): Claim {
  return { uuid, by: `a flatten under way, process ${process.pid} on ${hostname()}`, timeMs: Date.now() };
}

/** False when it cannot be known: then the result stays claimed. */
async function isStillUnclaimed({ claims }: Store, uuid: string): Promise<boolean> {
  try {
    return (await claims?.find(uuid)) === undefined;
  } catch {
    return false;
  }
}

async function forEachPlace(to: Store, visit: (claims: StoreClaims) => Promise<unknown>): Promise<void> {
  if (to instanceof TeeStore) {
    for (const store of to.kept) await forEachPlace(store, visit);
  } else if (to.claims !== undefined) {
    await visit(to.claims);
  }
}

interface Copy {
  readonly from: LoadCheckpoint;
  readonly to: SaveCheckpoint;
  readonly memory: GuestMemory | undefined;
  readonly options: FlattenOptions;
  readonly onPages: (pages: number) => void;
}

async function copyContexts(
  newest: ChainMember,
  ancestors: readonly ChainMember[],
  copy: Copy,
): Promise<void> {
  const { from, memory, to } = copy;
  for (const { name, kind } of await contextsOf(newest, copy.options)) {
    if (kind === 'values') {
      await copyValues(name, newest, copy);
    } else if (memory !== undefined) {
      await loadWhole(name, ancestors, memory, copy);
      // What is behind it in the stream is verified before anything is published.
      const { codec, acceleration, dedup, threads, signal } = copy.options;
      await to.saveMemory(name, new PageEncoder(memory, { codec, acceleration, dedup, threads }), { signal });
    }
  }
  const { root } = await from.finish();
  if (root === newest.root) return;
  throw new CheckpointError('CHKPT_PARENT_FOREIGN', 'the checkpoint has changed while it was read', {
    details: { store: newest.store.url, expected: newest.root, actual: root },
  });
}

async function contextsOf(
  { store }: ChainMember,
  options: ChainOptions,
): Promise<{ readonly name: string; readonly kind: 'values' | 'memory' }[]> {
  const inspection = await inspectCheckpoint(store, { signal: options.signal });
  try {
    return inspection.contexts.map(({ name, kind }) => ({ name, kind }));
  } finally {
    await inspection.close();
  }
}

async function copyValues(name: string, newest: ChainMember, { from, to }: Copy): Promise<void> {
  const source = await from.openContext(name);
  const target = await to.openContext(name);
  const dropped =
    name === headerContext ? [...parentState.leaves, ...replacesState.leaves].map(({ tag }) => tag) : [];
  for (const { name: tag } of source.tags) {
    if (!dropped.includes(tag)) await target.save(tag, await source.loadTyped(tag));
  }
  if (name === headerContext) {
    await target.save(replacesState, { replaces: { uuid: newest.uuid, root: newest.root } });
  }
  await target.close();
  await source.close();
}

async function loadWhole(
  name: string,
  ancestors: readonly ChainMember[],
  memory: GuestMemory,
  { from, options, onPages }: Copy,
): Promise<void> {
  if (name !== memoryContext && ancestors.length > 0) throw new TypeError(`guest memory is named ${name}`);
  const { threads, signal } = options;
  const chain = ancestors.length === 0 ? undefined : new ChainLoad(Number(memory.byteLength) / pageBytes);
  await from.loadMemory(name, new PageDecoder(memory, { threads, chain, onPages }));
  if (chain === undefined) return;
  chain.advance();
  await loadAncestors(ancestors, chain, { memory, threads, signal, onPages });
}
