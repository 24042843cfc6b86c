/** `chkpt convert`: a checkpoint from one store into another. */
import { convertCheckpoint, type Store } from '../../index.ts';
import type { Invocation } from '../invocation.ts';
import { keysOf, targetKeysOf } from '../key-argument.ts';
import { isLink, palaciosNetOf } from '../link-argument.ts';
import { printable } from '../printable.ts';
import { createProgress } from '../progress.ts';
import { refuseSharedOutput, storeOf } from '../store-argument.ts';
import { formatBytes, formatDuration, formatRate } from '../units.ts';
import { usageError } from '../usage-error.ts';

export async function run(invocation: Invocation): Promise<void> {
  const { line, common, output, signal } = invocation;
  const [from, to] = [line.operand(0), line.operand(1)];
  const link = [from, to].find(isLink);
  if (link !== undefined)
    throw usageError(`${link}: chkpt receive takes from a connection, chkpt save sends into one`);
  const open = (url: string, key: ReturnType<typeof keysOf>): Store =>
    palaciosNetOf(url, invocation, key) ?? storeOf(url, key);
  const [source, target] = [open(from, keysOf(line)), open(to, targetKeysOf(line))];
  refuseSharedOutput(target, common);
  const progress = createProgress('converting', common);
  try {
    const report = await convertCheckpoint(source, target, {
      ...{ threads: common.threads, signal },
      ...(line.has('no-check') ? { check: false } : {}),
      onProgress: ({ phase, memoryBytesDone, memoryBytes }) =>
        progress.update({ phase, doneBytes: memoryBytesDone, totalBytes: memoryBytes }),
    });
    progress.stop();
    const { url, parent, checked, memoryBytes, checkpointBytes, elapsedMs } = report;
    if (common.json) {
      await output.json({
        ...{ command: 'convert', ...report, url: undefined, to: url },
        ...{ parent: parent ?? null, checked: checked ?? null },
      });
    } else if (!common.quiet) {
      const what = `${formatBytes(memoryBytes)} of memory as ${formatBytes(checkpointBytes)}`;
      const rate = memoryBytes === 0 ? '' : `, ${formatRate((1000 * memoryBytes) / elapsedMs)}`;
      output.note(
        `converted ${what} in ${formatDuration(elapsedMs)}${rate}, ${checkText(checked)}: ${printable(url)}`,
      );
    }
  } finally {
    progress.stop();
  }
}

function checkText(checked: string | undefined): string {
  if (checked === undefined) return 'not read back';
  return checked === 'none' ? 'read back, with nothing to check it by' : 'read back and verified';
}
