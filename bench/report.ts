/** A run and a comparison as people read them. Pure text. */
import { basename } from 'node:path';
import { baselines, figureNames, figureOf, type Limits } from './catalog.ts';
import type { Compared, Comparison } from './compare.ts';
import type { BenchDocument, Parameters, RatioRecord, Target, ValueRecord } from './document.ts';
import { median } from './statistics.ts';

const gibBytes = 1024 ** 3;
const mibBytes = 1024 ** 2;

/** All figures of a run, one table for each memory. */
export function formatDocument(document: BenchDocument): string {
  const { machine, memories, ratios, values, skipped, options } = document;
  const lines = [
    `${machine['cpu']}, ${machine['processors']} processors, Linux ${machine['kernel']}, Node ${machine['node']}, ` +
      `huge pages ${machine['hugePages']}, ${machine['simd']}, lz4 command ${machine['lz4Command']}, ` +
      `load ${machine['loadAverage']}`,
    `at least ${options['runs']} runs in turns, medians; rates are GiB of guest memory per second, zero pages included; ` +
      `CPU is seconds of all threads per GiB; ` +
      `ratio = figure / baseline in the same run [least–most]`,
  ];
  for (const name of new Set([...ratios, ...values].map(({ parameters }) => String(parameters['memory'])))) {
    const facts = memories.find(({ memory }) => memory === name);
    const ofMemory = <T extends { parameters: Parameters }>(records: readonly T[]): T[] =>
      records.filter(({ parameters }) => parameters['memory'] === name);
    lines.push('', facts === undefined ? name : `${name}: ${formatFacts(facts)}`);
    lines.push(...formatRatios(ofMemory(ratios)), ...formatValues(ofMemory(values)));
  }
  if (skipped.length > 0) lines.push('', ...skipped.map(({ name, reason }) => `skipped ${name}: ${reason}`));
  const targets = [...ratios, ...values].flatMap(({ target }) => (target === undefined ? [] : [target.met]));
  lines.push('', `targets: ${targets.filter(Boolean).length} of ${targets.length} met`);
  return `${lines.join('\n')}\n`;
}

function formatFacts(facts: BenchDocument['memories'][number]): string {
  const pages = facts.zeroPages + facts.fillPages + facts.samePages + facts.storedPages;
  const share = (count: number): string => `${((100 * count) / pages).toFixed(1)} %`;
  return (
    `${(facts.bytes / gibBytes).toFixed(2)} GiB, pages: ${share(facts.zeroPages)} zero, ${share(facts.fillPages)} fill, ` +
    `${share(facts.samePages)} equal to another, ${share(facts.storedPages)} stored`
  );
}

function formatRatios(records: readonly RatioRecord[]): string[] {
  if (records.length === 0) return [];
  const rows = records.map((record) => [
    record.name,
    String(record.parameters['threads']),
    formatCost(record, record.subject),
    formatCpu(record, record.subjectCpu),
    record.baseline,
    formatCost(record, record.reference),
    formatCpu(record, record.referenceCpu),
    formatRatio(record),
    formatTarget(record.target),
  ]);
  return formatTable(
    ['figure', 'threads', 'rate', 'CPU', 'baseline', 'rate', 'CPU', 'ratio', 'target'],
    rows,
  );
}

function formatCost(record: RatioRecord, samples: readonly number[]): string {
  const middle = median(samples);
  if (record.cost === 'bytes') return `${(middle / mibBytes).toFixed(1)} MiB`;
  return ((record.memoryBytes ?? 0) / gibBytes / middle).toFixed(2);
}

/** CPU seconds for each GiB of guest memory. */
function formatCpu(record: RatioRecord, samples: readonly number[] | undefined): string {
  if (samples === undefined || record.memoryBytes === undefined) return '';
  return (median(samples) / (record.memoryBytes / gibBytes)).toFixed(2);
}

function formatRatio({ summary: { median, min, max } }: RatioRecord): string {
  const digits = median >= 100 ? 0 : 2;
  return `${median.toFixed(digits)} [${min.toFixed(digits)}–${max.toFixed(digits)}]`;
}

