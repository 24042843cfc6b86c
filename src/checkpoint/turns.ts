/**
 * Saves and loads of one machine, one after the other: what one of them has taken from a dirty tracker belongs to its checkpoint, and
 * a machine that stands still for one must not be taken for one that does not run.
 */
import { CheckpointError } from '../errors/index.ts';
import type { VirtualMachine } from './virtual-machine.ts';

const lasts = new WeakMap<object, Promise<void>>();
const innerMachines = new WeakMap<VirtualMachine, VirtualMachine>();

/** `outer` is another face of `inner`: they take turns. */
export function takesTurnsWith(outer: VirtualMachine, inner: VirtualMachine): void {
  innerMachines.set(outer, inner);
}

/** Runs `work` when everything before it on this machine has settled. Rejects with `CHKPT_ABORTED` while it waits. */
export async function inTurn<T>(
  vm: VirtualMachine,
  signal: AbortSignal | undefined,
  work: () => Promise<T>,
): Promise<T> {
  const machine = innerMachines.get(vm) ?? vm;
  const before = lasts.get(machine);
  let end = (): void => undefined;
  const mine = new Promise<void>((resolve) => {
    end = resolve;
  });
  const last = before === undefined ? mine : before.then(() => mine);
  lasts.set(machine, last);
  try {
    if (before !== undefined) await orAborted(before, signal);
    return await work();
  } finally {
    end();
    if (lasts.get(machine) === last) lasts.delete(machine);
  }
}

async function orAborted(before: Promise<void>, signal: AbortSignal | undefined): Promise<void> {
  let onAbort = (): void => undefined;
  const aborted = new Promise<never>((_, reject) => {
    onAbort = () => reject(new CheckpointError('CHKPT_ABORTED', 'aborted', { cause: signal?.reason }));
  });
  if (signal?.aborted) onAbort();
  signal?.addEventListener('abort', onAbort, { once: true });
  try {
    await Promise.race([before, aborted]);
  } finally {
    signal?.removeEventListener('abort', onAbort);
  }
}
