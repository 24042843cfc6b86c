/** The contexts of a machine that are not its memory: header, device table, and the state of devices and cores, written and read. */
import type { LoadCheckpoint } from '../context/load-checkpoint.ts';
import type { LoadContext } from '../context/load-context.ts';
import type { SaveCheckpoint } from '../context/save-checkpoint.ts';
import { OpenState } from '../context/state.ts';
import { CheckpointError } from '../errors/index.ts';
import { parentState } from './parent.ts';
import { producer } from './producer.ts';
import { decodeScrub, encodeScrub, type ScrubbedRange, scrubState } from './scrub.ts';
import type { SkipPart, StateContext, StatePart, VirtualMachine } from './virtual-machine.ts';
import { headerContext, headerOf, headerState, regionsOf, type VmHeader } from './vm-header.ts';
import { type DeviceRow, devicesContext, tableTags, type VmPlan } from './vm-plan.ts';

/** Replaces one state of the machine. */
export type Apply = () => void | Promise<void>;

/** What a save is about, beside the machine. */
export interface SavedFacts {
  readonly skip: readonly SkipPart[];
  readonly parentUrl: string | undefined;
  readonly scrubbed?: readonly ScrubbedRange[];
}

/** Writes header, device table and every state of `plan`. The machine stands still. */
export async function saveStates(
  vm: VirtualMachine,
  plan: VmPlan,
  checkpoint: SaveCheckpoint,
  facts: SavedFacts,
): Promise<void> {
  await saveDescription(vm, plan, checkpoint, facts);
  for (const state of plan.states) await saveState(checkpoint, state);
}

/** Writes what is checked before a load: header and device table. */
export async function saveDescription(
  vm: VirtualMachine,
  plan: VmPlan,
  checkpoint: SaveCheckpoint,
  { skip, parentUrl, scrubbed = [] }: SavedFacts,
): Promise<void> {
  const header = await checkpoint.openContext(headerContext);
  await header.save(headerState, headerOf(vm, skip, producer()));
  if (parentUrl !== undefined) await header.save(parentState, { parent: { url: parentUrl } });
  if (scrubbed.length > 0) await header.save(scrubState, encodeScrub(scrubbed));
  await header.close();
  if (plan.devices === undefined) return;
  const table = await checkpoint.openContext(devicesContext);
  await table.saveAll(Object.fromEntries(tableTags(plan.devices)));
  await table.close();
}

async function saveState(checkpoint: SaveCheckpoint, { name, parts }: StateContext): Promise<void> {
  const context = await checkpoint.openContext(name);
  for (const part of parts) await context.save(part.state, await part.get());
  await context.close();
}

export async function loadHeader(checkpoint: LoadCheckpoint): Promise<VmHeader> {
  return (await loadDescription(checkpoint)).header;
}

/** The header, and what memory does not have of the machine's. */
export async function loadDescription(
  checkpoint: LoadCheckpoint,
): Promise<{ readonly header: VmHeader; readonly scrubbed: readonly ScrubbedRange[] }> {
  const context = await checkpoint.openContext(headerContext);
  try {
    const header = await context.load(headerState);
    if (!context.tags.some(({ name }) => name === 'scrub.base')) return { header, scrubbed: [] };
    const record = await context.load(scrubState);
    return { header, scrubbed: decodeScrub(record, regionsOf(header)) };
  } finally {
    await context.close();
  }
}

/** Reads and checks every state; what it returns sets them. */
export async function readStates(checkpoint: LoadCheckpoint, plan: VmPlan): Promise<Apply[]> {
  if (plan.devices !== undefined) await checkTable(checkpoint, plan.devices);
  const apply: Apply[] = [];
  for (const state of plan.states) apply.push(...(await readState(checkpoint, state)));
  return apply;
}

/** Throws `CHKPT_VM_DEVICES` where the checkpoint has other devices. */
export async function checkTable(checkpoint: LoadCheckpoint, devices: readonly DeviceRow[]): Promise<void> {
  const context = await checkpoint.openContext(devicesContext);
  const saved = await context.loadAll();
  await context.close();
  const expected = tableTags(devices);
  const wrong = expected.find(([tag, value]) => saved[tag] !== value);
  const surplus = Object.keys(saved).find((tag) => !expected.some(([known]) => known === tag));
  const tag = wrong?.[0] ?? surplus;
  if (tag === undefined) return;
  throw new CheckpointError('CHKPT_VM_DEVICES', 'the checkpoint has other devices than the machine', {
    details: { context: devicesContext, tag, expected: wrong?.[1], actual: String(saved[tag]) },
  });
}

async function readState(checkpoint: LoadCheckpoint, { name, parts }: StateContext): Promise<Apply[]> {
  const context = await checkpoint.openContext(name);
  try {
    checkTags(context, parts);
    const apply: Apply[] = [];
    for (const part of parts as readonly StatePart<unknown>[]) {
      const value = await context.load(part.state);
      await part.check?.(value);
      apply.push(() => part.set(value));
    }
    return apply;
  } finally {
    await context.close();
  }
}

/** Parts may share a context; a tag that belongs to none of them is state that would be lost. */
function checkTags(context: LoadContext, parts: readonly StatePart<never>[]): void {
  const known = new Set(parts.flatMap(({ state }) => state.leaves.map(({ tag }) => tag)));
  const open = parts.flatMap(({ state }) => (state instanceof OpenState ? [state.prefix] : []));
  const isKnown = (tag: string): boolean => known.has(tag) || open.some((prefix) => tag.startsWith(prefix));
  const unknown = context.tags.find(({ name }) => !isKnown(name));
  if (unknown === undefined) return;
  throw new CheckpointError('CHKPT_TAG_UNKNOWN', 'a tag that no state of the machine knows', {
    details: { context: context.name, tag: unknown.name },
  });
}
