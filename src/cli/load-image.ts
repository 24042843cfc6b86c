/**
 * Loads a checkpoint into files: RAM images, sparse, and the bytes of named values.
 *
 * The stream is read once, forward, and those of its parents behind it, if it is an increment. Memory goes to temporaries as it comes; no file gets its name, and standard output gets
 * nothing, before the end of each stream has proved that the whole checkpoint is sound.
 */
import { type MachineIdentity, prepareIdentity } from '../checkpoint/identity.ts';
import { chainOf, loadChainMemory } from '../checkpoint/load-chain.ts';
import type { ChainMember } from '../checkpoint/parent.ts';
import { abortedOr } from '../checkpoint/save-vm.ts';
import { headerContext, headerState, regionsOf } from '../checkpoint/vm-header.ts';
import type { StreamSummary } from '../context/stream-reader.ts';
import {
  CheckpointError,
  decodeSkip,
  GuestMemory,
  hasNativeAddon,
  type IdentityOptions,
  type IdentityReport,
  type LoadCheckpoint,
  openCheckpoint,
  PageDecoder,
  type SkipPart,
  type Store,
  type VmHeader,
} from '../index.ts';
import { pageBytes } from '../limits.ts';
import type { CommonOptions } from './common-options.ts';
import { createValueFiles, findValues, type LoadedValue, writeValues } from './load-values.ts';
import { type MemoryArgument, matchOutputs, type RegionOutput } from './memory-argument.ts';
import type { Output } from './output.ts';
import { OutputFiles } from './output-files.ts';
import type { ProgressView } from './progress.ts';
import { type StateArgument, standardStream } from './state-argument.ts';
import { refuseStoreFile } from './store-argument.ts';
import { formatAddress } from './units.ts';
import { usageError } from './usage-error.ts';

export interface ImageLoad {
  readonly store: Store;
  /** Where parents are, if not where they were. */
  readonly parents: readonly Store[];
  readonly memory: readonly MemoryArgument[];
  readonly states: readonly StateArgument[];
  readonly skip: readonly SkipPart[];
  readonly identity: IdentityOptions;
  readonly options: CommonOptions;
  readonly output: Output;
  readonly signal: AbortSignal;
  readonly onProgress: (view: ProgressView) => void;
}

export interface ImageLoaded {
  readonly uuid: string;
  /** Root digest, hexadecimal, verified. */
  readonly root: string;
  readonly header: VmHeader;
  readonly regions: readonly RegionOutput[];
  readonly values: readonly LoadedValue[];
  readonly memoryBytes: number;
  /** Without the parents. */
  readonly checkpointBytes: number;
  /** UUIDs of the parents that were read, nearest first. */
  readonly parents: readonly string[];
  readonly identity: IdentityReport;
}

/** Throws `CHKPT_USAGE` when the files do not fit the checkpoint, `CHKPT_SKIPPED`, everything that a load throws. */
export async function loadImage(load: ImageLoad): Promise<ImageLoaded> {
  const { store, signal, output, options } = load;
  const skipMemory = hasNativeAddon() ? new PageDecoder(undefined, { threads: options.threads }) : true;
  const checkpoint = await openCheckpoint(store, { mode: 'load', signal, skipMemory });
  const files = new OutputFiles(checkpoint.uuid, store.url);
  let machine: MachineIdentity | undefined;
  try {
    const header = await readHeader(checkpoint);
    const regions = regionsToLoad(header, load);
    const members = regions.length === 0 ? [] : await chainOf(checkpoint, store, load);
    refuseMembers(members, load);
    // Whoever starts the machine gives it the generation id that the report tells.
    const vm = { id: header.vm.id, setGeneration: () => undefined };
    machine = await prepareIdentity(vm, store, checkpoint.uuid, load.identity);
    const valueFiles = await createValueFiles(load.states, files);
    const summary =
      regions.length === 0
        ? await checkpoint.finish()
        : await loadMemory(checkpoint, members, regions, files, load);
    const { root, bytes: checkpointBytes } = summary;
    const memoryBytes = regions.reduce((sum, region) => sum + Number(region.bytes), 0);
    const values = await findValues(checkpoint, load.states, header, store.url);
    load.onProgress({ phase: 'commit', doneBytes: memoryBytes, totalBytes: memoryBytes });
    const identity = await machine.take();
    await writeValues(values, valueFiles, files, output);
    await files.publish(signal);
    machine = undefined;
    const parents = members.slice(1).map(({ uuid }) => uuid);
    const loaded = { uuid: checkpoint.uuid, root, header, regions, values };
    return { ...loaded, memoryBytes, checkpointBytes, parents, identity };
  } catch (error) {
    await machine?.undo();
    throw abortedOr(error, signal);
  } finally {
    await files.discard();
    await checkpoint.close();
  }
}

async function readHeader(checkpoint: LoadCheckpoint): Promise<VmHeader> {
  const context = await checkpoint.openContext(headerContext);
  const header = await context.load(headerState);
  await context.close();
  return header;
}

/** Throws `CHKPT_SKIPPED`, `CHKPT_USAGE`. */
function regionsToLoad(header: VmHeader, { memory, skip, store }: ImageLoad): RegionOutput[] {
  if (skip.includes('memory')) return [];
  if (decodeSkip(header.options.skip).includes('memory')) {
    throw new CheckpointError('CHKPT_SKIPPED', 'memory was skipped when this checkpoint was saved', {
      details: { store: store.url, context: headerContext, tag: 'options.skip' },
    });
  }
  const regions = regionsOf(header);
  if (memory.length === 0 && regions.length > 0) {
    const wanted = regions.map(({ base }) => `--memory OUTFILE@${formatAddress(base)}`).join(' ');
    throw usageError(`--memory is missing; this checkpoint needs ${wanted}, or --skip memory`);
  }
  if (regions.length === 0 && memory.length > 0)
    throw usageError('this checkpoint has no memory: leave out --memory');
  return matchOutputs(memory, regions);
}

/** An output that is one of the checkpoints would be its end. */
function refuseMembers(members: readonly ChainMember[], { memory, states }: ImageLoad): void {
  const outputs = [...memory, ...states].map(({ path }) => path).filter((path) => path !== standardStream);
  for (const { store } of members) refuseStoreFile(store.url, outputs);
}

async function loadMemory(
  checkpoint: LoadCheckpoint,
  members: readonly ChainMember[],
  regions: readonly RegionOutput[],
  files: OutputFiles,
  { options, signal, onProgress }: ImageLoad,
): Promise<StreamSummary> {
  const places = [];
  for (const { path, base, bytes } of regions) {
    const { handle } = await files.create(path);
    places.push({ file: handle.fd, base, bytes });
  }
  const memory = await GuestMemory.openFiles(places, { fresh: true });
  try {
    const totalBytes = Number(memory.byteLength);
    return await loadChainMemory(checkpoint, members, memory, {
      threads: options.threads,
      signal,
      onPages: (pages) => onProgress({ phase: 'memory', doneBytes: pages * pageBytes, totalBytes }),
    });
  } finally {
    await memory.close();
  }
}