function formatValues(records: readonly ValueRecord[]): string[] {
  if (records.length === 0) return [];
  const rows = records.map((record) => [
    record.name,
    String(record.parameters['threads']),
    String(record.parameters['work'] ?? ''),
    formatValue(record, record.summary.median),
    `[${formatValue(record, record.summary.min)} to ${formatValue(record, record.summary.max)}]`,
    formatTarget(record.target, (limit) => formatValue(record, limit)),
  ]);
  return ['', ...formatTable(['figure', 'threads', 'during', 'median', 'spread', 'target'], rows)];
}

function formatValue({ unit }: ValueRecord, value: number): string {
  switch (unit) {
    case 'bytes':
      return `${(value / mibBytes).toFixed(1)} MiB`;
    case 'share':
      return `${(100 * value).toFixed(1)} %`;
    case 'ms':
    case 'ms/GiB':
      return `${value.toFixed(2)} ${unit}`;
  }
}

function formatTarget(target: Target | undefined, format = (limit: number) => limit.toFixed(2)): string {
  if (target === undefined) return '';
  return `${formatLimits(target, format)} ${target.met ? 'met' : 'MISSED'}`;
}

function formatLimits({ atLeast, atMost }: Limits, format: (limit: number) => string): string {
  if (atLeast !== undefined) return `≥ ${format(atLeast)}`;
  return atMost === undefined ? '' : `≤ ${format(atMost)}`;
}

/** The figures, for `--list`. */
export function formatCatalog(): string {
  const rows = figureNames.flatMap((name) => {
    const { what, baselines: compared, limits } = figureOf(name);
    const target = (limit: Limits): string => formatLimits(limit, String);
    const others = Object.entries(compared);
    if (others.length === 0) return [[name, what, '', target(limits ?? {})]];
    return others.map(([baseline, limit], i) =>
      i === 0 ? [name, what, baseline, target(limit)] : ['', '', baseline, target(limit)],
    );
  });
  const explained = Object.entries(baselines).map(([name, what]) => [name, what]);
  return `${[
    ...formatTable(['figure', 'what', 'baseline', 'target'], rows),
    '',
    ...formatTable(['baseline', 'what'], explained),
  ].join('\n')}\n`;
}

/** What a comparison found, the regressions first. */
export function formatComparison(comparison: Comparison, older: string): string {
  const { compared, missing, added } = comparison;
  const of = (verdict: Compared['verdict']): Compared[] => compared.filter((row) => row.verdict === verdict);
  const lines = [
    ...of('regression').map((row) => `REGRESSION ${formatCompared(row)}`),
    ...of('noisy').map((row) => `too noisy  ${formatCompared(row)}`),
    ...of('fine').map((row) => `fine       ${formatCompared(row)}`),
    ...missing.map((key) => `missing    ${key}: only in ${basename(older)}`),
    ...added.map((key) => `new        ${key}`),
    `${compared.length} ratios compared with ${basename(older)}: ${of('regression').length} slower, ` +
      `${of('noisy').length} too noisy to say`,
  ];
  return `${lines.join('\n')}\n`;
}

function formatCompared({ key, oldMedian, newMedian, loss, noise, bestLoss }: Compared): string {
  const percent = (share: number): string => `${(100 * share).toFixed(1)} %`;
  const change = (share: number): string => `${share > 0 ? '−' : '+'}${percent(Math.abs(share))}`;
  const medians = `${oldMedian.toFixed(3)} → ${newMedian.toFixed(3)}, ${change(loss)}`;
  return `${key}: ${medians}, noise ${percent(noise)}, best runs ${change(bestLoss)}`;
}

/** Columns as wide as their widest cell; numbers stay where they are, at the left. */
function formatTable(head: readonly string[], rows: readonly (readonly string[])[]): string[] {
  const all = [head, ...rows];
  const widths = head.map((_, column) => Math.max(...all.map((row) => (row[column] ?? '').length)));
  return all.map((row) =>
    row
      .map((cell, column) => cell.padEnd(widths[column] ?? 0))
      .join('  ')
      .trimEnd(),
  );
}
