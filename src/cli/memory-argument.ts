/** `FILE[@BASE]`: a file and where it lies in guest-physical memory. Pure text; nothing is opened here. */
import { addressMax, pageBytes, regionCountMax } from '../limits.ts';
import { formatAddress } from './units.ts';
import { usageError } from './usage-error.ts';

export interface MemoryArgument {
  readonly path: string;
  /** Undefined when the argument does not say. */
  readonly base: bigint | undefined;
}

/** A region, bytes. */
export interface RegionBytes {
  readonly base: bigint;
  readonly bytes: bigint;
}

const unitBytes: Readonly<Record<string, bigint>> = {
  '': 1n,
  k: 1n << 10n,
  m: 1n << 20n,
  g: 1n << 30n,
  t: 1n << 40n,
};
const addressPattern = /^(?:0x([0-9a-f]{1,16})|([0-9]{1,20})(?:([kmgt])(?:ib)?)?)$/i;

/** Throws `CHKPT_USAGE`. */
export function parseMemoryArguments(texts: readonly string[]): MemoryArgument[] {
  if (texts.length > regionCountMax) {
    throw usageError(`${texts.length} times --memory: a machine has at most ${regionCountMax} regions`);
  }
  return texts.map(parseMemoryArgument);
}

function parseMemoryArgument(text: string): MemoryArgument {
  const at = text.lastIndexOf('@');
  const path = at === -1 ? text : text.slice(0, at);
  if (path === '') throw usageError(`--memory ${text}: the file is missing`);
  return { path, base: at === -1 ? undefined : parseBase(text, text.slice(at + 1)) };
}

function parseBase(text: string, baseText: string): bigint {
  const base = parseSize(baseText);
  if (base === undefined) {
    const hint = `for a file name with @ in it write ${text}@0`;
    throw usageError(
      `--memory ${text}: ${baseText || 'nothing'} is no address such as 0x100000000 or 4G; ${hint}`,
    );
  }
  if (base % BigInt(pageBytes) !== 0n)
    throw usageError(`--memory ${text}: the base is no multiple of ${pageBytes}`);
  if (base >= addressMax)
    throw usageError(`--memory ${text}: the base is not below ${formatAddress(addressMax)}`);
  return base;
}

/** Bytes or an address: hexadecimal, or decimal with a unit; undefined for anything else. */
export function parseSize(text: string): bigint | undefined {
  const parts = addressPattern.exec(text);
  if (parts === null) return undefined;
  const [, hexadecimal, decimal = '', unit = ''] = parts;
  if (hexadecimal !== undefined) return BigInt(`0x${hexadecimal}`);
  return BigInt(decimal) * (unitBytes[unit.toLowerCase()] ?? 1n);
}

/** Sorts regions by base. Throws `CHKPT_USAGE` when two overlap or one is out of bounds. */
export function sortRegions<T extends RegionBytes & { readonly path: string }>(regions: readonly T[]): T[] {
  const sorted = [...regions].sort((one, other) =>
    one.base < other.base ? -1 : one.base > other.base ? 1 : 0,
  );
  for (const [index, region] of sorted.entries()) {
    const before = sorted[index - 1];
    if (before !== undefined && before.base + before.bytes > region.base) {
      throw usageError(
        `${describe(region)} overlaps ${describe(before)}; give each --memory its base with FILE@BASE`,
      );
    }
    if (region.base + region.bytes > addressMax) {
      throw usageError(`${describe(region)} ends above ${formatAddress(addressMax)}`);
    }
  }
  return sorted;
}

function describe({ path, base, bytes }: RegionBytes & { readonly path: string }): string {
  return `${path} (${formatAddress(base)} to ${formatAddress(base + bytes)})`;
}

/** A region of the checkpoint, and the file it goes to. */
export interface RegionOutput extends RegionBytes {
  readonly path: string;
}

/** Finds the file of each region of a checkpoint. Throws `CHKPT_USAGE` that lists the regions when the arguments do not fit. */
export function matchOutputs(
  outputs: readonly MemoryArgument[],
  regions: readonly RegionBytes[],
): RegionOutput[] {
  const known = `the checkpoint has ${regions.map((region) => `--memory OUTFILE@${describeRegion(region)}`).join(', ')}`;
  const placed = outputs.map(({ path, base }) => {
    const wanted = base ?? (regions.length === 1 ? regions[0]?.base : 0n);
    const region = regions.find((one) => one.base === wanted);
    if (region !== undefined) return { ...region, path };
    throw usageError(`--memory ${path}: no region at ${formatAddress(wanted ?? 0n)}; ${known}`);
  });
  return regions.map((region) => {
    const [first, second] = placed.filter(({ base }) => base === region.base);
    if (first === undefined)
      throw usageError(`no --memory for the region at ${formatAddress(region.base)}; ${known}`);
    if (second === undefined) return first;
    throw usageError(
      `${first.path} and ${second.path} for one region at ${formatAddress(region.base)}; ${known}`,
    );
  });
}

function describeRegion({ base, bytes }: RegionBytes): string {
  return `${formatAddress(base)} (${bytes} bytes)`;
}
