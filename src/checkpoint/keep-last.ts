/** Retention: the newest members of a chain stay, the last of them made whole, and what it was built on goes. */
import { CheckpointError } from '../errors/index.ts';
import type { Store } from '../store/index.ts';
import { type FlattenOptions, flattenCheckpoint } from './flatten.ts';
import { toStore } from './open.ts';
import { type ChainOptions, describeMember, findAncestors } from './parent.ts';

export interface KeepLastOptions extends ChainOptions, Omit<FlattenOptions, 'uuid' | 'createdMs' | 'toKey'> {}

export interface KeepLastReport {
  /** UUIDs of the members that stayed, newest first; the last one under its new UUID when it was made whole. */
  readonly kept: readonly string[];
  /** URLs of the checkpoints that were removed. */
  readonly removed: readonly string[];
  /** Bytes that are free again: those of the removed members, less what making one whole has added. */
  readonly freedBytes: number;
}

/**
 * Keeps the `count` newest members of the chain that ends in `newest`. The oldest of them is flattened in its place, and only when that
 * is safe its ancestors are removed, oldest last; after a failure in between the chain still loads.
 *
 * Checkpoints that branch off a removed member lose their parent: only this one chain is looked at.
 *
 * Rejects with `RangeError` for a count below 1, `CHKPT_UNSUPPORTED` for a store that cannot remove, and what `flattenCheckpoint` throws.
 */
export async function keepLast(
  newest: string | Store,
  count: number,
  options: KeepLastOptions = {},
): Promise<KeepLastReport> {
  if (!Number.isSafeInteger(count) || count < 1) throw new RangeError(`cannot keep ${count} checkpoints`);
  const { key, ...others } = options;
  const last = await describeMember(toStore(newest, key), options);
  const members = [last, ...(await findAncestors(last, options))];
  const kept = members.slice(0, count);
  const oldest = kept.at(-1);
  const surplus = members.slice(count);
  const names = kept.map(({ uuid }) => uuid);
  if (oldest === undefined || surplus.length === 0) return { kept: names, removed: [], freedBytes: 0 };
  for (const { store } of surplus) {
    if (store.remove !== undefined) continue;
    throw new CheckpointError('CHKPT_UNSUPPORTED', 'this store cannot remove a checkpoint', {
      details: { store: store.url },
    });
  }
  const whole = await flattenCheckpoint(oldest.store, oldest.store, others);
  const removed: string[] = [];
  for (const { store } of surplus) {
    await store.remove?.();
    removed.push(store.url);
  }
  const removedBytes = surplus.reduce((sum, { bytes }) => sum + bytes, 0);
  return {
    kept: [...names.slice(0, -1), whole.uuid],
    removed,
    freedBytes: removedBytes + oldest.bytes - whole.checkpointBytes,
  };
}
