/** `chkpt verify`: reads all of a checkpoint and its parents. Works without the native addon, slower. */
import { type VerifyOptions, type VerifyReport, verifyChain, verifyCheckpoint } from '../../index.ts';
import { pageBytes } from '../../limits.ts';
import { pagesOf } from '../checkpoint-facts.ts';
import type { Invocation } from '../invocation.ts';
import { keysOf } from '../key-argument.ts';
import { printable } from '../printable.ts';
import { createProgress } from '../progress.ts';
import { parentsOf, storeOf } from '../store-argument.ts';
import { countOf, formatBytes, formatDuration, formatRate } from '../units.ts';
import { usageError } from '../usage-error.ts';

export async function run({ line, common, output, signal }: Invocation): Promise<void> {
  const isAlone = line.has('alone');
  if (isAlone && line.has('parent')) throw usageError('--alone and --parent exclude each other');
  const store = storeOf(line.operand(0), keysOf(line));
  const parents = parentsOf(line);
  const progress = createProgress('verifying', common);
  try {
    const options: VerifyOptions = {
      threads: common.threads,
      signal,
      onProgress: ({ phase, memoryBytesDone, memoryBytes }) =>
        progress.update({ phase, doneBytes: memoryBytesDone, totalBytes: memoryBytes }),
    };
    const report: Verified = isAlone
      ? await verifyCheckpoint(store, options)
      : await verifyChain(store, { ...options, parents });
    progress.stop();
    if (common.json) await output.json(documentOf(report));
    else if (!common.quiet) await output.write(`${textOf(report)}\n`);
  } finally {
    progress.stop();
  }
}

/** `parents`: undefined when they were not looked at. */
type Verified = VerifyReport & { readonly parents?: readonly VerifyReport[] };

/** Those that are known: a checkpoint that stands alone has none, whatever was looked at. */
function parentsIn({ header, parents }: Verified): readonly VerifyReport[] | undefined {
  return header.parent === undefined ? [] : parents;
}

function documentOf(report: Verified): object {
  const { url, header, root, counts, bytes, indexed, integrity, elapsedMs } = report;
  const { contexts, tags, pages } = counts;
  return {
    command: 'verify',
    store: url,
    uuid: header.uuid,
    root,
    verified: integrity !== 'none',
    integrity,
    indexed,
    contexts,
    tags,
    memoryBytes: pages * pageBytes,
    checkpointBytes: bytes,
    encodedBytes: counts.encodedBytes,
    pages: pagesOf(counts),
    parents: parentsIn(report)?.map(parentDocument) ?? null,
    elapsedMs,
  };
}

function parentDocument({ url, header, root, counts, bytes }: VerifyReport): object {
  return {
    store: url,
    uuid: header.uuid,
    root,
    epoch: String(header.epoch),
    checkpointBytes: bytes,
    ownPages: counts.pages - counts.parentPages,
  };
}

function textOf(report: Verified): string {
  const { url, header, root, counts, bytes, integrity, elapsedMs } = report;
  const parents = report.parents ?? [];
  const parentBytes = parents.reduce((sum, parent) => sum + parent.bytes, 0);
  const memoryBytes = counts.pages * pageBytes;
  const parts = [
    `${formatBytes(bytes)} with ${formatBytes(memoryBytes)} of memory`,
    countOf(counts.contexts, 'context'),
    countOf(counts.tags, 'tag'),
    `${countOf(counts.pages, 'page')}${header.parent === undefined ? '' : `, ${counts.pages - counts.parentPages} of its own`}`,
    `integrity ${integrity}`,
    `uuid ${header.uuid}`,
    `root ${root}`,
    ...chainParts(report, parentBytes),
    `${formatDuration(elapsedMs)}, ${formatRate((1000 * (bytes + parentBytes)) / elapsedMs)}`,
  ];
  // Readable is all that can be said of it.
  const verdict = integrity === 'none' ? 'unverified' : 'ok';
  return `${verdict} ${printable(url)}: ${parts.join(', ')}`;
}

function chainParts({ header, parents }: Verified, parentBytes: number): string[] {
  if (header.parent === undefined) return [];
  if (parents === undefined) return ['its parents were not read'];
  return [`with ${countOf(parents.length, 'parent')} of ${formatBytes(parentBytes)}`];
}
