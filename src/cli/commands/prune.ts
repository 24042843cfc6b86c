/** `chkpt prune`: the newest checkpoints of a chain stay, the others go. */
import { keepLast } from '../../index.ts';
import type { Invocation } from '../invocation.ts';
import { keysOf } from '../key-argument.ts';
import { createProgress } from '../progress.ts';
import { storeOf } from '../store-argument.ts';
import { countOf, formatBytes } from '../units.ts';
import { usageError } from '../usage-error.ts';

export async function run({ line, common, output, signal }: Invocation): Promise<void> {
  const keep = line.last('keep');
  if (keep === undefined) throw usageError('--keep N is missing');
  if (!/^[1-9]\d{0,8}$/.test(keep)) throw usageError(`--keep ${keep}: a number from 1 on is expected`);
  const store = storeOf(line.operand(0), keysOf(line));
  const progress = createProgress('flattening', common);
  try {
    const report = await keepLast(store, Number(keep), {
      ...{ threads: common.threads, signal },
      codec: common.codec === 'auto' ? 'lz4' : common.codec,
      parents: line.all('parent'),
      onProgress: ({ phase, memoryBytesDone, memoryBytes }) =>
        progress.update({ phase, doneBytes: memoryBytesDone, totalBytes: memoryBytes }),
    });
    progress.stop();
    const { kept, removed, freedBytes } = report;
    if (common.json) await output.json({ command: 'prune', store: store.url, ...report });
    else if (!common.quiet) {
      const freed = freedBytes > 0 ? `, ${formatBytes(freedBytes)} are free again` : '';
      output.note(`kept ${countOf(kept.length, 'checkpoint')}, removed ${removed.length}${freed}`);
    }
  } finally {
    progress.stop();
  }
}
