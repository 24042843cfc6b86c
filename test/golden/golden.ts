/** What the tests of golden checkpoints share: which there are, and how their content is told. */
import { createHash } from 'node:crypto';
import { readdir } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { inspectCheckpoint } from '../../src/index.ts';

export const goldenFolder = fileURLToPath(new URL('.', import.meta.url));
const folders = (await readdir(goldenFolder)).filter((name) => name.startsWith('format-')).sort();

/** Folders with chains: `<scheme>/<member>`, member 0 being the whole one, and `<scheme>.json` for all of them. */
const chains = ['format-1.1'];
export const goldenChains = folders.filter((name) => chains.includes(name));
/** Folders with one checkpoint without parent: `<scheme>` and `<scheme>.json`. */
export const goldenCheckpoints = folders.filter((name) => !chains.includes(name));

/** Every tag of a checkpoint as `context.tag`, with type and value; long values as their digest. */
export async function readValues(url: string): Promise<Record<string, string>> {
  await using inspection = await inspectCheckpoint(url);
  const values: Record<string, string> = {};
  for (const context of inspection.contexts) {
    for (const { name } of context.tags) {
      const { type, value } = await inspection.readTag(context.name, name);
      const text = value instanceof Uint8Array ? Buffer.from(value).toString('hex') : String(value);
      values[`${context.name}.${name}`] = `${type} ${text.length > 80 ? sha256(Buffer.from(text)) : text}`;
    }
  }
  return values;
}

export function sha256(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex');
}
