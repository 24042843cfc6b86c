/** `chkpt cat`: one value to standard output. Works without the native addon. */
import { inspectCheckpoint } from '../../index.ts';
import type { Invocation } from '../invocation.ts';
import { keysOf } from '../key-argument.ts';
import { storeOf } from '../store-argument.ts';
import { usageError } from '../usage-error.ts';
import { valueContent, valueJson } from '../value-text.ts';

export async function run({ line, common, output, signal }: Invocation): Promise<void> {
  const [context, tag] = [line.operand(1), line.operand(2)];
  if (common.json && line.has('raw')) throw usageError('--json and --raw exclude each other');
  const inspection = await inspectCheckpoint(storeOf(line.operand(0), keysOf(line)), { signal });
  try {
    if (line.has('raw')) {
      await output.write(await inspection.readBytes(context, tag));
      return;
    }
    const value = await inspection.readTag(context, tag);
    if (!common.json) {
      await output.write(valueContent(value));
      return;
    }
    const { url, contexts } = inspection;
    const bytes = contexts
      .find(({ name }) => name === context)
      ?.tags.find(({ name }) => name === tag)?.dataBytes;
    await output.json({ store: url, context, tag, type: value.type, bytes, value: valueJson(value) });
  } finally {
    await inspection.close();
  }
}
