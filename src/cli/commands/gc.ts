/** `chkpt gc`: what killed saves and loads have left behind. */
import { resolve } from 'node:path';
import { collectGarbage } from '../../index.ts';
import { isS3Url } from '../../store/s3/collector.ts';
import type { Invocation } from '../invocation.ts';
import { printable } from '../printable.ts';
import { countOf, formatBytes } from '../units.ts';
import { usageError } from '../usage-error.ts';

export async function run({ line, common, output, signal }: Invocation): Promise<void> {
  const remove = line.has('remove');
  const place = line.operand(0);
  const { folder, leftovers, bytes } = await collectGarbage(isS3Url(place) ? place : resolve(place), {
    remove,
    olderThanMs: ageOf(line.last('older-than')),
    signal,
  });
  if (common.json) return await output.json({ command: 'gc', folder, removed: remove, leftovers, bytes });
  if (common.quiet) return;
  for (const { path, kind, bytes: size } of leftovers) {
    const what = kind === 'upload' ? ', not finished' : '';
    await output.write(`${printable(path)}${kind === 'folder' ? '/' : `  ${formatBytes(size)}${what}`}\n`);
  }
  const what = `${countOf(leftovers.length, 'leftover')}, ${formatBytes(bytes)}`;
  const rest = remove || leftovers.length === 0 ? '' : '; --remove removes them';
  output.note(`${remove ? 'removed' : 'found'} ${what}${rest}`);
}

/** Milliseconds. Throws `CHKPT_USAGE`. */
function ageOf(hours: string | undefined): number | undefined {
  if (hours === undefined) return undefined;
  if (/^\d{1,6}$/.test(hours)) return Number(hours) * 3_600_000;
  throw usageError(`--older-than takes a number of hours, not ${hours}`);
}
