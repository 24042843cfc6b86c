/** `chkpt diff`: which pages of two checkpoints differ, and where they lie. */
import { type DiffReport, diffCheckpoints, type RegionDiff } from '../../index.ts';
import { pageBytes } from '../../limits.ts';
import type { Invocation } from '../invocation.ts';
import { keysOf } from '../key-argument.ts';
import { storeOf } from '../store-argument.ts';
import { textTable } from '../text-table.ts';
import { formatAddress, formatBytes, formatShare } from '../units.ts';

export async function run({ line, common, output, signal }: Invocation): Promise<void> {
  const key = keysOf(line);
  const [a, b] = [storeOf(line.operand(0), key), storeOf(line.operand(1), key)];
  const parents = line.all('parent');
  const report = await diffCheckpoints(a, b, { parents, threads: common.threads, signal });
  if (common.json) await output.json(documentOf(report, a.url, b.url));
  else await output.write(textOf(report));
}

/** Runs beyond this many are left out of the document, and it says so. */
const runCountMax = 100_000;

function documentOf({ a, b, pages, differing, regions, set }: DiffReport, from: string, to: string): object {
  const runs: { first: number; count: number }[] = [];
  const [packed = new Float64Array(0)] = set.runs({ limit: runCountMax });
  for (let i = 0; i < packed.length; i += 2) runs.push({ first: packed[i] ?? 0, count: packed[i + 1] ?? 0 });
  const told = runs.reduce((sum, { count }) => sum + count, 0);
  return {
    command: 'diff',
    a: { store: from, uuid: a },
    b: { store: to, uuid: b },
    pages,
    differing,
    differingBytes: differing * pageBytes,
    regions: regions.map(({ base, bytes, ...rest }) => ({
      base: Number(base),
      bytes: Number(bytes),
      ...rest,
    })),
    runs,
    runsComplete: told === differing,
  };
}

function textOf({ pages, differing, regions }: DiffReport): string {
  const rows = regions.map((region) => [
    formatAddress(region.base),
    String(region.pages),
    String(region.differing),
    formatShare(region.differing / region.pages),
    formatBytes(region.differing * pageBytes),
    heatOf(region),
  ]);
  const columns = [
    { title: 'REGION' },
    { title: 'PAGES', align: 'right' },
    { title: 'DIFFER', align: 'right' },
    { title: 'SHARE', align: 'right' },
    { title: 'BYTES', align: 'right' },
    { title: 'WHERE' },
  ] as const;
  const share = formatShare(differing / pages);
  const summary = differing === 0 ? 'equal' : `${differing} of ${pages} pages differ (${share})`;
  return `${textTable(columns, rows)}${summary}\n`;
}

const steps = ['░', '▒', '▓', '█'];

/** One character for each part of the region: `·` for none, then by quarters. */
function heatOf({ heat }: RegionDiff): string {
  return heat
    .map((share) =>
      share === 0 ? '·' : (steps[Math.min(Math.floor(share * steps.length), steps.length - 1)] ?? '█'),
    )
    .join('');
}
