/** `chkpt gc`: what killed saves and loads have left behind. */
import { resolve } from 'node:path';
import { collectGarbage } from '../../index.ts';
import type { Invocation } from '../invocation.ts';
import { printable } from '../printable.ts';
import { countOf, formatBytes } from '../units.ts';

export async function run({ line, common, output, signal }: Invocation): Promise<void> {
  const remove = line.has('remove');
  const { folder, leftovers, bytes } = await collectGarbage(resolve(line.operand(0)), { remove, signal });
  if (common.json) return await output.json({ command: 'gc', folder, removed: remove, leftovers, bytes });
  if (common.quiet) return;
  for (const { path, kind, bytes: size } of leftovers) {
    await output.write(`${printable(path)}${kind === 'folder' ? '/' : `  ${formatBytes(size)}`}\n`);
  }
  const what = `${countOf(leftovers.length, 'leftover')}, ${formatBytes(bytes)}`;
  const rest = remove || leftovers.length === 0 ? '' : '; --remove removes them';
  output.note(`${remove ? 'removed' : 'found'} ${what}${rest}`);
}
