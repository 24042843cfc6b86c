/** What the figures were measured on. */
import { readFileSync } from 'node:fs';
import { arch, availableParallelism, cpus, loadavg, release, totalmem } from 'node:os';
import type { NativeAddon } from '../src/native/index.ts';
import { commandVersion } from './commands.ts';

export async function describeMachine(addon: NativeAddon): Promise<Record<string, string | number>> {
  const { simd, pagemap, lz4Version, xxhashVersion } = addon.capabilities();
  return {
    cpu: cpus()[0]?.model.trim() ?? 'unknown',
    processors: availableParallelism(),
    memoryBytes: totalmem(),
    architecture: arch(),
    kernel: release(),
    node: process.version,
    hugePages: chosen(readLine('/sys/kernel/mm/transparent_hugepage/enabled')),
    hugePagesDefrag: chosen(readLine('/sys/kernel/mm/transparent_hugepage/defrag')),
    governor: readLine('/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor') ?? 'none',
    loadAverage: Math.round((loadavg()[0] ?? 0) * 100) / 100,
    simd,
    pagemap,
    liblz4: lz4Version,
    xxhash: xxhashVersion,
    lz4Command: (await commandVersion('lz4')) ?? 'missing',
  };
}

/** Bytes that can be allocated without anybody swapping. */
export function availableMemoryBytes(): number {
  const line = /^MemAvailable:\s+(\d+) kB$/m.exec(readFileSync('/proc/meminfo', 'latin1'));
  return Number(line?.[1] ?? 0) * 1024;
}

function readLine(path: string): string | undefined {
  try {
    return readFileSync(path, 'latin1').trim();
  } catch {
    return undefined;
  }
}

/** `always [madvise] never` → `madvise`. */
function chosen(line: string | undefined): string {
  return /\[(.+)\]/.exec(line ?? '')?.[1] ?? 'unknown';
}
