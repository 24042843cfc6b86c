/**
 * Saves what a command line has of a machine: RAM images and named values. The checkpoint has the contexts that
 * docs/format.md section 11 gives a virtual machine, with an empty device table; the values stand between it and the memory.
 */
import { producer } from '../checkpoint/producer.ts';
import { headerContext, headerOf, headerState } from '../checkpoint/vm-header.ts';
import { devicesContext, memoryContext, tableTags } from '../checkpoint/vm-plan.ts';
import {
  type MemoryFrameSource,
  type MemoryTotals,
  openCheckpoint,
  PageEncoder,
  type SaveCheckpoint,
  type SkipPart,
  type Store,
} from '../index.ts';
import { pageBytes } from '../limits.ts';
import type { CommitSummary } from '../store/index.ts';
import type { CommonOptions } from './common-options.ts';
import type { ProgressView } from './progress.ts';
import type { RamImages } from './ram-images.ts';
import type { StateGroup } from './state-files.ts';

export interface ImageSave {
  readonly store: Store;
  readonly id: string;
  readonly skip: readonly SkipPart[];
  readonly images: RamImages;
  readonly states: readonly StateGroup[];
  readonly options: CommonOptions;
  readonly signal: AbortSignal;
  readonly onProgress: (view: ProgressView) => void;
}

export interface ImageSaved {
  readonly summary: CommitSummary;
  /** Bytes of guest memory; 0 when it was skipped. */
  readonly memoryBytes: number;
  readonly totals: MemoryTotals;
}

const noTotals: MemoryTotals = {
  pages: 0,
  zeroPages: 0,
  fillPages: 0,
  storedPages: 0,
  samePages: 0,
  parentPages: 0,
  encodedBytes: 0,
};

/** Throws what the store and the memory throw; then nothing was published. */
export async function saveImage(save: ImageSave): Promise<ImageSaved> {
  const { store, signal, onProgress } = save;
  const { uuid, createdMs } = save.options;
  const checkpoint = await openCheckpoint(store, { mode: 'save', uuid, createdMs, signal });
  try {
    await saveHeader(checkpoint, save);
    await saveStates(checkpoint, save);
    const memory = save.skip.includes('memory') ? undefined : await saveMemory(checkpoint, save);
    const { memoryBytes = 0, totals = noTotals } = memory ?? {};
    onProgress({ phase: 'commit', doneBytes: memoryBytes, totalBytes: memoryBytes });
    return { summary: await checkpoint.commit(), memoryBytes, totals };
  } catch (error) {
    // What failed first is what has to be told.
    await checkpoint.abort().catch(() => undefined);
    throw error;
  }
}

async function saveHeader(checkpoint: SaveCheckpoint, { id, skip, images }: ImageSave): Promise<void> {
  const machine = { id, cpu: { vendor: '', model: '' }, cores: [], memory: images };
  const header = await checkpoint.openContext(headerContext);
  await header.save(headerState, headerOf(machine, skip, producer()));
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
  { images, options, signal, onProgress }: ImageSave,
): Promise<{ memoryBytes: number; totals: MemoryTotals }> {
  const memory = await images.openMemory();
  try {
    const memoryBytes = Number(memory.byteLength);
    let doneBytes = 0;
    let writtenBytes = 0;
    let totals = noTotals;
    const tell = (): void =>
      onProgress({ phase: 'memory', doneBytes, totalBytes: memoryBytes, writtenBytes });
    const encoder = new PageEncoder(memory, {
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
    return { memoryBytes, totals };
  } finally {
    await memory.close();
  }
}

/** The same source; its totals are told when the context layer takes them. */
function tellTotals(source: MemoryFrameSource, tell: (totals: MemoryTotals) => void): MemoryFrameSource {
  return {
    regions: source.regions,
    open(position, signal) {
      const stream = source.open(position, signal);
      return {
        next: () => stream.next(),
        totals: () => {
          const totals = stream.totals();
          tell(totals);
          return totals;
        },
        close: () => stream.close(),
      };
    },
  };
}
