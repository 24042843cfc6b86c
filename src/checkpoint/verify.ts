/** Reading a checkpoint without a machine: verify all of it, or look at what it says. */
import { type Inspection, inspectStream } from '../context/inspect.ts';
import { StreamReader, type StreamSummary } from '../context/stream-reader.ts';
import { checkpointDigest } from '../memory/digest.ts';
import type { Integrity, Store } from '../store/index.ts';
import type { CheckpointContent } from './checkpoint-content.ts';
import { type KeyOptions, toStore } from './open.ts';
import { Operation, type Progress } from './operation.ts';
import { readWhole } from './read-whole.ts';
import { abortedOr } from './save-vm.ts';

export interface VerifyOptions extends KeyOptions {
  /** Worker threads, 1 to 64; default: number of processors. */
  readonly threads?: number | undefined;
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: ((progress: Progress) => void) | undefined;
}

/** A checkpoint every byte of which was checked and every page decoded. */
export interface VerifyReport extends StreamSummary {
  readonly url: string;
  /** What the check is worth. */
  readonly integrity: Integrity;
  /** Wall time, milliseconds. */
  readonly elapsedMs: number;
}

/**
 * Reads a whole checkpoint, checks all digests and decodes every page. Works without the native addon, slower.
 *
 * Rejects with an error of kind `damaged` that names frame and offset, `CHKPT_KEY`, and with the errors of the store.
 */
export function verifyCheckpoint(
  source: string | Store,
  options: VerifyOptions = {},
): Operation<VerifyReport> {
  return new Operation<VerifyReport>(
    async (report) => await readCheckpoint(toStore(source, options.key), { ...options, report }),
    options.onProgress,
  );
}

interface ReadCheckpointOptions extends Pick<VerifyOptions, 'threads' | 'signal'> {
  readonly report: (progress: Omit<Progress, 'elapsedMs'>) => void;
  /** Takes note of what is read. */
  readonly content?: CheckpointContent | undefined;
}

/** As `verifyCheckpoint`. */
export async function readCheckpoint(store: Store, options: ReadCheckpointOptions): Promise<VerifyReport> {
  const begin = performance.now();
  const { signal, threads, content, report } = options;
  signal?.throwIfAborted();
  const digest = await checkpointDigest();
  const stored = await store.openReader({ signal, onMemoryDigest: content?.takeMemory });
  const reader = new StreamReader(stored, { digest, store: store.url, signal });
  try {
    const summary = await readWhole(reader, {
      ...{ digest, threads, content: () => content },
      onMemory: (memoryBytesDone, memoryBytes) => report({ phase: 'memory', memoryBytesDone, memoryBytes }),
    });
    return {
      ...summary,
      url: store.url,
      integrity: stored.integrity ?? 'detect',
      elapsedMs: performance.now() - begin,
    };
  } catch (error) {
    throw abortedOr(error, signal);
  } finally {
    await reader.close();
  }
}

/** An open inspection; close it. */
export interface OpenInspection extends Inspection, AsyncDisposable {
  readonly url: string;
  close(): Promise<void>;
}

/**
 * What a checkpoint says about itself: header, contexts, tags, counts. With random access memory is not read, so only what is
 * looked at is verified; `inspection.verified` tells. Works without the native addon.
 */
export async function inspectCheckpoint(
  source: string | Store,
  options: KeyOptions & { readonly signal?: AbortSignal | undefined } = {},
): Promise<OpenInspection> {
  const store = toStore(source, options.key);
  const digest = await checkpointDigest();
  const reader = await store.openReader({ signal: options.signal });
  const close = (): Promise<void> => reader.close();
  try {
    const inspection = await inspectStream(reader, { digest, store: store.url, signal: options.signal });
    return { ...inspection, url: store.url, close, [Symbol.asyncDispose]: close };
  } catch (error) {
    await close();
    throw error;
  }
}
