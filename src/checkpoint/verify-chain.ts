/** Verifying an increment with everything that it builds on. */
import { CheckpointError } from '../errors/index.ts';
import type { Store } from '../store/index.ts';
import { chainShares } from './load-chain.ts';
import { toStore } from './open.ts';
import { Operation } from './operation.ts';
import { type ChainMember, describeMember, followChain } from './parent.ts';
import { type VerifyOptions, type VerifyReport, verifyCheckpoint } from './verify.ts';

export interface VerifyChainOptions extends VerifyOptions {
  /** Where parents are, if not where they were when their children were saved. Looked through in this order. */
  readonly parents?: readonly (string | Store)[] | undefined;
}

/** A checkpoint that can be loaded: every byte of it and of its parents was checked. */
export interface ChainVerifyReport extends VerifyReport {
  /** Its parents, nearest first; empty for a checkpoint that stands alone. */
  readonly parents: readonly VerifyReport[];
}

/**
 * Reads a whole checkpoint and all its parents, checks all digests, decodes every page, and checks that each parent is the one
 * that its child names. Works without the native addon, slower.
 *
 * Damage is told before a parent that is missing further on. Rejects with an error of kind `damaged` that names store, frame and
 * offset, with `CHKPT_PARENT_MISSING`, `CHKPT_PARENT_FOREIGN`, `CHKPT_PARENT_CYCLE`, and with the errors of the stores.
 */
export function verifyChain(
  source: string | Store,
  options: VerifyChainOptions = {},
): Operation<ChainVerifyReport> {
  return new Operation<ChainVerifyReport>(async (report) => {
    const { threads, signal } = options;
    const store = toStore(source, options.key);
    const newest = await verifyCheckpoint(store, { threads, signal, onProgress: report });
    if (newest.header.parent === undefined) return { ...newest, parents: [] };
    const member = await describeMember(store, options);
    checkUnchanged(member, newest);
    const { ancestors, failure } = await followChain(member, options);
    const parents: VerifyReport[] = [];
    const shareOf = chainShares(ancestors);
    for (const ancestor of ancestors) {
      const found = await verifyCheckpoint(ancestor.store, {
        threads,
        signal,
        onProgress: ({ phase, memoryBytesDone, memoryBytes }) => {
          const share = shareOf(ancestor, memoryBytes === 0 ? 0 : memoryBytesDone / memoryBytes);
          report({ phase, memoryBytesDone: Math.floor(memoryBytes * share), memoryBytes });
        },
      });
      checkUnchanged(ancestor, found);
      parents.push(found);
    }
    if (failure !== undefined) throw failure;
    const elapsedMs = parents.reduce((sum, parent) => sum + parent.elapsedMs, newest.elapsedMs);
    return { ...newest, parents, elapsedMs };
  }, options.onProgress);
}

function checkUnchanged({ store, uuid, root }: ChainMember, found: VerifyReport): void {
  if (found.header.uuid === uuid && found.root === root) return;
  throw new CheckpointError(
    'CHKPT_PARENT_FOREIGN',
    'the checkpoint has changed while the chain was verified',
    {
      details: { store: store.url, expected: root, actual: found.root },
    },
  );
}
