/** `chkpt save`: RAM images and device state, or a QEMU guest, into a store. */
import { basename } from 'node:path';
import type { TrackerReport } from '../../checkpoint/increment.ts';
import { noPages } from '../../format/page-sequence.ts';
import type { MemoryTotals, SkipPart } from '../../index.ts';
import type { Invocation } from '../invocation.ts';
import { linkedStoreOf } from '../link-argument.ts';
import { type MemoryArgument, parseMemoryArguments } from '../memory-argument.ts';
import type { ParsedLine } from '../parse-line.ts';
import { createProgress } from '../progress.ts';
import { qemuSocketOf, saveQemu } from '../qemu-guest.ts';
import { RamImages } from '../ram-images.ts';
import { saveImage } from '../save-image.ts';
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
  await (socket === undefined ? runImages(invocation) : runQemu(invocation, socket));
}

async function runQemu(invocation: Invocation, socket: string): Promise<void> {
  const { line, common, output, signal } = invocation;
  const skip = skipOf(line);
  const store = linkedStoreOf(line.operand(0), invocation, 'connect');
  refuseSharedOutput(store, common);
  const parents = parentsOf(line);
  const progress = createProgress('saving', common);
  try {
    const onProgress = progress.update.bind(progress);
    const work = { socket, store, parents, skip, options: common, signal, onProgress };
    const saved = await saveQemu(work, { id: line.last('id'), copyMemory: line.has('copy-memory') });
    progress.stop();
    const { elapsedMs, pausedMs, totals = noPages } = saved;
    const told = { ...saved, totals, store: store.url };
    if (common.json) await output.json({ ...documentOf(told), elapsedMs, pausedMs });
    else if (!common.quiet) {
      const stood = `, the guest stood still for ${formatDuration(pausedMs)}`;
      output.note(`${summaryOf(told, elapsedMs)}${pausedMs > 0 ? stood : ''}`);
    }
  } finally {
    progress.stop();
  }
}

async function runImages(invocation: Invocation): Promise<void> {
  const { line, common, output, signal } = invocation;
  const skip = skipOf(line);
  const memory = memoryOf(line, skip);
  const stateInputs = placeStates(parseStateArguments(line.all('state')));
  const store = linkedStoreOf(line.operand(0), invocation, 'connect');
  refuseSharedOutput(store, common);
  const parents = parentsOf(line);
  refuseStoreFile(
    store.url,
    memory.map(({ path }) => path),
  );
  const id = line.last('id') ?? basename(memory[0]?.path ?? defaultId);
  if (line.has('copy-memory')) throw usageError('--copy-memory goes with --qemu');
  const images = await RamImages.open(memory);
  const progress = createProgress('saving', common);
  try {
    const states = await readStates(stateInputs, signal);
    const begin = performance.now();
    const onProgress = progress.update.bind(progress);
    const work = { store, id, skip, images, states, parents, options: common, signal, onProgress };
    const saved = await saveImage(work);
    progress.stop();
    const elapsedMs = performance.now() - begin;
    const { uuid, root, storedBytes: checkpointBytes } = saved.summary;
    const told = { ...saved, store: store.url, id, uuid, root, checkpointBytes };
    if (common.json) await output.json({ ...documentOf(told), elapsedMs });
    else if (!common.quiet) output.note(summaryOf(told, elapsedMs));
  } finally {
    progress.stop();
    await images.close();
  }
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
  readonly parent?: string | undefined;
  readonly tracker?: TrackerReport | undefined;
}

function documentOf(saved: Saved): object {
  const { store, uuid, root, id, memoryBytes, checkpointBytes, totals, parent, tracker } = saved;
  return {
    command: 'save',
    store,
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

function pagesOf(totals: MemoryTotals): object {
  const { pages, zeroPages, fillPages, storedPages, samePages, parentPages } = totals;
  return {
    total: pages,
    zero: zeroPages,
    fill: fillPages,
    stored: storedPages,
    same: samePages,
    parent: parentPages,
  };
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
