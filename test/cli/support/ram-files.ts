/** RAM images for tests: sparse files with pages of every class, and their digests. */
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { closeSync, createReadStream, ftruncateSync, openSync, statSync, writeSync } from 'node:fs';

const pageBytes = 4096;
export const MiB = 1024 * 1024;

/** A generator of bytes that look random and are the same in every run (xorshift32). */
export function noise(byteCount: number, seed: number): Buffer {
  const words = new Uint32Array(byteCount / 4);
  let state = (seed * 2_654_435_769 + 1) >>> 0 || 1;
  for (let index = 0; index < words.length; index += 1) {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    words[index] = state;
  }
  return Buffer.from(words.buffer);
}

function text(byteCount: number, seed: number): Buffer {
  const line = `${seed}: the quick brown fox jumps over the lazy dog; pack my box with five dozen liquor jugs. `;
  return Buffer.alloc(byteCount, line);
}

/** A sparse file with runs of incompressible, compressible, filled and repeated pages at spread places. */
export function makeRamFile(path: string, byteCount: number, seed = 1): void {
  const file = openSync(path, 'wx');
  try {
    ftruncateSync(file, byteCount);
    const pageCount = byteCount / pageBytes;
    const put = (share: number, bytes: Buffer): void => {
      const page = Math.floor(share * (pageCount - 64));
      writeSync(file, bytes, 0, bytes.length, page * pageBytes);
    };
    put(0, noise(19 * pageBytes, seed));
    put(0.2, text(33 * pageBytes, seed));
    put(0.4, Buffer.alloc(7 * pageBytes, Buffer.from('deadbeef01020304', 'hex')));
    put(0.6, Buffer.alloc(16 * pageBytes));
    put(0.7, noise(3 * pageBytes, seed));
    put(0.8, noise(5 * pageBytes + 12, seed + 1));
    const end = noise(pageBytes, seed + 2);
    writeSync(file, end, 0, end.length, byteCount - end.length);
  } finally {
    closeSync(file);
  }
}

/** A file of noise without holes: a save of it takes its time. */
export function makeDenseFile(path: string, byteCount: number): void {
  const piece = noise(4 * MiB, 7);
  const file = openSync(path, 'wx');
  try {
    for (let done = 0; done < byteCount; done += piece.length) writeSync(file, piece);
  } finally {
    closeSync(file);
  }
}

/** SHA-256 of a file, hexadecimal. */
export async function digestOf(path: string): Promise<string> {
  const hash = createHash('sha256');
  for await (const piece of createReadStream(path, { highWaterMark: 4 * MiB })) hash.update(piece as Buffer);
  return hash.digest('hex');
}

/** Compares byte for byte; several times faster than two digests. */
export function isSameFile(path: string, other: string): boolean {
  const { status, error } = spawnSync('cmp', ['-s', path, other]);
  if (error !== undefined) throw error;
  return status === 0;
}

/** Bytes that a file takes on disk. */
export function allocatedBytes(path: string): number {
  return statSync(path).blocks * 512;
}
