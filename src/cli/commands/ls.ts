/** `chkpt ls`: contexts and tags with their types, lengths and values. Works without the native addon. */
import { inspectCheckpoint, type OpenInspection, type TypedValue, type ValueType } from '../../index.ts';
import { pageBytes } from '../../limits.ts';
import type { Invocation } from '../invocation.ts';
import { keysOf } from '../key-argument.ts';
import { printable } from '../printable.ts';
import { storeOf } from '../store-argument.ts';
import { textTable } from '../text-table.ts';
import { countOf } from '../units.ts';
import { valueJson, valuePreview } from '../value-text.ts';

/** Longer values are not shown whole in JSON: `chkpt cat` is for those. */
const jsonValueBytesMax = 256;

export async function run({ line, common, output, signal }: Invocation): Promise<void> {
  const inspection = await inspectCheckpoint(storeOf(line.operand(0), keysOf(line)), { signal });
  try {
    const contexts: ListedContext[] = [];
    for (const context of inspection.contexts) contexts.push(await list(inspection, context));
    if (common.json) await output.json({ store: inspection.url, uuid: inspection.header.uuid, contexts });
    else await output.write(textOf(contexts));
  } finally {
    await inspection.close();
  }
}

interface ListedTag {
  readonly tag: string;
  readonly type: ValueType;
  readonly bytes: number;
  /** Absent when the value is long. */
  readonly value?: unknown;
  readonly preview: string;
}

interface ListedContext {
  readonly name: string;
  readonly kind: 'values' | 'memory';
  readonly bytes: number;
  readonly tags: readonly ListedTag[];
  /** Of guest memory. */
  readonly pages?: number;
  readonly regions?: number;
}

type Context = OpenInspection['contexts'][number];

async function list(inspection: OpenInspection, { name, kind, tags }: Context): Promise<ListedContext> {
  if (kind === 'memory') {
    const { pages } = inspection.counts;
    const regions = inspection.regions.length;
    return { name, kind, bytes: pages * pageBytes, tags: [], pages, regions };
  }
  const listed: ListedTag[] = [];
  let bytes = 0;
  for (const { name: tag, dataBytes } of tags) {
    bytes += dataBytes;
    listed.push(describe(tag, dataBytes, await inspection.readTag(name, tag)));
  }
  return { name, kind, bytes, tags: listed };
}

function describe(tag: string, bytes: number, value: TypedValue): ListedTag {
  const whole = bytes <= jsonValueBytesMax ? { value: valueJson(value) } : {};
  return { tag, type: value.type, bytes, ...whole, preview: valuePreview(value) };
}

function textOf(contexts: readonly ListedContext[]): string {
  const rows = contexts.flatMap(({ name, kind, bytes, tags, pages = 0, regions = 0 }) => {
    const context = printable(name);
    if (kind === 'memory') {
      const extent = `${countOf(pages, 'page')} in ${countOf(regions, 'region')}`;
      return [[context, '-', 'memory', String(bytes), extent]];
    }
    if (tags.length === 0) return [[context, '-', 'empty', '0', '']];
    return tags.map(({ tag, type, bytes: valueBytes, preview }) => [
      context,
      printable(tag),
      type,
      String(valueBytes),
      preview,
    ]);
  });
  const columns = [
    { title: 'CONTEXT' },
    { title: 'TAG' },
    { title: 'TYPE' },
    { title: 'BYTES', align: 'right' },
    { title: 'VALUE' },
  ] as const;
  return textTable(columns, rows);
}
