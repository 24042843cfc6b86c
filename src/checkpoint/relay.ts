/**
 * A checkpoint from one store into another as it is: the same bytes, verified while they pass, visible only when all of them are sound.
 * With a stream store at one end it is a remote backup.
 */
import { SegmentSplitter } from '../context/segment-splitter.ts';
import { StreamReader, type StreamSummary } from '../context/stream-reader.ts';
import { CheckpointError } from '../errors/index.ts';
import type { Digest64 } from '../format/digest.ts';
import type { StreamHeader } from '../format/stream-header.ts';
import { checkpointDigest } from '../memory/digest.ts';
import type { Integrity, Store, StoreReader, StoreWriter } from '../store/index.ts';
import type { CheckpointContent } from './checkpoint-content.ts';
import { type TwoKeyOptions, toStore, toTarget } from './open.ts';
import { Operation, type Progress } from './operation.ts';
import { readWhole } from './read-whole.ts';
import { abortedOr } from './save-vm.ts';

/** Where a received checkpoint goes: a store, or a choice by what its first bytes say. */
export type ReceiveTarget = string | Store | ((header: StreamHeader) => string | Store);

export interface ReceiveOptions extends TwoKeyOptions {
  /** Worker threads, 1 to 64; default: number of processors. */
  readonly threads?: number | undefined;
  /** Stops receiving: nothing is published, and the sender hears of it. */
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: ((progress: Progress) => void) | undefined;
}

/** A checkpoint that was verified as a whole and is kept. */
export interface ReceiveCheckpointReport extends StreamSummary {
  /** Of the store that has it. */
  readonly url: string;
  /** Bytes that it takes there. */
  readonly storedBytes: number;
  /** The store keeps it in a format of its own: what is read there is another stream. */
  readonly translated: boolean;
  /** What it is worth that no error was found in the source. */
  readonly integrity: Integrity;
  /** The sender was told. False: the connection was lost after the checkpoint was kept. */
  readonly acknowledged: boolean;
  /** Wall time from the first byte on, milliseconds. */
  readonly elapsedMs: number;
}

/**
 * Takes one checkpoint from `source` (of a stream store: from the next sender) and keeps it in `target`, byte for byte. Every digest
 * is checked and every page decoded. The sender hears that it is kept when `target` has committed it.
 *
 * Rejects with errors of kind `damaged`, `CHKPT_LINK_LOST`, `CHKPT_TIMEOUT`, `CHKPT_PEER_REFUSED`, and those of the stores; then
 * `target` is what it was, and the sender was told why, if it could be.
 */
export function receiveCheckpoint(
  source: string | Store,
  target: ReceiveTarget,
  options: ReceiveOptions = {},
): Operation<ReceiveCheckpointReport> {
  return new Operation<ReceiveCheckpointReport>(
    async (report) => await keepCheckpoint(source, target, { ...options, report }),
    options.onProgress,
  );
}

interface KeepOptions extends Omit<ReceiveOptions, 'onProgress'> {
  readonly report: (progress: Omit<Progress, 'elapsedMs'>) => void;
  /** Takes note of what goes into a store that does not keep the stream as it is. */
  readonly content?: CheckpointContent | undefined;
}

/** As `receiveCheckpoint`. */
export async function keepCheckpoint(
  source: string | Store,
  target: ReceiveTarget,
  options: KeepOptions,
): Promise<ReceiveCheckpointReport> {
  const { signal } = options;
  signal?.throwIfAborted();
  const from = toStore(source, options.key);
  const digest = await checkpointDigest();
  const reader = await from.openReader({ signal, purpose: 'keep' });
  try {
    return await relay(from, reader, target, { ...options, digest });
  } catch (error) {
    const failure = abortedOr(error, signal);
    await reader.refuse?.(failure);
    throw failure;
  } finally {
    await reader.close();
  }
}

interface Work extends KeepOptions {
  readonly digest: Digest64;
}

async function relay(
  from: Store,
  reader: StoreReader,
  target: ReceiveTarget,
  work: Work,
): Promise<ReceiveCheckpointReport> {
  const begin = performance.now();
  const { digest, signal } = work;
  let to: Store | undefined;
  let writer: StoreWriter | undefined;
  const splitter = new SegmentSplitter(digest, from.url, async (header) => {
    to = toTarget(typeof target === 'function' ? target(header) : target, work);
    if (to.url === from.url) {
      throw new CheckpointError('CHKPT_STORE_URL', 'source and target are the same store', {
        details: { store: to.url },
      });
    }
    writer = await to.openWriter({ uuid: header.uuid, signal, onMemoryDigest: work.content?.takeMemory });
    return writer;
  });
  // The bytes are in the target before the reader sees them, and count for nothing there until it has found them good.
  const passing: StoreReader = {
    byteLength: reader.byteLength,
    read: async (bytes) => {
      const byteCount = await reader.read(bytes);
      await splitter.push(bytes.subarray(0, byteCount));
      return byteCount;
    },
    close: async () => undefined,
  };
  try {
    const stream = new StreamReader(passing, { digest, store: from.url, signal, answers: false });
    let memoryBytes = 0;
    const summary = await readWhole(stream, {
      ...{ digest, threads: work.threads },
      content: () => (to?.readsFrames === true ? work.content : undefined),
      onMemory: (memoryBytesDone, total) => {
        memoryBytes = total;
        work.report({ phase: 'memory', memoryBytesDone, memoryBytes });
      },
    });
    work.report({ phase: 'commit', memoryBytesDone: memoryBytes, memoryBytes });
    await splitter.commit(summary);
    const { header, root, bytes } = summary;
    const acknowledged = await tell(reader, { uuid: header.uuid, root, bytes });
    return {
      ...summary,
      url: to?.url ?? '',
      storedBytes: writer?.storedBytes ?? bytes,
      translated: writer?.storedBytes !== undefined && writer.keepsStream !== true,
      integrity: reader.integrity ?? 'detect',
      acknowledged,
      elapsedMs: performance.now() - begin,
    };
  } catch (error) {
    await splitter.abort().catch(() => undefined);
    throw error;
  }
}

async function tell(
  reader: StoreReader,
  received: Parameters<NonNullable<StoreReader['acknowledge']>>[0],
): Promise<boolean> {
  try {
    await reader.acknowledge?.(received);
    return true;
  } catch {
    // It is kept all the same; the sender is in doubt and has to look.
    return false;
  }
}
