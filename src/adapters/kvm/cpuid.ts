/** The processor that a machine shows its guest: entries of CPUID, and what is told of them in the header of a checkpoint. */
import { createHash } from 'node:crypto';
import { StructLayout } from './struct-layout.ts';

/** One entry of `KVM_GET_SUPPORTED_CPUID`. */
export interface CpuidEntry {
  readonly function: number;
  readonly index: number;
  readonly flags: number;
  readonly eax: number;
  readonly ebx: number;
  readonly ecx: number;
  readonly edx: number;
}

const entryBytes = 40;
const layout = new StructLayout(
  {
    function: 'u32',
    index: 'u32',
    flags: 'u32',
    eax: 'u32',
    ebx: 'u32',
    ecx: 'u32',
    edx: 'u32',
    pad: 'pad:12',
  },
  entryBytes,
);

export function decodeCpuid(bytes: Uint8Array): CpuidEntry[] {
  return Array.from({ length: bytes.length / entryBytes }, (_, index) => {
    const entry = layout.decode(bytes.subarray(index * entryBytes, (index + 1) * entryBytes));
    return entry as unknown as CpuidEntry;
  });
}

export function encodeCpuid(entries: readonly CpuidEntry[]): Uint8Array {
  const bytes = new Uint8Array(entries.length * entryBytes);
  for (const [index, entry] of entries.entries()) bytes.set(layout.encode({ ...entry }), index * entryBytes);
  return bytes;
}

/**
 * The entries as one core sees them: its APIC id is its number, and it shares its unit and node with nobody. Some versions of
 * KVM leave there what the host's core says that was asked.
 */
export function cpuidOfCore(entries: readonly CpuidEntry[], core: number): CpuidEntry[] {
  return entries.map((entry) => {
    if (entry.function === 1) return { ...entry, ebx: ((entry.ebx & 0x00ff_ffff) | (core << 24)) >>> 0 };
    if (entry.function === 0xb || entry.function === 0x1f) return { ...entry, edx: core };
    if (entry.function === 0x8000_001e) return { ...entry, eax: core, ebx: core, ecx: 0 };
    return entry;
  });
}

/** Vendor, and as model: family, model, stepping and a digest over every entry, so that other processors are noticed. */
export function describeCpu(entries: readonly CpuidEntry[]): { vendor: string; model: string } {
  const find = (leaf: number): CpuidEntry | undefined => entries.find((entry) => entry.function === leaf);
  const { ebx = 0, ecx = 0, edx = 0 } = find(0) ?? {};
  const name = new Uint8Array(Uint32Array.of(ebx, edx, ecx).buffer);
  const vendor = Buffer.from(name)
    .toString('latin1')
    .replace(/[^ -~]/g, '');
  const signature = find(1)?.eax ?? 0;
  const base = (signature >>> 8) & 15;
  const family = base === 15 ? base + ((signature >>> 20) & 255) : base;
  const model = ((signature >>> 4) & 15) | (((signature >>> 16) & 15) << 4);
  const digest = createHash('sha256')
    .update(encodeCpuid(cpuidOfCore(entries, 0)))
    .digest('hex');
  return {
    vendor: vendor === '' ? 'unknown' : vendor,
    model: `family ${family} model ${model} stepping ${signature & 15} CPUID ${digest.slice(0, 16)}`,
  };
}
