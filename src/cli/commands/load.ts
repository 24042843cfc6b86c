/** `chkpt load`: the RAM images and values of a checkpoint into files, or into a QEMU. */
import { resolve } from 'node:path';
import { identityDocument, identityNote, identityOf } from '../identity-argument.ts';
import type { Invocation } from '../invocation.ts';
import { linkedStoreOf } from '../link-argument.ts';
import { type ImageLoaded, loadImage } from '../load-image.ts';
import { parseMemoryArguments } from '../memory-argument.ts';
import { createProgress } from '../progress.ts';
import { loadQemu, qemuSocketOf } from '../qemu-guest.ts';
import { skipOf } from '../skip-argument.ts';
import { parseStateArguments, standardStream } from '../state-argument.ts';
import { parentsOf, refuseStoreFile } from '../store-argument.ts';
import { countOf, formatBytes, formatDuration, formatRate, ratioOf } from '../units.ts';
import { usageError } from '../usage-error.ts';

export async function run(invocation: Invocation): Promise<void> {
  const { line } = invocation;
  const socket = qemuSocketOf(line, ['memory', 'state']);
  if (socket === undefined && line.has('paused')) throw usageError('--paused goes with --qemu');
  await (socket === undefined ? runImages(invocation) : runQemu(invocation, socket));
}

async function runQemu(invocation: Invocation, socket: string): Promise<void> {
  const { line, common, output, signal } = invocation;
  const skip = skipOf(line);
  const store = linkedStoreOf(line.operand(0), invocation, 'listen');
  const parents = parentsOf(line);
  const isPaused = line.has('paused');
  const identity = identityOf(line);
  const progress = createProgress('loading', common);
  try {
    const onProgress = progress.update.bind(progress);
    const work = { socket, store, parents, skip, options: common, signal, onProgress };
    const loaded = await loadQemu(work, { isPaused, identity });
    progress.stop();
    const { uuid, root, header, checkpointBytes, elapsedMs, parents: read } = loaded;
    const memoryBytes = skip.includes('memory') ? 0 : loaded.memoryBytes;
    const ratio = ratioOf(memoryBytes, checkpointBytes);
    if (common.json) {
      const { id } = header.vm;
      const document = { command: 'load', store: store.url, uuid, root, id, memoryBytes, checkpointBytes };
      const state = { parents: read, verified: true, running: !isPaused };
      await output.json({ ...document, ratio, ...state, ...identityDocument(loaded), elapsedMs });
    } else if (!common.quiet) {
      const what = summaryOf({ memoryBytes, checkpointBytes, parents: read, values: [] }, elapsedMs);
      output.note(`${what}, the guest ${isPaused ? 'stands still' : 'runs'}${identityNote(loaded)}`);
    }
  } finally {
    progress.stop();
  }
}

async function runImages(invocation: Invocation): Promise<void> {
  const { line, common, output, signal } = invocation;
  const skip = skipOf(line);
  const memory = parseMemoryArguments(line.all('memory'));
  const states = parseStateArguments(line.all('state'));
  if (memory.length > 0 && skip.includes('memory'))
    throw usageError('--memory and --skip memory exclude each other');
  const outputs = [...memory, ...states].map(({ path }) => path).filter((path) => path !== standardStream);
  refuseSamePath(outputs);
  if (common.json && states.some(({ path }) => path === standardStream)) {
    throw usageError('--json and --state …=- both need standard output');
  }
  const store = linkedStoreOf(line.operand(0), invocation, 'listen');
  const parents = parentsOf(line);
  const identity = identityOf(line);
  for (const { url } of [store, ...parents]) refuseStoreFile(url, outputs);
  const progress = createProgress('loading', common);
  const begin = performance.now();
  try {
    const onProgress = progress.update.bind(progress);
    const files = { store, parents, memory, states, skip, identity };
    const work = { ...files, options: common, output, signal, onProgress };
    const loaded = await loadImage(work);
    progress.stop();
    const elapsedMs = performance.now() - begin;
    if (common.json) await output.json({ ...documentOf(loaded, store.url), elapsedMs });
    else if (!common.quiet) output.note(summaryOf(loaded, elapsedMs) + identityNote(loaded.identity));
  } finally {
    progress.stop();
  }
}

function refuseSamePath(paths: readonly string[]): void {
  const seen = new Set<string>();
  for (const path of paths) {
    const absolute = resolve(path);
    if (seen.has(absolute)) throw usageError(`${path} is the output for two things`);
    seen.add(absolute);
  }
}

function documentOf(loaded: ImageLoaded, store: string): object {
  const { uuid, root, header, regions, values, memoryBytes, checkpointBytes, parents, identity } = loaded;
  return {
    command: 'load',
    store,
    uuid,
    root,
    id: header.vm.id,
    memoryBytes,
    checkpointBytes,
    ratio: ratioOf(memoryBytes, checkpointBytes),
    memory: regions.map(({ path, base, bytes }) => ({ path, base: Number(base), bytes: Number(bytes) })),
    state: values.map(({ context, tag, path, data }) => ({ context, tag, path, bytes: data.length })),
    parents,
    verified: true,
    ...identityDocument(identity),
  };
}

type Loaded = Pick<ImageLoaded, 'memoryBytes' | 'checkpointBytes' | 'values' | 'parents'>;

function summaryOf(loaded: Loaded, elapsedMs: number): string {
  const { memoryBytes, checkpointBytes, values, parents } = loaded;
  const parts = [
    ...(memoryBytes > 0 ? [formatBytes(memoryBytes)] : []),
    ...(values.length > 0 ? [countOf(values.length, 'value')] : []),
  ];
  const rate = memoryBytes > 0 ? `, ${formatRate((1000 * memoryBytes) / elapsedMs)}` : '';
  const what = parts.join(' and ') || 'nothing';
  const chain = parents.length > 0 ? ` and ${countOf(parents.length, 'parent')}` : '';
  return `loaded ${what} from ${formatBytes(checkpointBytes)}${chain} in ${formatDuration(elapsedMs)}${rate}`;
}
