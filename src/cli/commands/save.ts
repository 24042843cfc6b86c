/** `chkpt save`: RAM images and device state, or a QEMU guest, into a store. */
import { basename } from 'node:path';
import type { TrackerReport } from '../../checkpoint/increment.ts';
import { noPages } from '../../format/page-sequence.ts';
import { type MemoryTotals, type SkipPart, type Store, type TeeOutcome, TeeStore } from '../../index.ts';
import { pagesOf } from '../checkpoint-facts.ts';
import type { Invocation } from '../invocation.ts';
import { linkedStoreOf } from '../link-argument.ts';
import { type MemoryArgument, parseMemoryArguments } from '../memory-argument.ts';
import type { ParsedLine } from '../parse-line.ts';
import { createProgress } from '../progress.ts';
import { qemuSocketOf, saveQemu } from '../qemu-guest.ts';
import { RamImages } from '../ram-images.ts';
import { saveImage } from '../save-image.ts';
import { scrubOf } from '../scrub-argument.ts';
import { skipOf } from '../skip-argument.ts';
import { parseStateArguments, placeStates } from '../state-argument.ts';
import { readStates } from '../state-files.ts';
import { parentsOf, refuseSharedOutput, refuseStoreFile } from '../store-argument.ts';
import { formatBytes, formatDuration, formatRate, ratioOf } from '../units.ts';
import { usageError } from '../usage-error.ts';

/** Identity of a machine that has no RAM image to name it. */
const defaultId = 'vm';

export async function run(invocation: Invocation): Promise<void> {
  const { line } = invocation;
  const socket = qemuSocketOf(line, ['memory', 'state']);
  if (line.has('parent') && skipOf(line).includes('memory')) {
    throw usageError('--parent and --skip memory exclude each other');
  }
  const secret = ['scrub', 'leave-out'].find((name) => line.has(name));
  if (secret !== undefined && skipOf(line).includes('memory')) {
    throw usageError(`--${secret} and --skip memory exclude each other`);
  }
  await (socket === undefined ? runImages(invocation) : runQemu(invocation, socket));
}

async function runQemu(invocation: Invocation, socket: string): Promise<void> {
  const { line, common, output, signal } = invocation;
  const skip = skipOf(line);
  const store = targetOf(invocation);
  const parents = parentsOf(line);
  const progress = createProgress('saving', common);
  try {
    const onProgress = progress.update.bind(progress);
    const work = { socket, store, parents, skip, options: common, signal, onProgress };
    const saved = await saveQemu(work, {
      ...{ id: line.last('id'), copyMemory: line.has('copy-memory') },
      scrub: scrubOf(line),
    });
    progress.stop();
    const { elapsedMs, pausedMs, totals = noPages } = saved;
    const told = { ...saved, totals, store: store.url, stores: outcomesOf(store) };
    if (common.json) await output.json({ ...documentOf(told), elapsedMs, pausedMs });
    else if (!common.quiet) {
      const stood = `, the guest stood still for ${formatDuration(pausedMs)}`;
      output.note(`${summaryOf(told, elapsedMs)}${pausedMs > 0 ? stood : ''}`);
    }
    checkAll(told.stores);
  } finally {
    progress.stop();
  }
}

