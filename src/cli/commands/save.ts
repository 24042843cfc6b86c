/** `chkpt save`: RAM images and device state, or a QEMU guest, into a store. */
import { basename } from 'node:path';
import type { SkipPart } from '../../index.ts';
import type { Invocation } from '../invocation.ts';
import { type MemoryArgument, parseMemoryArguments } from '../memory-argument.ts';
import type { ParsedLine } from '../parse-line.ts';
import { createProgress } from '../progress.ts';
import { qemuSocketOf, saveQemu } from '../qemu-guest.ts';
import { RamImages } from '../ram-images.ts';
import { type ImageSaved, saveImage } from '../save-image.ts';
import { skipOf } from '../skip-argument.ts';
import { parseStateArguments, placeStates } from '../state-argument.ts';
import { readStates } from '../state-files.ts';
import { refuseStoreFile, storeOf } from '../store-argument.ts';
import { formatBytes, formatDuration, formatRate, ratioOf } from '../units.ts';
import { usageError } from '../usage-error.ts';

/** Identity of a machine that has no RAM image to name it. */
const defaultId = 'vm';

export async function run(invocation: Invocation): Promise<void> {
  const socket = qemuSocketOf(invocation.line, ['memory', 'state']);
  await (socket === undefined ? runImages(invocation) : runQemu(invocation, socket));
}

async function runQemu({ line, common, output, signal }: Invocation, socket: string): Promise<void> {
  const skip = skipOf(line);
  const store = storeOf(line.operand(0));
  const progress = createProgress('saving', common);
  try {
    const onProgress = progress.update.bind(progress);
    const work = { socket, store, skip, options: common, signal, onProgress };
    const saved = await saveQemu(work, { id: line.last('id'), copyMemory: line.has('copy-memory') });
    progress.stop();
    const { uuid, root, id, memoryBytes, checkpointBytes, elapsedMs, pausedMs } = saved;
    const ratio = ratioOf(memoryBytes, checkpointBytes);
    if (common.json) {
      const document = { command: 'save', store: store.url, uuid, root, id, memoryBytes, checkpointBytes };
      await output.json({ ...document, ratio, elapsedMs, pausedMs });
    } else if (!common.quiet) {
      const stood = `, the guest stood still for ${formatDuration(pausedMs)}`;
      output.note(`${summaryOf(checkpointBytes, memoryBytes, elapsedMs)}${pausedMs > 0 ? stood : ''}`);
    }
  } finally {
    progress.stop();
  }
}

async function runImages({ line, common, output, signal }: Invocation): Promise<void> {
  const skip = skipOf(line);
  const memory = memoryOf(line, skip);
  const stateInputs = placeStates(parseStateArguments(line.all('state')));
  const store = storeOf(line.operand(0));
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
    const saved = await saveImage({ store, id, skip, images, states, options: common, signal, onProgress });
    progress.stop();
    const elapsedMs = performance.now() - begin;
    if (common.json) await output.json({ ...documentOf(saved, store.url, id), elapsedMs });
    else if (!common.quiet) output.note(summaryOf(saved.summary.bytes, saved.memoryBytes, elapsedMs));
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

function documentOf({ summary, memoryBytes, totals }: ImageSaved, store: string, id: string): object {
  const { encodedBytes, pages, zeroPages, fillPages, storedPages, samePages, parentPages } = totals;
  return {
    command: 'save',
    store,
    uuid: summary.uuid,
    root: summary.root,
    id,
    memoryBytes,
    checkpointBytes: summary.bytes,
    encodedBytes,
    ratio: ratioOf(memoryBytes, summary.bytes),
    pages: {
      total: pages,
      zero: zeroPages,
      fill: fillPages,
      stored: storedPages,
      same: samePages,
      parent: parentPages,
    },
  };
}

function summaryOf(checkpointBytes: number, memoryBytes: number, elapsedMs: number): string {
  const size = formatBytes(checkpointBytes);
  const time = formatDuration(elapsedMs);
  if (memoryBytes === 0) return `saved ${size} without memory in ${time}`;
  const rate = formatRate((1000 * memoryBytes) / elapsedMs);
  return `saved ${formatBytes(memoryBytes)} as ${size} in ${time}, ${rate}`;
}
