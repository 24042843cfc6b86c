/** `chkpt verify`: reads all of a checkpoint. Works without the native addon, slower. */
import { type VerifyReport, verifyCheckpoint } from '../../index.ts';
import { pageBytes } from '../../limits.ts';
import type { Invocation } from '../invocation.ts';
import { printable } from '../printable.ts';
import { createProgress } from '../progress.ts';
import { storeOf } from '../store-argument.ts';
import { countOf, formatBytes, formatDuration, formatRate } from '../units.ts';

export async function run({ line, common, output, signal }: Invocation): Promise<void> {
  const store = storeOf(line.operand(0));
  const progress = createProgress('verifying', common);
  try {
    const report = await verifyCheckpoint(store, {
      threads: common.threads,
      signal,
      onProgress: ({ phase, memoryBytesDone, memoryBytes }) =>
        progress.update({ phase, doneBytes: memoryBytesDone, totalBytes: memoryBytes }),
    });
    progress.stop();
    if (common.json) await output.json(documentOf(report));
    else if (!common.quiet) await output.write(`${textOf(report)}\n`);
  } finally {
    progress.stop();
  }
}

function documentOf({
  url,
  header,
  root,
  counts,
  bytes,
  indexed,
  integrity,
  elapsedMs,
}: VerifyReport): object {
  const { contexts, tags, pages, zeroPages, fillPages, storedPages, samePages, parentPages } = counts;
  return {
    command: 'verify',
    store: url,
    uuid: header.uuid,
    root,
    verified: true,
    integrity,
    indexed,
    contexts,
    tags,
    memoryBytes: pages * pageBytes,
    checkpointBytes: bytes,
    encodedBytes: counts.encodedBytes,
    pages: {
      total: pages,
      zero: zeroPages,
      fill: fillPages,
      stored: storedPages,
      same: samePages,
      parent: parentPages,
    },
    elapsedMs,
  };
}

function textOf({ url, header, root, counts, bytes, elapsedMs }: VerifyReport): string {
  const memoryBytes = counts.pages * pageBytes;
  const parts = [
    `${formatBytes(bytes)} with ${formatBytes(memoryBytes)} of memory`,
    countOf(counts.contexts, 'context'),
    countOf(counts.tags, 'tag'),
    countOf(counts.pages, 'page'),
    `uuid ${header.uuid}`,
    `root ${root}`,
    `${formatDuration(elapsedMs)}, ${formatRate((1000 * bytes) / elapsedMs)}`,
  ];
  return `ok ${printable(url)}: ${parts.join(', ')}`;
}
