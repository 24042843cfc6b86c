/** The program that a machine starts with, and the registers of its cores at the first instruction. */
import type { GuestMemory } from '../../index.ts';
import { regsLayout, sregsLayout } from './layouts.ts';
import type { StructValue } from './struct-layout.ts';

export interface GuestImage {
  readonly bytes: Uint8Array;
  /** Guest-physical address where the bytes go. */
  readonly address: number;
  /** Address of the first instruction; default: `address`. */
  readonly entry?: number | undefined;
  /**
   * `real`: 16 bits, as after a reset, entry below 1 MiB. `protected`: 32 bits, flat segments over 4 GiB, no paging, no
   * descriptor tables: a guest that loads segments makes its own. Default `real`.
   */
  readonly mode?: 'real' | 'protected' | undefined;
  /** Which cores start; each finds its number in `edi`. The others wait for another one to start them. Default `first`. */
  readonly cores?: 'first' | 'all' | undefined;
}

const runnable = 0;
const protectedMode = 1n;

/** Throws `RangeError` for an image that does not fit the memory or the mode. */
export function checkImage({ address, entry = address, mode = 'real', cores = 'first' }: GuestImage): void {
  const entryMax = mode === 'real' ? 0xf_ffff : 0xffff_ffff;
  if (!['real', 'protected'].includes(mode)) throw new TypeError(`unknown mode ${mode}`);
  if (!['first', 'all'].includes(cores)) throw new TypeError(`unknown choice of cores ${cores}`);
  if (!Number.isInteger(entry) || entry < 0 || entry > entryMax) {
    throw new RangeError(`an entry in ${mode} mode must be a whole number from 0 to ${entryMax}`);
  }
}

export function writeImage(memory: GuestMemory, { bytes, address }: GuestImage): void {
  memory.write(address, bytes);
}

/** Registers of a core that starts in the image; `regs` and `sregs` are those after a reset. */
export function startRegisters(
  { address, entry = address, mode = 'real' }: GuestImage,
  core: number,
  regs: Uint8Array,
  sregs: Uint8Array,
): { regs: Uint8Array; sregs: Uint8Array; mpState: number } {
  const system = sregsLayout.decode(sregs);
  const base = mode === 'real' ? entry & 0xf_0000 : 0;
  const flat = { limit: 0xffff_ffff, present: 1, dpl: 0, db: 1, s: 1, l: 0, g: 1, avl: 0, unusable: 0 };
  if (mode === 'real') {
    system['cs'] = { ...(system['cs'] as StructValue), base: BigInt(base), selector: base >> 4 };
  } else {
    system['cr0'] = (system['cr0'] as bigint) | protectedMode;
    system['cs'] = { ...flat, base: 0n, selector: 8, type: 11 };
    for (const name of ['ds', 'es', 'fs', 'gs', 'ss']) {
      system[name] = { ...flat, base: 0n, selector: 16, type: 3 };
    }
  }
  const general = { ...regsLayout.decode(regs), rip: BigInt(entry - base), rdi: BigInt(core), rflags: 2n };
  return { regs: regsLayout.encode(general), sregs: sregsLayout.encode(system), mpState: runnable };
}
