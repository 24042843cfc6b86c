/**
 * What a machine looks like, as a checkpoint without memory and state: the destination checks it before it takes anything.
 */
import { checkTable, loadHeader, saveDescription } from '../checkpoint/machine-states.ts';
import type { VirtualMachine } from '../checkpoint/virtual-machine.ts';
import { checkHeader, type IgnoredMismatch, regionsOf } from '../checkpoint/vm-header.ts';
import { planOf } from '../checkpoint/vm-plan.ts';
import { openCheckpoint } from '../context/checkpoint.ts';
import type { MemoryRegion } from '../context/memory-frames.ts';
import type { Digest64 } from '../format/digest.ts';
import { MemoryStoreSpace, memoryStoreFactory, type Store } from '../store/index.ts';

const name = 'description';

export async function describeMachine(vm: VirtualMachine, digest: Digest64): Promise<Uint8Array> {
  const space = new MemoryStoreSpace();
  const checkpoint = await openCheckpoint(storeIn(space), { mode: 'save', digest, index: false });
  await saveDescription(vm, planOf(vm, []), checkpoint, { skip: [], parentUrl: undefined });
  await checkpoint.commit();
  return space.bytes(name) ?? new Uint8Array();
}

/** Throws an error of kind `mismatch` where the machines differ, of kind `damaged` where the bytes are no such description. */
export async function checkDescription(
  bytes: Uint8Array,
  vm: VirtualMachine,
  ignore: readonly IgnoredMismatch[],
  digest: Digest64,
): Promise<void> {
  const space = new MemoryStoreSpace();
  space.put(name, bytes.slice());
  const checkpoint = await openCheckpoint(storeIn(space), { mode: 'load', digest });
  try {
    checkHeader(await loadHeader(checkpoint), vm, [], ignore);
    await checkTable(checkpoint, planOf(vm, []).devices ?? []);
    await checkpoint.finish();
  } finally {
    await checkpoint.close();
  }
}

/** What a source says of its machine before anything is taken. Nothing of it was compared. */
export interface MachineOffer {
  readonly id: string;
  /** Bytes. */
  readonly regions: readonly MemoryRegion[];
}

/** Throws an error of kind `damaged` where the bytes are no description. */
export async function readOffer(bytes: Uint8Array, digest: Digest64): Promise<MachineOffer> {
  const space = new MemoryStoreSpace();
  space.put(name, bytes.slice());
  const checkpoint = await openCheckpoint(storeIn(space), { mode: 'load', digest });
  try {
    const header = await loadHeader(checkpoint);
    await checkpoint.finish();
    return { id: header.vm.id, regions: regionsOf(header) };
  } finally {
    await checkpoint.close();
  }
}

function storeIn(space: MemoryStoreSpace): Store {
  return memoryStoreFactory(space)(name, `mem:${name}`);
}
