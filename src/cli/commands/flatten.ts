/** `chkpt flatten`: a chain of checkpoints made one. */
import { flattenCheckpoint } from '../../index.ts';
import type { Invocation } from '../invocation.ts';
import { keysOf, targetKeysOf } from '../key-argument.ts';
import { printable } from '../printable.ts';
import { createProgress } from '../progress.ts';
import { refuseSharedOutput, storeOf } from '../store-argument.ts';
import { countOf, formatBytes, formatDuration } from '../units.ts';

export async function run({ line, common, output, signal }: Invocation): Promise<void> {
  const store = storeOf(line.operand(0), keysOf(line));
  const target = storeOf(line.operand(1), targetKeysOf(line));
  refuseSharedOutput(target, common);
  const progress = createProgress('flattening', common);
  try {
    const { threads, uuid, createdMs } = common;
    const report = await flattenCheckpoint(store, target, {
      ...{ threads, uuid, createdMs, signal },
      codec: common.codec === 'auto' ? 'lz4' : common.codec,
      parents: line.all('parent'),
      onProgress: ({ phase, memoryBytesDone, memoryBytes }) =>
        progress.update({ phase, doneBytes: memoryBytesDone, totalBytes: memoryBytes }),
    });
    progress.stop();
    const { url, members, memoryBytes, checkpointBytes, elapsedMs } = report;
    if (common.json)
      await output.json({ command: 'flatten', store: store.url, to: url, ...report, url: undefined });
    else if (!common.quiet) {
      const what = `${countOf(members, 'checkpoint')} with ${formatBytes(memoryBytes)} of memory`;
      const size = formatBytes(checkpointBytes);
      output.note(`flattened ${what} as ${size} in ${formatDuration(elapsedMs)}: ${printable(url)}`);
    }
  } finally {
    progress.stop();
  }
}
