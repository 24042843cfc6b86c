/** A checkpoint from one store into another, verified on both sides. */
import type { StreamSummary } from '../context/stream-reader.ts';
import { CheckpointError } from '../errors/index.ts';
import { pageBytes } from '../limits.ts';
import type { Integrity, Store } from '../store/index.ts';
import { parseStoreUrl } from '../store/url.ts';
import { CheckpointContent } from './checkpoint-content.ts';
import { type TwoKeyOptions, toStore, toTarget } from './open.ts';
import { Operation, type Progress } from './operation.ts';
import { keepCheckpoint, type ReceiveCheckpointReport } from './relay.ts';
import { readCheckpoint } from './verify.ts';

export interface ConvertOptions extends TwoKeyOptions {
  /** Reads the new checkpoint back and compares. Default: true where what was written can be read. */
  readonly check?: boolean | undefined;
  /** Worker threads, 1 to 64; default: number of processors. */
  readonly threads?: number | undefined;
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: ((progress: Progress) => void) | undefined;
}

export interface ConvertReport {
  /** Where it was. */
  readonly from: string;
  /** Where it is too. */
  readonly url: string;
  readonly uuid: string;
  /** Root digest of the stream that went over, hexadecimal. */
  readonly root: string;
  /** Of an increment, which stays one. */
  readonly parent: string | undefined;
  readonly memoryBytes: number;
  /** Bytes of the new checkpoint. */
  readonly checkpointBytes: number;
  /** What it is worth that no error was found in the old one. */
  readonly integrity: Integrity;
  /**
   * The new one was read back without an error, which is worth this. Between native stores it has the same root digest; in a format of
   * others the same values and memory. Undefined: it was not read.
   */
  readonly checked: Integrity | undefined;
  readonly elapsedMs: number;
}

/** Where a read would be for the next sender, or cannot be at all. */
const writeOnly: ReadonlySet<string> = new Set(['tcp', 'tls', 'unix', 'fd', 'null', 'tee', 'palacios+net']);

/**
 * Copies a checkpoint from one store into another, of whatever formats. Between native stores the bytes stay what they are, and an
 * increment stays one; where a format of others is at one end the stream is made or taken apart on the way. Every digest is checked and
 * every page decoded before anything is visible; then the new one is read back.
 *
 * Rejects with errors of kind `damaged`, `CHKPT_UNSUPPORTED` (what the new format cannot hold), and those of the stores; then `target` is
 * what it was, unless what was written reads back differently: that error names it.
 */
export function convertCheckpoint(
  source: string | Store,
  target: string | Store,
  options: ConvertOptions = {},
): Operation<ConvertReport> {
  return new Operation<ConvertReport>(async (report) => {
    const begin = performance.now();
    const { signal, threads } = options;
    const [from, to] = [toStore(source, options.key), toTarget(target, options)];
    const { check = !writeOnly.has(parseStoreUrl(to.url).scheme) } = options;
    const content = check ? new CheckpointContent() : undefined;
    const kept = await keepCheckpoint(from, to, { signal, threads, report, content });
    const checked = content && (await checkCopy(kept, to, content, { signal, threads, report }));
    return {
      from: from.url,
      url: to.url,
      uuid: kept.header.uuid,
      root: kept.root,
      parent: kept.header.parent?.uuid,
      memoryBytes: kept.counts.pages * pageBytes,
      checkpointBytes: kept.storedBytes,
      integrity: kept.integrity,
      checked,
      elapsedMs: performance.now() - begin,
    };
  }, options.onProgress);
}

async function checkCopy(
  kept: ReceiveCheckpointReport,
  store: Store,
  written: CheckpointContent,
  options: Omit<Parameters<typeof readCheckpoint>[1], 'content'>,
): Promise<Integrity> {
  const content = kept.translated ? new CheckpointContent() : undefined;
  const copy = await readCheckpoint(store, { ...options, content });
  if (copy.root === kept.root) return copy.integrity;
  const difference =
    content === undefined
      ? 'it has another root digest'
      : (countDifference(kept, copy) ?? (written.isTaken ? written.differenceTo(content) : undefined));
  if (difference === undefined) return copy.integrity;
  const what = `what was written reads back as another checkpoint: ${difference}`;
  throw new CheckpointError('CHKPT_FORMAT', what, {
    details: { store: store.url, expected: kept.root, actual: copy.root },
  });
}

function countDifference(kept: StreamSummary, copy: StreamSummary): string | undefined {
  const names = ['contexts', 'tags', 'pages'] as const;
  const other = names.find((name) => copy.counts[name] !== kept.counts[name]);
  return other && `${copy.counts[other]} ${other}, not ${kept.counts[other]}`;
}
