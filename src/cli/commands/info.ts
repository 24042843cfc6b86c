/** `chkpt info`: what a checkpoint says about itself. Works without the native addon and does not read guest memory. */
import { inspectCheckpoint } from '../../index.ts';
import { chainText } from '../chain-facts.ts';
import { type CheckpointFacts, factsOf, type PageClass, pageClasses } from '../checkpoint-facts.ts';
import type { Invocation } from '../invocation.ts';
import { keysOf } from '../key-argument.ts';
import { printable } from '../printable.ts';
import { parentsOf, storeOf } from '../store-argument.ts';
import { textTable } from '../text-table.ts';
import { countOf, formatAddress, formatBytesExactly, formatRatio, formatShare } from '../units.ts';

export async function run({ line, common, output, signal }: Invocation): Promise<void> {
  const store = storeOf(line.operand(0), keysOf(line));
  const parents = parentsOf(line);
  const inspection = await inspectCheckpoint(store, { signal });
  try {
    const facts = await factsOf(store, inspection, parents);
    if (common.json) await output.json(facts);
    else await output.write(textOf(facts));
  } finally {
    await inspection.close();
  }
}

const notTold = 'not told';
const labelColumns = 14;

function textOf(facts: CheckpointFacts): string {
  const rows = [...identityRows(facts), ...memoryRows(facts), ...proofRows(facts)];
  const lines = rows.map(([label, text]) => `${label.padEnd(labelColumns)}${printable(text)}\n`);
  return `${lines.join('')}${deviceText(facts)}${chainText(facts.chain)}${contextText(facts)}`;
}

type Row = readonly [label: string, text: string];

function identityRows(facts: CheckpointFacts): Row[] {
  const { parent, cpu, skip } = facts;
  return [
    ['store', facts.store],
    ['uuid', facts.uuid],
    ['parent', parent === null ? 'none' : `${parent.uuid} (root ${parent.root})`],
    ['epoch', facts.epoch],
    ['created', facts.created ?? notTold],
    ['format', facts.format],
    ['producer', facts.producer ?? notTold],
    ['machine', facts.id ?? notTold],
    [
      'cpu',
      [cpu?.vendor, cpu?.model].filter((text) => text !== undefined && text !== '').join(' ') || notTold,
    ],
    ['cores', facts.cores === null ? notTold : String(facts.cores)],
    ['skipped', skip === null ? notTold : skip.join(', ') || 'nothing'],
  ];
}

function memoryRows(facts: CheckpointFacts): Row[] {
  const { regions, memoryBytes, pages, codecRatio } = facts;
  const place = [
    ...regions.map((region): Row => ['  region', rangeText(region)]),
    ...facts.scrubbed.map((range): Row => {
      const what = range.how === 'zero' ? 'stored as zeros' : 'not stored';
      return [`  ${range.how === 'zero' ? 'scrubbed' : 'left out'}`, `${rangeText(range)}, ${what}`];
    }),
  ];
  const classes = pageClasses.filter((name) => name !== 'total' && pages.total > 0 && isShown(name, pages));
  return [
    ['memory', `${formatBytesExactly(memoryBytes)} in ${countOf(regions.length, 'region')}`],
    ...place,
    ['pages', String(pages.total)],
    ...classes.map(
      (name): Row => [`  ${name}`, `${pages[name]} (${formatShare(pages[name] / pages.total)})`],
    ),
    ['checkpoint', formatBytesExactly(facts.checkpointBytes)],
    ...sharedRows(facts),
    ['pages stored', `${formatBytesExactly(facts.encodedBytes)}, ratio ${formatRatio(codecRatio)}`],
    ['ratio', `${formatRatio(facts.ratio)} (memory to checkpoint)`],
  ];
}

function rangeText({ base, bytes }: { readonly base: number; readonly bytes: number }): string {
  const [first, last] = [BigInt(base), BigInt(base) + BigInt(bytes) - 1n];
  return `${formatAddress(first)} to ${formatAddress(last)}, ${formatBytesExactly(bytes)}`;
}

function sharedRows({ stored }: CheckpointFacts): Row[] {
  if (stored === null) return [];
  return [
    ['  own', formatBytesExactly(stored.own)],
    ['  shared', `${formatBytesExactly(stored.shared)} with other checkpoints of the pool`],
  ];
}

/** Only increments leave pages to a parent. */
function isShown(name: PageClass, pages: CheckpointFacts['pages']): boolean {
  return name !== 'parent' || pages.parent > 0;
}

const integrityText = {
  none: 'nothing to check it by',
  detect: 'accidental damage of every kind, not forgery',
  authenticate: 'accidental damage and forgery',
};

function proofRows({ root, integrity, verified, source }: CheckpointFacts): Row[] {
  const how = {
    index: 'the index was read',
    scan: 'the frame headers were read',
    read: 'all of it was read',
  }[source];
  return [
    ['root', root],
    ['integrity', `${integrity} (${integrityText[integrity]})`],
    ['verified', verified ? `yes: ${how}` : `no: ${how}, chkpt verify reads all`],
  ];
}

function deviceText({ devices }: CheckpointFacts): string {
  if (devices === null || devices.length === 0) return `${'devices'.padEnd(labelColumns)}none\n`;
  const rows = devices.map(({ id, class: deviceClass, contexts }) =>
    [id, deviceClass, contexts.join(', ')].map(printable),
  );
  return `\n${textTable([{ title: 'DEVICE' }, { title: 'CLASS' }, { title: 'CONTEXTS' }], rows)}`;
}

function contextText({ contexts }: CheckpointFacts): string {
  const rows = contexts.map(({ name, kind, tags, bytes }) => [
    printable(name),
    kind,
    kind === 'memory' ? '-' : String(tags),
    formatBytesExactly(bytes),
  ]);
  const columns = [
    { title: 'CONTEXT' },
    { title: 'KIND' },
    { title: 'TAGS', align: 'right' },
    { title: 'BYTES' },
  ] as const;
  return `\n${textTable(columns, rows)}`;
}
