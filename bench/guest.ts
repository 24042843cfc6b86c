/** Guest memory to measure with: generated, from a RAM image, all zeros, untouched. The caller closes it. */
import { open } from 'node:fs/promises';
import { basename } from 'node:path';
import type { VirtualMachine } from '../src/checkpoint/virtual-machine.ts';
import { pageBytes } from '../src/limits.ts';
import { GuestMemory, PageEncoder } from '../src/memory/index.ts';
import { type NativeStoredBlocks, nativeAddon } from '../src/native/index.ts';
import type { MemoryFacts } from './document.ts';
import { machineOf } from './memory-machine.ts';

export const gibBytes = 1024 ** 3;
const extentBytes = 2 * 1024 ** 2;
const seed = 1n;

/** Memory that was written: no later touch is the first. */
export interface Guest {
  readonly memory: GuestMemory;
  readonly facts: MemoryFacts;
  readonly vm: VirtualMachine;
}

export async function generateGuest(bytes: number, threads: number): Promise<Guest> {
  const memory = GuestMemory.allocate([{ base: 0n, bytes }]);
  await memory.hold(memory.native.fillGuestLike(seed, threads));
  return describeGuest('generated', memory, threads);
}

/** Anonymous memory with the content of a RAM image, all of it resident, zero pages too. */
export async function readGuest(path: string, threads: number): Promise<Guest> {
  await using file = await open(path);
  const bytes = (await file.stat()).size;
  const memory = GuestMemory.allocate([{ base: 0n, bytes }]);
  const extent = Buffer.alloc(extentBytes);
  for (let offset = 0; offset < bytes; ) {
    const { bytesRead } = await file.read(extent, 0, extentBytes, offset);
    if (bytesRead === 0) throw new Error(`${path} became shorter while it was read`);
    memory.write(BigInt(offset), extent.subarray(0, bytesRead));
    offset += bytesRead;
  }
  return describeGuest(basename(path), memory, threads);
}

/** Memory that is all zeros and resident: the worst case of a scan. */
export function zeroGuest(bytes: number): GuestMemory {
  const memory = GuestMemory.allocate([{ base: 0n, bytes }]);
  const zeros = Buffer.alloc(extentBytes);
  for (let offset = 0; offset < bytes; offset += extentBytes) memory.write(BigInt(offset), zeros);
  return memory;
}

/** Memory nobody has touched: it takes no room, whatever its size. */
export function untouchedGuest(bytes: number): GuestMemory {
  return GuestMemory.allocate([{ base: 0n, bytes }]);
}

async function describeGuest(name: string, memory: GuestMemory, threads: number): Promise<Guest> {
  const encoder = new PageEncoder(memory, { codec: 'raw', dedup: true, threads });
  const { totals } = await drain(encoder, () => {});
  const facts: MemoryFacts = {
    memory: name,
    bytes: memory.pageCount * pageBytes,
    zeroPages: totals.zeroPages,
    fillPages: totals.fillPages,
    samePages: totals.samePages,
    storedPages: totals.storedPages,
    content: (await memory.digest({ threads })).toString(16).padStart(16, '0'),
  };
  return { memory, facts, vm: machineOf(memory) };
}

/** The stored pages of a save, for liblz4 alone: exactly those that a checkpoint of `memory` holds. */
export async function storedBlocksOf(memory: GuestMemory, threads: number): Promise<NativeStoredBlocks> {
  const blocks = new (nativeAddon().bench.StoredBlocks)();
  const encoder = new PageEncoder(memory, { codec: 'raw', dedup: true, threads });
  await drain(encoder, (frames) => blocks.add(frames));
  return blocks;
}

async function drain(encoder: PageEncoder, visit: (frames: Uint8Array) => void) {
  const stream = encoder.open({ uuid: new Uint8Array(16), epoch: 0n, sequence: 0, offset: 0 }, undefined);
  try {
    for (let batch = await stream.next(); batch !== undefined; batch = await stream.next()) {
      for (const piece of batch.pieces) visit(piece);
      batch.release();
    }
    return { totals: stream.totals() };
  } finally {
    await stream.close();
  }
}

/** Writes memory as a RAM image without holes. */
export async function writeImage(memory: GuestMemory, path: string): Promise<void> {
  await using file = await open(path, 'wx');
  const piece = Buffer.alloc(extentBytes);
  const bytes = Number(memory.byteLength);
  for (let offset = 0; offset < bytes; offset += extentBytes) {
    const part = piece.subarray(0, Math.min(extentBytes, bytes - offset));
    memory.read(BigInt(offset), part);
    await file.write(part, 0, part.length, offset);
  }
}