async function runImages(invocation: Invocation): Promise<void> {
  const { line, common, output, signal } = invocation;
  const skip = skipOf(line);
  const memory = memoryOf(line, skip);
  const stateInputs = placeStates(parseStateArguments(line.all('state')));
  const store = targetOf(invocation);
  const parents = parentsOf(line);
  const paths = memory.map(({ path }) => path);
  for (const { url } of store instanceof TeeStore ? store.stores : [store]) refuseStoreFile(url, paths);
  const id = line.last('id') ?? basename(memory[0]?.path ?? defaultId);
  if (line.has('copy-memory')) throw usageError('--copy-memory goes with --qemu');
  const images = await RamImages.open(memory);
  const progress = createProgress('saving', common);
  try {
    const states = await readStates(stateInputs, signal);
    const begin = performance.now();
    const onProgress = progress.update.bind(progress);
    const machine = { id, skip, images, states, scrub: scrubOf(line) };
    const work = { ...machine, store, parents, options: common, signal, onProgress };
    const saved = await saveImage(work);
    progress.stop();
    const elapsedMs = performance.now() - begin;
    const { uuid, root, storedBytes: checkpointBytes } = saved.summary;
    const told = { ...saved, store: store.url, stores: outcomesOf(store), id, uuid, root, checkpointBytes };
    if (common.json) await output.json({ ...documentOf(told), elapsedMs });
    else if (!common.quiet) output.note(summaryOf(told, elapsedMs));
    checkAll(told.stores);
  } finally {
    progress.stop();
    await images.close();
  }
}

/** The STORE of the line, or several as one. */
function targetOf(invocation: Invocation): Store {
  const stores = invocation.line.operands.map((url) => linkedStoreOf(url, invocation, 'connect'));
  for (const store of stores) refuseSharedOutput(store, invocation.common);
  const [only] = stores;
  if (stores.length === 1 && only !== undefined) return only;
  try {
    return new TeeStore(stores);
  } catch (error) {
    throw usageError(error instanceof Error ? error.message : String(error));
  }
}

function outcomesOf(store: Store): readonly TeeOutcome[] | undefined {
  return store instanceof TeeStore ? store.outcomes : undefined;
}

/** Throws why a store has nothing, when others have the checkpoint. */
function checkAll(outcomes: readonly TeeOutcome[] | undefined): void {
  const failed = outcomes?.find(({ error }) => error !== undefined);
  if (failed?.error !== undefined) throw failed.error;
}

function memoryOf(line: ParsedLine, skip: readonly SkipPart[]): MemoryArgument[] {
  const memory = parseMemoryArguments(line.all('memory'));
  if (memory.length > 0 || skip.includes('memory')) return memory;
  throw usageError(
    '--memory RAMFILE or --qemu SOCKET is missing; to save a machine without its memory add --skip memory',
  );
}

/** What both ways of saving tell. */
interface Saved {
  readonly store: string;
  readonly uuid: string;
  readonly root: string;
  readonly id: string;
  readonly memoryBytes: number;
  readonly checkpointBytes: number;
  readonly totals: MemoryTotals | undefined;
  readonly stores?: readonly TeeOutcome[] | undefined;
  readonly parent?: string | undefined;
  readonly tracker?: TrackerReport | undefined;
}

function documentOf(saved: Saved): object {
  const { store, stores, uuid, root, id, memoryBytes, checkpointBytes, totals, parent, tracker } = saved;
  return {
    command: 'save',
    store,
    ...(stores === undefined ? {} : { stores: stores.map(outcomeDocument) }),
    uuid,
    root,
    id,
    memoryBytes,
    checkpointBytes,
    encodedBytes: totals?.encodedBytes ?? null,
    ratio: ratioOf(memoryBytes, checkpointBytes),
    pages: totals === undefined ? null : pagesOf(totals),
    parent: parent ?? null,
    tracker: tracker ?? null,
  };
}

function outcomeDocument({ url, storedBytes, error }: TeeOutcome): object {
  return { store: url, checkpointBytes: storedBytes ?? null, error: error === undefined ? null : error.code };
}

function summaryOf({ memoryBytes, checkpointBytes, totals, parent }: Saved, elapsedMs: number): string {
  const size = formatBytes(checkpointBytes);
  const time = formatDuration(elapsedMs);
  if (memoryBytes === 0) return `saved ${size} without memory in ${time}`;
  const rate = formatRate((1000 * memoryBytes) / elapsedMs);
  const { pages, parentPages } = totals ?? noPages;
  const kind = parent === undefined ? '' : `, an increment: ${pages - parentPages} of ${pages} pages stored`;
  return `saved ${formatBytes(memoryBytes)} as ${size} in ${time}, ${rate}${kind}`;
}
