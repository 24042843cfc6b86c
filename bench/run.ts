/**
 * `npm run bench`: measures save, load and scan beside what hardware, bare libraries and other tools do with the same bytes in
 * the same run. docs/performance.md explains rows, method and comparison.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { hasNativeAddon } from '../src/native/index.ts';
import { compareDocuments } from './compare.ts';
import { type BenchDocument, DocumentError, parseDocument } from './document.ts';
import { measure } from './measure.ts';
import { type BenchOptions, parseOptions, UsageError, usage } from './options.ts';
import { formatCatalog, formatComparison, formatDocument } from './report.ts';

/** Runs the command line; resolves to the exit code. */
export async function main(
  args: readonly string[],
  print: (text: string) => void,
  tell: (line: string) => void,
): Promise<number> {
  try {
    const options = parseOptions(args);
    if (options.help) print(usage);
    else if (options.list) print(formatCatalog());
    else return await run(options, print, tell);
    return 0;
  } catch (error) {
    const isUsage = error instanceof UsageError || error instanceof DocumentError;
    tell(`bench: ${isUsage ? (error as Error).message : ((error as Error).stack ?? String(error))}`);
    return isUsage ? 2 : 1;
  }
}

async function run(
  options: BenchOptions,
  print: (text: string) => void,
  tell: (line: string) => void,
): Promise<number> {
  // Before anything is measured: a file that cannot be compared with should not cost minutes.
  const older = options.compare === undefined ? undefined : readDocument(options.compare);
  const newer =
    options.from === undefined ? await measureWithAddon(options, tell) : readDocument(options.from);
  if (options.from === undefined) print(formatDocument(newer));
  if (options.json !== undefined) writeFileSync(options.json, `${JSON.stringify(newer, undefined, 2)}\n`);
  if (older === undefined) return 0;
  const comparison = compareDocuments(older, newer);
  if (comparison.compared.length === 0) {
    throw new DocumentError(
      `${options.compare} has no ratio with the same parameters: same --gib, --threads, --quick and image?`,
    );
  }
  print(formatComparison(comparison, options.compare ?? ''));
  return comparison.exitCode;
}

async function measureWithAddon(options: BenchOptions, tell: (line: string) => void): Promise<BenchDocument> {
  if (!hasNativeAddon()) throw new UsageError('the addon is not built: npm run build:native');
  return await measure(options, tell);
}

function readDocument(path: string): BenchDocument {
  try {
    return parseDocument(readFileSync(path, 'utf8'));
  } catch (error) {
    throw new DocumentError(`${path}: ${(error as Error).message}`);
  }
}
