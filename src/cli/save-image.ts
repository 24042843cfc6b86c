/**
 * Saves what a command line has of a machine: RAM images and named values. The checkpoint has the contexts that
 * docs/format.md section 11 gives a virtual machine, with an empty device table; the values stand between it and the memory.
 */
import { Increment, type TrackerReport } from '../checkpoint/increment.ts';
import { parentState } from '../checkpoint/parent.ts';
import { producer } from '../checkpoint/producer.ts';
import { abortedOr } from '../checkpoint/save-vm.ts';
import {
  encodeScrub,
  pagesIn,
  type ScrubbedRange,
  type ScrubOptions,
  scrubState,
} from '../checkpoint/scrub.ts';
import { tellTotals } from '../checkpoint/tell-totals.ts';
import { headerContext, headerOf, headerState } from '../checkpoint/vm-header.ts';
import { devicesContext, memoryContext, tableTags } from '../checkpoint/vm-plan.ts';
import type { StreamWritten } from '../context/stream-writer.ts';
import { noPages } from '../format/page-sequence.ts';
import {
  type GuestMemory,
  type MemoryTotals,
  openCheckpoint,
  PageEncoder,
  type SaveCheckpoint,
  type SkipPart,
  type Store,
} from '../index.ts';
import { pageBytes } from '../limits.ts';
import type { CommonOptions } from './common-options.ts';
import type { ProgressView } from './progress.ts';
import type { RamImages } from './ram-images.ts';
import { checkScrub } from './scrub-argument.ts';
import type { StateGroup } from './state-files.ts';

export interface ImageSave {
  readonly scrub: ScrubOptions;
  readonly store: Store;
  readonly id: string;
  readonly skip: readonly SkipPart[];
  readonly images: RamImages;
  readonly states: readonly StateGroup[];
  /** The checkpoint to build on, then where parents of it are that have moved; empty: a checkpoint that stands alone. */
  readonly parents: readonly Store[];
  readonly options: CommonOptions;
  readonly signal: AbortSignal;
  readonly onProgress: (view: ProgressView) => void;
}

export interface ImageSaved {
  readonly summary: StreamWritten;
  /** Bytes of guest memory; 0 when it was skipped. */
  readonly memoryBytes: number;
  /** Undefined when the store keeps memory in a way of its own. */
  readonly totals: MemoryTotals | undefined;
  /** UUID of the checkpoint that it builds on. */
  readonly parent: string | undefined;
  /** Who said what has changed; undefined without parent. */
  readonly tracker: TrackerReport | undefined;
}

/**
 * Throws what the store and the memory throw; then nothing was published. With a parent also `CHKPT_PARENT_*`, `CHKPT_VM_REGIONS`.
 */
export async function saveImage(save: ImageSave): Promise<ImageSaved> {
  const memory = save.skip.includes('memory') ? undefined : await save.images.openMemory();
  try {
    return await saveOpened(save, memory);
  } catch (error) {
    throw abortedOr(error, save.signal);
  } finally {
    await memory?.close();
  }
}

async function saveOpened(save: ImageSave, memory: GuestMemory | undefined): Promise<ImageSaved> {
  const { store, signal, onProgress, parents } = save;
  const { uuid, createdMs, threads } = save.options;
  const [parent, ...places] = parents;
  const untracked = { dirtyTracker: undefined };
  const options = { parent, parents: places, threads, signal };
  const scrubbed = checkScrub(save.scrub, memory?.regions);
  const increment = await Increment.prepare(untracked, memory, store, options);
  const checkpoint = await openCheckpoint(store, {
    ...{ mode: 'save', uuid, createdMs, signal },
    ...increment.reference,
  });
  try {
    await saveHeader(checkpoint, save, increment.link(store.url), scrubbed);
    await saveStates(checkpoint, save);
    const changes = await increment.take(pagesIn(scrubbed, memory?.regions ?? []));
    const totals = memory === undefined ? noPages : await saveMemory(checkpoint, memory, changes, save);
    const memoryBytes = Number(memory?.byteLength ?? 0n);
    onProgress({ phase: 'commit', doneBytes: memoryBytes, totalBytes: memoryBytes });
    const summary = await checkpoint.commit();
    const { parent: base, tracker } = increment;
    return { summary, memoryBytes, totals, parent: base?.uuid, tracker };
  } catch (error) {
    // What failed first is what has to be told.
    await checkpoint.abort().catch(() => undefined);
    throw error;
  }
}

async function saveHeader(
  checkpoint: SaveCheckpoint,
  { id, skip, images }: ImageSave,
  parentUrl: string | undefined,
  scrubbed: readonly ScrubbedRange[],
): Promise<void> {
  const machine = { id, cpu: { vendor: '', model: '' }, cores: [], memory: images };
  const header = await checkpoint.openContext(headerContext);
  await header.save(headerState, headerOf(machine, skip, producer()));
  if (parentUrl !== undefined) await header.save(parentState, { parent: { url: parentUrl } });
  if (scrubbed.length > 0) await header.save(scrubState, encodeScrub(scrubbed));
  await header.close();
}

async function saveStates(checkpoint: SaveCheckpoint, { skip, states }: ImageSave): Promise<void> {
  if (!skip.includes('devices')) {
    const table = await checkpoint.openContext(devicesContext);
    await table.saveAll(Object.fromEntries(tableTags([])));
    await table.close();
  }
  for (const { context: name, values } of states) {
    const context = await checkpoint.openContext(name);
    for (const [tag, data] of values) await context.save(tag, data);
    await context.close();
  }
}

async function saveMemory(
  checkpoint: SaveCheckpoint,
  memory: GuestMemory,
  changes: Awaited<ReturnType<Increment['take']>>,
  { options, signal, onProgress }: ImageSave,
): Promise<MemoryTotals | undefined> {
  const totalBytes = Number(memory.byteLength);
  let doneBytes = 0;
  let writtenBytes = 0;
  let totals: MemoryTotals | undefined;
  const tell = (): void => onProgress({ phase: 'memory', doneBytes, totalBytes, writtenBytes });
  const encoder = new PageEncoder(memory, {
    ...changes,
    codec: options.codec === 'auto' ? 'lz4' : options.codec,
    threads: options.threads,
    onPages: (pages) => {
      doneBytes = pages * pageBytes;
      tell();
    },
  });
  const source = tellTotals(encoder, (found) => {
    totals = found;
  });
  await checkpoint.saveMemory(memoryContext, source, {
    signal,
    onProgress: (progress) => {
      writtenBytes = progress.writtenBytes;
      tell();
    },
  });
  return totals;
}
