/** `chkpt send --plan`: what a migration would come to, for people and as JSON. */
import { type MigrationPlan, type PlanVmOptions, sendVm, type VirtualMachine } from '../index.ts';
import type { Invocation } from './invocation.ts';
import { printable } from './printable.ts';
import { textTable } from './text-table.ts';
import { countOf, formatBytes, formatDuration, formatRate, formatRatio } from './units.ts';

const pageBytes = 4096;
/** Rounds that are shown; of more the first and the last ones. */
const roundsShown = 8;

/** Measures, and writes the answer to standard output. Rejects as `sendVm` with `plan`. */
export async function showPlan(
  { common, output, signal }: Invocation,
  vm: VirtualMachine,
  address: string,
  options: Omit<PlanVmOptions, 'plan' | 'signal'>,
): Promise<void> {
  const plan = await sendVm(vm, address, { ...options, plan: true, signal });
  if (common.json) return await output.json({ command: 'send', ...documentOf(plan) });
  await output.write(planText(plan));
}

/** Whatever is not known is `null`. */
function documentOf({ dirty, ...plan }: MigrationPlan): object {
  const { sampledPages = null, hotPages = null } = dirty;
  return { plan: true, ...plan, dirty: { ...dirty, sampledPages, hotPages } };
}

/** What was measured, the rounds, and in the last lines what comes of it. */
export function planText(plan: MigrationPlan): string {
  const { link, dirty, encoding, uncertain } = plan;
  const lines = [
    ['guest', `${formatBytes(plan.memoryBytes)}, ${writesText(plan)}`],
    [
      'link',
      `${formatRate(link.rate)} over ${countOf(link.streams, 'connection')}, ${threeDigits(link.rttMs)} ms there and back: ${printable(plan.url)}`,
    ],
    [
      'pages',
      `${encoding.codec}: ${formatRatio(pageBytes / Math.max(encoding.bytesPerPage, 0.01))}, written ones ${formatRatio(pageBytes / Math.max(encoding.dirtyBytesPerPage, 0.01))}; ${formatRate(encoding.pagesPerSecond * pageBytes)} with ${countOf(encoding.threads, 'thread')}`,
    ],
    ['tracker', `${dirty.kind}: ${printable(dirty.reason)}`],
  ] as const;
  const width = Math.max(...lines.map(([name]) => name.length));
  const facts = lines.map(([name, text]) => `${name.padEnd(width)}  ${text}\n`).join('');
  const doubts = uncertain.map((doubt) => `not sure: ${doubt}\n`).join('');
  return `${facts}\n${roundsText(plan)}\n${verdict(plan)}\n${doubts}`;
}

function writesText({ running, dirty }: MigrationPlan): string {
  if (!running) return 'stands still';
  const last = dirty.looks.at(-1);
  const written = `${Math.round(last?.pages ?? 0)} pages written in ${formatDuration(last?.ms ?? 0)}`;
  return `${written} (${formatRate(dirty.pagesPerSecond * pageBytes)} of memory)`;
}

function roundsText({ forecast }: MigrationPlan): string {
  const columns = ['ROUND', 'PAGES', 'SENT', 'TIME', 'WRITTEN'].map(
    (title) => ({ title, align: 'right' }) as const,
  );
  const { rounds, roundCount } = forecast;
  const isLong = rounds.length > roundsShown;
  const head = isLong ? rounds.slice(0, roundsShown - 2) : rounds;
  const tail = isLong ? rounds.slice(-2) : [];
  const rowOf = ({ pages, bytes, ms, dirtyPages }: (typeof rounds)[number], round: number): string[] => [
    ...[String(round), String(pages), formatBytes(bytes), formatDuration(ms), String(dirtyPages)],
  ];
  const rows = head.map(rowOf);
  if (isLong) rows.push(['…', '…', '…', '…', '…']);
  rows.push(...tail.map((round, i) => rowOf(round, rounds.length - tail.length + i)));
  if (roundCount > rounds.length) rows.push(['…', '', '', '', '']);
  return rounds.length === 0 ? 'no rounds\n' : textTable(columns, rows);
}

const limits = {
  link: 'the link is the limit',
  encoding: 'encoding is the limit',
  writes: 'the guest writes too fast for the link and the downtime that are allowed',
} as const;

function verdict({ forecast }: MigrationPlan): string {
  const { outcome, totalMs, bytes, downtimeMs, downtimeTargetMs, throttledShare, missingPages } = forecast;
  const cost = `in about ${formatDuration(totalMs)} and ${formatBytes(bytes)}`;
  const still = `stands still for about ${formatDuration(downtimeMs)} (${formatDuration(downtimeTargetMs)} asked for)`;
  const slowed = throttledShare > 0 ? `, slowed down by up to ${Math.round(100 * throttledShare)} %` : '';
  const limit = limits[forecast.limit];
  switch (outcome) {
    case 'moves':
      return `It would move ${cost}, and ${still}${slowed}; ${limit}.`;
    case 'forced':
      return `It would move ${cost}, and ${still}${slowed}; it is forced: ${limit}.`;
    case 'postcopy':
      return `It would go on there with ${missingPages} pages missing, have all ${cost}, and ${still}; ${limit}.`;
    case 'stays':
      return `It would stay: given up after ${formatDuration(totalMs)} and ${formatBytes(bytes)}${slowed}; ${limit}. Stopped then it would stand still for about ${formatDuration(downtimeMs)}.`;
  }
}

function threeDigits(amount: number): string {
  return amount < 10 ? amount.toFixed(2) : amount.toFixed(0);
}
