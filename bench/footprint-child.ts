/**
 * Saves or loads a guest, or converts a checkpoint, and prints the peak memory of this process less the guest's, as JSON.
 *
 *     node footprint-child.js idle|save|load|convert URL TARGET_URL GUEST_BYTES RESIDENT_BYTES THREADS
 */
import { readFileSync, writeFileSync } from 'node:fs';
import type { GuestMemory } from '../src/index.ts';
import { machineOf } from './memory-machine.ts';
import type { Footprint, FootprintWork } from './stages/footprint.ts';

/** The package as its users load it, out of dist/: the many modules of src/ take room of their own. */
const chkpt = (await import(packageName())) as typeof import('../src/index.ts');
const pageBytes = 4096;
const pieceBytes = 2 * 1024 ** 2;

/** This package; not a literal, because its types are those of src/. */
function packageName(): string {
  return 'chkpt';
}

/** Touches `residentBytes` of the memory in pieces of 2 MiB, evenly spread. No two pages are equal; all compress a little. */
function touch(memory: GuestMemory, residentBytes: number): void {
  const piece = new Uint32Array(pieceBytes / 4);
  const pieceCount = residentBytes / pieceBytes;
  const stride = memory.byteLength / BigInt(pieceCount * pieceBytes);
  let state = 1;
  for (let i = 0; i < pieceCount; i += 1) {
    for (let word = 0; word < piece.length; word += 2) {
      state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
      piece[word] = state;
      piece[word + 1] = word;
    }
    memory.write(BigInt(i) * stride * BigInt(pieceBytes), new Uint8Array(piece.buffer));
  }
}

/** From here on VmHWM is the peak since now. Without the right to do so it is the peak since the start: an upper bound. */
function forgetPeak(): void {
  try {
    writeFileSync('/proc/self/clear_refs', '5');
  } catch {}
}

function peakBytes(): number {
  const line = /^VmHWM:\s+(\d+) kB$/m.exec(readFileSync('/proc/self/status', 'latin1'));
  if (line === null) throw new Error('this kernel does not tell VmHWM');
  return Number(line[1]) * 1024;
}

async function main(): Promise<void> {
  const [kind, url = '', target = '', guestBytes, residentBytes, threadCount] = process.argv.slice(2);
  const work = kind as FootprintWork;
  const memory = chkpt.GuestMemory.allocate([{ base: 0n, bytes: Number(guestBytes) }]);
  const threads = Number(threadCount);
  if (work === 'idle' || work === 'save') touch(memory, Number(residentBytes));
  forgetPeak();
  if (work === 'save') await chkpt.saveVm(machineOf(memory), url, { threads });
  if (work === 'load') await chkpt.loadVm(machineOf(memory), url, { threads });
  if (work === 'convert') await chkpt.convertCheckpoint(url, target, { threads });
  const peak = peakBytes();
  const guestResidentBytes = (await memory.countPresent()) * pageBytes;
  const footprint: Footprint = { beyondBytes: peak - guestResidentBytes, guestResidentBytes };
  process.stdout.write(`${JSON.stringify(footprint)}\n`);
}

await main();
